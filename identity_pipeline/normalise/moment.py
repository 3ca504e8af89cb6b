"""Moments: texts as instants in UTC.

ISO 8601 (without a zone: UTC), and digits since the epoch, in seconds if there are 10, in
milliseconds if 13. Whatever else stands there is null: ``01/02/2026`` has two meanings.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from identity_pipeline.core.cursor import INSTANT, instants
from identity_pipeline.normalise.cells import truth

_UTC = r"^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}(?:\.\d{1,6})?Z?$"
_EPOCH = r"^(?:\d{10}|\d{13})$"
_FIRST = pa.scalar(-62_135_596_800_000_000, pa.timestamp("us")).cast(INSTANT)  # year 1 to 9999: what PostgreSQL and Python share
_LAST = pa.scalar(253_402_300_799_999_999, pa.timestamp("us")).cast(INSTANT)


def moments(column: pa.Array) -> pa.Array:
    """A column of texts as ``timestamp[us, UTC]``; null where a text is not certainly a moment."""
    iso = truth(pc.match_substring_regex(column, _UTC))
    present = truth(column.is_valid())
    if (iso == present).all():
        try:
            return _within(pc.cast(pc.cast(pc.utf8_rtrim(column, "Z"), pa.timestamp("us")), INSTANT))
        except pa.ArrowInvalid:
            return _within(instants(column))  # a day that does not exist
    texts = pc.utf8_trim_whitespace(column)
    counted = truth(pc.match_substring_regex(texts, _EPOCH))
    read = instants(texts if not counted.any() else pc.if_else(pa.array(counted), pa.scalar(None, pa.string()), texts))
    if counted.any():
        numbers = pc.cast(texts.filter(pa.array(counted)), pa.int64())
        micros = pc.multiply(
            numbers, pa.array(np.where(pc.binary_length(texts.filter(pa.array(counted))).to_numpy() == 10, 1_000_000, 1_000))
        )
        read = pc.replace_with_mask(read, pa.array(counted), pc.cast(micros, INSTANT))
    return _within(read)


def _within(read: pa.Array) -> pa.Array:
    ends = pc.min_max(read)
    if not ends["min"].is_valid or (ends["min"].value >= _FIRST.value and ends["max"].value <= _LAST.value):
        return read
    inside = pc.and_(pc.greater_equal(read, _FIRST), pc.less_equal(read, _LAST))
    return pc.if_else(inside, read, pa.scalar(None, INSTANT))
