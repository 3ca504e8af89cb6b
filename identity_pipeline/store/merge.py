"""The merge of one landed part: hash first, then only what is new or changed.

For each batch: reject what cannot be stored, drop duplicates, hash, ship (external id, hash) and
probe the key index; normalise, encode and COPY only new and changed records. The whole part is one
transaction that holds the source's row (so nobody else can insert between probe and COPY), checks
the fencing token and writes its line of the ledger: a part is merged once or not at all.
"""

import io
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import polars as pl
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
from psycopg import sql

from identity_pipeline.core import cursor
from identity_pipeline.core.cursor import CursorReading
from identity_pipeline.core.failpoint import reached
from identity_pipeline.core.fieldmap import FieldMap
from identity_pipeline.core.text import SANITISED
from identity_pipeline.core.window import CursorType
from identity_pipeline.store import rejection
from identity_pipeline.store.database import connect
from identity_pipeline.store.ledger import Load, fenced
from identity_pipeline.store.record_hash import record_hashes
from identity_pipeline.store.rejection import RESERVED

_CANONICAL = (
    "email", "email_verdict", "phone", "phone_verdict", "emails", "phones", "full_name", "first_name", "last_name", "company",
    "job_title", "street", "city", "region", "postal_code", "country", "source_created_at", "source_updated_at", "deleted_at",
    "merged_into",
)  # fmt: skip
_COLUMNS = ("source_name", "external_id", "source_type", *_CANONICAL, "raw", "record_hash", "load_id")
_SET = ", ".join(f"{c} = s.{c}" for c in _COLUMNS if c not in {"source_name", "external_id"})

Canonicalise = Callable[[pa.Table], pa.Table]
"""Raw records → the canonical columns, row by row."""

Whole = Callable[[list[str]], Iterable[pa.Table]]
"""The batches of all parts of a load; only the columns that are named, where a batch has them."""


@dataclass
class PartCounts:
    """The balance of one part: ``records`` is the sum of the five below it."""

    records: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    duplicates: int = 0
    quarantined: int = 0
    deleted: int = 0
    valid_identifiers: int = 0
    seconds: float = 0.0
    fields: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Versions:
    """How to tell the newer of two versions of a record: its cursor."""

    column: str
    type: CursorType
    reading: CursorReading = cursor.ISO

    def keys(self, texts: pa.Array) -> pa.Array:
        """Comparable values; null where there is none."""
        return cursor.keys(self.type, texts, self.reading)


@dataclass(frozen=True)
class Rules:
    """What the merge of a source goes by. ``fingerprint`` changes whenever a result could."""

    field_map: FieldMap
    canonicalise: Canonicalise
    fingerprint: str
    versions: Versions | None = None


def merge_part(url: str, load: Load, part: int, batches: Iterable[pa.Table], rules: Rules, *, whole: Whole | None = None) -> PartCounts:
    """Merge one landed part. A part that is merged already is not merged again.

    A full refresh may take a record back to an older version, if that is all the source has now:
    ``whole`` is where it looks for a newer one before it does.

    Raises:
        Superseded: a newer load has the source.
        SchemaChanged: no field of the records can be the external id.
        TargetUnavailable: the database went away; nothing of the part stays.
    """
    with connect(url, doing="merge") as connection:
        fenced(connection, load)
        done = connection.execute(
            "select records, inserted, updated, unchanged, duplicates, quarantined, deleted, valid_identifiers, seconds, fields "
            "from identity.load_parts where load_id = %s and part = %s",
            (load.load_id, part),
        ).fetchone()
        if done:
            return PartCounts(*done)
        started = time.monotonic()
        counts = PartCounts()
        merger = _Merger(connection, load, rules, counts, whole)
        for batch in batches:
            merger.merge(batch)
        merger.absorb()
        counts.seconds = round(time.monotonic() - started, 3)
        values = asdict(counts)
        connection.execute(
            sql.SQL("insert into identity.load_parts (load_id, part, {}) values (%s, %s, {})").format(
                sql.SQL(", ").join(map(sql.Identifier, values)), sql.SQL(", ").join(sql.Placeholder() * len(values))
            ),
            (load.load_id, part, *values.values()),
        )
        connection.execute(
            "update identity.sources set row_count = row_count + %s where source_name = %s", (counts.inserted, load.source_name)
        )
        reached("merged")
    return counts


