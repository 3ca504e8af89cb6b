"""The cursor: reading its values, filtering by them, and the high-water mark they lead to.

Canonical cursor text is what a mark is stored as and what ``cursor_after`` takes: digits for
``int``, ``YYYY-MM-DDTHH:MM:SS[.ffffff]Z`` for ``timestamp`` (UTC, rounded *down* to microseconds:
a mark past a row would lose it), the value itself for ``text``, which orders by its UTF-8 bytes
(the C collation).
"""

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.core.text import from_table, to_table
from identity_pipeline.core.window import CursorType, Window

INSTANT = pa.timestamp("us", tz="UTC")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ISO = r"^(?P<day>\d{4}-\d{2}-\d{2})(?:[Tt ](?P<clock>\d{2}:\d{2}(?::\d{2})?)(?P<fraction>\.\d+)?)? ?(?P<zone>[Zz]|[+-]\d{2}(?::?\d{2})?)?$"


def _naive(bodies: pa.Array) -> pa.Array:
    """ISO dates and times without zone as ``timestamp[us]``; null for a date that does not exist."""
    try:
        return pc.cast(bodies, pa.timestamp("us"))
    except pa.ArrowInvalid:

        def one(text: str | None) -> datetime | None:
            try:
                return None if text is None else datetime.fromisoformat(text)
            except ValueError:
                return None

        return pa.array([one(t) for t in bodies.to_pylist()], pa.timestamp("us"))


def instants(column: pa.Array, timezone: str = "UTC", format: str | None = None) -> pa.Array:  # noqa: A002 - strptime's word
    """Timestamps as ``timestamp[us, UTC]``; null where a text is not one.

    A text without a zone is local time in ``timezone``: in the hour that a clock change repeats it
    is the earlier instant, in the hour it skips the first instant after. Without ``format`` only
    ISO 8601 is read (``01/02/2026`` has two meanings and is refused); fractions beyond
    microseconds are cut, never rounded up.
    """
    texts = pc.utf8_trim_whitespace(column)
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    if format is not None:
        return _at(pc.strptime(texts, format=format, unit="us", error_is_null=True), timezone)
    parts = pc.extract_regex(texts, _ISO)
    day, clock, fraction, zone = (pc.struct_field(parts, name) for name in ("day", "clock", "fraction", "zone"))
    clock = pc.if_else(pc.equal(pc.utf8_length(clock), 5), pc.binary_join_element_wise(clock, ":00", ""), clock)
    clock = pc.if_else(pc.equal(clock, ""), "00:00:00", clock)
    micros = pc.utf8_slice_codeunits(pc.utf8_rpad(pc.if_else(pc.equal(fraction, ""), ".0", fraction), 7, "0"), 0, 7)
    local = _naive(pc.binary_join_element_wise(day, "T", clock, micros, ""))
    zones = zone.dictionary_encode()
    if not set(zones.dictionary.to_pylist()) - {"", "Z", "z"}:
        utc = pc.assume_timezone(local, "UTC")
        return utc if timezone == "UTC" else pc.if_else(pc.equal(zone, ""), _at(local, timezone), utc)
    offsets = pa.array([_offset(z) for z in zones.dictionary.to_pylist()], pa.duration("us"))
    shifted = pc.assume_timezone(pc.subtract(local, offsets.take(zones.indices)), "UTC")
    return pc.if_else(pc.equal(zone, ""), _at(local, timezone), shifted)


def _at(local: pa.Array, timezone: str) -> pa.Array:
    if local.type.tz:  # the format holds %z
        return pc.cast(local, INSTANT)
    return pc.cast(pc.assume_timezone(local, timezone, ambiguous="earliest", nonexistent="latest"), INSTANT)


def _offset(zone: str) -> timedelta:
    if zone in {"", "Z", "z"}:
        return timedelta()
    digits = zone[1:].replace(":", "")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:] or 0))
    return -offset if zone[0] == "-" else offset


def _integers(column: pa.Array) -> pa.Array:
    texts = pc.utf8_trim_whitespace(column)
    readable = pc.match_substring_regex(texts, r"^[+-]?\d{1,38}$")
    texts = pc.if_else(pc.fill_null(readable, False), pc.utf8_ltrim(texts, "+"), None)
    return pc.cast(texts, pa.decimal128(38, 0)) if pc.any(pc.greater(pc.utf8_length(texts), 18)).as_py() else pc.cast(texts, pa.int64())


@dataclass(frozen=True)
class CursorReading:
    """How a source writes its timestamps: the zone of those without one, a strptime format or ISO."""

    timezone: str = "UTC"
    format: str | None = None


ISO = CursorReading()


def keys(cursor_type: CursorType, column: pa.Array, reading: CursorReading = ISO) -> pa.Array:
    """Cursor texts as comparable values of ``cursor_type``; null where there is none to read."""
    if cursor_type == "timestamp":
        return instants(column, reading.timezone, reading.format)
    if cursor_type == "int":
        return _integers(column)
    return column


def _text(cursor_type: CursorType, key: object) -> str:
    if cursor_type != "timestamp":
        return str(key)
    micros = key if isinstance(key, int) else 0
    moment = _EPOCH + timedelta(microseconds=micros)
    return moment.replace(tzinfo=None).isoformat() + "Z"


def _scalar(cursor_type: CursorType, text: str) -> pa.Scalar | None:
    key = keys(cursor_type, pa.array([text], pa.string()))[0]
    return key if key.is_valid else None


def _comparable(cursor_type: CursorType, text: str) -> int | str:
    key = _scalar(cursor_type, text)
    if key is None:
        raise ConfigurationError(f"cursor value is not a {cursor_type}: expected {_EXPECTED[cursor_type]}")
    return key.value if cursor_type == "timestamp" else int(key.as_py()) if cursor_type == "int" else text


