"""`identity-pipeline sources preview`: some records and what would become of them. Nothing is written."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import click
import pyarrow as pa

from identity_pipeline import normalise
from identity_pipeline.cli import output
from identity_pipeline.cli.connection import connect, declarations, redacting
from identity_pipeline.connectors.base import Connector
from identity_pipeline.core.cursor import CursorFilter
from identity_pipeline.core.fieldmap import FieldMap
from identity_pipeline.core.text import SANITISED, cast_all_utf8, to_table
from identity_pipeline.core.window import ReadContext, Window
from identity_pipeline.orchestration.sources import Source
from identity_pipeline.store import rejection

RECORD = ("external_id", "rejected", "raw", "canonical")
COLUMNS = ("external_id", "source_field", "raw", "field", "canonical")


@click.command()
@click.argument("name")
@click.option("-n", "limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many records.")
@output.as_json_option
def preview(name: str, limit: int, *, as_json: bool) -> None:
    """Read some records of source NAME and show raw beside canonical. Nothing is loaded or kept.

    It reads from the beginning of the source, whatever the mark is. Records that a load would put
    into quarantine are shown with the reason.
    """
    source = declarations().source(name)
    connector = connect(source)
    with redacting(connector):
        records = list(sample(source, connector, limit))
    if as_json:
        output.show(records, RECORD, as_json=True)
        return
    output.show([row for record in records for row in _side_by_side(record, source.field_map)], COLUMNS)
    rejected = sum(record["rejected"] is not None for record in records)
    output.say(f"{len(records)} records, {rejected} of them rejected; nothing was written")


def sample(source: Source, connector: Connector, limit: int) -> Iterator[dict[str, Any]]:
    """At most ``limit`` records from the beginning, as a load would read, judge and normalise them.

    Raises:
        PipelineError: they cannot be read, or no field can be the external id or the cursor.
    """
    kind = source.cursor[0] if source.cursor else None
    window = Window(source.cursor_column if kind else None, kind, limit=limit, context=ReadContext(log=output.say))
    rows = CursorFilter(window, connector.cursor_reading())
    left = limit
    for batch in connector.read(window):
        table = to_table(rows.apply(cast_all_utf8(batch.head(left))))
        if table.num_rows:
            yield from _judged(table, source)
        left -= len(batch)
        if left <= 0:
            break
    if rows.null_cursor:
        output.say(f"{rows.null_cursor} of them have no readable {source.cursor_column}")


def _judged(table: pa.Table, source: Source) -> Iterator[dict[str, Any]]:
    id_field = rejection.id_field(table, source.field_map, source.name)
    reasons = rejection.reasons(table, id_field).to_pylist()
    plain = table.select([name for name in table.column_names if not name.startswith(rejection.RESERVED) or name == SANITISED])
    canonical = normalise.canonicalise(plain, source.field_map, default_region=source.default_region).to_pylist()
    for raw, made, reason in zip(plain.to_pylist(), canonical, reasons, strict=True):
        yield {"external_id": raw[id_field], "rejected": reason, "raw": raw, "canonical": None if reason else made}


def _side_by_side(record: dict[str, Any], field_map: FieldMap) -> Iterator[dict[str, Any]]:
    """Lines of one record: what each canonical field was made of, then the fields that stay in raw only."""
    shown = {"external_id": record["external_id"]}
    raw, canonical = record["raw"], record["canonical"]
    if record["rejected"]:
        yield shown | {"field": "rejected", "canonical": record["rejected"]}
        yield from (shown | {"source_field": name, "raw": value} for name, value in raw.items() if value is not None)
        return
    sources = {each.name: [n if isinstance(n, str) else n[0] for n in getattr(field_map, each.name)] for each in fields(field_map)}
    sources["deleted"] = sources.pop("deleted_when")
    used = set()
    for name, value in canonical.items():
        made_of = [(n, raw[n]) for n in sources.get(name, ()) if raw.get(n) is not None]
        used.update(n for n, _ in made_of)
        if not made_of and value in (None, [], False):
            continue
        yield shown | {"field": name, "canonical": value, "source_field": [n for n, _ in made_of], "raw": [v for _, v in made_of]}
    yield from (shown | {"source_field": n, "raw": v} for n, v in raw.items() if v is not None and n not in used)