class _Merger:
    """The state of one part's transaction: the connection, its temporary tables, the counts."""

    def __init__(self, connection: psycopg.Connection, load: Load, rules: Rules, counts: PartCounts, whole: Whole | None) -> None:
        self.connection, self.load, self.rules, self.counts, self.whole = connection, load, rules, counts, whole
        self.mergers: list[tuple[str, str]] = []
        """Survivor and loser of each merge in the source that this part tells of."""
        connection.execute('create temp table probe (n int, external_id text collate "C", hash bytea) on commit drop')
        connection.execute("create temp table staging (like identity.records) on commit drop")
        connection.execute("alter table staging alter first_seen_at drop not null, alter changed_at drop not null")

    def merge(self, batch: pa.Table) -> None:
        counts = self.counts
        counts.records += batch.num_rows
        id_field = rejection.id_field(batch, self.rules.field_map, self.load.source_name)
        batch = self._reject(batch, id_field)
        reserved = [n for n in batch.column_names if n.startswith(RESERVED) and n != SANITISED]
        records = batch.drop_columns(reserved) if reserved else batch
        keys = self.rules.versions and self._cursor_keys(records)
        newest = _newest(records.column(id_field), keys)
        if newest is not None:
            counts.duplicates += records.num_rows - len(newest)
            records, keys = records.take(newest), keys.take(newest) if keys is not None else None
        if not records.num_rows:
            return
        ids = records.column(id_field).combine_chunks()
        hashed = records.drop_columns([SANITISED]) if SANITISED in records.column_names else records
        hashes = record_hashes(hashed, self.rules.fingerprint)
        new, changed, stored, earlier = self._probe(ids, hashes)
        stale = self._stale(changed, stored, keys)
        if keys is not None and self.load.full_refresh and self.whole is not None and pc.any(pc.and_(stale, earlier)).as_py():
            stale = pc.and_(stale, pc.or_(pc.invert(earlier), self._outdone(ids.take(changed), keys.take(changed))))
        changed = changed.filter(pc.invert(stale))
        counts.duplicates += pc.sum(stale).as_py() or 0
        counts.unchanged += records.num_rows - len(new) - len(stale)
        counts.inserted += len(new)
        counts.updated += len(changed)
        for positions, target in ((new, "identity.records"), (changed, "pg_temp.staging")):
            if len(positions):
                self._write(records.take(positions), ids.take(positions), hashes.take(positions), target)
        reached("staged")
        if len(changed):
            self.connection.execute(
                f"""
                update identity.records r set {_SET}, changed_at = statement_timestamp() from pg_temp.staging s
                where r.source_name = s.source_name and r.external_id = s.external_id
                """
            )
            self.connection.execute("truncate pg_temp.staging")

    def _cursor_keys(self, records: pa.Table) -> pa.Array | None:
        versions = self.rules.versions
        if versions is None or versions.column not in records.column_names:
            return None
        return versions.keys(records.column(versions.column).combine_chunks())

    def _reject(self, batch: pa.Table, id_field: str) -> pa.Table:
        """``batch`` without the records that cannot be merged; those go to quarantine."""
        reasons = rejection.reasons(batch, id_field)
        if reasons.null_count == len(reasons):
            return batch
        bad = pc.is_valid(reasons)
        quarantine(self.connection, self.load, batch.filter(bad), batch.column(id_field).filter(bad), reasons.filter(bad))
        self.counts.quarantined += pc.sum(bad).as_py()
        return batch.filter(pc.invert(bad))

    def _probe(self, ids: pa.Array, hashes: pa.Array) -> tuple[pa.Array, pa.Array, pa.Array, pa.Array]:
        """Positions of new records, of changed ones; of the changed the stored cursor texts, and whether an earlier load stored it.

        Written as a lateral join, which reads one index entry a key whatever the statistics say: a
        temporary table has none, and a target that was just filled has old ones.
        """
        self.connection.execute("truncate pg_temp.probe")
        numbers = pa.array(range(len(ids)), pa.int32())
        self._copy("pg_temp.probe", pa.table({"n": numbers, "id": ids, "hash": pc.binary_join_element_wise("\\x", hashes, "")}))
        versions = self.rules.versions
        rows = self.connection.execute(
            """
            select p.n, r.external_id is null,
                   case when r.record_hash is not null then r.raw ->> %(cursor)s end, r.load_id <> %(load)s
            from pg_temp.probe p
            left join lateral (
                select external_id, record_hash, load_id, raw from identity.records
                where source_name = %(source)s and external_id = p.external_id offset 0
            ) r on true
            where r.record_hash is distinct from p.hash order by p.n
            """,
            {
                "load": self.load.load_id,
                "cursor": versions.column if versions else "",
                "source": self.load.source_name,
            },
        ).fetchall()
        new = pa.array([n for n, absent, *_ in rows if absent], pa.int32())
        changed = [(n, text, earlier) for n, absent, text, earlier in rows if not absent]
        numbers, texts, earlier = zip(*changed, strict=True) if changed else ((), (), ())
        return new, pa.array(numbers, pa.int32()), pa.array(texts, pa.string()), pa.array(earlier, pa.bool_())

    def _stale(self, changed: pa.Array, stored: pa.Array, keys: pa.Array | None) -> pa.Array:
        """Which changed records are older than what is stored; one without a cursor value is older than one with.

        A stored date in the future is not believed.
        """
        if keys is None or self.rules.versions is None or not len(changed):
            return pa.array([False] * len(changed), pa.bool_())
        kept, arriving = self.rules.versions.keys(stored), keys.take(changed)
        if kept.type != arriving.type:  # numbers beyond 64 bit on one side only
            kept, arriving = (pc.cast(numbers, pa.decimal128(38, 0)) for numbers in (kept, arriving))
        older = pc.and_(pc.is_valid(kept), pc.fill_null(pc.less(arriving, kept), True))
        if self.rules.versions.type == "timestamp":
            now = self.connection.execute("select statement_timestamp()").fetchone()
            older = pc.and_(older, pc.fill_null(pc.less_equal(kept, pa.scalar(now[0], kept.type)), False))  # type: ignore[index]
        return older

    def _outdone(self, ids: pa.Array, keys: pa.Array) -> pa.Array:
        """Which of these versions are older than one that the same load holds."""
        versions, id_fields = self.rules.versions, self.rules.field_map.external_id
        assert versions is not None  # noqa: S101 - there are keys
        assert self.whole is not None  # noqa: S101 - asked by the caller
        newest: dict[str, Any] = {}
        for table in self.whole([*id_fields, versions.column]):
            id_field = next((name for name in id_fields if name in table.column_names), None)
            if id_field is None or versions.column not in table.column_names:
                continue
            found = table.filter(pc.is_in(table.column(id_field), value_set=ids))
            for external_id, key in zip(
                found.column(id_field).to_pylist(), versions.keys(found.column(versions.column).combine_chunks()).to_pylist(), strict=True
            ):
                if key is not None and (external_id not in newest or key > newest[external_id]):
                    newest[external_id] = key
        ours = zip(ids.to_pylist(), keys.to_pylist(), strict=True)
        return pa.array([i in newest and (key is None or key < newest[i]) for i, key in ours], pa.bool_())

    def _write(self, records: pa.Table, ids: pa.Array, hashes: pa.Array, target: str) -> None:
        canonical = self.rules.canonicalise(records)
        rows = records.num_rows
        deleted_at = canonical.column("deleted_at")
        without_time = pc.and_(canonical.column("deleted"), pc.is_null(deleted_at))
        now = pa.scalar(int(time.time() * 1_000_000), pa.int64()).cast(deleted_at.type)
        deleted_at = pc.if_else(without_time, now, deleted_at)
        self.counts.deleted += len(deleted_at) - deleted_at.null_count
        self.counts.valid_identifiers += (
            pc.sum(pc.or_(pc.is_valid(canonical.column("email")), pc.is_valid(canonical.column("phone")))).as_py() or 0
        )
        values: dict[str, pa.Array | pa.ChunkedArray] = {
            "source_name": pa.repeat(self.load.source_name, rows),
            "external_id": ids,
            "source_type": pa.repeat(self.load.source_type, rows),
        }
        for name in _CANONICAL:
            values[name] = _array_text(canonical.column(name)) if name in {"emails", "phones"} else canonical.column(name)
        values["deleted_at"] = deleted_at
        values["raw"] = raw_json(records)
        values["record_hash"] = pc.binary_join_element_wise("\\x", hashes, "")
        values["load_id"] = pa.repeat(self.load.load_id, rows)
        self._copy(target, pa.table(values))
        absorbed = canonical.column("absorbed")
        if absorbed.null_count < rows:
            pairs = zip(ids.to_pylist(), absorbed.to_pylist(), strict=True)
            self.mergers += [(winner, loser) for winner, losers in pairs for loser in losers or () if winner != loser]

    def absorb(self) -> None:
        """Point the losers of merges in the source at their survivor, once every record of the part is written."""
        for start in range(0, len(self.mergers), 10_000):
            some = self.mergers[start : start + 10_000]
            self.connection.execute(
                """
                update identity.records r set merged_into = m.winner, changed_at = statement_timestamp(), load_id = %s
                from unnest(%s::text[], %s::text[]) as m(winner, loser)
                where r.source_name = %s and r.external_id = m.loser and r.merged_into is distinct from m.winner
                """,
                (self.load.load_id, [w for w, _ in some], [loser for _, loser in some], self.load.source_name),
            )

    def _copy(self, target: str, table: pa.Table) -> None:
        """COPY a table: a missing value is an unquoted empty cell, every other one is quoted."""
        names = ", ".join(_COLUMNS) if target != "pg_temp.probe" else "n, external_id, hash"
        out = io.BytesIO()
        pacsv.write_csv(table, out, pacsv.WriteOptions(include_header=False, quoting_style="all_valid", batch_size=table.num_rows))
        statement = sql.SQL(f"copy {target} ({names}) from stdin (format csv)")  # type: ignore[arg-type] - constants of this module
        with self.connection.cursor() as cur, cur.copy(statement) as copy:
            copy.write(out.getbuffer())


