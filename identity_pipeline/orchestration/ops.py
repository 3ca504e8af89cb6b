"""The ops: read (one per source), normalise_records (one, shared by all sources), commit (one per source)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import dagster as dg
import pyarrow as pa
from pydantic import Field

from identity_pipeline import normalise
from identity_pipeline.core import settings
from identity_pipeline.core.cursor import CursorReading
from identity_pipeline.core.failpoint import reached
from identity_pipeline.core.fieldmap import FieldMap
from identity_pipeline.embedded.location import database_url
from identity_pipeline.orchestration import io_manager, marks
from identity_pipeline.orchestration.boundary import boundary, resolved
from identity_pipeline.orchestration.reading import Reading, RunOptions
from identity_pipeline.orchestration.results import checks, metadata
from identity_pipeline.orchestration.sources import Source
from identity_pipeline.store import ledger
from identity_pipeline.store.landing import Landing
from identity_pipeline.store.ledger import Load, ReadSummary
from identity_pipeline.store.merge import Rules, Versions, merge_part

_RETRIES = 3
"""How often a part or a commit is tried again within its run."""
CHECKS = ("balance", "quarantine_share", "valid_identifier_share", "freshness")


class ReadConfig(dg.Config):
    """What one run may choose."""

    cursor_after: str = Field(default="", description="Read from this cursor value on, instead of from the mark")
    full_refresh: bool = Field(default=False, description="Read everything, and mark as deleted what the source no longer has")
    objects: list[str] = Field(default=[], description="Only these files (storage sources)")
    limit: int = Field(default=0, ge=0, description="Stop after so many records; the mark stays. 0: no limit")


def rules(part: dict[str, Any]) -> Rules:
    """The merge's rules from the values that the read op hands on."""
    field_map = FieldMap(**{name: _tuples(value) for name, value in part["field_map"].items()})
    region = part["default_region"]
    cursor = part["cursor"]
    return Rules(
        field_map,
        lambda records: normalise.canonicalise(records, field_map, default_region=region),
        part["fingerprint"],
        Versions(cursor["column"], cursor["type"], CursorReading(**cursor["reading"])) if cursor else None,
    )


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


def part_values(source: Source, reading: CursorReading) -> dict[str, Any]:
    """What the shared op has to know of a source, as plain values."""
    kind = source.cursor[0] if source.cursor else None
    return {
        "field_map": asdict(source.field_map),
        "default_region": source.default_region,
        "fingerprint": normalise.fingerprint(source.field_map, source.default_region),
        "cursor": {"column": source.cursor_column, "type": kind, "reading": asdict(reading)} if kind else None,
    }


def read_op(source: Source) -> dg.OpDefinition:
    """The op that reads and lands one source."""
    name = source.name

    @dg.op(
        name=f"{name}__read",
        description=f"Reads {name} from its mark on and lands the records in parts.",
        required_resource_keys={name},
        pool=f"source_{name}",
        retry_policy=dg.RetryPolicy(max_retries=2, delay=5, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS),
        out={"parts": dg.DynamicOut(dict), "manifest": dg.Out(dict)},
    )
    def read(context: dg.OpExecutionContext, config: ReadConfig) -> Iterator[dg.DynamicOutput | dg.Output]:
        connector = getattr(context.resources, name)
        with boundary(context, connector):
            url = database_url()
            connector = resolved(connector, url)
        with boundary(context, connector):
            values = part_values(source, connector.cursor_reading())
            load, summary = Reading(
                source=source,
                connector=connector,
                url=url,
                landing=Landing(settings.landing_url()),
                fingerprint=values["fingerprint"],
                published=marks.published(context.instance, url, name),
                choices=RunOptions(config.cursor_after or None, config.full_refresh, tuple(config.objects), config.limit or None),
                log=context.log.info,
            ).run(context.run_id)
        for number, records in enumerate(summary.parts):
            part = {"load": asdict(load), "part": number, "parts": len(summary.parts), "records": records, **values}
            yield dg.DynamicOutput(part, mapping_key=f"part_{number:05d}", output_name="parts")
        yield dg.Output({"load": asdict(load), "summary": summary.to_json()}, "manifest")

    return read


