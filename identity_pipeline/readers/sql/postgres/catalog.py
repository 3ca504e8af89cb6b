"""What the server's catalog says of a table: its own spelling, columns, types, key, permissions."""

import re
from dataclasses import dataclass, replace
from typing import Any

from identity_pipeline.core.errors import ConfigurationError, PermissionDenied, SourceRejected
from identity_pipeline.readers.sql.cursor import Order
from identity_pipeline.readers.sql.identifier import Dialect, close_names
from identity_pipeline.readers.sql.postgres.session import Session

_ASCII_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}

DIALECT = Dialect(
    parts=("schema", "table"),
    default=("public",),
    quote='"',
    unquoted=re.compile(r"[^\W\d][\w$]*"),
    fold=lambda text: text.translate(_ASCII_LOWER),  # in UTF-8 the server folds no other letters
    max_bytes=63,
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
    WITH RECURSIVE base(number, name, shown, type, modifier) AS (
        SELECT attnum, attname, format_type(atttypid, atttypmod), atttypid, atttypmod
        FROM pg_attribute WHERE attrelid = %(table)s AND attnum > 0 AND NOT attisdropped
        UNION ALL
        SELECT number, name, shown, t.typbasetype, greatest(modifier, t.typtypmod)
        FROM base JOIN pg_type t ON t.oid = base.type WHERE t.typtype = 'd'
    )
    SELECT base.name, shown, typcategory AS category, modifier,
           CASE WHEN typnamespace = 'pg_catalog'::regnamespace THEN typname::text ELSE '' END AS type,
           has_column_privilege(%(table)s, number::int2, 'SELECT') AS readable,
           coalesce(number = ANY (i.indkey::int2[]), false) AS in_key
    FROM base JOIN pg_type t ON t.oid = base.type
    LEFT JOIN pg_index i ON i.indrelid = %(table)s AND i.indisprimary
    WHERE t.typtype <> 'd'
    ORDER BY number
"""
_ORDERS: dict[str, Order] = {
    "int2": "int", "int4": "int", "int8": "int", "timestamptz": "instant", "timestamp": "local", "date": "date",
}  # fmt: skip


@dataclass(frozen=True)
class Column:
    """A column: its name and type as the catalog spells them, ``type`` the built-in type under any domain."""

    name: str
    shown: str
    type: str
    category: str
    modifier: int
    readable: bool
    in_key: bool

    @property
    def order(self) -> Order | None:
        """How the column orders as a cursor, None if it is none."""
        if self.type == "numeric":
            without_fraction = self.modifier >= 4 and (self.modifier - 4) & 0x7FF == 0
            return "int" if without_fraction else None
        return "text" if self.category == "S" else _ORDERS.get(self.type)


@dataclass(frozen=True)
class Table:
    """A table or view that is there and may be read, and those of its columns that were asked for."""

    schema: str
    name: str
    columns: tuple[Column, ...]
    estimate: int | None
    writable: bool
    rows_hidden: bool

    def __str__(self) -> str:
        return DIALECT.quoted((self.schema, self.name))

    @property
    def key(self) -> tuple[str, ...]:
        """The columns of the primary key that were asked for."""
        return tuple(column.name for column in self.columns if column.in_key)

    def column(self, name: str, setting: str) -> Column:
        """The column of exactly this name.

        Raises:
            ConfigurationError: there is none; the message names ``setting``.
        """
        for column in self.columns:
            if column.name == name:
                return column
        close = close_names(name, (column.name for column in self.columns))
        raise ConfigurationError(f"{setting}: {self} has no column {name!r}; {close}")


def find(session: Session, name: str, wanted: tuple[str, ...] = ()) -> Table:
    """The table that a user named, with the columns ``wanted``, or all.

    Raises:
        ConfigurationError: the name is refused by the identifier guard, or a column is not there.
        SourceRejected: there is no such table.
        PermissionDenied: it or one of the columns may not be read.
    """
    found = _look_up(session, name)
    rows = session.execute(_COLUMNS, {"table": found.pop("oid")}).fetchall()
    usable, estimate = found.pop("usable"), found.pop("estimate")
    table = Table(
        **found,
        columns=tuple(Column(**row) for row in rows),
        estimate=int(estimate) if estimate >= 0 else None,
    )
    if not usable:
        raise PermissionDenied(f"{table}: GRANT USAGE ON SCHEMA {DIALECT.quoted([table.schema])} TO the user of the connection")
    if wanted:
        table = replace(table, columns=tuple(dict.fromkeys(table.column(name, "columns") for name in wanted)))
    if not table.columns:
        raise SourceRejected(f"{table} has no columns: name a table or view that has")
    if hidden := [column.name for column in table.columns if not column.readable]:
        every = len(hidden) == len(table.columns)
        raise PermissionDenied(
            f"{table}: GRANT SELECT ON {table} TO the user of the connection"
            + ("" if every else f", which may not read {', '.join(map(repr, hidden))}, or list the other columns")
        )
    return table


def _look_up(session: Session, name: str) -> dict[str, Any]:
    readings = DIALECT.readings(name)
    for reading in readings:
        if found := session.execute(_TABLE, reading).fetchone():
            return found
    wanted = DIALECT.quoted(readings[0])
    known = (DIALECT.quoted(row.values()) for row in session.execute(_NEIGHBOURS, readings[0][:1]))
    raise SourceRejected(f"table: there is no {wanted}; of those that the user may read, {close_names(wanted, known)}")
