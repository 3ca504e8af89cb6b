"""The stream: one ``COPY (SELECT …) TO STDOUT`` as batches of text, each value in canonical form.

One statement is one snapshot, and COPY is the fastest way out of PostgreSQL that costs the client
no Python object for each value. COPY binds no parameters, so the bound is handed over as a setting
of the transaction, by a statement that does: no value ever becomes part of a statement's text.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import LiteralString

import pyarrow as pa
import pyarrow.compute as pc
from psycopg import sql
from pyarrow import csv

from identity_pipeline.core.errors import ContractBroken
from identity_pipeline.core.window import ReadContext, Window
from identity_pipeline.readers.sql.catalog import Column, Table
from identity_pipeline.readers.sql.cursor import CursorKind, FollowedColumn
from identity_pipeline.readers.sql.postgres import commits
from identity_pipeline.readers.sql.postgres.session import Connection
from identity_pipeline.readers.sql.shards import Piece

BATCH_ROWS = 10_000
BATCH_BYTES = 16 * 2**20
PIECE = 16 * 2**20
"""Bytes of a table that are one piece of it: less than a second."""
PIECES = 8
"""A table of fewer pieces is read over one connection."""

_FORMS: dict[str, LiteralString] = {
    "bytea": "translate(encode({c}, 'base64'), chr(10), '')",
    "array": "to_json({c})::text",
    "composite": "to_json({c})::text",
}
_LOWER: LiteralString = "current_setting('identity.lower')"
_LOCAL: LiteralString = f"({_LOWER}::timestamptz AT TIME ZONE current_setting('identity.timezone'))"
_BOUNDS: dict[CursorKind, tuple[LiteralString, LiteralString]] = {
    "int": ("{c}", f"{_LOWER}::{{number}}"),
    "instant": ("{c}", f"{_LOWER}::timestamptz"),
    "local": ("{c}", _LOCAL),
    "date": ("{c}", f"{_LOCAL}::date"),
    "text": ('{c}::text COLLATE "C"', f'{_LOWER} COLLATE "C"'),
}
# No mark ever reaches what has no place in the order: it is asked for each time, or a change to it would never be seen.
_UNPLACED: dict[CursorKind, LiteralString] = {
    "int": "{c} IS NULL",
    "instant": "{c} IS NULL OR {c} < '0001-01-01 00:00:00+00'",
    "local": "{c} IS NULL OR {c} < '0001-01-01 00:00:00'",
    "date": "{c} IS NULL OR {c} < '0001-01-01'",
    "text": "{c} IS NULL",
}
_MAXIMA: dict[str, LiteralString] = {"numeric": "max(nullif({c}, 'NaN'))::text", "text": 'max({c}::text COLLATE "C")'}
_HEAD = b"-\n"  # pyarrow takes a byte order mark off the beginning: let it be of a line that is skipped


def maximum(connection: Connection, table: Table, followed: FollowedColumn) -> str | None:
    """The largest value of an ``int`` or ``text`` column."""
    form = _MAXIMA.get("text" if followed.kind == "text" else followed.base_type, "max({c})::text")
    query = sql.SQL("SELECT {} AS maximum FROM {}").format(
        sql.SQL(form).format(c=sql.Identifier(followed.name)), sql.Identifier(*table.name)
    )
    return (connection.execute(query).fetchone() or {})["maximum"]


def pieces(connection: Connection, table: Table) -> list[Piece]:
    """A large table as ranges of pages, in which each row of a snapshot has one place; none of what is small or no heap.

    Pages that are added meanwhile belong to the last one.
    """
    stored = commits.stored(connection, table)
    step = max(PIECE // stored["page"], 1)
    bounds = [None, *range(step, stored["largest"] // stored["page"], step), None]
    heap = stored["versioned"] and stored["readable"]
    return list(pairwise(bounds)) if heap and len(bounds) > PIECES else []


def exported(connection: Connection) -> str:
    """A snapshot that other transactions can share until this one ends."""
    found = connection.execute("SELECT pg_export_snapshot() AS it, set_config('idle_in_transaction_session_timeout', '0', true)").fetchone()
    return (found or {})["it"]


def batches(
    connection: Connection,
    table: Table,
    followed: FollowedColumn | None,
    window: Window,
    since: str | None = None,
    *,
    piece: Piece = (None, None),
) -> Iterator[pa.Table]:
    """The rows of ``table`` from the window's lower bound on, unplaced ones and those committed ``since``, in no order."""
    statement = _select(table, followed, window, late=since is not None) + _within(*piece)
    if followed is not None and window.lower is not None:
        connection.execute(
            "SELECT set_config('identity.lower', %s, true), set_config('identity.timezone', %s, true), "
            "set_config('identity.since', %s, true)",
            (_bound(followed, window.lower), followed.timezone, since or ""),
        )
    buffer, rows = bytearray(_HEAD), 0
    with connection.cursor() as server, server.copy(sql.SQL("COPY ({}) TO STDOUT (FORMAT csv)").format(statement)) as copy:
        window.context.requests += 1
        while row := copy.read():
            buffer += row
            rows += 1
            if rows == BATCH_ROWS or len(buffer) >= BATCH_BYTES:
                yield _batch(buffer, table.columns, window.context)
                buffer, rows = bytearray(_HEAD), 0
    if rows:
        yield _batch(buffer, table.columns, window.context)


