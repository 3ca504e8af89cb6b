"""The cursor: reading its values, filtering by them, and the high-water mark they lead to.

Canonical cursor text is what a mark is stored as and what ``cursor_after`` takes: digits for
``int``, ``YYYY-MM-DDTHH:MM:SS[.ffffff]Z`` for ``timestamp`` (UTC, rounded *down* to microseconds:
a mark past a row would lose it), the value itself for ``text``, which orders by its UTF-8 bytes
(the C collation).
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

import identity_pipeline.core.arrow  # noqa: F401 - before the first array is made
from identity_pipeline.core.errors import ConfigurationError

CursorType = Literal["int", "timestamp", "text"]
Unit = Literal["s", "ms", "us"]
"""Unit of an epoch: what a number since 1970 counts."""
Order = Literal["oldest_first", "newest_first"]
"""Order in which a source streams the versions of one record."""

INSTANT = pa.timestamp("us", tz="UTC")
MICROSECONDS: dict[Unit, int] = {"s": 1_000_000, "ms": 1_000, "us": 1}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST = -62_135_596_800_000_000
"""Year 1 in microseconds: the earliest instant that Python and PostgreSQL share."""
_ISO = (
    r"^(?P<day>\d{4}-\d{2}-\d{2})(?:[Tt ](?P<clock>\d{2}:\d{2}(?::\d{2})?)(?P<fraction>\.\d+)?)?"
    r" ?(?P<zone>[Zz]|[+-]\d{2}(?::?\d{2})?)?$"
)
_EPOCHS: tuple[tuple[Unit, str], ...] = (
    ("s", r"^-?\d{10,11}(?:\.\d+)?$"),
    ("ms", r"^-?\d{13,14}(?:\.\d+)?$"),
    ("us", r"^-?\d{16,17}$"),
)
"""Digits that can hardly be anything else: instants from 2001 to 5138. Other numbers need a ``unit``."""
_EXPECTED = {
    "int": "digits",
    "timestamp": "ISO 8601 such as 2026-04-13T00:00:00Z, or seconds or milliseconds since 1970",
    "text": "text",
}


@dataclass(frozen=True)
class Reading:
    """How a source writes its timestamps.

    ``timezone`` is that of times without one. ``format`` is a strptime format; None reads ISO 8601
    and numbers since 1970. ``unit`` says what such a number counts; None tells seconds,
    milliseconds and microseconds apart by their digits.
    """

    timezone: str = "UTC"
    format: str | None = None
    unit: Unit | None = None


ISO = Reading()


def instants(column: pa.Array, reading: Reading = ISO) -> pa.Array:
    """Timestamps as ``timestamp[us, UTC]``; null where a text is not one.

    A text without a zone is local time in ``reading.timezone``: in the hour that a clock change
    repeats it is the earlier instant, in the hour it skips the first instant after. ``01/02/2026``
    has two meanings: it is read by a ``format`` only. Fractions beyond microseconds are cut, never
    rounded up.
    """
    texts = pc.utf8_trim_whitespace(column)
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    if reading.format is not None:
        parsed = pc.strptime(texts, format=reading.format, unit="us", error_is_null=True)
        return _at(parsed, reading.timezone)
    read = _from_iso(texts, reading.timezone)
    if read.null_count == texts.null_count:
        return read
    return _from_epoch(texts, read, reading.unit)


def _from_iso(texts: pa.Array, timezone: str) -> pa.Array:
    parts = pc.extract_regex(texts, _ISO)
    day, clock, fraction, zone = (pc.struct_field(parts, name) for name in ("day", "clock", "fraction", "zone"))
    short = pc.equal(pc.utf8_length(clock), 5)
    clock = pc.if_else(short, pc.binary_join_element_wise(clock, ":00", ""), clock)
    clock = pc.if_else(pc.equal(clock, ""), "00:00:00", clock)
    fraction = pc.if_else(pc.equal(fraction, ""), ".0", fraction)
    micros = pc.utf8_slice_codeunits(pc.utf8_rpad(fraction, 7, "0"), 0, 7)
    local = _naive(pc.binary_join_element_wise(day, "T", clock, micros, ""))
    zones = zone.dictionary_encode()
    if not set(zones.dictionary.to_pylist()) - {"", "Z", "z"}:
        utc = pc.assume_timezone(local, "UTC")
        return utc if timezone == "UTC" else pc.if_else(pc.equal(zone, ""), _at(local, timezone), utc)
    offsets = pa.array([_offset(z) for z in zones.dictionary.to_pylist()], pa.duration("us"))
    shifted = pc.assume_timezone(pc.subtract(local, offsets.take(zones.indices)), "UTC")
    return pc.if_else(pc.equal(zone, ""), _at(local, timezone), shifted)


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


def _at(local: pa.Array, timezone: str) -> pa.Array:
    if local.type.tz:  # the format holds %z
        return pc.cast(local, INSTANT)
    known = pc.assume_timezone(local, timezone, ambiguous="earliest", nonexistent="latest")
    return pc.cast(known, INSTANT)


def _offset(zone: str) -> timedelta:
    if zone in {"", "Z", "z"}:
        return timedelta()
    digits = zone[1:].replace(":", "")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:] or 0))
    return -offset if zone[0] == "-" else offset


def _from_epoch(texts: pa.Array, read: pa.Array, unit: Unit | None) -> pa.Array:
    """``read`` with the numbers since 1970 filled in."""
    forms: tuple[tuple[Unit, str], ...] = _EPOCHS if unit is None else ((unit, r"^-?\d{1,17}(?:\.\d+)?$"),)
    for each, form in forms:
        counted = pc.fill_null(pc.match_substring_regex(texts, form), False)
        if not pc.any(counted).as_py():
            continue
        found = texts.filter(counted)
        parts = pc.extract_regex(found, r"^(?P<sign>-?)(?P<whole>\d+)(?P<fraction>(?:\.\d+)?)$")
        whole = pc.cast(pc.struct_field(parts, "whole"), pa.int64())
        scale = MICROSECONDS[each]
        digits = len(str(scale)) - 1
        if digits:
            fraction = pc.utf8_ltrim(pc.struct_field(parts, "fraction"), ".")
            padded = pc.utf8_slice_codeunits(pc.utf8_rpad(fraction, digits, "0"), 0, digits)
            rest = pc.cast(padded, pa.int64())
        else:
            rest = pa.scalar(0, pa.int64())
        largest = pa.scalar((2**63 - 1) // scale - 1, pa.int64())
        micros = pc.add(pc.multiply(pc.min_element_wise(whole, largest), scale), rest)
        micros = pc.if_else(pc.equal(pc.struct_field(parts, "sign"), "-"), pc.negate(micros), micros)
        read = pc.replace_with_mask(read, counted, pc.cast(micros, INSTANT))
    return read


def _integers(column: pa.Array) -> pa.Array:
    texts = pc.utf8_trim_whitespace(column)
    readable = pc.match_substring_regex(texts, r"^[+-]?\d{1,38}$")
    texts = pc.if_else(pc.fill_null(readable, False), pc.utf8_ltrim(texts, "+"), None)
    long = pc.any(pc.greater(pc.utf8_length(texts), 18)).as_py()
    return pc.cast(texts, pa.decimal128(38, 0)) if long else pc.cast(texts, pa.int64())


def keys(cursor_type: CursorType, column: pa.Array, reading: Reading = ISO) -> pa.Array:
    """Cursor texts as comparable values of ``cursor_type``; null where there is none to read."""
    if cursor_type == "timestamp":
        return instants(column, reading)
    if cursor_type == "int":
        return _integers(column)
    return column


def aligned(one: pa.Array | pa.Scalar, other: pa.Array | pa.Scalar) -> tuple[pa.Array, pa.Array]:
    """Two columns of keys in one type: numbers beyond 64 bits may be on one side only."""
    if one.type == other.type:
        return one, other
    return pc.cast(one, pa.decimal128(38, 0)), pc.cast(other, pa.decimal128(38, 0))


@dataclass(frozen=True)
class Cursor:
    """The field that a load follows: its name, how its values compare, how they are written.

    ``in_records`` False: the cursor lives in the request only (a formula, an events endpoint, a
    delta link) and no record carries it. Then the mark is the source's time at the start of the
    read, nothing is filtered here, and of two versions the order of the stream decides.
    """

    column: str
    type: CursorType
    reading: Reading = ISO
    in_records: bool = True

    def keys(self, texts: pa.Array) -> pa.Array:
        """Comparable values; null where there is none."""
        return keys(self.type, texts, self.reading)

    def of(self, records: pa.Table) -> pa.Array | None:
        """The keys of a table's records; None where it does not have the column."""
        if not self.in_records or self.column not in records.column_names:
            return None
        return self.keys(records.column(self.column).combine_chunks())


