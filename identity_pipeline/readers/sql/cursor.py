"""What a column of a table is as a cursor, and how far a mark may follow it."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.core.window import CursorType

Order = Literal["int", "instant", "local", "date", "text"]
"""How a column's values order: ``instant`` knows its zone, ``local`` and ``date`` are wall clock."""

_TYPES: dict[Order, CursorType] = {
    "int": "int",
    "instant": "timestamp",
    "local": "timestamp",
    "date": "timestamp",
    "text": "text",
}
_NEAR = timedelta(hours=3)


@dataclass(frozen=True)
class Cursor:
    """A column that a load follows."""

    column: str
    order: Order
    timezone: str = "UTC"

    def mark_limit(self, now: datetime) -> datetime:
        """The instant that a mark taken at ``now`` may not pass.

        A value tells its instant only to its own grain. A date is still written until the day is
        over everywhere on earth. Where clocks go back, wall clock repeats, and its later pass is
        read as the earlier one.
        """
        if self.order == "date":
            return now - timedelta(days=1)
        if self.order == "local":
            return now - max(self._offset(now - _NEAR) - self._offset(now + _NEAR), timedelta())
        return now

    def _offset(self, moment: datetime) -> timedelta:
        return moment.astimezone(ZoneInfo(self.timezone)).utcoffset() or timedelta()


def cursor_of(column: str, column_type: str, order: Order | None, cursor_type: CursorType, timezone: str) -> Cursor:
    """``column`` as the cursor of a load; ``order`` None says that its type has no order to follow.

    Raises:
        ConfigurationError: the source's ``cursor_type`` is not what the column holds.
    """
    if order is None:
        raise ConfigurationError(
            f"cursor_column {column!r} is of type {column_type}, which is no cursor: name a column of integers, timestamps, dates or text"
        )
    if _TYPES[order] != cursor_type:
        raise ConfigurationError(
            f"cursor_column {column!r} is of type {column_type}, but cursor_type is {cursor_type}: set cursor_type: {_TYPES[order]}"
        )
    return Cursor(column, order, timezone)
