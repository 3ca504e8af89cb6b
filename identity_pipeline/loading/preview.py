"""A preview: some records, judged and normalised as a load would, and nothing written."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from identity_pipeline.core.check import CheckStep
from identity_pipeline.core.cursor_filter import CursorCounts, apply_cursor_filter
from identity_pipeline.core.errors import ConfigurationError, PipelineError
from identity_pipeline.core.load_spec import LoadSpec
from identity_pipeline.core.text import SANITISED, cast_all_utf8
from identity_pipeline.core.window import ReadContext, Window
from identity_pipeline.loading.fields import check_cursor, check_id, unknown_fields
from identity_pipeline.loading.spec import Reader, canonicalise
from identity_pipeline.store import rejection

_LOOKED_AT = 20
"""Records that a connection test looks at: of one alone the cursor may be empty."""


@dataclass(frozen=True)
class PreviewedRecord:
    """One record raw and canonical; ``rejected`` is why a load would put it into quarantine."""

    external_id: str | None
    rejected: str | None
    raw: dict[str, str | None]
    canonical: dict[str, Any] | None


def preview(
    spec: LoadSpec, reader: Reader, limit: int, log: Callable[[str], None], counts: CursorCounts | None = None
) -> Iterator[PreviewedRecord]:
    """At most ``limit`` records from the beginning of the source, whatever the mark is; ``counts`` is told of their cursors.

    Raises:
        PipelineError: they cannot be read, or no field can be the external id or the cursor.
    """
    window, counts, left = Window(spec.cursor, limit=limit, context=ReadContext(log=log)), counts or CursorCounts(), limit
    for batch in reader.read(window):
        records = cast_all_utf8(batch).slice(0, left)
        left -= records.num_rows
        kept = apply_cursor_filter(records, window, counts)
        _check_mapped(spec, {*records.column_names, *window.context.fields}, window)
        if kept.num_rows:
            yield from _judged(spec, kept)
        if left <= 0:
            break
    if counts.null_cursor and spec.cursor:
        log(f"{counts.null_cursor} of them have no readable {spec.cursor.column}")


def check_fields(spec: LoadSpec, reader: Reader) -> CheckStep:
    """The step of a connection test that a connector cannot make: are the cursor and the mapped fields there?"""
    counts = CursorCounts()
    try:
        found = list(preview(spec, reader, _LOOKED_AT, lambda _: None, counts))
        check_cursor(spec, counts)
    except PipelineError as error:
        return CheckStep("fields", ok=False, message=str(error))
    return CheckStep("fields", ok=True, message="id, cursor and mapped fields are there" if found else "no records there yet to look at")


def _check_mapped(spec: LoadSpec, known: set[str], window: Window) -> None:
    """As a load would: refuse a mapping whose fields the source does not have, and a table without an id."""
    if (spec.whole or window.context.fields) and (unknown := unknown_fields(spec, known)):
        raise ConfigurationError(
            f"{spec.source_name}: the mapped field {unknown[0]!r} is not in the source, which has {', '.join(sorted(known)[:30])}: "
            "correct `mapping:`"
        )
    if window.context.key:
        check_id(spec, known, window.context.key)


def _judged(spec: LoadSpec, records: pa.Table) -> Iterator[PreviewedRecord]:
    id_field = rejection.id_field(records, spec.field_map, spec.source_name)
    reasons = rejection.reasons(records, id_field).to_pylist()
    plain = records.select([name for name in records.column_names if not name.startswith(rejection.RESERVED) or name == SANITISED])
    canonical = canonicalise(spec, plain).to_pylist()
    for raw, made, reason in zip(plain.to_pylist(), canonical, reasons, strict=True):
        yield PreviewedRecord(raw[id_field], reason, raw, None if reason else made)