@contextmanager
def _taken_up(context: dg.OpExecutionContext, values: dict[str, Any]) -> Iterator[tuple[str, Load]]:
    """The database and the load that this run works on, its lease held; closed as failed when no retry will follow."""
    url, load = database_url(), replace(Load(**values), run_id=context.run_id)
    with ledger.closing(url, load, retried=context.retry_number < _RETRIES):
        ledger.resume(url, load)
        with ledger.hold(url, load):
            yield url, load


@dg.op(
    description="Normalises one landed part and merges it into identity.records. Shared by all sources.",
    retry_policy=dg.RetryPolicy(max_retries=_RETRIES, delay=2, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS),
    # Depth first: a part is merged before the next one is picked up.
    tags={"dagster/priority": "10"},
)
def normalise_records(context: dg.OpExecutionContext, part: dict) -> dict:
    """Merge one part: what is new or changed is normalised and written, in one transaction."""
    number = part["part"]
    with boundary(context):
        with _taken_up(context, part["load"]) as (url, load):
            landing = Landing(settings.landing_url())
            tables = landing.tables(load.source_name, load.load_id, number)

            def whole(columns: list[str]) -> Iterator[pa.Table]:
                for each in range(part["parts"]):
                    yield from landing.tables(load.source_name, load.load_id, each, columns)

            counts = merge_part(url, load, number, tables, rules(part), whole=whole)
        context.log.info(
            f"load {load.load_id} part {number}: {counts.records:,} records: {counts.inserted:,} inserted, {counts.updated:,} updated, "
            f"{counts.unchanged:,} unchanged, {counts.duplicates:,} duplicates, {counts.quarantined:,} quarantined "
            f"in {counts.seconds:.1f} s"
        )
    return {"part": number, "records": counts.records}


def commit_op(source: Source) -> dg.OpDefinition:
    """The op that closes a load; its output is the materialization, its metadata the mark and the balance."""
    name = source.name

    @dg.op(
        name=f"{name}__commit",
        description=f"Checks that every part of {name} is merged, advances the mark, publishes the balance.",
        # The connector is named so that its page lists the asset under "Uses".
        required_resource_keys={name},
        out={"result": dg.Out(dg.Nothing), **{check: dg.Out(is_required=False) for check in CHECKS}},
        retry_policy=dg.RetryPolicy(max_retries=_RETRIES, delay=2, backoff=dg.Backoff.EXPONENTIAL),
    )
    def commit(context: dg.OpExecutionContext, manifest: dict, parts: list):  # noqa: ANN202, ARG001 - Dagster type-checks the annotation; parts orders the steps
        with boundary(context, getattr(context.resources, name)):
            summary = ReadSummary(**manifest["summary"])
            landing = Landing(settings.landing_url())
            with _taken_up(context, manifest["load"]) as (url, load):
                seen = _seen(landing, load, summary, source)
                line = ledger.commit(url, load, summary, seen=seen, max_deleted_share=source.max_deleted_share)
            reached("committed")
            landing.remove(name, load.load_id)
            io_manager.purge()
            for warning in line["warnings"]:
                context.log.warning(warning)
            results = checks(source, line)
        yield dg.Output(None, "result", metadata=metadata(line))
        reached("event")
        yield from results

    return commit


def _seen(landing: Landing, load: Load, summary: ReadSummary, source: Source) -> Iterator[list[str]] | None:
    """The external ids of a full refresh, from the landed files. None for any other load."""
    if not load.full_refresh or summary.partial:
        return None
    names = source.field_map.external_id
    return (
        [text for text in table.column(id_field).to_pylist() if text is not None]
        for number in range(len(summary.parts))
        for table in landing.tables(load.source_name, load.load_id, number, list(names))
        # Each batch by its own first id field, as in the merge.
        if (id_field := next((name for name in names if name in table.column_names), None)) is not None
    )
