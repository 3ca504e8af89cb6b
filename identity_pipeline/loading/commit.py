"""The commit of a load: everything merged and balanced, then the mark moves."""

from collections.abc import Iterator
from typing import Any

from identity_pipeline.core.failpoint import reached
from identity_pipeline.core.load_spec import LoadSpec
from identity_pipeline.loading.read import Read
from identity_pipeline.loading.spec import Target
from identity_pipeline.store import ledger


def commit(spec: LoadSpec, found: Read, target: Target) -> dict[str, Any]:
    """Close a load whose parts are all merged, advance the mark, remove what was landed. Repeatable.

    Returns:
        The load's row of the ledger, with ``row_count``.

    Raises:
        Superseded: a newer load has the source, or the mark moved meanwhile.
        ContractBroken: a part is missing, or the counts do not balance.
    """
    load, summary = found.load, found.summary
    whole = spec.whole or (summary.source_count is not None and summary.source_count <= summary.records_read)
    row = ledger.commit(target.url, load, summary, seen=_seen(spec, found, target), max_deleted_share=spec.max_deleted_share, whole=whole)
    reached("committed")
    target.landing.remove(load.source_name, load.load_id)
    return row


def _seen(spec: LoadSpec, found: Read, target: Target) -> Iterator[list[str]] | None:
    """The external ids of a read that shows what is gone, from the landed files. None for any other."""
    load, names, summary = found.load, spec.field_map.external_id, found.summary
    if summary.partial or not (load.full_refresh if summary.sweeps is None else summary.sweeps):
        return None
    return (
        [text for text in table.column(id_field).to_pylist() if text is not None]
        for _, table in target.landing.whole(load.source_name, load.load_id, list(names))
        # Each batch by its own first id field, as in the merge.
        if (id_field := next((name for name in names if name in table.column_names), None)) is not None
    )
