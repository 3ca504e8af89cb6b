"""Cells: a source's columns, what a single cell may hold, and the values of a record put together.

Columns are worked on as a whole. What needs Python goes through it once for each different text.
"""

import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from identity_pipeline.core.errors import ContractBroken
from identity_pipeline.core.text import parse_json

VERDICTS = ("missing", "valid", "invalid", "placeholder", "role")
MISSING, VALID, INVALID, PLACEHOLDER, ROLE = range(5)

JOINERS = "\u200c\u200d"
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f\x80-\x84\x86-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b\u200e\u200f"
    "\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""Control, zero-width, bidi, filler, variation and tag characters. The two joiners are apart: they tell domains from each other."""

_KEYS_OF_VALUE = ("value", "address", "email", "number", "phone", "canonicalForm", "id")
_KEYS_OF_TEXT = ("name", "value", "label", "text")
_LINK = re.compile(r"rec(?=[a-z]*[A-Z0-9])[A-Za-z0-9]{14}")
"""Airtable's id of a record that a cell links to: nobody's name."""

Judged = tuple[str | None, int]
"""A value (null unless valid) and its verdict."""

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")


def words(text: str) -> frozenset[str]:
    """The words of a list that is written as prose."""
    return frozenset(text.split())


def visible(text: str) -> str:
    """``text`` without characters that show nothing and order nothing."""
    return _INVISIBLE.sub("", text)


def columns(records: pa.Table, fields: Iterable[str]) -> list[pa.Array]:
    """The source columns that a canonical field is fed from, in the map's order; absent ones left out."""
    found = (records.schema.get_all_field_indices(name)[:1] for name in dict.fromkeys(fields))
    return [_whole(records.column(index[0])) for index in found if index]


def _whole(column: pa.ChunkedArray) -> pa.Array:
    if column.type != pa.string():
        column = column.cast(pa.string())
    return (
        column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], pa.string())
    )


def trimmed(column: pa.Array) -> pa.Array:
    """A column without white space around its texts; blank becomes null. For what must stay as it was written: ids."""
    texts = pc.utf8_trim_whitespace(column)
    return pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)


def first_filled(candidates: Sequence[pa.Array], rows: int, type: pa.DataType) -> pa.Array:  # noqa: A002 - Arrow's word
    """For each row the first candidate that is not null."""
    if not candidates:
        return pa.nulls(rows, type)
    return candidates[0] if len(candidates) == 1 else pc.coalesce(*candidates)


def once_each(keys: Iterable[_K], read: Callable[[_K], _V]) -> list[_V]:
    """``read`` of every key, called once for each different key."""
    memo: dict[_K, _V] = {}
    results = []
    for key in keys:
        if key not in memo:
            memo[key] = read(key)
        results.append(memo[key])
    return results


def first_listed(column: pa.Array, *, texts: bool = True) -> pa.Array:
    """A column in which a cell that holds a JSON list has become its first value; null where it has none.

    For what a record has one of. Without ``texts`` the values are ids, which a link may be.
    """
    lists = truth(pc.and_(pc.starts_with(column, "["), pc.ends_with(column, "]")))
    if not lists.any():
        return column

    def first(cell: str) -> str | None:
        items = listed(cell, _KEYS_OF_TEXT if texts else _KEYS_OF_VALUE)
        return cell if items is None else next((item for item in items if item.strip() and not (texts and _LINK.fullmatch(item))), None)

    mask = pa.array(lists)
    return pc.replace_with_mask(column, mask, pa.array(once_each(column.filter(mask).to_pylist(), first), pa.string()))


def listed(text: str, keys: Sequence[str] = _KEYS_OF_VALUE) -> list[str] | None:
    """The texts in a JSON list, None if ``text`` is not one.

    A list of objects (``[{"value": …, "primary": true}]``) gives of each object what it has under the first of
    ``keys``, those marked primary first.
    """
    if not (text.startswith("[") and text.endswith("]")):
        return None
    try:
        items = parse_json(text)
    except ContractBroken:
        return None
    found: list[tuple[bool, str]] = []
    for item in items:
        value = next((item[k] for k in keys if isinstance(item.get(k), str)), None) if isinstance(item, dict) else item
        if isinstance(value, str):
            found.append((not _primary(item), str(value)))
    return [value for _, value in sorted(found, key=lambda pair: pair[0])]


def _primary(item: Any) -> bool:
    if not isinstance(item, dict):
        return False
    metadata = item.get("metadata")
    return item.get("primary") is True or (isinstance(metadata, dict) and metadata.get("primary") is True)


@dataclass
class Found:
    """The judged values of one field: which row each belongs to, its text or null, its verdict."""

    rows: npt.NDArray[np.int64]
    values: pa.Array
    verdicts: npt.NDArray[np.int8]


def found_of(rows: npt.NDArray[np.int64], judged: Sequence[Sequence[Judged]]) -> Found:
    """What Python read of the cells at ``rows``: each holds none, one or several values."""
    return Found(
        np.repeat(rows, [len(cell) for cell in judged]),
        pa.array([value for cell in judged for value, _ in cell], pa.string()),
        np.fromiter((verdict for cell in judged for _, verdict in cell), np.int8),
    )


def joined(*parts: Found) -> Found:
    """Several findings as one, ordered by row; within a row in the order of ``parts``."""
    rows = np.concatenate([part.rows for part in parts])
    values = pa.concat_arrays([part.values for part in parts])
    verdicts = np.concatenate([part.verdicts for part in parts])
    if np.any(rows[1:] < rows[:-1]):
        order = np.argsort(rows, kind="stable")
        rows, values, verdicts = rows[order], values.take(pa.array(order)), verdicts[order]
    return Found(rows, values, verdicts)


def by_row(rows: int, found: Sequence[Found]) -> tuple[pa.Array, pa.Array, pa.Array]:
    """Primary value, verdict and all valid values of each row, in the order of ``found``.

    The primary is the first valid value. Without one, the verdict is that of the first value.
    """
    if not found:
        nothing = pa.nulls(rows, pa.string())
        return (
            nothing,
            pa.repeat(VERDICTS[MISSING], rows),
            pa.ListArray.from_arrays(np.zeros(rows + 1, np.int32), pa.array([], pa.string())),
        )
    together = joined(*found)
    where, values, verdicts = together.rows, together.values, together.verdicts
    verdict = np.full(rows, MISSING, np.int8)
    verdict[where[::-1]] = verdicts[::-1]  # the first of a row is written last
    valid = verdicts == VALID
    if not valid.all():
        where, values = where[valid], values.filter(pa.array(valid))
    verdict[where] = VALID
    if np.any(where[1:] == where[:-1]):
        codes = values.dictionary_encode()
        _, kept = np.unique(where * max(1, len(codes.dictionary)) + codes.indices.to_numpy(), return_index=True)
        kept.sort()
        where, values = where[kept], values.take(pa.array(kept))
    offsets = np.zeros(rows + 1, np.int32)
    np.cumsum(np.bincount(where, minlength=rows), out=offsets[1:])
    first = pa.array(offsets[:-1], mask=offsets[1:] == offsets[:-1])
    return values.take(first), pa.array(VERDICTS, pa.string()).take(pa.array(verdict)), pa.ListArray.from_arrays(pa.array(offsets), values)


def truth(mask: pa.Array) -> npt.NDArray[np.bool_]:
    """A boolean column as numpy, null as false."""
    return pc.fill_null(mask, False).to_numpy(zero_copy_only=False)
