"""The stream: one ``SELECT`` as batches of text, each value in canonical form.

One statement is one snapshot of InnoDB, and its rows are taken off the wire as they come: neither side holds them
all. MySQL's text protocol binds no values, so a bound is written as digits or as hexadecimal bytes, in
which nothing can end a literal.
"""

import base64
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from identity_pipeline.core.errors import ContractBroken
from identity_pipeline.core.window import Window
from identity_pipeline.readers.sql.catalog import Column, Table
from identity_pipeline.readers.sql.cursor import CursorKind, FollowedColumn
from identity_pipeline.readers.sql.mysql.catalog import literal
from identity_pipeline.readers.sql.mysql.names import DIALECT
from identity_pipeline.readers.sql.mysql.wire import Connection

BATCH_ROWS = 50_000
BATCH_BYTES = 16 * 2**20

_FORMS = {
    "bit": "cast({c} AS unsigned)",
    "float": "{c} + 0e0",  # the server shows six digits of a float, and all of a double
}
_BINARY = frozenset(
    {
        "binary",
        "varbinary",
        "tinyblob",
        "blob",
        "mediumblob",
        "longblob",
        "vector",
        "geometry",
        "point",
        "linestring",
        "polygon",
        "multipoint",
        "multilinestring",
        "multipolygon",
        "geometrycollection",
        "geomcollection",
    }
)
# utf8mb4_bin takes blanks at the end for nothing: only bytes are all different.
_BYTES = "cast(convert({c} USING utf8mb4) AS binary)"
_PLACES: dict[CursorKind, str] = {"int": "{c}", "instant": "{c}", "local": "{c}", "date": "{c}", "text": _BYTES}
# No mark ever reaches what has no place in the order: it is asked for each time, or a change to it would never be seen.
_UNPLACED: dict[CursorKind, str] = {
    "int": "{c} IS NULL",
    "instant": "{c} IS NULL OR {c} = 0",
    "local": "{c} IS NULL OR {c} = 0",
    "date": "{c} IS NULL OR {c} = 0",
    "text": "{c} IS NULL",
}


def maximum(connection: Connection, table: Table, followed: FollowedColumn) -> str | None:
    """The largest value of an ``int`` or ``text`` column."""
    column = _PLACES[followed.kind].format(c=DIALECT.quoted([followed.name]))
    largest = f"convert(max({column}) USING utf8mb4)" if followed.kind == "text" else f"max({column})"
    found = connection.ask(f"SELECT {largest} AS maximum FROM {table}")[0]["maximum"]
    return None if found is None else str(found)


def batches(connection: Connection, table: Table, followed: FollowedColumn | None, window: Window) -> Iterator[pa.Table]:
    """The rows of ``table`` from the window's lower bound on, and unplaced ones, in no order."""
    context = window.context
    context.requests += 1
    for values, size in connection.frames(select(table, followed, window), len(table.columns), BATCH_ROWS, BATCH_BYTES):
        context.pages += 1
        context.bytes_read += size
        yield pa.table({column.name: _texts(found, column) for column, found in zip(table.columns, values, strict=True)})


def select(table: Table, followed: FollowedColumn | None, window: Window) -> str:
    """The statement for the rows that ``window`` asks for."""
    query = f"SELECT {', '.join(map(_text, table.columns))} FROM {table}"
    if followed is not None and window.lower is not None:
        column = DIALECT.quoted([followed.name])
        place, unplaced = (forms[followed.kind].format(c=column) for forms in (_PLACES, _UNPLACED))
        query += f" WHERE {place} >= {_bound(followed, window.lower)} OR {unplaced}"
    return query if window.limit is None else f"{query} LIMIT {window.limit:d}"


def _text(column: Column) -> str:
    return _FORMS.get(column.base_type, "{c}").format(c=DIALECT.quoted([column.name]))


def _bound(followed: FollowedColumn, lower: str) -> str:
    """The window's lower bound as a literal of the column's own kind."""
    if followed.kind == "text":
        return f"X'{lower.encode('utf-8', 'replace').hex()}'"
    if followed.kind == "int":
        return str(int(lower))
    return literal(followed.wall(lower))


def _texts(values: pa.Array, column: Column) -> pa.Array:
    """A column's values as text."""
    if column.base_type in _BINARY:
        return pa.array([None if value is None else base64.b64encode(value).decode() for value in values.to_pylist()], pa.string())
    try:
        texts = pc.cast(values, pa.string())
    except pa.ArrowInvalid:
        raise ContractBroken(f"column {column.name!r} of type {column.declared_type} is not text in UTF-8") from None
    if column.base_type == "float":
        return pc.cast(pc.cast(pc.cast(texts, pa.float64()), pa.float32()), pa.string())
    if column.base_type in {"timestamp", "datetime"}:  # the session is in UTC
        iso = pc.replace_substring_regex(pc.replace_substring(texts, " ", "T"), r"\.0+$", "")
        return pc.binary_join_element_wise(iso, "Z" if column.base_type == "timestamp" else "", "")
    return texts
