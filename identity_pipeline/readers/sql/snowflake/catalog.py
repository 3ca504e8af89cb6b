"""What Snowflake's catalog says of a table."""

from collections.abc import Iterator
from typing import Any

from snowflake.connector import SnowflakeConnection, errors

from identity_pipeline.core.errors import PermissionDenied
from identity_pipeline.readers.sql.catalog import Column, Table
from identity_pipeline.readers.sql.cursor import CursorKind
from identity_pipeline.readers.sql.snowflake.names import DIALECT

_TABLE = "SELECT table_schema, table_name, row_count FROM {database}.information_schema.tables WHERE table_schema = ? AND table_name = ?"
_COLUMNS = """
    SELECT column_name, data_type, numeric_scale, collation_name FROM {database}.information_schema.columns
    WHERE table_schema = ? AND table_name = ? ORDER BY ordinal_position
"""
_NEIGHBOURS = """
    SELECT table_schema, table_name FROM {database}.information_schema.tables
    WHERE table_schema <> 'INFORMATION_SCHEMA' ORDER BY table_schema = ? DESC, table_schema, table_name LIMIT 1000
"""
_ABSENT = frozenset({2003, 2043})
_KINDS: dict[str, CursorKind] = {
    "TIMESTAMP_NTZ": "local", "TIMESTAMP_LTZ": "instant", "TIMESTAMP_TZ": "instant", "DATE": "date", "TEXT": "text",
}  # fmt: skip


def ask(connection: SnowflakeConnection, statement: str, *values: str) -> list[Any]:
    """Execute a statement with bound values; its rows."""
    with connection.cursor() as cursor:
        return list(cursor.execute(statement, list(values) or None).fetchall())


def find(connection: SnowflakeConnection, name: tuple[str, ...]) -> Table | None:
    """The table or view of exactly this name, with all its columns; None if there is none that the role may see."""
    database = DIALECT.quoted(name[:1])
    try:
        rows = ask(connection, _TABLE.format(database=database), *name[1:])
        if not rows:
            return None
        columns = ask(connection, _COLUMNS.format(database=database), *name[1:])
    except errors.ProgrammingError as error:
        if error.errno in _ABSENT:
            raise PermissionDenied(f"{database}: GRANT USAGE ON DATABASE {database} TO the role, if there is such a database") from None
        raise
    ask(connection, f"SELECT 1 FROM {DIALECT.quoted(name)} LIMIT 0")  # a role may see what it may not select from
    key = ask(connection, f"SHOW PRIMARY KEYS IN TABLE {DIALECT.quoted(name)}") if rows[0][2] is not None else []
    in_key = {row[4] for row in key}
    made = tuple(_column(*row, in_key=row[0] in in_key) for row in columns)
    return Table(name=name, columns=made, estimate=rows[0][2], dialect=DIALECT)


def neighbours(connection: SnowflakeConnection, name: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """What the role may read of that database, that schema's first."""
    rows = ask(connection, _NEIGHBOURS.format(database=DIALECT.quoted(name[:1])), name[1])
    return ((name[0], *row) for row in rows)


def _column(name: str, data_type: str, scale: int | None, collation: str | None, *, in_key: bool) -> Column:
    declared = f"{data_type} COLLATE '{collation}'" if collation else data_type
    kind: CursorKind | None = ("int" if scale == 0 else None) if data_type == "NUMBER" else _KINDS.get(data_type)
    return Column(name, declared, "COLLATED" if collation else data_type, kind, in_key=in_key)
