"""The window: what one load asks a source for, and the meter it reports its work to."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

CursorType = Literal["int", "timestamp", "text"]


@dataclass
class Meter:
    """Counts of one read. Readers add to it; the ledger and the metadata show it.

    ``source_time`` is the source's own clock at the start of the read (a ``Date`` header,
    ``now()`` of a database). The mark is never advanced past it. ``files`` holds what was read of
    each object: ``{name: version}``. ``sleep`` is how readers wait, for a limit or before a retry.
    """

    requests: int = 0
    pages: int = 0
    bytes_read: int = 0
    throttled_seconds: float = 0.0
    source_time: datetime | None = None
    files: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    log: Callable[[str], None] = logging.getLogger("identity_pipeline.read").info
    sleep: Callable[[float], None] = time.sleep

    def clock(self, now: datetime) -> None:
        """Fix the source's time. Only the first call counts: the bound is fixed at the start."""
        if self.source_time is None:
            self.source_time = now.astimezone(UTC)

    def warn(self, message: str) -> None:
        """Keep a warning for the metadata (no values of records in it) and log it."""
        if message not in self.warnings and len(self.warnings) < 50:
            self.warnings.append(message)
            self.log(message)


@dataclass(frozen=True)
class Window:
    """What a load asks for: every record whose cursor is at or after ``lower``.

    ``lower`` is canonical cursor text (see :mod:`core.cursor`), inclusive, overlap already taken
    off; None asks for everything, records without a cursor value included. There is no upper
    bound on what is *read*: a record dated beyond ``meter.source_time`` is loaded, only the mark
    does not follow it. ``versions`` are the object versions of earlier loads (conditional reads);
    ``objects`` restricts storage sources to these; ``limit`` is a hint how many records are wanted.
    """

    cursor_column: str | None = None
    cursor_type: CursorType | None = None
    lower: str | None = None
    full_refresh: bool = False
    objects: tuple[str, ...] = ()
    limit: int | None = None
    versions: dict[str, str] = field(default_factory=dict)
    meter: Meter = field(default_factory=Meter)

    @property
    def incremental(self) -> bool:
        """True when only a part of the source is asked for."""
        return self.cursor_column is not None and self.lower is not None