@dataclass(frozen=True)
class Mark:
    """A high-water mark: ``after`` is canonical text of ``column`` read as ``type``."""

    column: str
    type: CursorType
    after: str

    def belongs_to(self, cursor: Cursor) -> bool:
        """True if it is a mark of that cursor."""
        return (self.column, self.type) == (cursor.column, cursor.type)


def text_of(cursor_type: CursorType, key: object) -> str:
    """Canonical text of a key as :func:`keys` makes it (microseconds since 1970 for an instant)."""
    if cursor_type != "timestamp":
        return str(key)
    moment = EPOCH + timedelta(microseconds=key if isinstance(key, int) else 0)
    return moment.replace(tzinfo=None).isoformat() + "Z"


def instant_text(moment: datetime) -> str:
    """Canonical text of an instant, rounded down to microseconds."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


def scalar(cursor_type: CursorType, text: str) -> pa.Scalar | None:
    """One canonical text as a comparable value, None if it cannot be read."""
    key = keys(cursor_type, pa.array([text], pa.string()))[0]
    return key if key.is_valid else None


def _comparable(cursor_type: CursorType, text: str) -> int | str:
    key = scalar(cursor_type, text)
    if key is None:
        raise ConfigurationError(f"cursor value is not a {cursor_type}: expected {_EXPECTED[cursor_type]}")
    if cursor_type == "timestamp":
        return key.value
    return int(key.as_py()) if cursor_type == "int" else text


def canonical(cursor_type: CursorType, text: str) -> str:
    """Canonical form of a cursor value that a person or an older mark gave.

    Raises:
        ConfigurationError: it is not a value of this type.
    """
    return text_of(cursor_type, _comparable(cursor_type, text))


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


def subtract_overlap(cursor_type: CursorType, mark: str, overlap: float) -> str:
    """``mark`` minus the overlap: seconds for ``timestamp``, numbers for ``int``, nothing for ``text``."""
    if cursor_type == "text" or not overlap:
        return mark
    key = _comparable(cursor_type, mark)
    if not isinstance(key, int):  # text was returned above
        raise TypeError(cursor_type)
    if cursor_type == "timestamp":
        return text_of(cursor_type, max(key - int(overlap * 1_000_000), _FIRST))
    return text_of(cursor_type, key - int(overlap))


def check_format(form: str) -> str:
    """``form`` if dates written by it can be read by it.

    Raises:
        ConfigurationError: they cannot; Arrow reads no ``%f`` and ignores ``%Z``.
    """
    moment = datetime(2026, 4, 13, 12, 34, 56, tzinfo=UTC)
    read = instants(pa.array([moment.strftime(form)], pa.string()), Reading(format=form))[0].as_py()
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
