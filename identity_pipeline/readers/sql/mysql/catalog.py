"""What MySQL's catalog says of a table."""

from collections.abc import Iterator
from typing import Any

from pymysql import err

from identity_pipeline.core.errors import PermissionDenied
from identity_pipeline.readers.sql.catalog import Column, Table
from identity_pipeline.readers.sql.cursor import CursorKind
from identity_pipeline.readers.sql.mysql.names import DIALECT
from identity_pipeline.readers.sql.mysql.wire import Connection

# The server returns a column of its catalog in capitals unless it is given a name.
_TABLE = """
    SELECT table_schema AS `schema`, table_name AS name, table_rows AS estimate, @@lower_case_table_names AS folded
    FROM information_schema.tables WHERE table_schema = {schema} AND table_name = {name}
"""
_COLUMNS = """
    SELECT column_name AS name, column_type AS declared_type, data_type AS base_type, numeric_scale AS scale,
           privileges, column_key = 'PRI' AS in_key
    FROM information_schema.columns WHERE table_schema = {schema} AND table_name = {name} ORDER BY ordinal_position
"""
_NEIGHBOURS = """
    SELECT table_schema AS `schema`, table_name AS name FROM information_schema.tables
    WHERE table_schema NOT IN ('mysql', 'sys', 'performance_schema', 'information_schema')
    ORDER BY table_schema = {schema} DESC, table_schema, table_name LIMIT 1000
"""
_DENIED = (1044, 1142, 1143)
_KINDS: dict[str, CursorKind] = {
    "tinyint": "int", "smallint": "int", "mediumint": "int", "int": "int", "bigint": "int",
    "timestamp": "instant", "datetime": "local", "date": "date",
    "char": "text", "varchar": "text", "tinytext": "text", "text": "text", "mediumtext": "text", "longtext": "text",
}  # fmt: skip


def literal(text: str) -> str:
    """``text`` as a literal in which nothing can end it: MySQL's text protocol binds no values."""
    return f"_utf8mb4 X'{text.encode('utf-8', 'replace').hex()}'"


def find(connection: Connection, schema: str, name: str) -> Table | None:
    """The table or view of this name, with all its columns; None if there is none.

    Raises:
        PermissionDenied: it may not be read, if there is one: the server does not tell.
    """
    rows = connection.ask(_TABLE.format(schema=literal(schema), name=literal(name)))
    # the catalog compares without case and accents
    same = [row for row in rows if (row["schema"], row["name"]) == (schema, name)]
    same = same or [row for row in rows if row["folded"] and _folded(row["schema"], row["name"]) == _folded(schema, name)]
    if not same:
        return _hidden(connection, schema, name)
    found = same[0]
    columns = connection.ask(_COLUMNS.format(schema=literal(found["schema"]), name=literal(found["name"])))
    return Table(
        name=(found["schema"], found["name"]),
        columns=tuple(map(_column, columns)),
        estimate=found["estimate"],
        writable=any(right in row["privileges"] for row in columns for right in ("insert", "update")),
        dialect=DIALECT,
    )


def neighbours(connection: Connection, schema: str) -> Iterator[tuple[str, ...]]:
    """What the user may read, that database's first."""
    return (tuple(row.values()) for row in connection.ask(_NEIGHBOURS.format(schema=literal(schema))))


def _folded(*names: str) -> tuple[str, ...]:
    return tuple(name.lower() for name in names)


def _hidden(connection: Connection, schema: str, name: str) -> None:
    """Ask for a table that the catalog does not show: it shows only what the user may use.

    Raises:
        PermissionDenied: it may be there.
    """
    table = DIALECT.quoted((schema, name))
    try:
        connection.ask(f"SELECT 1 FROM {table} LIMIT 0")
    except err.Error as error:
        if error.args[0] in _DENIED:
            raise PermissionDenied(f"{table}: GRANT SELECT ON {table} TO the user of the connection, if there is such a table") from None


def _column(row: dict[str, Any]) -> Column:
    base_type, scale = row["base_type"].lower(), row["scale"]
    return Column(
        name=row["name"],
        declared_type=row["declared_type"],
        base_type=base_type,
        cursor_kind=("int" if scale == 0 else None) if base_type == "decimal" else _KINDS.get(base_type),
        readable="select" in row["privileges"],
        in_key=bool(row["in_key"]),
    )
