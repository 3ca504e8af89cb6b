"""Moments: texts as instants in UTC, as every timestamp is read (:func:`core.cursor.instants`), without a zone in the source's.

What is not certain is null: ``01/02/2026`` has two meanings. So is an instant outside the years 1 to 9999, which PostgreSQL and
Python share.
"""

import pyarrow as pa
import pyarrow.compute as pc

from identity_pipeline.core.cursor import INSTANT, Reading, instants

_FIRST = pa.scalar(-62_135_596_800_000_000, pa.timestamp("us")).cast(INSTANT)
_LAST = pa.scalar(253_402_300_799_999_999, pa.timestamp("us")).cast(INSTANT)
_ZONED = r"^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}(?:\.\d{1,6})?Z$"
_PLAIN = _ZONED.replace("Z$", "Z?$")


def moments(column: pa.Array, timezone: str = "UTC") -> pa.Array:
    """A column of texts as ``timestamp[us, UTC]``; null where a text is not certainly a moment.

    ``timezone`` is that of times without one.
    """
    written = _PLAIN if timezone == "UTC" else _ZONED
    if pc.all(pc.match_substring_regex(column, written)).as_py():  # what most sources write: Arrow reads it at once
        try:
            return _within(pc.cast(pc.cast(pc.utf8_rtrim(column, "Z"), pa.timestamp("us")), INSTANT))
        except pa.ArrowInvalid:
            pass  # a day that does not exist
    return _within(instants(column, Reading(timezone)))


def _within(read: pa.Array) -> pa.Array:
    ends = pc.min_max(read)
    if not ends["min"].is_valid or (ends["min"].value >= _FIRST.value and ends["max"].value <= _LAST.value):
        return read
    inside = pc.and_(pc.greater_equal(read, _FIRST), pc.less_equal(read, _LAST))
    return pc.if_else(inside, read, pa.scalar(None, INSTANT))
