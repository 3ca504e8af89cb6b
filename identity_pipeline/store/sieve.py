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
"""Fetching all hashes is worth it once so many times the records read are as many as are stored."""
_LANDED_MAX = 100_000


def is_worth(stored: int, read: int) -> bool:
    """True if the hashes of ``stored`` records cost less than to ask for each of the ``read`` ones that are to be expected."""
    return 0 < stored <= MAX_ROWS and read * _WORTH > stored


@dataclass
class Sieve:
    """Holds back what is stored as it is. ``unchanged`` and ``duplicates`` are what it settled."""

    url: str
    source_name: str
    field_map: FieldMap
    fingerprint: str
    cursor_column: str | None
    unchanged: int = 0
    duplicates: int = 0
    _high: np.ndarray = field(init=False, repr=False)
    _low: np.ndarray = field(init=False, repr=False)
    _met: np.ndarray = field(init=False, repr=False)
    _landed: list[pa.Array] = field(default_factory=list, repr=False)
    _landed_rows: int = 0
    _rows: int = 0
    _given_up: bool = False

    def __post_init__(self) -> None:
        """Fetch the hashes."""
        with connect(self.url, doing="fetch the hashes") as connection, connection.cursor(binary=True) as cursor:
            [hashes] = cursor.execute(
                "select coalesce(string_agg(record_hash, ''), '') from identity.records where source_name = %s",
                (self.source_name,),
            ).fetchone() or [b""]
        halves = np.frombuffer(hashes, "<u8").reshape(-1, 2)
        halves = halves[np.argsort(halves[:, 0])]
        self._high, self._low = np.ascontiguousarray(halves[:, 0]), np.ascontiguousarray(halves[:, 1])
        self._met = np.zeros(len(halves), bool)

    def split(self, records: pa.Table, place: int, note: Callable[[pa.Table], None]) -> pa.Table:
        """What of ``records`` is to be landed whole; what is to be known of the rest is given to ``note``.

        ``place`` is that of their first one in the stream; all say theirs under ``PLACE``.
        """
        id_field = next((name for name in self.field_map.external_id if name in records.column_names), None)
        if self._given_up or id_field is None or not records.num_rows:
            return records
        places = pa.array(np.arange(place, place + records.num_rows, dtype=np.int64))
        found = self._stored(records)
        held = self._holdable(records) & (found >= 0)
        ids = records.column(id_field).combine_chunks()
        landed = ids.filter(pa.array(~held))
        if len(landed):
            self._landed.append(landed)
            self._landed_rows += len(landed)
        if self._landed and held.any():  # of a record that has another version in this load the merge must see both
            held &= ~pc.is_in(ids, value_set=pa.concat_arrays(self._landed)).to_numpy(zero_copy_only=False)
        self._count(found[held])
        self._rows += records.num_rows
        self._given_up = self._landed_rows > max(_LANDED_MAX, self._rows // 2)
        placed = records.append_column(PLACE, places)
        if not held.any():
            return placed
        mask = pa.array(held)
        known = dict.fromkeys(name for name in (id_field, self.cursor_column, PLACE) if name in placed.column_names)
        note(placed.select(list(known)).filter(mask))
        return placed.filter(pc.invert(mask))

    def _stored(self, records: pa.Table) -> np.ndarray:
        """For each record the position of its hash among the stored ones; -1 where there is none."""
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
