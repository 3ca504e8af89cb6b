"""The window: what one load asks a source for, and the context its readers report their work to."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from identity_pipeline.core import cursor as cursors
from identity_pipeline.core.cursor import EPOCH, MICROSECONDS, Cursor, CursorType
from identity_pipeline.core.file_version import FileVersion
from identity_pipeline.core.pace import LocalPace, Pace

BoundForm = Literal["iso", "iso_s", "s", "ms"]
"""How a vendor takes a timestamp in a request: ISO 8601 in UTC, with whole seconds only, or seconds or milliseconds since 1970."""


@dataclass
class ReadContext:
    """What one read reports. Readers add to it; the ledger and the metadata show it.

    ``source_clock`` is the source's own clock at the start of the read (a ``Date`` header, ``now()`` of
    a database). ``source_time`` is the same, or earlier where what is older than now may still appear
    (an open transaction, a day that is not over): the mark is never advanced past it. ``files`` holds
    what was read of each file, by its name; ``files_unchanged`` counts those that were left out because
    nothing has changed in them. ``sweeps`` says whether what this read did not see is gone: None leaves
    it to the load, where only a full refresh shows that. ``source_count`` is how many records the
    source says it has, where it says so. ``fields`` are the fields that the source says it has, empty
    where it does not say, ``key`` those of them by which it tells its records apart. ``withheld`` are
    fields that it has and does not show to us, each with what to do about it. ``source_maximum``
    is the largest cursor value it holds (canonical text), asked for where nothing lay at or above the
    lower bound: the mark was too high. ``state`` is what the source hands out to continue from, that of
    the load before until a reader has a new one: kept with the mark, never shown. ``asked_below`` says
    that the source was asked for records below the lower bound too, such as those committed late: they
    are no surplus to be filtered out. ``sleep`` is how readers wait, for a limit or before a retry,
    ``pace`` gives their requests a turn.
    """

    requests: int = 0
    pages: int = 0
    bytes_read: int = 0
    throttled_seconds: float = 0.0
    source_time: datetime | None = None
    source_clock: datetime | None = None
    source_count: int | None = None
    fields: tuple[str, ...] = ()
    key: tuple[str, ...] = ()
    withheld: Mapping[str, str] = field(default_factory=dict)
    source_maximum: str | None = None
    asked_below: bool = False
    files: dict[str, FileVersion] = field(default_factory=dict)
    files_unchanged: int = 0
    sweeps: bool | None = None
    state: str | None = field(default=None, repr=False)
    warnings: list[str] = field(default_factory=list)
    log: Callable[[str], None] = logging.getLogger("identity_pipeline.read").info
    sleep: Callable[[float], None] = time.sleep
    pace: Pace = field(default_factory=LocalPace, repr=False)
    _counting: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    def count(self, *, requests: int = 0, bytes_read: int = 0) -> None:
        """Add to the counts, from whichever thread."""
        with self._counting:
            self.requests += requests
            self.bytes_read += bytes_read

    def clock(self, now: datetime, settled: datetime | None = None) -> None:
        """Fix the source's clock and, where it is earlier, the time before which nothing more appears.

        Only the first call counts: the bound is fixed at the start.
        """
        if self.source_time is None:
            self.source_clock = now.astimezone(UTC)
            self.source_time = (settled or now).astimezone(UTC)

    def warn(self, message: str) -> None:
        """Keep a warning for the metadata (no values of records in it) and log it."""
        with self._counting:
            new = message not in self.warnings and len(self.warnings) < 50
            if new:
                self.warnings.append(message)
        if new:
            self.log(message)


@dataclass(frozen=True)
class Window:
    """What a load asks for: every record whose cursor is at or after ``lower``.

    ``lower`` is canonical cursor text (see :mod:`core.cursor`), inclusive, overlap already
    subtracted; None asks for everything, records without a cursor value included. There is no upper
    bound on what is *read*: a record dated beyond ``context.source_time`` is loaded, only the mark
    does not follow it. ``files`` are the file versions of earlier loads (conditional reads);
    ``by_mark`` says that ``lower`` comes from the mark of an earlier load, and not from a person.
    ``objects`` restricts file sources to these; ``limit`` is a hint how many records are wanted.
    ``state`` is what the source handed out at the last load, None where it is no longer valid.
    """

    cursor: Cursor | None = None
    lower: str | None = None
    full_refresh: bool = False
    objects: tuple[str, ...] = ()
    limit: int | None = None
    files: Mapping[str, FileVersion] = field(default_factory=dict)
    by_mark: bool = False
    state: str | None = field(default=None, repr=False)
    context: ReadContext = field(default_factory=ReadContext)

    @property
    def incremental(self) -> bool:
        """True when only a part of the source is asked for."""
        return self.cursor is not None and self.lower is not None

    @property
    def cursor_column(self) -> str | None:
        """Name of the cursor's field."""
        return self.cursor and self.cursor.column

    @property
    def cursor_type(self) -> CursorType | None:
        """How its values compare."""
        return self.cursor and self.cursor.type

    def asks_for(self, text: str | None) -> bool:
        """True if a record with this cursor value is asked for: one at or above the lower bound, or without a readable value."""
        if self.cursor is None or self.lower is None:
            return True
        key, lower = self.cursor.keys(pa.array([text], pa.string())), cursors.scalar(self.cursor.type, self.lower)
        return lower is None or pc.greater_equal(*cursors.aligned(key, lower))[0].as_py() is not False

    def within(self, kept: timedelta) -> bool:
        """True if the lower bound is no older than ``kept``, for which the source keeps what it tells of changes.

        By the source's own time, if that is known. Where it is older, a warning says that everything is read.
        """
        if self.lower is None:
            raise ValueError("the window has no lower bound")
        now = self.context.source_time or datetime.now(UTC)
        if datetime.fromisoformat(self.lower) >= now - kept:
            return True
        self.context.warn(
            f"the mark is older than the {kept.days} days for which the source is sure to tell of changes: everything is read; "
            "what was deleted before is found by full refreshes"
        )
        return False

    def lower_bound(self, form: BoundForm = "iso", *, exclusive: bool = False) -> str:
        """The lower bound as a request takes it: never after ``lower``, whole seconds or milliseconds rounded down.

        ``exclusive`` says that the vendor leaves out what equals the bound: then it is one step lower,
        a second of ``iso``, ``iso_s`` and ``s``, a millisecond of ``ms``, one of an integer.
        """
        cursor, lower = self.cursor, self.lower
        if cursor is None or lower is None:
            raise ValueError("the window has no lower bound")
        if cursor.type != "timestamp":
            return str(int(lower) - 1) if exclusive and cursor.type == "int" else lower
        step = MICROSECONDS["ms" if form == "ms" else "s"]
        micros = (datetime.fromisoformat(lower) - EPOCH) // timedelta(microseconds=1)
        counted = micros // step - exclusive
        if form in {"s", "ms"}:
            return str(counted)
        if form == "iso_s":
            return cursors.text_of("timestamp", counted * step)
        return cursors.text_of("timestamp", micros - step if exclusive else micros)