def _newest(ids: pa.ChunkedArray, keys: pa.Array | None) -> pa.Array | None:
    """Positions of the records to keep: of each id the newest by cursor, then by position. None: all."""
    rows = len(ids)
    if pc.count_distinct(ids).as_py() == rows:
        return None
    table = pa.table({"id": ids, "n": pa.array(range(rows), pa.int64())})
    if keys is None:
        return _sorted(table.group_by("id").aggregate([("n", "max")]).column("n_max"))
    order = pc.sort_indices(
        table.append_column("key", keys), sort_keys=[("id", "ascending"), ("key", "descending", "at_end"), ("n", "descending")]
    )
    ordered = table.take(order)
    first = pa.concat_arrays(
        [pa.array([True]), pc.not_equal(ordered.column("id").combine_chunks()[1:], ordered.column("id").combine_chunks()[:-1])]
    )
    return _sorted(ordered.column("n").filter(first))


def _sorted(numbers: pa.ChunkedArray) -> pa.Array:
    return numbers.combine_chunks().take(pc.sort_indices(numbers))


def _array_text(lists: pa.ChunkedArray) -> pa.Array:
    """Lists of text as PostgreSQL array literals. Null and empty lists are ``{}``."""
    array = lists.combine_chunks()
    escaped = pc.replace_substring(pc.replace_substring(array.flatten(), "\\", "\\\\"), '"', '\\"')
    quoted = pc.binary_join_element_wise('"', escaped, '"', "")
    lengths = pc.fill_null(pc.list_value_length(array), 0)
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), pc.cast(pc.cumulative_sum(lengths), pa.int32())])
    joined = pc.binary_join(pa.ListArray.from_arrays(offsets, quoted), ",")
    return pc.binary_join_element_wise("{", joined, "}", "")


