"""PostgreSQL as an engine of the SQL reader.

Belongs here: what is PostgreSQL's own, one idea a module (address, session, catalog, commits, stream). Does
not belong here: what every database shares (``readers.sql``); settings, field maps and overlaps,
which are the connector's.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial

import pyarrow as pa

from identity_pipeline.core.secret import TokenProvider
from identity_pipeline.core.window import Window
from identity_pipeline.readers.sql.catalog import Table
from identity_pipeline.readers.sql.cursor import FollowedColumn
from identity_pipeline.readers.sql.engine import Look
from identity_pipeline.readers.sql.identifier import Dialect
from identity_pipeline.readers.sql.postgres import catalog, commits, stream
from identity_pipeline.readers.sql.postgres.address import Address, parse
from identity_pipeline.readers.sql.postgres.session import Connection, read_only
from identity_pipeline.readers.sql.shards import Reading, Wire, side_by_side

_ROLE = """
    SELECT current_user AS name, rolsuper OR pg_has_role('pg_execute_server_program', 'MEMBER') AS may_run_programs
    FROM pg_roles WHERE rolname = current_user
"""


def safe_postgres_identifier(name: str, setting: str = "table") -> str:
    """The full name that PostgreSQL takes ``name`` for, every part in quotes: ``CRM.contacts`` is ``"crm"."contacts"``.

    Raises:
        ConfigurationError: it is not the name of one table or view; the message names ``setting``.
    """
    return catalog.DIALECT.quoted(catalog.DIALECT.readings(name, setting)[0])


@dataclass(frozen=True)
class PostgresSession:
    """A read-only transaction of a server. ``shards`` is how many others may read a large table for it."""

    address: Address
    connection: Connection
    shards: int = 1

    def server(self) -> str:
        """Address, version, and whether the wire is encrypted."""
        wire = "over TLS" if self.connection.pgconn.ssl_in_use else "without TLS"
        return f"{self.address} is PostgreSQL {self.connection.info.server_version // 10000}, {wire}"

    def role(self) -> str:
        """As whom we are signed in, and what that role should not be able to do."""
        role = self.connection.execute(_ROLE).fetchone() or {}
        message = f"signed in as {role['name']}"
        if role["may_run_programs"]:
            return f"{message}, which may run programs and read files on the server: use a role that may only SELECT"
        return message

    def table(self, name: tuple[str, ...]) -> Table | None:
        """The table or view of exactly this schema and name."""
        return catalog.find(self.connection, *name)

    def tables(self, name: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        """What the user may read, of the schema of ``name`` first."""
        return catalog.neighbours(self.connection, name[0])

    def look(self, table: Table, followed: FollowedColumn | None, window: Window) -> Look:
        """The server's time, and how late commits are not missed."""
        return commits.look(self.connection, table, followed, window)

    def maximum(self, table: Table, followed: FollowedColumn) -> str | None:
        """The largest value of an ``int`` or ``text`` column."""
        return stream.maximum(self.connection, table, followed)

    def stream(self, table: Table, followed: FollowedColumn | None, window: Window, since: str | None = None) -> Iterator[pa.Table]:
        """The rows from the window's lower bound on, unplaced ones and those committed ``since``."""
        whole = window.lower is None and window.limit is None
        pieces = stream.pieces(self.connection, table) if whole and self.shards > 1 else []
        if pieces:
            # This transaction keeps the snapshot and does not read: each of its statements would see another one.
            another = partial(self._another, table, stream.exported(self.connection))
            if (yield from side_by_side(window, pieces, [another] * self.shards)):
                return
        yield from stream.batches(self.connection, table, followed, window, since)

    @contextmanager
    def _another(self, table: Table, snapshot: str, wire: Wire) -> Iterator[Reading]:
        with read_only(self.address, snapshot, wire) as connection:
            yield lambda piece, window: stream.batches(connection, table, None, window, piece=piece)


@dataclass(frozen=True)
class PostgresEngine:
    """A PostgreSQL server. ``ca_certificate`` is the text of an authority that is not a public one (PEM).

    ``shards`` is how many connections may read a large table side by side.
    """

    connection_string: TokenProvider = field(repr=False)
    ca_certificate: str | None = field(default=None, repr=False)
    shards: int = 1

    @property
    def dialect(self) -> Dialect:
        """How PostgreSQL writes a table's name."""
        return catalog.DIALECT

    def open(self) -> AbstractContextManager[PostgresSession]:
        """A session for as long as the context is open."""
        return self._session(parse(self.connection_string.token(), self.ca_certificate))

    @contextmanager
    def _session(self, address: Address) -> Iterator[PostgresSession]:
        with read_only(address) as connection:
            yield PostgresSession(address, connection, self.shards)