_EXPECTED = {"int": "digits", "timestamp": "ISO 8601 such as 2026-04-13T00:00:00Z", "text": "text"}


def canonical(cursor_type: CursorType, text: str) -> str:
    """Canonical form of a cursor value that a person or an older mark gave.

    Raises:
        ConfigurationError: it is not a value of this type.
    """
    return _text(cursor_type, _comparable(cursor_type, text))


def lower_of(cursor_type: CursorType, one: str | None, other: str | None) -> str | None:
    """The smaller of two marks; None (nothing was loaded) is the smallest."""
    if one is None or other is None:
        return None
    return min(one, other, key=lambda text: _comparable(cursor_type, text))


def higher_of(cursor_type: CursorType, one: str | None, other: str | None) -> str | None:
    """The larger of two marks; None is the smallest."""
    if one is None or other is None:
        return one if other is None else other
    return max(one, other, key=lambda text: _comparable(cursor_type, text))


def take_off(cursor_type: CursorType, mark: str, overlap: float) -> str:
    """``mark`` minus the overlap: seconds for ``timestamp``, steps for ``int``, nothing for ``text``."""
    if cursor_type == "text" or not overlap:
        return mark
    key = _comparable(cursor_type, mark)
    assert isinstance(key, int)  # noqa: S101 - text was returned above
    return _text(
        cursor_type,
        max(key - int(overlap * 1_000_000), -62_135_596_800_000_000) if cursor_type == "timestamp" else key - int(overlap),
    )


@dataclass
class CursorFilter:
    """Filters the batches of one load by its window and remembers the mark they lead to.

    ``filtered`` counts records below the window, ``null_cursor`` those without a readable cursor
    value (they pass). ``mark`` is the newest value not beyond ``meter.source_time``.
    """

    window: Window
    reading: CursorReading = ISO
    filtered: int = 0
    null_cursor: int = 0
    beyond: int = 0
    _newest: object = field(default=None, repr=False)

    def apply(self, batch: pd.DataFrame) -> pd.DataFrame:
        """``batch`` without the records below the window.

        Raises:
            ConfigurationError: the batch has no such column.
        """
        window = self.window
        if window.cursor_column is None or window.cursor_type is None or batch.empty:
            return batch
        if window.cursor_column not in batch.columns:
            raise ConfigurationError(
                f"cursor_column {window.cursor_column!r} is not a field of the source; "
                f"it has {', '.join(map(str, list(batch.columns)[:30]))}"
            )
        table = to_table(batch)
        column = table.column(window.cursor_column).combine_chunks()
        values = keys(window.cursor_type, column, self.reading)
        self.null_cursor += values.null_count
        self._observe(values)
        if window.lower is None:
            return batch
        lower = _scalar(window.cursor_type, window.lower)
        if lower is not None and lower.type != values.type:  # one of two integers is beyond 64 bits
            lower, values = (pc.cast(side, pa.decimal128(38, 0)) for side in (lower, values))
        keep = pc.or_kleene(pc.is_null(values), pc.greater_equal(values, lower))
        kept = pc.sum(keep).as_py() or 0
        if kept == len(batch):
            return batch
        self.filtered += len(batch) - kept
        return from_table(table.filter(keep))

    def _observe(self, values: pa.Array) -> None:
        limit = self.window.meter.source_time
        if self.window.cursor_type == "timestamp" and limit is not None:
            within = pc.less_equal(values, pa.scalar(limit, INSTANT))
            self.beyond += pc.sum(pc.invert(within)).as_py() or 0
            values = values.filter(pc.fill_null(within, False))
        newest = pc.max(values)
        if newest.is_valid:
            key = newest.value if self.window.cursor_type == "timestamp" else newest.as_py()
            self._newest = key if self._newest is None else max(self._newest, key)  # type: ignore[type-var]

    @property
    def mark(self) -> str | None:
        """Canonical text of the newest value seen, None if there was none."""
        if self._newest is None or self.window.cursor_type is None:
            return None
        return _text(self.window.cursor_type, self._newest)


def apply_cursor_filter(batch: pd.DataFrame, window: Window, reading: CursorReading = ISO) -> pd.DataFrame:
    """The records of ``batch`` at or above the window's lower bound, and those without a cursor value.

    ``reading`` is for sources whose cursor texts need their own (a format, local time).
    """
    return CursorFilter(window, reading).apply(batch)


def check_format(form: str) -> str:
    """``form`` if dates written by it can be read by it.

    Raises:
        ConfigurationError: they cannot; Arrow reads no ``%f`` and ignores ``%Z``.
    """
    moment = datetime(2026, 4, 13, 12, 34, 56, tzinfo=UTC)
    read = instants(pa.array([moment.strftime(form)], pa.string()), format=form)[0].as_py()
    if "%Z" in form or read is None or read.date() != moment.date():
        raise ConfigurationError(
            f"cursor_format {form[:40]!r} cannot be read: it takes %Y (or %y), %m (or %b) and %d, with %H, %M, %S, %p and %z "
            "where the column has them; fractions of seconds are read in ISO 8601 only"
        )
    return form


def check_timezone(name: str) -> str:
    """``name`` if it is an IANA time zone.

    Raises:
        ConfigurationError: it is not.
    """
    if not re.fullmatch(r"[A-Za-z0-9_+\-/]{1,64}", name):
        raise ConfigurationError(f"cursor_timezone {name!r} is not an IANA time zone such as Europe/Berlin")
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ConfigurationError(f"cursor_timezone {name!r} is not an IANA time zone such as Europe/Berlin") from None
    return name
