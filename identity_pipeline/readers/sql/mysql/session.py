"""A session that can only read, means one thing by each value, and gives up in finite time."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
from pymysql import err

from identity_pipeline.core.errors import (
    ConfigurationError,
    ContractBroken,
    CredentialError,
    PermissionDenied,
    PipelineError,
    SourceRejected,
    SourceUnavailable,
)
from identity_pipeline.core.window import Window
from identity_pipeline.readers.sql.catalog import Table
from identity_pipeline.readers.sql.cursor import FollowedColumn
from identity_pipeline.readers.sql.engine import Look
from identity_pipeline.readers.sql.mysql import catalog, commits, stream
from identity_pipeline.readers.sql.mysql.address import Address
from identity_pipeline.readers.sql.mysql.wire import Connection, understood
from identity_pipeline.readers.sql.shards import Reading, Wire, side_by_side

LONGEST = 4 * 3600
"""Seconds that a statement may take, and that we wait for a row of it."""
SETTINGS = {
    "sql_mode": "''",
    "time_zone": "'+00:00'",
    "sql_auto_is_null": "0",
    "sql_big_selects": "1",
    "sql_select_limit": "18446744073709551615",
    "lock_wait_timeout": "5",
    "net_write_timeout": "600",  # the server waits for a reader that writes a batch
    "wait_timeout": "600",
}
_LIMITS = {True: ("max_statement_time", LONGEST), False: ("max_execution_time", LONGEST * 1000)}
"""MariaDB's name and unit of the longest statement, and MySQL's."""
_SNAPSHOT = "START TRANSACTION WITH CONSISTENT SNAPSHOT"
_TRANSACTIONS = "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 40_000}

_ROLE = """
    SELECT current_user() AS user, coalesce(sum(privilege_type IN ('FILE', 'SUPER')), 0) AS may_read_files,
           coalesce(sum(privilege_type = 'PROCESS'), 0) AS sees_all
    FROM information_schema.user_privileges
    WHERE grantee = concat('''', substring_index(current_user(), '@', 1), '''@''', substring_index(current_user(), '@', -1), '''')
"""

_REFUSED: dict[int, tuple[type[PipelineError], str]] = {
    1045: (CredentialError, "does not accept user and password: correct the credential"),
    1698: (CredentialError, "does not accept user and password: correct the credential"),
    1130: (CredentialError, "accepts no connection of this user from this machine: its administrator adds the host to the user"),
    1820: (CredentialError, "wants a new password of this user: set one there, then here"),
    1862: (CredentialError, "wants a new password of this user: set one there, then here"),
    3118: (CredentialError, "has locked this user: its administrator unlocks it"),
    4151: (CredentialError, "has locked this user: its administrator unlocks it"),
    1044: (PermissionDenied, "does not let this user use the database: GRANT SELECT ON the table TO the user"),
    2026: (ConfigurationError, "offers no TLS: enable it there (ssl-mode=DISABLED is for hosts in IDENTITY_ALLOW_PRIVATE_HOSTS)"),
    2059: (ConfigurationError, "signs this user in by a method that is not used here (those that send the password itself need TLS)"),
    3159: (ConfigurationError, "takes no connection without TLS: leave ssl-mode out"),
    1129: (SourceUnavailable, "has blocked this machine after failed connections: its administrator runs FLUSH HOSTS"),
}  # fmt: skip
_BUSY = frozenset({
    1021, 1028, 1037, 1040, 1041, 1053, 1077, 1078, 1080, 1105, 1135, 1152, 1158, 1159, 1160, 1161, 1184, 1203, 1205, 1213, 1226, 1317,
    1412, 1927, 1969, 2003, 2006, 2013, 2014, 3024, 4031,
})  # fmt: skip
"""What passes: full, starting, stopping, killed, timed out, locked, changed at this moment, lost."""
_DENIED = frozenset({1044, 1142, 1143, 1227, 1370, 1345})


class _Unencrypted:
    """Stands for the methods that send the password itself, where nothing protects the wire."""

    def __init__(self, _connection: object) -> None:
        pass

    def authenticate(self, _packet: object) -> None:
        """Refuse.

        Raises:
            pymysql.OperationalError: always.
        """
        raise err.OperationalError(2059, "the password would be sent unencrypted")


_PLAIN: dict[str, Any] = dict.fromkeys(("mysql_clear_password", "dialog", "mysql_old_password"), _Unencrypted)


@dataclass(frozen=True)
class MysqlSession:
    """A session of a server. ``shards`` is how many may read a large table side by side, this one among them."""

    address: Address
    connection: Connection
    shards: int = 1

    def server(self) -> str:
        """Address, product, version, and whether the wire is encrypted."""
        wire = "over TLS" if self.connection.encrypted else "without TLS"
        product = "MariaDB" if self.connection.mariadb else "MySQL"
        return f"{self.address} is {product} {self.connection.version}, {wire}"

    def role(self) -> str:
        """As whom we are signed in, and what that user should not be able to do, or should."""
        [role] = self.connection.ask(_ROLE)
        message = f"signed in as {role['user']}"
        if role["may_read_files"]:
            return f"{message}, which may do more than read: use one with no more than GRANT SELECT ON the table, GRANT PROCESS ON *.*"
        if not role["sees_all"]:
            return f"{message}; GRANT PROCESS ON *.* lets it see open transactions, so that what they commit late is found"
        return message

    def table(self, name: tuple[str, ...]) -> Table | None:
        """The table or view of exactly this database and name."""
        return catalog.find(self.connection, *name)

    def tables(self, name: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        """What the user may read, of the database of ``name`` first."""
        return catalog.neighbours(self.connection, name[0])

    def look(self, table: Table, followed: FollowedColumn | None, window: Window) -> Look:  # noqa: ARG002 - the mark is all it needs
        """The server's time, and how late commits are not missed."""
        return commits.look(self.connection, table, followed)

    def maximum(self, table: Table, followed: FollowedColumn) -> str | None:
        """The largest value of an ``int`` or ``text`` column."""
        return stream.maximum(self.connection, table, followed)

    def stream(
        self, table: Table, followed: FollowedColumn | None, window: Window, since: str | None = None  # noqa: ARG002 - no look gives one
    ) -> Iterator[pa.Table]:  # fmt: skip
        """The rows from the window's lower bound on, and unplaced ones."""
        whole = window.lower is None and window.limit is None
        key, pieces = stream.pieces(self.connection, table) if whole and self.shards > 1 else ("", [])
        if pieces:
            own = partial(self._line, table, key, self.connection)
            yield from side_by_side(window, pieces, [own, *[partial(self._another, table, key)] * (self.shards - 1)])
        else:
            yield from stream.batches(self.connection, table, followed, window)

    @contextmanager
    def _line(self, table: Table, key: str, connection: Connection, wire: Wire) -> Iterator[Reading]:
        """One session at work, on a snapshot that all of its pieces share.

        The snapshots of two sessions are a moment apart. What that alone may miss, a window has that begins before both.
        """
        with wire(connection.fileno()):
            connection.ask(_SNAPSHOT)
            yield lambda piece, window: stream.batches(connection, table, None, window, key=key, piece=piece)

    @contextmanager
    def _another(self, table: Table, key: str, wire: Wire) -> Iterator[Reading]:
        with read_only(self.address) as connection, self._line(table, key, connection, wire) as reading:
            yield reading


@contextmanager
def read_only(address: Address) -> Iterator[Connection]:
    """A session of read-only transactions, one for each statement.

    Raises:
        PipelineError: connecting or a statement inside failed, by who must act. The server's own
            words are not passed on, they may hold values; its number is.
    """
    connection = _connect(address)
    try:
        limit, value = _LIMITS[connection.mariadb]
        connection.ask("SET SESSION " + ", ".join(f"{name} = {text}" for name, text in (SETTINGS | {limit: str(value)}).items()))
        connection.ask(_TRANSACTIONS)
        connection.settle(LONGEST + 60)
        yield connection
    except err.Error as error:
        raise failure(address, error) from None
    except OSError:
        raise SourceUnavailable(f"{address} broke the connection: the same read may work later") from None
    finally:
        with suppress(err.Error):  # it is gone already
            connection.close()


def _connect(address: Address) -> Connection:
    pinned = address.pinned()
    context = address.tls(pinned)
    try:
        wire = socket.create_connection((pinned, address.port), address.connect_timeout)
    except OSError:
        raise _unreachable(address) from None
    try:
        for name, value in _KEEPALIVE.items():
            if option := getattr(socket, name, None):
                wire.setsockopt(socket.IPPROTO_TCP, option, value)
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection = Connection(
            host=address.host,  # the certificate's; the connection goes to the address that was checked
            user=address.user,
            password=address.password.encode(),
            charset="utf8mb4",
            autocommit=True,
            local_infile=False,
            ssl=context,
            ssl_disabled=context is None,
            auth_plugin_map=None if context else _PLAIN,
            read_timeout=address.connect_timeout,
            write_timeout=address.connect_timeout,
            program_name="identity_pipeline",
            defer_connect=True,
        )
        with understood():
            connection.connect(wire)
    except err.Error as error:
        wire.close()
        raise _refusal(address, error, encrypted=context is not None) from None
    except ContractBroken:
        wire.close()
        raise _unreachable(address) from None
    return connection


def _unreachable(address: Address) -> PipelineError:
    return SourceUnavailable(f"{address} cannot be reached: nothing answers there as MySQL; check host, port and firewall")


def _refusal(address: Address, error: err.Error, *, encrypted: bool) -> PipelineError:
    number = error.args[0] if error.args else 0
    cause = getattr(error, "original_exception", None)
    if isinstance(cause, ssl.SSLCertVerificationError):
        other = cause.verify_code == _OTHER_NAME
        fault = (
            "of another name: connect by the name that it is for"
            if other
            else "that no known authority signed: put its authority into ca_certificate"
        )
        return ConfigurationError(f"{address} shows a certificate {fault}")
    if number in _REFUSED:
        kind, advice = _REFUSED[number]
        if number == 1045 and not encrypted:
            advice = f"{advice}, or leave ssl-mode out if the user has to come over TLS"
        return kind(f"{address} {advice}")
    if number == 2003:
        return SourceUnavailable(f"{address} broke the connection while it began: the same read may work later")
    if number in _BUSY:
        return SourceUnavailable(f"{address} takes no session now: it is starting, stopping, full or slow")
    if isinstance(error, err.InternalError) or not isinstance(number, int):
        return _unreachable(address)
    return CredentialError(f"{address} refused the session with error {number}: check user and password")


_OTHER_NAME = 62
"""OpenSSL: the certificate is not for the host's name."""


def failure(address: Address, error: err.Error) -> PipelineError:
    """The error for a statement that failed, by who must act."""
    number = error.args[0] if error.args else 0
    what = f"{address} answered error {number} ({type(error).__name__})"
    if number in _BUSY or not error.args or number == 0:
        return SourceUnavailable(f"{what}: the same read may work later")
    if number in _DENIED:
        return PermissionDenied(f"{what}: GRANT SELECT ON the table and all that a view uses TO the user")
    return SourceRejected(f"{what}: the table or view cannot be read as it is; run SELECT * FROM it as this user")
