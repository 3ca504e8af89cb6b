"""`identity-pipeline sources preview`: some records and what would become of them. Nothing is written."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import click

from identity_pipeline.cli import output
from identity_pipeline.cli.completion import source_names
from identity_pipeline.cli.connection import open_source
from identity_pipeline.core.fieldmap import FieldMap
from identity_pipeline.loading import preview as previewing
from identity_pipeline.loading.preview import PreviewedRecord

RECORD = ("external_id", "rejected", "raw", "canonical")
COLUMNS = ("external_id", "source_field", "raw", "field", "canonical")


@click.command()
@click.argument("name", shell_complete=source_names)
@click.option("-n", "limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many records.")
@output.as_json_option
def preview(name: str, limit: int, *, as_json: bool) -> None:
    """Read some records of source NAME and show raw beside canonical. Nothing is loaded or kept.

    It reads from the beginning of the source, whatever the mark is. Records that a load would put
    into quarantine are shown with the reason.
    """
    source = open_source(name)
    with source.redacting():
        records = list(previewing.preview(source.spec, source.connector, limit, output.say))
    if as_json:
        output.show(map(vars, records), RECORD, as_json=True)
        return
    output.show([row for record in records for row in _side_by_side(record, source.spec.field_map)], COLUMNS)
    rejected = sum(record.rejected is not None for record in records)
    output.say(f"{len(records)} records, {rejected} of them rejected; nothing was written")


def _side_by_side(record: PreviewedRecord, field_map: FieldMap) -> Iterator[dict[str, Any]]:
    """Lines of one record: what each canonical field was made of, then the fields that stay in raw only."""
    named = {"external_id": record.external_id}
    raw, canonical = record.raw, record.canonical
    if canonical is None:
        yield named | {"field": "rejected", "canonical": record.rejected}
        yield from (named | {"source_field": name, "raw": value} for name, value in raw.items() if value is not None)
        return
    sources = {each.name: [n if isinstance(n, str) else n[0] for n in getattr(field_map, each.name)] for each in fields(field_map)}
    sources["deleted"] = sources.pop("deleted_when")
    used = set()
    for name, value in canonical.items():
        made_of = [(n, raw[n]) for n in sources.get(name, ()) if raw.get(n) is not None]
        used.update(n for n, _ in made_of)
        if not made_of and value in (None, [], False):
            continue
        yield named | {"field": name, "canonical": value, "source_field": [n for n, _ in made_of], "raw": [v for _, v in made_of]}
    yield from (named | {"source_field": n, "raw": v} for n, v in raw.items() if v is not None and n not in used)
