"""PostgreSQL: a table or view, its records and a test of the way to it.

Belongs here: what is PostgreSQL's own, one idea a module (address, session, catalog, stream). Does
not belong here: settings, field maps and overlaps, which are the connector's.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import pandas as pd

from identity_pipeline.core.cursor import check_timezone
from identity_pipeline.core.errors import CredentialError, PipelineError
from identity_pipeline.core.window import Window
from identity_pipeline.readers.sql.cursor import cursor_of
from identity_pipeline.readers.sql.postgres import catalog, stream
from identity_pipeline.readers.sql.postgres.address import Address, parse
from identity_pipeline.readers.sql.postgres.session import Session, read_only

_ROLE = """
    SELECT current_user AS name, rolsuper OR pg_has_role('pg_execute_server_program', 'MEMBER') AS mighty,
           pg_has_role('pg_read_all_stats', 'USAGE') AS sees_writers
    FROM pg_roles WHERE rolname = current_user
"""


@dataclass(frozen=True)
class PostgresTable:
    """A table or view on a server. ``timezone`` is that of its timestamps without one."""

    connection_string: str = field(repr=False)
    table: str
    columns: tuple[str, ...] = ()
    timezone: str = "UTC"
    ca_certificate: str | None = field(default=None, repr=False)

    def read(self, window: Window) -> Iterator[pd.DataFrame]:
        """Yield the records that ``window`` asks for, in no order, as batches of text.

        Raises:
            PipelineError: the read failed; nothing of it may be committed.
        """
        with read_only(self._address()) as server:
            followed = (window.cursor_column,) if window.cursor_column and self.columns else ()
            table = catalog.find(server, self.table, (*self.columns, *followed))
            now, cursor = stream.clock(server), None
            if window.cursor_column is not None and window.cursor_type is not None:
                column = table.column(window.cursor_column, "cursor_column")
                cursor = cursor_of(column.name, column.shown, column.order, window.cursor_type, self.timezone)
                now = cursor.mark_limit(now)
            window.context.clock(now)
            yield from stream.batches(server, table, cursor, window)

    def check(self) -> Iterator[tuple[str, bool, str]]:
        """Yield the steps of a connection test: name, outcome, what was found or who does what."""
        step = "reach"
        try:
            address = self._address()
            with read_only(address) as server:
                yield step, True, f"{address} is PostgreSQL {server.info.server_version // 10000}, {_wire(server)}"
                yield "authenticate", True, _role(server)
                step = "permission"
                table = catalog.find(server, self.table, self.columns)
                yield step, True, _permission(table)
                step = "sample"
                count = sum(map(len, stream.batches(server, table, None, Window(limit=20))))
                yield step, True, _sample(table, count)
        except CredentialError as error:
            if step == "reach":
                yield "reach", True, "the server answers"
            yield "authenticate", False, str(error)
        except PipelineError as error:
            yield step, False, str(error)

    def _address(self) -> Address:
        """Where to connect; all settings are judged before anything is sent."""
        check_timezone(self.timezone)
        catalog.DIALECT.readings(self.table)
        return parse(self.connection_string, self.ca_certificate)


def _wire(server: Session) -> str:
    return "over TLS" if server.pgconn.ssl_in_use else "without TLS"


def _role(server: Session) -> str:
    role = server.execute(_ROLE).fetchone() or {}
    message = f"signed in as {role['name']}"
    if role["mighty"]:
        return f"{message}, which may run programs and read files on the server: use a role that may only SELECT"
    if not role["sees_writers"]:
        return f"{message}; it does not see open transactions, so only the overlap covers late commits (GRANT pg_read_all_stats)"
    return message


def _permission(table: catalog.Table) -> str:
    message = f"may read {table}"
    if table.rows_hidden:
        message += ", but row-level security decides which rows"
    if table.writable:
        message += ", and may write it: SELECT is all that is needed"
    return message


def _sample(table: catalog.Table, count: int) -> str:
    size = "" if table.estimate is None else f" of about {table.estimate}"
    if len(table.key) == 1:
        key = f"primary key {table.key[0]}"
    elif table.key:
        key = f"a primary key of {len(table.key)} columns: name a view that makes one of them"
    else:
        key = "no primary key: name a unique column under mapping, external_id"
    return f"{count} rows{size}, {len(table.columns)} columns, {key}"
