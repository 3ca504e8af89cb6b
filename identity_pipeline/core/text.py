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
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from identity_pipeline.core.errors import ContractBroken

TEXT = pd.ArrowDtype(pa.string())
"""The one column type of a batch."""

SANITISED = "@identity.sanitised"
"""Field of ``raw`` that lists the fields whose NULs or lone surrogates were escaped."""

MAX_DEPTH = 100
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class _Number(str):
    """Digits of a JSON number, kept as written: no rounding, no 4,300-digit limit."""

    __slots__ = ()


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


def to_json(value: Any) -> str:
    """JSON text of a list or object, numbers as they were written, deterministic."""
    if isinstance(value, _Number):
        return str(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{json.dumps(str(k), ensure_ascii=False)}:{to_json(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(to_json, value)) + "]"
    if value is None or isinstance(value, bool | int | str):
        return json.dumps(value, ensure_ascii=False)
    return json.dumps(to_text(value), ensure_ascii=False)


def to_text(value: Any) -> str | None:  # noqa: C901, PLR0911 - one return for each type of value
    """Canonical text of one value; None for null, NaN and NaT."""
    if value is None or value is pd.NA or value is pd.NaT:
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


def flatten(record: Mapping[str, Any], prefix: str = "", depth: int = 0) -> dict[str, str | None]:
    """One JSON object as field → text: ``{"a": {"b": 1}}`` gives ``{"a.b": "1"}``."""
    if depth > MAX_DEPTH:
        raise ContractBroken(f"a record is nested deeper than {MAX_DEPTH} levels")
    flat: dict[str, str | None] = {}
    for key, value in record.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{name}.", depth + 1))
        else:
            flat[name] = to_text(value)
    return flat


def frame(records: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """A batch of JSON objects as a frame of text, nested objects flattened."""
    flat = [flatten(record) for record in records]
    names = list(dict.fromkeys(name for record in flat for name in record))
    return cast_all_utf8(
        pd.DataFrame({name: pd.Series([r.get(name) for r in flat], dtype=object) for name in names}, index=range(len(flat)))
    )


def _column(values: pd.Series) -> tuple[pa.Array, list[bool] | None]:
    """One column as Arrow text, and which rows had to be escaped (None: no row)."""
    if values.dtype != TEXT:
        texts = [to_text(v) for v in values.tolist()]
        try:
            array = pa.array(texts, pa.string())
        except UnicodeEncodeError:
            return pa.array([None if t is None else escape(t) for t in texts], pa.string()), [
                bool(t and _UNSTORABLE.search(t)) for t in texts
            ]
    else:
        array = pa.array(values.array, pa.string())
    has_nul = pc.match_substring(array, "\x00")
    if not pc.any(has_nul).as_py():
        return array, None
    return pc.replace_substring(array, "\x00", "\\u0000"), pc.fill_null(has_nul, False).to_pylist()


def cast_all_utf8(batch: pd.DataFrame) -> pd.DataFrame:
    """``batch`` with every column as Arrow-backed text in canonical form.

    Shape: the same rows; the same columns, except that columns of nested objects are flattened
    and :data:`SANITISED` is added where a value had to be escaped. Names are escaped likewise.
    """
    nested = [name for name in batch.columns if batch[name].dtype == object and any(isinstance(v, Mapping) and v for v in batch[name])]
    if nested:
        return frame(batch.to_dict("records"))
    columns: dict[str, pa.Array] = {}
    escaped: dict[str, list[bool]] = {}
    for position, name in enumerate(batch.columns):
        key = escape(str(name))
        columns[key], marks = _column(batch.iloc[:, position])
        if marks:
            escaped[key] = marks
    if escaped:
        columns[SANITISED] = pa.array([",".join(n for n, m in escaped.items() if m[i]) or None for i in range(len(batch))], pa.string())
    return from_table(pa.table(columns) if columns else pa.table({}), len(batch))


def from_table(table: pa.Table, rows: int | None = None) -> pd.DataFrame:
    """A frame over an all-text Arrow table, without copying."""
    return pd.DataFrame(
        {name: pd.Series(pd.arrays.ArrowExtensionArray(table.column(name)), dtype=TEXT) for name in table.column_names},
        index=range(table.num_rows if rows is None else rows),
    )


def to_table(batch: pd.DataFrame) -> pa.Table:
    """The Arrow table under a frame of text, without copying."""
    return pa.table({str(name): pa.chunked_array(pa.array(batch[name].array, pa.string())) for name in batch.columns})
