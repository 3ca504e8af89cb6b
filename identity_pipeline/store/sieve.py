"""The sieve: records that are stored as they arrive are not landed, nor asked for one by one.

A record's hash covers its id, so a stored hash says that this very record is there. All hashes of a
source are 16 bytes a row: fetching them costs the server a sixth of looking as many keys up.

Of what is held back only id, cursor value and place in the stream are landed: a full refresh has to
know that they are there, and a merge that another version of them comes before or after. Needs the
source's lease: nobody else may write meanwhile.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from identity_pipeline.core.fieldmap import GONE, REJECTED, FieldMap
from identity_pipeline.store.database import connect
from identity_pipeline.store.record_hash import record_hashes
from identity_pipeline.store.rejection import PLACE, RESERVED

MAX_ROWS = 2_000_000
"""32 MB of hashes. A larger source is probed."""
_WORTH = 8
"""Fetching all hashes is worth it once so many times the records read are more than are stored."""
_LANDED_MAX = 250_000
"""Where so many records are new or changed, it is not worth it any more."""


@dataclass
class Sieve:
    """Holds back what is stored as it is. ``unchanged`` and ``duplicates`` are what it settled.

    ``stored`` is how many records of the source are, at most :data:`MAX_ROWS`. It begins where that is
    worth it, and ends where most is new.
    """

    url: str
    source_name: str
    field_map: FieldMap
    fingerprint: str
    cursor_column: str | None
    stored: int
    unchanged: int = 0
    duplicates: int = 0
    _high: np.ndarray | None = field(default=None, init=False, repr=False)
    _low: np.ndarray = field(default_factory=lambda: np.zeros(0, "<u8"), init=False, repr=False)
    _met: np.ndarray = field(default_factory=lambda: np.zeros(0, bool), init=False, repr=False)
    _landed: set[str | None] = field(default_factory=set, init=False, repr=False)
    """Ids of what was landed, from the first record on."""
    _rows: int = field(default=0, init=False)
    _given_up: bool = field(default=False, init=False)

    def split(self, records: pa.Table, place: int, note: Callable[[pa.Table], None]) -> pa.Table:
        """What of ``records`` is to be landed whole; what is to be known of the rest is given to ``note``.

        ``place`` is that of their first one in the stream; all say theirs under ``PLACE``.
        """
        placed = records.append_column(PLACE, pa.array(np.arange(place, place + records.num_rows, dtype=np.int64)))
        id_field = next((name for name in self.field_map.external_id if name in records.column_names), None)
        if self._given_up or id_field is None or not records.num_rows:
            return placed
        self._rows += records.num_rows
        ids = records.column(id_field).combine_chunks()
        if self._high is None and self._rows * _WORTH <= self.stored:
            self._land(ids)
            return placed
        found = self._found(records)
        held = self._holdable(records) & (found >= 0)
        self._land(ids.filter(pa.array(~held)))
        if held.any() and self._landed:  # of a record that has another version in this load the merge must see both
            held[held] = [external_id not in self._landed for external_id in ids.filter(pa.array(held)).to_pylist()]
        self._count(found[held])
        if len(self._landed) > _LANDED_MAX:
            self._given_up, self._landed = True, set()
        if not held.any():
            return placed
        mask = pa.array(held)
        known = dict.fromkeys(name for name in (id_field, self.cursor_column, PLACE) if name in placed.column_names)
        note(placed.select(list(known)).filter(mask))
        return placed.filter(pc.invert(mask))

    def _land(self, ids: pa.Array) -> None:
        self._landed.update(ids.to_pylist())

    def _fetch(self) -> np.ndarray:
        with connect(self.url, doing="fetch the hashes") as connection, connection.cursor(binary=True) as cursor:
            [hashes] = cursor.execute(
                "select coalesce(string_agg(record_hash, ''), '') from identity.records where source_name = %s",
                (self.source_name,),
            ).fetchone() or [b""]
        halves = np.frombuffer(hashes, "<u8").reshape(-1, 2)
        halves = halves[np.argsort(halves[:, 0])]
        self._low, self._met = np.ascontiguousarray(halves[:, 1]), np.zeros(len(halves), bool)
        return np.ascontiguousarray(halves[:, 0])

    def _found(self, records: pa.Table) -> np.ndarray:
        """For each record the position of its hash among the stored ones; -1 where there is none."""
        if self._high is None:
            self._high = self._fetch()
        plain = records.drop_columns([name for name in records.column_names if name.startswith(RESERVED)])
        halves = np.frombuffer(record_hashes(plain, self.fingerprint).buffers()[1], "<u8").reshape(-1, 2)
        if not len(self._high):
            return np.full(len(halves), -1)
        order = np.argsort(halves[:, 0])
        asked = halves[order]
        at = np.minimum(np.searchsorted(self._high, asked[:, 0]), len(self._high) - 1)
        there = (self._high[at] == asked[:, 0]) & (self._low[at] == asked[:, 1])
        found = np.empty(len(halves), np.int64)
        found[order] = np.where(there, at, -1)
        return found

    @staticmethod
    def _holdable(records: pa.Table) -> np.ndarray:
        """Which records are such: not one that cannot be merged, nor one that only says what went."""
        holdable = np.ones(records.num_rows, bool)
        for mark in (REJECTED, GONE):
            if mark in records.column_names:
                holdable &= records.column(mark).combine_chunks().is_null().to_numpy(zero_copy_only=False)
        return holdable

    def _count(self, held: np.ndarray) -> None:
        first = np.unique(held)
        unchanged = int(np.count_nonzero(~self._met[first]))
        self._met[first] = True
        self.unchanged += unchanged
        self.duplicates += len(held) - unchanged
