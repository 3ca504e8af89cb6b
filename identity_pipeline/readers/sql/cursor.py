"""What a column of a table is as a cursor, and how far a mark may follow it."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from identity_pipeline.core.cursor import CursorType

CursorKind = Literal["int", "instant", "local", "date", "text"]
"""What a column's values are: an ``instant`` knows its zone, ``local`` and ``date`` are wall clock."""

CURSOR_TYPES: dict[CursorKind, CursorType] = {
    "int": "int",
    "instant": "timestamp",
    "local": "timestamp",
    "date": "timestamp",
    "text": "text",
}
_NEAR = timedelta(hours=3)


@dataclass(frozen=True)
class FollowedColumn:
    """A column that a load follows. ``timezone`` is that of wall clock."""

    name: str
    kind: CursorKind
    base_type: str
    timezone: str = "UTC"

    def mark_limit(self, now: datetime) -> datetime:
        """The instant that a mark taken at ``now`` may not pass.

        A value tells its instant only to its own grain. A date is still written until the day is
        over everywhere on earth. Where clocks go back, wall clock repeats, and its later pass is
        read as the earlier one.
        """
        if self.kind == "date":
            return now - timedelta(days=1)
        if self.kind == "local":
            return now - max(self._offset(now - _NEAR) - self._offset(now + _NEAR), timedelta())
        return now

    def wall(self, lower: str) -> str:
        """A lower bound as wall clock, as the column writes it: in UTC for an ``instant``, else in ``timezone``."""
        zone = UTC if self.kind == "instant" else ZoneInfo(self.timezone)
        try:
            wall = datetime.fromisoformat(lower).astimezone(zone).replace(tzinfo=None)
        except OverflowError:  # it lies before year 1 there
            wall = datetime.min  # noqa: DTZ901 - wall clock
        return str(wall.date() if self.kind == "date" else wall)

    def _offset(self, moment: datetime) -> timedelta:
        return moment.astimezone(ZoneInfo(self.timezone)).utcoffset() or timedelta()