def raw_json(records: pa.Table) -> pa.Array:
    """Each record as a JSON object of text and nulls."""
    names = [n for n in records.column_names if n != SANITISED or records.column(n).null_count < records.num_rows]
    frame = pl.from_arrow(records.select(names))
    assert isinstance(frame, pl.DataFrame)  # noqa: S101 - a table gives a frame
    return frame.select(pl.struct(pl.all()).struct.json_encode().alias("raw")).get_column("raw").to_arrow()


def quarantine(connection: psycopg.Connection, load: Load, records: pa.Table, ids: pa.Array | pa.ChunkedArray, reasons: pa.Array) -> None:
    """Keep records that cannot be merged. One that is seen again is counted, not kept twice.

    ``reasons`` are ``code: detail``. A record that someone discarded stays discarded.
    """
    plain = records.drop_columns([n for n in records.column_names if n.startswith(RESERVED) and n != SANITISED])
    hashes = record_hashes(plain, "quarantine").to_pylist()
    raws = raw_json(plain).to_pylist()
    rows = []
    for external_id, reason, raw, digest in zip(ids.to_pylist(), reasons.to_pylist(), raws, hashes, strict=True):
        code, _, detail = reason.partition(": ")
        shown = external_id[:200] if external_id and external_id.strip() else None
        rows.append((load.source_name, load.load_id, shown, code, detail, raw, bytes.fromhex(digest)))
    with connection.cursor() as cur:
        cur.executemany(
            """
            insert into identity.quarantine (source_name, load_id, external_id, reason, detail, raw, fingerprint)
            values (%s, %s, %s, %s, %s, %s, %s)
            on conflict (source_name, fingerprint) do update set load_id = excluded.load_id, reason = excluded.reason,
                detail = excluded.detail, seen = quarantine.seen + 1, last_seen_at = statement_timestamp(),
                status = case quarantine.status when 'discarded' then 'discarded' else 'open' end
            """,
            rows,
        )
