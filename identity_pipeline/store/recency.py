"""Which of two versions of a record stays."""

from dataclasses import dataclass

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.compute as pc

from identity_pipeline.core import cursor as cursors
from identity_pipeline.core.cursor import Cursor, Order


@dataclass(frozen=True)
class Recency:
    """Which of two versions of a record stays: the newer by ``cursor``.

    Without a cursor in the records, or on a tie, it is the one that the source streams later, or
    earlier where ``order`` says that the newest comes first. ``snapshot`` says that each read shows the
    present state of all that it reads: then what a later load found is newer, whatever its cursor says.
    """

    cursor: Cursor | None = None
    order: Order = "oldest_first"
    snapshot: bool = False

    @property
    def column(self) -> str | None:
        """The field that decides, None where only the order does."""
        return self.cursor.column if self.cursor and self.cursor.in_records else None

    @property
    def newest_first(self) -> bool:
        """True if of two equal versions the first stays."""
        return self.order == "newest_first"

    def keys(self, records: pa.Table) -> pa.Array | None:
        """Comparable values; None where the records do not have the field."""
        return self.cursor and self.cursor.of(records)

    def compared(self, connection: psycopg.Connection, stored: pa.Array, arriving: pa.Array | None) -> tuple[np.ndarray, np.ndarray]:
        """Which records with the keys ``arriving`` are older than those with the cursor texts ``stored``, and which neither.

        One without a cursor value is older than one with. A stored date in the future is not believed.
        """
        if arriving is None or self.cursor is None:
            return np.zeros(len(stored), bool), np.ones(len(stored), bool)
        kept, came = cursors.aligned(self.cursor.keys(stored), arriving)
        has, had = bools(came.is_valid()), bools(kept.is_valid())
        older = had & ~has | bools(pc.less(came, kept))
        tie = ~has & ~had | bools(pc.equal(came, kept))
        if self.cursor.type == "timestamp":
            now = connection.execute("select statement_timestamp()").fetchone()
            older &= ~bools(pc.greater(kept, pa.scalar(now[0], kept.type)))  # type: ignore[index]
        return older, tie


def bools(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Truth as numpy has it; null is False."""
    return pc.fill_null(column, False).to_numpy(zero_copy_only=False).astype(bool)
