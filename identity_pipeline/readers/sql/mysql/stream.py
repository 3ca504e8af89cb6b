"""The stream: one ``SELECT`` as batches of text, each value in canonical form.

One statement is one snapshot of InnoDB, and its rows are taken off the wire as they come: neither side holds them
all. MySQL's text protocol binds no values, so a bound is written as digits or as hexadecimal bytes, in
which nothing can end a literal.
"""

import base64
from collections.abc import Iterator
from itertools import pairwise

import pyarrow as pa
import pyarrow.compute as pc

from identity_pipeline.core.errors import ContractBroken
from identity_pipeline.core.window import Window
from identity_pipeline.readers.sql.catalog import Column, Table
from identity_pipeline.readers.sql.cursor import CursorKind, FollowedColumn
from identity_pipeline.readers.sql.mysql.catalog import literal
from identity_pipeline.readers.sql.mysql.names import DIALECT
from identity_pipeline.readers.sql.mysql.wire import Connection
from identity_pipeline.readers.sql.shards import Piece

BATCH_ROWS = 20_000
BATCH_BYTES = 16 * 2**20
PIECE = 100_000
"""Rows that are one piece of a table."""
PIECES = 8
"""A table of fewer pieces is read over one connection."""
MOST_PIECES = 64

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


# The first column of a table's primary key, by which InnoDB stores its rows.
_KEY = """
    SELECT t.engine AS engine, t.table_rows AS estimate, s.column_name AS name, c.data_type AS kind
    FROM information_schema.tables t
    JOIN information_schema.statistics s USING (table_schema, table_name)
    JOIN information_schema.columns c USING (table_schema, table_name, column_name)
    WHERE table_schema = {schema} AND table_name = {name} AND s.index_name = 'PRIMARY' AND s.seq_in_index = 1
"""
_TEXT_BOUND = ("hex(convert({c} USING utf8mb4))", "_utf8mb4 X'{}'")
_BYTES_BOUND = ("hex({c})", "X'{}'")
# How a bound is asked for, and written. Only of what the server orders and compares by one and the same rule.
_BOUNDS = dict.fromkeys(("tinyint", "smallint", "mediumint", "int", "bigint"), ("{c}", "{:d}")) | {
    "char": _TEXT_BOUND, "varchar": _TEXT_BOUND, "binary": _BYTES_BOUND, "varbinary": _BYTES_BOUND,
}  # fmt: skip


def pieces(connection: Connection, table: Table) -> tuple[str, list[Piece]]:
    """The first column of a large table's key, and its ranges; none of what is small, has no such key, or is not InnoDB's.

    The bounds are those that the index has: every so many rows, whatever the values are.
    """
    schema, name = map(literal, table.name)
    found = connection.ask(_KEY.format(schema=schema, name=name))
    if not found or found[0]["engine"] != "InnoDB" or found[0]["kind"] not in _BOUNDS or found[0]["estimate"] < PIECE * PIECES:
        return "", []
    [key] = found
    column, step, bounds = DIALECT.quoted([key["name"]]), max(PIECE, key["estimate"] // MOST_PIECES), list[str | None]([None])
    asked, written = _BOUNDS[key["kind"]]
    while True:
        rest = f" WHERE {column} > {bounds[-1]}" if bounds[-1] else ""
        query = f"SELECT {asked.format(c=column)} AS bound FROM {table}{rest} ORDER BY {column} LIMIT 1 OFFSET {step:d}"
        if not (row := connection.ask(query)):
            return column, list(pairwise([*bounds, None]))
        bounds.append(written.format(row[0]["bound"]))


def maximum(connection: Connection, table: Table, followed: FollowedColumn) -> str | None:
    """The largest value of an ``int`` or ``text`` column."""
    column = _PLACES[followed.kind].format(c=DIALECT.quoted([followed.name]))
    largest = f"convert(max({column}) USING utf8mb4)" if followed.kind == "text" else f"max({column})"
    found = connection.ask(f"SELECT {largest} AS maximum FROM {table}")[0]["maximum"]
    return None if found is None else str(found)


def batches(
    connection: Connection,
    table: Table,
    followed: FollowedColumn | None,
    window: Window,
    *,
    key: str = "",
    piece: Piece = (None, None),
) -> Iterator[pa.Table]:
    """The rows of ``table`` from the window's lower bound on, and unplaced ones, in no order; of all, those of a range of ``key``."""
    context = window.context
    context.requests += 1
    for values, size in connection.frames(
        select(table, followed, window) + _within(key, *piece), len(table.columns), BATCH_ROWS, BATCH_BYTES
    ):
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


def _within(key: str, begin: str | None, end: str | None) -> str:
    bounds = [f"{key} {how} {bound}" for how, bound in ((">=", begin), ("<", end)) if bound is not None]
    return f" WHERE {' AND '.join(bounds)}" if bounds else ""


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
