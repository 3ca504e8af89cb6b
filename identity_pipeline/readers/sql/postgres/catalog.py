"""PostgreSQL's names, and what its catalog says of a table."""

import re
from collections.abc import Iterator
from typing import Any

from identity_pipeline.core.errors import PermissionDenied
from identity_pipeline.readers.sql.catalog import Column, Table
from identity_pipeline.readers.sql.cursor import CursorKind
from identity_pipeline.readers.sql.identifier import Dialect
from identity_pipeline.readers.sql.postgres.session import Connection

_ASCII_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}

DIALECT = Dialect(
    parts=("schema", "table"),
    default=("public",),
    quote='"',
    unquoted=re.compile(r"[^\W\d][\w$\u0300-\u036f\u3099\u309a]*"),  # with the accents of decomposed letters, kana included
    fold=lambda text: text.translate(_ASCII_LOWER),  # in UTF-8 the server folds no other letters
    max_length=63,
    denied=re.compile(r"(?i)^(pg_|information_schema$)"),
)

_TABLE = """
    SELECT c.oid, c.reltuples::float8 AS estimate, n.nspname AS schema, c.relname AS name,
           has_schema_privilege(n.oid, 'USAGE') AS usable, row_security_active(c.oid) AS rows_hidden,
           has_table_privilege(c.oid, 'INSERT') OR has_table_privilege(c.oid, 'UPDATE')
               OR has_table_privilege(c.oid, 'DELETE') AS writable
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = %s AND c.relname = %s AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
"""
_NEIGHBOURS = """
    SELECT n.nspname AS schema, c.relname AS name
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
        AND has_schema_privilege(n.oid, 'USAGE') AND has_any_column_privilege(c.oid, 'SELECT')
    ORDER BY n.nspname = %s DESC, n.nspname, c.relname LIMIT 1000
"""
_COLUMNS = """
    WITH RECURSIVE base(number, name, declared_type, type, modifier) AS (
        SELECT attnum, attname, format_type(atttypid, atttypmod), atttypid, atttypmod
        FROM pg_attribute WHERE attrelid = %(table)s AND attnum > 0 AND NOT attisdropped
        UNION ALL
        SELECT number, name, declared_type, t.typbasetype, greatest(modifier, t.typtypmod)
        FROM base JOIN pg_type t ON t.oid = base.type WHERE t.typtype = 'd'
    )
    SELECT base.name, declared_type, typcategory AS category, modifier,
           CASE WHEN typcategory = 'A' THEN 'array' WHEN typcategory = 'C' THEN 'composite'
                WHEN typnamespace = 'pg_catalog'::regnamespace THEN typname::text ELSE '' END AS base_type,
           has_column_privilege(%(table)s, number::int2, 'SELECT') AS readable,
           coalesce(number = ANY (i.indkey::int2[]), false) AS in_key
    FROM base JOIN pg_type t ON t.oid = base.type
    LEFT JOIN pg_index i ON i.indrelid = %(table)s AND i.indisprimary
    WHERE t.typtype <> 'd'
    ORDER BY number
"""
_KINDS: dict[str, CursorKind] = {
    "int2": "int", "int4": "int", "int8": "int", "timestamptz": "instant", "timestamp": "local", "date": "date",
}  # fmt: skip


def find(connection: Connection, schema: str, name: str) -> Table | None:
    """The table or view of exactly this name, with all its columns; None if there is none.

    Raises:
        PermissionDenied: its schema may not be used.
    """
    row = connection.execute(_TABLE, (schema, name)).fetchone()
    if row is None:
        return None
    columns = connection.execute(_COLUMNS, {"table": row["oid"]}).fetchall()
    table = Table(
        name=(row["schema"], row["name"]),
        columns=tuple(map(_column, columns)),
        estimate=int(row["estimate"]) if row["estimate"] >= 0 else None,
        writable=row["writable"],
        rows_hidden=row["rows_hidden"],
        dialect=DIALECT,
    )
    if not row["usable"]:
        raise PermissionDenied(f"{table}: GRANT USAGE ON SCHEMA {DIALECT.quoted([schema])} TO the user of the connection")
    return table


def neighbours(connection: Connection, schema: str) -> Iterator[tuple[str, ...]]:
    """What the user may read, that schema's first."""
    return (tuple(row.values()) for row in connection.execute(_NEIGHBOURS, (schema,)))


def _column(row: dict[str, Any]) -> Column:
    category, modifier = row.pop("category"), row.pop("modifier")
    return Column(**row, cursor_kind=_cursor_kind(row["base_type"], category, modifier))


def _cursor_kind(base_type: str, category: str, modifier: int) -> CursorKind | None:
    if base_type == "numeric":
        without_fraction = modifier >= 4 and (modifier - 4) & 0x7FF == 0
        return "int" if without_fraction else None
    return "text" if category == "S" else _KINDS.get(base_type)
