"""The merge of one landed part: hash first, then only what is new or changed.

For each batch: reject what cannot be stored, drop duplicates, hash, ship (external id, hash) and
probe the key index; normalise, encode and COPY only new and changed records. In a source's first load
nothing is probed until a key is there already. What takes no database is done for the next batch
while the server is at work for this one. The whole part is one transaction, which ends with its
row of the ledger and the check of the fencing token: a part is merged once or not at all.

Parts of one load may be merged side by side: nothing is locked between probe and write. A record
that another part wrote meanwhile shows as a key that is there already, or as a stored hash that is
not the probed one; then the part is rolled back and merged again.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from psycopg import sql

from identity_pipeline.core.ahead import ahead
from identity_pipeline.core.errors import Superseded, WriteConflict
from identity_pipeline.core.failpoint import reached
from identity_pipeline.store import quarantine
from identity_pipeline.store.batch import Batch, Records, Rows, Rules, judged, places_of, rows_of
from identity_pipeline.store.database import connect
from identity_pipeline.store.landing import Part
from identity_pipeline.store.lease import fenced
from identity_pipeline.store.load import Load
from identity_pipeline.store.pgcopy import copy_rows, send
from identity_pipeline.store.recency import bools
from identity_pipeline.store.rejection import PLACE

Whole = Callable[[list[str]], Iterable[tuple[Part, pa.Table]]]
"""The batches of all parts of a load as they were landed; only the columns that are named, where a batch has them."""


@dataclass
class PartCounts:
    """The balance of one part: ``records`` is the sum of the five below it.

    ``conflicting`` is how many of them had another record's id, other content, and no newer cursor value.
    """

    records: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    duplicates: int = 0
    quarantined: int = 0
    deleted: int = 0
    valid_identifiers: int = 0
    conflicting: int = 0
    seconds: float = 0.0


def merge_part(url: str, load: Load, part: Part, batches: Iterable[pa.Table], rules: Rules, *, whole: Whole | None = None) -> PartCounts:
    """Merge one landed part. A part that is merged already is not merged again.

    ``whole`` is where the merge looks for other versions of a record in the same load: before an
    older version replaces a newer one (because a full refresh finds nothing else, or because the
    record is deleted here and alive there), and where equal versions are not met in the order of the
    stream. Without it no older version replaces a newer one, and equal ones count in the order in
    which they are merged.

    Raises:
        Superseded: a newer load has the source.
        SchemaChanged: no field of the records can be the external id.
        WriteConflict: another part wrote one of the records meanwhile; nothing of the part stays.
        TargetUnavailable: the database went away; nothing of the part stays.
    """
    with connect(url, doing="merge") as connection:
        fenced(connection, load)
        done = connection.execute(
            "select records, inserted, updated, unchanged, duplicates, quarantined, deleted, valid_identifiers, conflicting, seconds "
            "from identity.load_parts where load_id = %s and shard = %s and part = %s",
            (load.load_id, part.shard, part.number),
        ).fetchone()
        if done:
            return PartCounts(*done)
        started = time.monotonic()
        merger = _Merger(connection, load, part, rules, whole)
        try:
            with closing(ahead(merger.prepared(batches))) as prepared:
                for batch in prepared:
                    merger.merge(batch)
            merger.bury()
            merger.counts.seconds = round(time.monotonic() - started, 3)
            values = {"load_id": load.load_id, "shard": part.shard, "part": part.number} | asdict(merger.counts)
            values |= {"survivors": [winner for winner, _ in merger.mergers], "absorbed": [loser for _, loser in merger.mergers]}
            connection.execute(
                sql.SQL("insert into identity.load_parts ({}) values ({})").format(
                    sql.SQL(", ").join(map(sql.Identifier, values)), sql.SQL(", ").join(sql.Placeholder() * len(values))
                ),
                list(values.values()),
            )
        except psycopg.errors.UniqueViolation:
            raise _conflict(load, part) from None
        fenced(connection, load, lock="share")
        status = connection.execute("select status from identity.loads where load_id = %s", (load.load_id,)).fetchone()
        if status == ("committed",):
            raise Superseded(f"{load.source_name}: load {load.load_id} was committed without part {part}: nothing of it stays")
        reached("merged")
    return merger.counts


def _conflict(load: Load, part: Part) -> WriteConflict:
    return WriteConflict(
        f"{load.source_name}: part {part} of load {load.load_id} met a record that another part wrote at the same moment: "
        "nothing of the part stays; it is merged again"
    )


class _Merger:
    """The state of one part's transaction: the connection, its temporary tables, the counts."""

    def __init__(self, connection: psycopg.Connection, load: Load, part: Part, rules: Rules, whole: Whole | None) -> None:
        self.connection, self.load, self.part, self.rules, self.whole = connection, load, part, rules, whole
        self.counts = PartCounts()
        self.mergers: list[tuple[str, str]] = []
        """Survivor and loser of each merge in the source that this part reports. The commit applies them: a loser may stand in any part."""
        self.gone: list[tuple[str, pa.Table]] = []
        """Field of the id, and records of which this part tells only that they went."""
        self.fresh = self._is_first()
        """True while nothing can be stored of what arrives: then it is written without a look at what is there."""
        connection.execute('create temp table probe (n int, external_id text collate "C", hash bytea) on commit drop')
        connection.execute("create temp table staging (like identity.records, probed_hash bytea) on commit drop")
        connection.execute("alter table staging alter first_seen_at drop not null, alter changed_at drop not null")

    def prepared(self, batches: Iterable[pa.Table]) -> Iterator[Batch]:
        """What is to be known of each batch before the database is asked. Asks no database: another thread may do it."""
        start = 0
        for batch in batches:
            made = judged(batch, start, self.load.source_name, self.rules)
            start += batch.num_rows
            if self.fresh and made.records is not None:
                made.rows = rows_of(made.records, self.load, self.rules)
            yield made

    def merge(self, batch: Batch) -> None:
        """Bring one batch into the table."""
        counts, records = self.counts, batch.records
        counts.records += batch.count
        counts.conflicting += batch.conflicting
        counts.duplicates += batch.duplicates
        if batch.rejected:
            quarantine.keep(self.connection, self.load, batch.rejected)
            counts.quarantined += len(batch.rejected)
        if batch.gone is not None:
            self.gone.append(batch.gone)
        if records is None or (self.fresh and batch.rows is not None and self._insert(batch.rows)):
            return
        new, changed = self._probe(records.ids, records.hashes)
        lost = self._lost(changed, records)
        counts.unchanged += len(records.ids) - len(new) - changed.num_rows
        counts.duplicates += int(lost.sum())
        changed = changed.filter(pa.array(~lost))
        counts.inserted += len(new)
        counts.updated += changed.num_rows
        if len(new):
            self._write(rows_of(records.take(new), self.load, self.rules))
        staged = None
        if changed.num_rows:
            at, probed = changed.column("n").combine_chunks(), changed.column("hash")
            staged = rows_of(records.take(at), self.load, self.rules, probed=probed)
            self._write(staged, "pg_temp.staging")
        reached("staged")
        if staged is not None:
            self._update(staged)

    def _is_first(self) -> bool:
        """True if no earlier load of the source has written a record, whether it was committed or not."""
        earlier = self.connection.execute(
            "select 1 from identity.load_parts p join identity.loads l using (load_id) "
            "where l.source_name = %s and l.load_id <> %s and p.inserted > 0 limit 1",
            (self.load.source_name, self.load.load_id),
        )
        return earlier.fetchone() is None

    def _insert(self, rows: Rows) -> bool:
        """Write records that are all new. False if one is there already: nothing of them is written then."""
        try:
            with self.connection.transaction():
                self._write(rows)
        except psycopg.errors.UniqueViolation:
            self.fresh = False
            return False
        self.counts.inserted += rows.encoded.rows
        reached("staged")
        return True

    def _probe(self, ids: pa.Array, hashes: pa.Array) -> tuple[pa.Array, pa.Table]:
        """Positions of new records; and of changed ones with what is stored of each.

        That is its hash, the text of its cursor, and whether an earlier load stored it, and as deleted.

        Written as a lateral join, which reads one index entry a key whatever the statistics say: a
        temporary table has none, and a target that was just filled has old ones.
        """
        self.connection.execute("truncate pg_temp.probe")
        numbers = pa.array(range(len(ids)), pa.int32())
        copy_rows(self.connection, "pg_temp.probe", {"n": numbers, "external_id": ids, "hash": hashes})
        rows = self.connection.execute(
            """
            select p.n, r.external_id is null, r.record_hash,
                   case when r.record_hash is not null then r.raw ->> %(cursor)s end, r.load_id <> %(load)s, r.deleted_at is not null
            from pg_temp.probe p
            left join lateral (
                select external_id, record_hash, load_id, raw, deleted_at from identity.records
                where source_name = %(source)s and external_id = p.external_id offset 0
            ) r on true
            where r.record_hash is distinct from p.hash order by p.n
            """,
            {"load": self.load.load_id, "cursor": self.rules.recency.column or "", "source": self.load.source_name},
        ).fetchall()
        new = pa.array([n for n, absent, *_ in rows if absent], pa.int32())
        stored = [(n, *values) for n, absent, *values in rows if not absent]
        return new, pa.table(list(zip(*stored, strict=True)) or [()] * len(_CHANGED), schema=_CHANGED)

    def _lost(self, changed: pa.Table, records: Records) -> np.ndarray:
        """Which changed records are not taken: what is stored, or what else the load holds, is to stay."""
        recency, at, keys = self.rules.recency, changed.column("n").combine_chunks(), records.keys
        if not len(at):
            return np.zeros(0, bool)
        older, tie = recency.compared(self.connection, changed.column("cursor").combine_chunks(), None if keys is None else keys.take(at))
        earlier, deleted = bools(changed.column("earlier")), bools(changed.column("deleted"))
        self.counts.conflicting += int((tie & ~earlier).sum())
        lost = older | (tie & ~earlier & recency.newest_first)
        if self.whole is None:
            return lost
        returning = older & earlier
        if not self.load.full_refresh and not recency.snapshot:
            returning &= deleted
            if returning.any():  # what the source shows alive again is alive, whenever it was changed last
                found = self.rules.canonicalise(records.fields.take(at.filter(pa.array(returning))))
                returning[returning] = ~bools(found.column("deleted"))
        # A first in a newest-first stream that was unchanged has left no trace in the table.
        unsure = returning | (tie & (earlier & recency.newest_first | self._out_of_order(tie)))
        if unsure.any():
            at = at.filter(pa.array(unsure))
            lost[unsure] = self._outdone(records.take(at))
        return lost

    def _out_of_order(self, tie: np.ndarray) -> bool:
        """True if what comes after this part in the stream is merged already."""
        if not tie.any():
            return False
        later = self.connection.execute(
            "select 1 from identity.load_parts where load_id = %s and (shard, part) > (%s, %s) limit 1",
            (self.load.load_id, self.part.shard, self.part.number),
        )
        return later.fetchone() is not None

    def _outdone(self, records: Records) -> list[bool]:
        """Which of these versions have one in the same load that is to stay in their stead."""
        recency, id_fields = self.rules.recency, self.rules.field_map.external_id
        assert self.whole is not None  # noqa: S101 - asked by the caller
        best: dict[str, tuple[Any, ...]] = {}
        passed: dict[Part, int] = {}
        for part, table in self.whole([*id_fields, *([recency.column] if recency.column else []), PLACE]):
            start = passed.get(part, 0)
            passed[part] = start + table.num_rows
            id_field = next((name for name in id_fields if name in table.column_names), None)
            if id_field is None:
                continue
            rows = pc.indices_nonzero(pc.is_in(table.column(id_field), value_set=records.ids))
            found = table.take(rows)
            versions = self._versions(part, recency.keys(found), places_of(table, start).take(rows))
            for external_id, version in zip(found.column(id_field).to_pylist(), versions, strict=True):
                best[external_id] = max(best.get(external_id, version), version)
        ours = zip(records.ids.to_pylist(), self._versions(self.part, records.keys, records.places), strict=True)
        return [best.get(external_id, version) > version for external_id, version in ours]

    def _versions(self, part: Part, keys: pa.Array | None, places: pa.Array) -> list[tuple[Any, ...]]:
        """What versions compare by: has it a cursor value, that value, its place in the stream."""
        sign = -1 if self.rules.recency.newest_first else 1
        if keys is not None and pa.types.is_timestamp(keys.type):  # years that Python has no date for
            keys = keys.cast(pa.int64())
        values = [None] * len(places) if keys is None else keys.to_pylist()
        return [
            (key is not None, 0 if key is None else key, sign * part.shard, sign * part.number, sign * place)
            for key, place in zip(values, places.to_pylist(), strict=True)
        ]

    def _write(self, rows: Rows, target: str = "identity.records") -> None:
        """Write rows into the table, or changed ones beside it."""
        send(self.connection, target, rows.encoded)
        self.counts.deleted += rows.deleted
        self.counts.valid_identifiers += rows.valid_identifiers
        self.mergers += rows.mergers

    def _update(self, staged: Rows) -> None:
        """Bring what is staged into the table, if that is still as it was probed."""
        columns = [name for name in staged.encoded.columns if name not in {"source_name", "external_id", "probed_hash"}]
        names = sql.SQL(", ").join(sql.SQL("{0} = s.{0}").format(sql.Identifier(name)) for name in columns)
        updated = self.connection.execute(
            sql.SQL(
                """
                update identity.records r set {}, changed_at = statement_timestamp(), absent_since_load = null from pg_temp.staging s
                where r.source_name = s.source_name and r.external_id = s.external_id
                    and r.record_hash is not distinct from s.probed_hash
                """
            ).format(names)
        ).rowcount
        if updated != staged.encoded.rows:
            raise _conflict(self.load, self.part)
        self.connection.execute("truncate pg_temp.staging")

    def bury(self) -> None:
        """Mark what went, once every record of the part is written: the rows keep what is known of it.

        A row that changed after that is let alone; where the source does not say when it went, that is now. Without its
        hash, a record that comes back is written as a changed one.
        """
        for id_field, records in self.gone:
            ids, keys = records.column(id_field).combine_chunks(), self.rules.recency.keys(records)
            rows = self.connection.execute(
                "select n, r.raw ->> %s from unnest(%s::text[]) with ordinality i(external_id, n) "
                "join identity.records r using (external_id) where r.source_name = %s order by n",
                (self.rules.recency.column or "", ids.to_pylist(), self.load.source_name),
            ).fetchall()
            at = pa.array([n - 1 for n, _ in rows], pa.int64())
            when = None if keys is None else keys.take(at)
            older, _ = self.rules.recency.compared(self.connection, pa.array([text for _, text in rows], pa.string()), when)
            at = at.filter(pa.array(~older if when is None else ~older | bools(when.is_null())))
            found = self.rules.canonicalise(records.take(at))
            updated = self.connection.execute(
                """
                update identity.records r set record_hash = null, changed_at = statement_timestamp(), load_id = %s,
                    merged_into = coalesce(g.merged_into, r.merged_into),
                    deleted_at = coalesce(r.deleted_at, case when g.deleted then coalesce(g.deleted_at, statement_timestamp()) end)
                from (
                    select distinct on (external_id) * from unnest(%s::text[], %s::text[], %s::bool[], %s::timestamptz[])
                        with ordinality as g(external_id, merged_into, deleted, deleted_at, place)
                    order by external_id, place desc
                ) g
                where r.source_name = %s and r.external_id = g.external_id
                    and (r.merged_into is distinct from coalesce(g.merged_into, r.merged_into) or (g.deleted and r.deleted_at is null))
                returning g.deleted
                """,
                (
                    self.load.load_id, ids.take(at).to_pylist(),
                    *(found.column(name).to_pylist() for name in ("merged_into", "deleted", "deleted_at")), self.load.source_name,
                ),
            ).fetchall()  # fmt: skip
            self.counts.updated += len(updated)
            self.counts.deleted += sum(deleted for (deleted,) in updated)
            self.counts.unchanged += records.num_rows - len(updated)


_CHANGED = pa.schema([("n", pa.int32()), ("hash", pa.binary()), ("cursor", pa.string()), ("earlier", pa.bool_()), ("deleted", pa.bool_())])
