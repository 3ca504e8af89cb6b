"""A session that can only read, means one thing by each value, and gives up in finite time.

The whole session is one transaction and every setting is local to it, so a connection pooler between
us and the server, in transaction mode too, neither refuses them nor hands them on, and brings nothing
of its last user's.
"""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from identity_pipeline.core.errors import (
    ConfigurationError,
    CredentialError,
    PermissionDenied,
    PipelineError,
    SourceRejected,
    SourceUnavailable,
)
from identity_pipeline.readers.sql.postgres.address import Address, clean_environment
from identity_pipeline.readers.sql.shards import Wire

Connection = psycopg.Connection[dict[str, Any]]

SETTINGS = {
    "search_path": "",  # only pg_catalog: no function of the user's stands in for a built-in one
    "timezone": "UTC",
    "datestyle": "ISO, YMD",
    "intervalstyle": "iso_8601",
    "extra_float_digits": "1",
    "statement_timeout": "4h",
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "10min",
}
_SET = """
    SELECT pg_catalog.set_config(name, value, true)
    FROM ROWS FROM (pg_catalog.unnest(%s::pg_catalog.text[]), pg_catalog.unnest(%s::pg_catalog.text[])) AS given(name, value)
"""

# While connecting, libpq gives no SQLSTATE, only words.
_REFUSED: tuple[tuple[str, type[PipelineError], str], ...] = (
    (r"password authentication failed|authentication failed|no password supplied|role .* does not exist|not permitted to log in",
     CredentialError, "does not accept user and password: correct the credential"),
    (r"no pg_hba.conf entry|pg_hba.conf rejects",
     CredentialError, "accepts no connection of this user from this machine: its administrator adds it to pg_hba.conf"),
    (r"database .* does not exist", ConfigurationError, "has no such database: correct the connection string"),
    (r"permission denied for database", PermissionDenied, "does not let this user connect: GRANT CONNECT ON DATABASE … TO …"),
    (r"server does not support SSL",
     ConfigurationError, "offers no TLS: enable it there (sslmode=disable is for hosts in IDENTITY_ALLOW_PRIVATE_HOSTS)"),
    (r"does not match host name", ConfigurationError, "shows a certificate of another name: connect by the name that it is for"),
    (r"certificate verify failed|root certificate|SSL error: certificate",
     ConfigurationError, "shows a certificate that no known authority signed: put its authority into ca_certificate"),
    (r"invalid target_session_attrs|invalid \w+ value",
     ConfigurationError, "cannot be asked with a value in connection_string: correct or remove it"),
)  # fmt: skip
_STARTING = re.compile(r"starting up|shutting down|not yet accepting|recovery|too many|connection slots|timeout|terminating")
_LOST = re.compile(r"closed the connection|could not (?:receive|send) data|Connection reset|SSL SYSCALL|unexpected eof")
_BUSY = ("08", "53", "55P03", "57", "58", "40", "25P03")


def _unwatched(_: int) -> AbstractContextManager[None]:
    return nullcontext()


@contextmanager
def read_only(address: Address, snapshot: str | None = None, wire: Wire = _unwatched) -> Iterator[Connection]:
    """A read-only transaction, rolled back at the end. It sees what the transaction sees that exported ``snapshot``.

    Raises:
        SourceUnavailable: that one is not on the server that answers.
        PipelineError: connecting or a statement inside failed, by who must act. The server's own
            words are not passed on, they may hold values; its SQLSTATE is.
    """
    with address.conninfo() as conninfo:
        connection = _connect(address, conninfo)
        try:
            with wire(connection.fileno()):
                connection.read_only = True
                if snapshot is not None:
                    _share(connection, address, snapshot)
                connection.execute(_SET, (list(SETTINGS), list(SETTINGS.values())))
                yield connection
                with suppress(psycopg.Error):  # all was read; a pooler keeps a session that was left in order
                    connection.rollback()
        except psycopg.Error as error:
            raise failure(address, error) from None
        finally:
            connection.close()


def _share(connection: Connection, address: Address, snapshot: str) -> None:
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    try:
        connection.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(snapshot))
    except psycopg.Error as error:
        raise SourceUnavailable(f"{address} shares no snapshot between two connections (SQLSTATE {error.sqlstate or ''})") from None


def _connect(address: Address, conninfo: str) -> Connection:
    with clean_environment():
        try:
            # no prepared statements: a pooler may run the next one on another server
            return Connection.connect(conninfo, row_factory=dict_row, prepare_threshold=None)
        except psycopg.Error as error:
            raise _refusal(address, error) from None


def _refusal(address: Address, error: psycopg.Error) -> PipelineError:
    words = re.sub(r'"[^"]*"', '""', str(error))  # without the names of host, user and database
    for pattern, kind, advice in _REFUSED:
        if re.search(pattern, words):
            return kind(f"{address} {advice}")
    if _STARTING.search(words):
        return SourceUnavailable(f"{address} takes no session now: it is starting, stopping, full or slow")
    if _LOST.search(words):
        return SourceUnavailable(f"{address} broke the connection while it began: the same read may work later")
    if error.pgconn is not None and error.pgconn.used_password:  # a server that speaks another language
        return CredentialError(f"{address} refused the session: check user, password and database")
    return SourceUnavailable(f"{address} cannot be reached: nothing answers there as PostgreSQL; check host, port and firewall")


def failure(address: Address, error: psycopg.Error) -> PipelineError:
    """The error for a statement that failed, by who must act."""
    state = error.sqlstate or ""
    what = f"{address} answered SQLSTATE {state} ({type(error).__name__})"
    if state.startswith(_BUSY):
        return SourceUnavailable(f"{what}: the same read may work later")
    if not state and isinstance(error, psycopg.OperationalError):
        return SourceUnavailable(f"{address} broke the connection: the same read may work later")
    if state.startswith("28"):
        return CredentialError(f"{what}: correct the credential")
    if state == "42501":
        return PermissionDenied(f"{what}: GRANT SELECT ON the table and all that a view uses TO the user")
    if state == "22023":
        return ConfigurationError(f"{what}: the server does not know a value it was given; check cursor_timezone")
    return SourceRejected(f"{what}: the table or view cannot be read as it is; run SELECT * FROM it as this user")
