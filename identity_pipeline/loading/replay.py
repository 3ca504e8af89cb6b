"""Replay: records in quarantine, tried again with the source's present mapping, as a load of its own.

The same merge, ledger and lease as any load, and a balance that adds up; the mark stays where it is.
What fails again stays open with its new reason. Two things are not tried:

- A record that its reader refused (a torn row, a cell that was cut): what is stored of it is not
  whole. It stays open until the source is mended, and the next load reads it.
- A record of which a newer version was loaded meanwhile: it is settled without being merged.
"""

import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from identity_pipeline.core.fieldmap import REJECTED
from identity_pipeline.core.load_spec import LoadSpec
from identity_pipeline.loading.spec import rules as rules_of
from identity_pipeline.store import lease, ledger
from identity_pipeline.store.batch import Rules
from identity_pipeline.store.database import connect
from identity_pipeline.store.landing import LandedPart, Part
from identity_pipeline.store.ledger import ReadSummary
from identity_pipeline.store.load import Load
from identity_pipeline.store.merge import merge_part
from identity_pipeline.store.rejection import CODES

_BATCH = 5_000
_Raw = dict[str, str | None]


@dataclass(frozen=True)
class Replayed:
    """The outcome: how many are merged now, how many failed again, how many a newer version had settled."""

    source_name: str
    load_id: int
    replayed: int
    still_open: int
    older: int


@dataclass
class _Taken:
    """What a replay took up: quarantine id → load and count of sightings before; and what it left out."""

    before: dict[int, tuple[int, int]] = field(default_factory=dict)
    older: list[int] = field(default_factory=list)


def replay(spec: LoadSpec, url: str, *, ids: list[int] | None = None, log: Callable[[str], None] = lambda _: None) -> Replayed:
    """Merge the open records of a source, or those of them in ``ids``. May be stopped and repeated.

    Raises:
        AlreadyRunning: a load of the source is at work.
        PipelineError: the merge failed; nothing of it stays.
    """
    name, rules, taken = spec.source_name, rules_of(spec), _Taken()
    mark = ledger.state(url, name).mark
    load = ledger.open_load(url, name, spec.source_type, f"replay-{uuid.uuid4()}", before=mark, log=log)
    with ledger.closing(url, load), lease.hold(url, load):
        part = Part(0, 0)
        counts = merge_part(url, load, part, _batches(url, load, rules, ids, taken), rules)
        summary = ReadSummary(
            parts=[LandedPart(part, counts.records)],
            records_read=counts.records,
            cursor_column=mark and mark.column,
            cursor_type=mark and mark.type,
            partial=True,
        )
        ledger.commit(url, load, summary)
        failed = _settle(url, load, taken)
    return Replayed(name, load.load_id, len(taken.before) - failed, failed, len(taken.older))


def _batches(url: str, load: Load, rules: Rules, ids: list[int] | None, taken: _Taken) -> Iterator[pa.Table]:
    """The stored records as batches of text, oldest first, each of one choice of the id field."""
    with connect(url, doing="read the quarantine") as connection, connection.cursor("replay") as cursor:
        cursor.itersize = _BATCH
        cursor.execute(
            """
            select quarantine_id, load_id, seen, reason, detail, raw from identity.quarantine
            where source_name = %s and status = 'open' and (%s::bigint[] is null or quarantine_id = any(%s::bigint[]))
            order by load_id, quarantine_id
            """,
            (load.source_name, ids, ids),
        )
        while rows := cursor.fetchmany(_BATCH):
            groups: dict[str, list[tuple[int, int, _Raw]]] = defaultdict(list)
            for number, load_id, seen, reason, detail, raw in rows:
                taken.before[number] = (load_id, seen)
                names = rules.field_map.external_id
                id_field = next((name for name in names if name in raw), names[0])
                refused = None if reason in CODES else f"{reason}: {detail}"
                groups[id_field].append((number, load_id, {id_field: None, REJECTED: refused} | raw))
            for id_field, group in groups.items():
                if kept := _newest(url, load.source_name, id_field, group, taken):
                    names = list(dict.fromkeys(name for raw in kept for name in raw))
                    yield pa.table({name: pa.array([raw.get(name) for raw in kept], pa.string()) for name in names})


def _newest(url: str, source_name: str, id_field: str, group: list[tuple[int, int, _Raw]], taken: _Taken) -> list[_Raw]:
    """The records of ``group`` without those of which a newer version is stored."""
    ids = [raw[id_field] for _, _, raw in group if raw[id_field] is not None]
    with connect(url, doing="compare with the identity table") as connection:
        rows = connection.execute(
            "select external_id, load_id from identity.records where source_name = %s and external_id = any(%s)", (source_name, ids)
        )
        stored = dict(rows.fetchall())
    kept = []
    for number, load_id, raw in group:
        if raw[REJECTED] is None and stored.get(raw[id_field], 0) > load_id:
            taken.older.append(number)
            del taken.before[number]
        else:
            kept.append(raw)
    return kept


def _settle(url: str, load: Load, taken: _Taken) -> int:
    """Close what was merged or was older. What failed again counts as seen by the load that had seen it. How many failed."""
    with connect(url, doing="settle the quarantine") as connection:
        failed = [
            number for (number,) in connection.execute(
                "select quarantine_id from identity.quarantine where source_name = %s and load_id = %s and status = 'open'",
                (load.source_name, load.load_id),
            )
        ]  # fmt: skip
        connection.execute(
            """
            update identity.quarantine set status = 'replayed', resolved_at = statement_timestamp()
            where quarantine_id = any(%s) and status = 'open' and load_id <> %s
            """,
            ([*taken.before, *taken.older], load.load_id),
        )
        connection.execute(
            """
            update identity.quarantine q set load_id = b.load_id, seen = b.seen
            from unnest(%s::bigint[], %s::bigint[], %s::bigint[]) as b(quarantine_id, load_id, seen)
            where q.quarantine_id = b.quarantine_id
            """,
            (failed, [taken.before[number][0] for number in failed], [taken.before[number][1] for number in failed]),
        )
        return len(failed)
