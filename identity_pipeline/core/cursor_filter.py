"""The cursor filter: what every read goes through, batch by batch."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import pyarrow as pa
import pyarrow.compute as pc

from identity_pipeline.core import cursor as cursors
from identity_pipeline.core.cursor import INSTANT, Cursor
from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.core.window import Window

_AHEAD = timedelta(days=1)
"""So far a busy source, or one whose clock or time zone is a little off, runs ahead of its own time: no cause for a warning."""


@dataclass
class CursorCounts:
    """What the cursor filter found in one read.

    ``seen`` counts records whose cursor was looked at, ``filtered`` those below the window,
    ``null_cursor`` those without a readable cursor value (they pass), ``unreadable`` those of them that
    have one, ``beyond`` those dated more than a day after the source's own time. ``newest`` is the
    largest key that is not after it at all.
    """

    seen: int = 0
    filtered: int = 0
    null_cursor: int = 0
    unreadable: int = 0
    beyond: int = 0
    newest: object = None

    def mark(self, cursor: Cursor) -> str | None:
        """Canonical text of the newest value seen, None if there was none."""
        return None if self.newest is None else cursors.text_of(cursor.type, self.newest)


Departed = Callable[[pa.Table], pa.Array]
"""Says which records are told to be gone."""


def apply_cursor_filter(records: pa.Table, window: Window, counts: CursorCounts, departed: Departed | None = None) -> pa.Table:
    """The records at or above the window's lower bound, those without a cursor value, and those that are ``departed``.

    A source that tells that a record went does so once, and does not always move the record's cursor by it.
    Every read goes through here, once for each batch. How the values are written is the cursor's own
    ``reading``, which a connector gives (a format, local time, the unit of an epoch).

    Raises:
        ConfigurationError: the batch has no such column.
    """
    cursor = window.cursor
    if cursor is None or not cursor.in_records or not records.num_rows:
        return records
    values = cursor.of(records)
    if values is None:
        raise ConfigurationError(
            f"cursor_column {cursor.column!r} is not a field of the source; it has {', '.join(records.column_names[:30])}"
        )
    counts.seen += len(values)
    counts.null_cursor += values.null_count
    if values.null_count:
        texts = records.column(cursor.column)
        blank = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(texts), ""), True)
        counts.unreadable += values.null_count - (pc.sum(blank).as_py() or 0)
    _observe(values, window, counts)
    lower = None if window.lower is None else cursors.scalar(cursor.type, window.lower)
    if lower is None or window.context.asked_below:
        return records
    bound, values = cursors.aligned(lower, values)
    keep = pc.or_kleene(pc.is_null(values), pc.greater_equal(values, bound))
    if departed is not None and not pc.all(keep).as_py():
        keep = pc.or_(keep, departed(records))
    kept = pc.sum(keep).as_py() or 0
    counts.filtered += len(values) - kept
    return records if kept == len(values) else records.filter(keep)


def _observe(values: pa.Array, window: Window, counts: CursorCounts) -> None:
    """Follow the newest value that the source's own time has reached."""
    limit, instant = window.context.source_time, window.cursor_type == "timestamp"
    if instant and limit is not None:
        within = pc.less_equal(values, pa.scalar(limit, INSTANT))
        counts.beyond += pc.sum(pc.greater(values, pa.scalar(limit + _AHEAD, INSTANT))).as_py() or 0
        values = values.filter(pc.fill_null(within, False))
    newest = pc.max(values)
    if newest.is_valid:
        key = newest.value if instant else newest.as_py()
        counts.newest = key if counts.newest is None else max(counts.newest, key)  # type: ignore[call-overload]
