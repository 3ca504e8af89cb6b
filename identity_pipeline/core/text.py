r"""Every value as text: one canonical form, the same whichever way a value reached us.

``null`` stays null. Numbers keep the source's digits, booleans are ``true`` and ``false``, instants
are ISO 8601 in UTC, nested objects become dotted names, lists become JSON text. NUL and lone
surrogates, which PostgreSQL cannot store, become the visible escapes ``\u0000`` and ``\ud800``;
such a record names its changed fields under :data:`SANITISED`.
"""

import base64
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, date, datetime, time
from decimal import Decimal
from itertools import chain
from json.encoder import encode_basestring
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

import identity_pipeline.core.arrow  # noqa: F401 - before the first array is made
from identity_pipeline.core.errors import ContractBroken
from identity_pipeline.core.fieldmap import REJECTED

if TYPE_CHECKING:
    import pandas as pd

Batch: TypeAlias = "pd.DataFrame | pa.Table"
"""What a connector may yield: a pandas frame or an Arrow table. Behind the read there are only tables of text."""
_Column = tuple[pa.Array | pa.ChunkedArray, list[bool] | None]
"""One column as Arrow text, and which rows had to be escaped (None: no row)."""

SANITISED = "@identity.sanitised"
"""Field of ``raw`` that lists the fields whose NULs or lone surrogates were escaped."""

MAX_DEPTH = 100
_PANDAS_NULLS = frozenset({"NAType", "NaTType"})
"""Named, so that reading a value does not import pandas."""
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_NUL = re.compile(b"\0")


class _Number(str):
    """Digits of a JSON number, kept as written: no rounding, no 4,300-digit limit."""

    __slots__ = ()


_TEXTS = frozenset({str, _Number, type(None)})
"""Types whose values Arrow takes as text the way they are."""
_FLAT = _TEXTS | {bool, int, float}
_PLAIN = _FLAT | {list, dict}
"""What a parsed page holds. An object that is left there has no fields."""
_NONE, _NO_FIELDS = type(None), {}
_SPREAD_DEPTH = 20
_Values = tuple[Sequence[Any], AbstractSet[type] | None]
"""Values of one column and their types, None where nobody has looked."""


def parse_json(body: bytes | str) -> Any:
    """Parse JSON with every number as the text that stood there.

    Raises:
        ContractBroken: not JSON, or nested deeper than Python can follow.
    """
    try:
        return json.loads(body, parse_float=_Number, parse_int=_Number, parse_constant=_Number)
    except (ValueError, RecursionError) as error:
        raise ContractBroken(f"the answer is not JSON ({type(error).__name__})") from None


def escape(text: str) -> str:
    r"""``text`` with NUL and lone surrogates as visible ``\uXXXX``."""
    return _UNSTORABLE.sub(lambda m: f"\\u{ord(m[0]):04x}", text)