def _select(table: Table, followed: FollowedColumn | None, window: Window, *, late: bool = False) -> sql.Composed:
    query = sql.SQL("SELECT {} FROM {}").format(sql.SQL(", ").join(map(_text, table.columns)), sql.Identifier(*table.name))
    if followed is not None and window.lower is not None:
        query += sql.SQL(" WHERE ") + _condition(followed, late=late)
    if window.limit is not None:
        query += sql.SQL(" LIMIT {}").format(window.limit)
    return query


def _within(begin: int | None, end: int | None) -> sql.Composable:
    how: tuple[tuple[LiteralString, int | None], ...] = (("ctid >= {}::tid", begin), ("ctid < {}::tid", end))
    bounds = [sql.SQL(text).format(f"({page:d},0)") for text, page in how if page is not None]
    return sql.SQL(" WHERE ") + sql.SQL(" AND ").join(bounds) if bounds else sql.SQL("")


def _condition(followed: FollowedColumn, *, late: bool) -> sql.Composed:
    column, lower = _BOUNDS[followed.kind]
    if late:  # a scan reads the bound once, not for each row; for an index the planner has to know it
        lower = f"(SELECT {lower})"
    condition = f"{column} >= {lower} OR {_UNPLACED[followed.kind]}"
    number = sql.SQL("numeric" if followed.base_type == "numeric" else "int8")
    made = sql.SQL(condition).format(c=sql.Identifier(followed.name), number=number)
    return made + sql.SQL(" OR ") + sql.SQL(commits.committed_since()) if late else made


def _text(column: Column) -> sql.Composed:
    """The column as text in canonical form."""
    return sql.SQL(_FORMS.get(column.base_type, "{c}::text")).format(c=sql.Identifier(column.name))


def _bound(followed: FollowedColumn, lower: str) -> str:
    if followed.kind == "int" and followed.base_type != "numeric":
        return str(max(min(int(lower), 2**63 - 1), -(2**63)))
    return lower


def _batch(buffer: bytearray, columns: Sequence[Column], context: ReadContext) -> pa.Table:
    """The rows of ``buffer`` as text. In COPY's CSV an empty text is quoted, null is not."""
    names = [column.name for column in columns]
    try:
        table = csv.read_csv(
            pa.BufferReader(pa.py_buffer(buffer)),
            read_options=csv.ReadOptions(column_names=names, skip_rows=1, block_size=len(buffer) + 1),
            parse_options=csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
            convert_options=csv.ConvertOptions(
                column_types={name: pa.string() for name in names},
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid:
        raise ContractBroken("COPY returned rows that are not CSV in UTF-8: is the database's encoding SQL_ASCII?") from None
    context.pages += 1
    context.bytes_read += len(buffer) - len(_HEAD)
    for at, column in enumerate(columns):
        if column.base_type in {"timestamptz", "timestamp"}:
            table = table.set_column(at, column.name, _iso(table.column(at)))
    return table


def _iso(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Timestamps as the session writes them, in UTC, in ISO 8601: here it costs a tenth of what ``to_char`` costs the server.

    Years before 1 and infinity have no such form: they stay as they are.
    """
    made = pc.replace_substring(pc.replace_substring(texts, " ", "T", max_replacements=1), "+00", "Z")
    before = pc.ends_with(texts, " BC")
    return pc.if_else(before, texts, made) if pc.any(before).as_py() else made
