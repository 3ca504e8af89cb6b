"""A batch of a part, as far as it can be judged without the database: all that is pure of a merge.

What cannot be merged is told apart, of each record the newest version is kept, the rest is hashed,
and made into rows as they are sent.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from identity_pipeline.core.fieldmap import GONE, FieldMap
from identity_pipeline.core.text import SANITISED
from identity_pipeline.store import rejection
from identity_pipeline.store.load import Load
from identity_pipeline.store.pgcopy import Column, Encoded, encode
from identity_pipeline.store.quarantine import Rejected
from identity_pipeline.store.raw import raw_json
from identity_pipeline.store.recency import Recency
from identity_pipeline.store.record_hash import record_hashes
from identity_pipeline.store.rejection import PLACE, RESERVED

Canonicalise = Callable[[pa.Table], pa.Table]
"""Raw records → the columns of ``identity.records`` that are canonical fields, and ``absorbed`` and ``deleted``; row by row."""

_SIGNALS = ("absorbed", "deleted")
"""What the canonical fields say that is no column."""


@dataclass(frozen=True)
class Rules:
    """What the merge of a source goes by. ``fingerprint`` changes whenever a result could."""

    field_map: FieldMap
    canonicalise: Canonicalise
    fingerprint: str
    recency: Recency = field(default_factory=Recency)


@dataclass(frozen=True)
class Records:
    """Records to merge: their source fields, and of each its id, hash, cursor value (None: there is no cursor) and place in the stream."""

    fields: pa.Table
    ids: pa.Array
    hashes: pa.Array
    keys: pa.Array | None
    places: pa.Array

    def take(self, at: pa.Array) -> "Records":
        """The records at some positions."""
        keys = None if self.keys is None else self.keys.take(at)
        return Records(self.fields.take(at), self.ids.take(at), self.hashes.take(at), keys, self.places.take(at))


@dataclass(frozen=True)
class Rows:
    """Rows as they are sent, and what the counts are to know of them once they are written."""

    encoded: Encoded
    deleted: int
    valid_identifiers: int
    mergers: list[tuple[str, str]]


@dataclass
class Batch:
    """One batch as far as it can be judged without the database; ``records`` is None if none is left to merge.

    ``rows`` are all its records ready to be sent, where they are expected to be new.
    """

    count: int
    conflicting: int = 0
    duplicates: int = 0
    rejected: list[Rejected] = field(default_factory=list)
    gone: tuple[str, pa.Table] | None = None
    records: Records | None = None
    rows: Rows | None = None


def judged(batch: pa.Table, start: int, source_name: str, rules: Rules) -> Batch:
    """A batch without what cannot be merged and what is there twice, in the order of its ids.

    ``start`` is how many records of the part came before it.

    Raises:
        SchemaChanged: no field of the records can be the external id.
    """
    recency = rules.recency
    id_field = rejection.id_field(batch, rules.field_map, source_name)
    made = Batch(batch.num_rows)
    places = places_of(batch, start)
    records = batch.drop_columns([PLACE]) if PLACE in batch.column_names else batch
    reasons = rejection.reasons(records, id_field)
    if reasons.null_count < len(reasons):
        good = pc.is_null(reasons)
        made.rejected = list(_rejected(records.filter(pc.invert(good)), id_field, reasons.drop_null()))
        records, places = records.filter(good), places.filter(good)
    if GONE in records.column_names:
        gone = pc.fill_null(pc.equal(records.column(GONE).combine_chunks(), "true"), False)
        made.gone = (id_field, records.filter(gone))
        records, places = records.filter(pc.invert(gone)), places.filter(pc.invert(gone))
    reserved = [n for n in records.column_names if n.startswith(RESERVED) and n != SANITISED]
    records = records.drop_columns(reserved) if reserved else records
    keys = recency.keys(records)
    kept = newest(records.column(id_field), keys, newest_first=recency.newest_first)
    if kept is not None:
        made.conflicting = _conflicting(records, id_field, keys)
        made.duplicates = records.num_rows - len(kept)
        records, places = records.take(kept), places.take(kept)
        keys = None if keys is None else keys.take(kept)
    if records.num_rows:
        ids = records.column(id_field).combine_chunks()
        if not pc.all(pc.less_equal(ids[:-1], ids[1:])).as_py():  # neighbours of an index are looked up and written together
            order = pc.sort_indices(ids)
            records, ids, places = records.take(order), ids.take(order), places.take(order)
            keys = None if keys is None else keys.take(order)
        hashed = records.drop_columns([SANITISED]) if SANITISED in records.column_names else records
        made.records = Records(records, ids, record_hashes(hashed, rules.fingerprint), keys, places)
    return made


def rows_of(records: Records, load: Load, rules: Rules, *, probed: pa.ChunkedArray | None = None) -> Rows:
    """Records as the rows that are written; changed ones with the hash that was ``probed``."""
    canonical = rules.canonicalise(records.fields)
    deleted_at = canonical.column("deleted_at")
    without_time = pc.and_(canonical.column("deleted"), pc.is_null(deleted_at))
    now = pa.scalar(int(time.time() * 1_000_000), pa.int64()).cast(deleted_at.type)
    deleted_at = pc.if_else(without_time, now, deleted_at)
    values: dict[str, Column] = {
        "source_name": pa.scalar(load.source_name, pa.string()),
        "external_id": records.ids,
        "source_type": pa.scalar(load.source_type, pa.string()),
        **{name: canonical.column(name) for name in canonical.column_names if name not in _SIGNALS},
        "deleted_at": deleted_at,
        "raw": raw_json(records.fields),
        "record_hash": records.hashes,
        "load_id": pa.scalar(load.load_id, pa.int64()),
    }
    if probed is not None:
        values["probed_hash"] = probed
    reachable = pc.or_(pc.is_valid(canonical.column("email")), pc.is_valid(canonical.column("phone")))
    absorbed, mergers = canonical.column("absorbed"), list[tuple[str, str]]()
    if absorbed.null_count < len(absorbed):
        stream = pc.sort_indices(records.places)
        pairs = zip(records.ids.take(stream).to_pylist(), absorbed.take(stream).to_pylist(), strict=True)
        mergers = [(winner, loser) for winner, losers in pairs for loser in losers or () if winner != loser]
    return Rows(
        encode(values, jsonb=["raw"]),
        deleted=len(deleted_at) - deleted_at.null_count,
        valid_identifiers=pc.sum(reachable).as_py() or 0,
        mergers=mergers,
    )


def places_of(batch: pa.Table, start: int) -> pa.Array:
    """Where in the stream its records stand: as they say, else counted on from ``start``."""
    if PLACE in batch.column_names:
        return batch.column(PLACE).combine_chunks()
    return pa.array(np.arange(start, start + batch.num_rows, dtype=np.int64))


def newest(ids: pa.ChunkedArray, keys: pa.Array | None, *, newest_first: bool) -> pa.Array | None:
    """Positions of the records to keep: of each id the newest by cursor, then by the order of the stream. None: all."""
    rows = len(ids)
    if pc.count_distinct(ids).as_py() == rows:
        return None
    table = pa.table({"id": ids, "n": pa.array(range(rows), pa.int64())})
    if keys is None:
        which = "min" if newest_first else "max"
        return _sorted(table.group_by("id").aggregate([("n", which)]).column(f"n_{which}"))
    place = ("n", "ascending" if newest_first else "descending")
    order = pc.sort_indices(table.append_column("key", keys), sort_keys=[("id", "ascending"), ("key", "descending", "at_end"), place])
    ordered = table.take(order)
    names = ordered.column("id").combine_chunks()
    first = pa.concat_arrays([pa.array([True], pa.bool_()), pc.not_equal(names[1:], names[:-1])])
    return _sorted(ordered.column("n").filter(first))


def _rejected(records: pa.Table, id_field: str, reasons: pa.Array) -> Iterator[Rejected]:
    plain = records.drop_columns([name for name in records.column_names if name.startswith(RESERVED) and name != SANITISED])
    digests = record_hashes(plain, "quarantine").to_pylist()
    ids, raws = records.column(id_field).to_pylist(), raw_json(plain).to_pylist()
    return map(Rejected, ids, reasons.to_pylist(), raws, digests)


def _conflicting(records: pa.Table, id_field: str, keys: pa.Array | None) -> int:
    """How many records carry another's id and other content, and no cursor value says which is the newer."""
    plain = records.drop_columns([SANITISED]) if SANITISED in records.column_names else records
    versions = {"id": records.column(id_field), "content": record_hashes(plain, "")}
    if keys is not None:
        versions["key"] = keys
    grouped = pa.table(versions).group_by([name for name in versions if name != "content"])
    return (pc.sum(pc.subtract(grouped.aggregate([("content", "count_distinct")]).column("content_count_distinct"), 1)).as_py()) or 0


def _sorted(numbers: pa.ChunkedArray) -> pa.Array:
    return numbers.combine_chunks().take(pc.sort_indices(numbers))