def to_json(value: Any) -> str:  # noqa: PLR0911 - one return for each type of value
    """JSON text of a list or object, numbers as they were written, deterministic."""
    kind = type(value)  # what a parsed page holds; asking an abstract class costs more than the text
    if kind is str:
        return encode_basestring(value)
    if kind is dict:
        return "{" + ",".join([f"{encode_basestring(str(k))}:{to_json(v)}" for k, v in value.items()]) + "}"
    if kind is list:
        return "[" + ",".join([to_json(v) for v in value]) + "]"
    if isinstance(value, _Number):
        return str(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{json.dumps(str(k), ensure_ascii=False)}:{to_json(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(to_json, value)) + "]"
    if value is None or isinstance(value, bool | int | str):
        return json.dumps(value, ensure_ascii=False)
    return json.dumps(to_text(value), ensure_ascii=False)


def to_text(value: Any) -> str | None:  # noqa: C901, PLR0911, PLR0912 - one return for each type of value
    """Canonical text of one value; None for null, NaN and NaT."""
    if value is None or type(value) is str:  # nearly all of a page
        return value
    if type(value).__name__ in _PANDAS_NULLS:
        return None
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    if isinstance(value, Decimal):
        return format(value, "f") if value.is_finite() else str(value)
    if isinstance(value, datetime):
        if value.tzinfo is not None:
            return value.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"
        return value.isoformat()
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(bytes(value)).decode()
    if isinstance(value, Mapping | list | tuple):
        return to_json(value)
    if hasattr(value, "item"):  # a numpy scalar
        return to_text(value.item())
    return str(value)


_WAYS: dict[type, Callable[[Any], str | None]] = {
    bool: {True: "true", False: "false"}.__getitem__, int: str, list: to_json, dict: to_json
}  # fmt: skip
"""What :func:`to_text` does with what a page has most of, without asking for every other type first."""


def flatten(record: Mapping[str, Any], prefix: str = "", depth: int = 0) -> dict[str, str | None]:
    """One JSON object as field → text: ``{"a": {"b": 1}}`` gives ``{"a.b": "1"}``."""
    if depth > MAX_DEPTH:
        raise ContractBroken(f"a record is nested deeper than {MAX_DEPTH} levels")
    flat: dict[str, str | None] = {}
    for key, value in record.items():
        name, kind = f"{prefix}{key}", type(value)
        if value is None or kind is str or kind is _Number:
            flat[name] = value
        elif kind is bool:
            flat[name] = "true" if value else "false"
        elif kind is list:
            flat[name] = to_json(value)
        elif (kind is dict or isinstance(value, Mapping)) and value:
            flat.update(flatten(value, f"{name}.", depth + 1))
        else:
            flat[name] = to_text(value)
    return flat


def table_of(records: Iterable[Mapping[str, Any]]) -> pa.Table:
    """A batch of JSON objects as a table of text, nested objects flattened.

    An object that is nested too deep is rejected alone: it keeps its texts and says why under :data:`REJECTED`.
    """
    rows = list(records)
    columns: dict[str, _Values] = {}
    try:
        if _spread(rows, "", columns, 0):
            return _table({name: _array(*values) for name, values in columns.items()}, len(rows))
    except RecursionError:  # lists within lists
        pass
    return _table({name: _array(values) for name, values in _by_column([_flattened(row) for row in rows]).items()}, len(rows))


def _spread(rows: list[Any], prefix: str, into: dict[str, _Values], depth: int) -> bool:
    """Put the fields of ``rows`` into columns, nested objects under dotted names. False if it takes a look at each row.

    That is so for names that are no texts or that meet (``a.b`` beside an object ``a``), for objects of
    another type than JSON's, and where it goes deep.
    """
    if depth > _SPREAD_DEPTH:
        return False
    for name, values in _by_column(rows).items():
        if type(name) is not str:
            return False
        kinds, dotted = set(map(type, values)), f"{prefix}{name}"
        if dict in kinds:
            objects = [value if type(value) is dict and value else _NO_FIELDS for value in values]
            values = [None if type(value) is dict and value else value for value in values]  # noqa: PLW2901 - what is no object
            if not _spread(objects, f"{dotted}.", into, depth + 1):
                return False
            kinds = set(map(type, values))
            if kinds == {_NONE} and not any(row.get(name, True) is None for row in rows):
                continue
        if not kinds <= _PLAIN or dotted in into:
            return False
        into[dotted] = values, kinds
    return True


def _flattened(record: Mapping[str, Any]) -> dict[str, str | None]:
    try:
        return flatten(record)
    except (ContractBroken, RecursionError):
        kept = {str(name): to_text(value) for name, value in record.items() if type(value) in _FLAT}
        return kept | {REJECTED: f"malformed: nested deeper than {MAX_DEPTH} levels"}


def _by_column(rows: list[Any]) -> Mapping[Any, Sequence[Any]]:
    names = list(dict.fromkeys(chain.from_iterable(rows)))
    if len(names) > 1 and all(map(len(names).__eq__, map(len, rows))):  # all rows have all names
        return dict(zip(names, zip(*map(itemgetter(*names), rows), strict=True), strict=True))
    return {name: [row.get(name) for row in rows] for name in names}


def cast_all_utf8(batch: Batch) -> pa.Table:
    """``batch``, a frame or an Arrow table, as a table in which every column is text in canonical form.

    Shape: the same rows; the same columns, except that columns of nested objects are flattened
    and :data:`SANITISED` is added where a value had to be escaped. Names are escaped likewise. A
    column that is text already costs a search for NUL and no copy.
    """
    if isinstance(batch, pa.Table):
        if any(pa.types.is_nested(each.type) for each in batch.schema):
            return table_of(batch.to_pylist())
        return _table({name: _text(batch.column(name)) for name in batch.column_names}, batch.num_rows)
    if any(batch[name].dtype == object and any(isinstance(v, Mapping) and v for v in batch[name]) for name in batch.columns):
        return table_of(batch.to_dict("records"))
    series = [batch.iloc[:, position] for position in range(batch.shape[1])]
    columns = [_text(pa.array(s.array)) if hasattr(s.array, "__arrow_array__") else _array(s.tolist()) for s in series]
    return _table({str(name): column for name, column in zip(batch.columns, columns, strict=True)}, len(batch))


def _text(column: pa.Array | pa.ChunkedArray) -> _Column:
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        text = pc.cast(column, pa.string())
        if not _may_hold_nul(text):
            return text, None
        has_nul = pc.match_substring(text, "\x00")
        if not pc.any(has_nul).as_py():
            return text, None
        return pc.replace_substring(text, "\x00", "\\u0000"), pc.fill_null(has_nul, False).to_pylist()
    return _array(column.to_pylist())


def _may_hold_nul(text: pa.Array | pa.ChunkedArray) -> bool:
    """False where no NUL can be: a look at the bytes, which a slice has more of than its own."""
    chunks = text.chunks if isinstance(text, pa.ChunkedArray) else [text]
    return any((data := chunk.buffers()[2]) is not None and _NUL.search(data) for chunk in chunks)


def _array(values: Sequence[Any], kinds: AbstractSet[type] | None = None) -> _Column:
    plain = _TEXTS.issuperset(map(type, values) if kinds is None else kinds)
    texts = values if plain else [v if (kind := type(v)) in _TEXTS else _WAYS.get(kind, to_text)(v) for v in values]
    try:
        return _text(pa.array(texts, pa.string()))
    except UnicodeEncodeError:
        marks = [bool(text and _UNSTORABLE.search(text)) for text in texts]
        return pa.array([text and escape(text) for text in texts], pa.string()), marks


def _table(columns: Mapping[str, _Column], rows: int) -> pa.Table:
    """The columns as a table, with a note of the fields in which something was escaped."""
    made = {escape(name): column for name, (column, _) in columns.items()}
    escaped = {escape(name): marks for name, (_, marks) in columns.items() if marks}
    if escaped:
        notes = [",".join(name for name, marks in escaped.items() if marks[row]) or None for row in range(rows)]
        made[SANITISED] = pa.array(notes, pa.string())
    return pa.table(made)
