"""A session that only selects, means one thing by each value, and gives up in finite time."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC
from typing import Any

import pyarrow as pa
import snowflake.connector
from cryptography.hazmat.primitives import serialization
from snowflake.connector import errors

from identity_pipeline.core.errors import (
    ConfigurationError,
    CredentialError,
    PermissionDenied,
    PipelineError,
    SourceRejected,
    SourceUnavailable,
)
from identity_pipeline.core.window import Window
from identity_pipeline.readers.http import guard
from identity_pipeline.readers.sql.catalog import Table
from identity_pipeline.readers.sql.cursor import FollowedColumn
from identity_pipeline.readers.sql.engine import Look
from identity_pipeline.readers.sql.snowflake import catalog, stream
from identity_pipeline.readers.sql.snowflake.address import Address, Authentication

LOGIN_TIMEOUT, REQUEST_TIMEOUT = 5, 60
"""Seconds that signing in, and one request after it, may take with all that the driver tries again."""
_ISO = 'YYYY-MM-DD"T"HH24:MI:SS.FF9'
SETTINGS: dict[str, Any] = {
    "QUERY_TAG": "identity-pipeline",
    "TIMEZONE": "UTC",
    "TIMESTAMP_OUTPUT_FORMAT": _ISO,
    "TIMESTAMP_NTZ_OUTPUT_FORMAT": _ISO,
    "DATE_OUTPUT_FORMAT": "YYYY-MM-DD",
    "TIME_OUTPUT_FORMAT": "HH24:MI:SS.FF9",
    "STATEMENT_TIMEOUT_IN_SECONDS": 4 * 3600,
    "STATEMENT_QUEUED_TIMEOUT_IN_SECONDS": 600,
    "LOCK_TIMEOUT": 5,
    "ABORT_DETACHED_QUERY": True,
    "ROWS_PER_RESULTSET": 0,
    "QUOTED_IDENTIFIERS_IGNORE_CASE": False,  # "contacts" and "CONTACTS" are two tables
}
_AUTHENTICATORS: dict[Authentication, str] = {
    "key_pair": "SNOWFLAKE_JWT",
    "token": "PROGRAMMATIC_ACCESS_TOKEN",
    "oauth": "OAUTH",
    "password": "SNOWFLAKE",
}
_ADMINISTRATORS = frozenset({"ACCOUNTADMIN", "ORGADMIN", "SECURITYADMIN", "SYSADMIN"})
_ADDRESSES = frozenset({390420, 390422, 390433})
_ROLES = frozenset({390186, 390189})
_STOPPED = frozenset({604, 630, 90073, 300005})
"""Canceled, out of time, out of credits, an incident at Snowflake."""


@dataclass(frozen=True)
class SnowflakeSession:
    """A session of an account."""

    address: Address
    authentication: Authentication
    connection: snowflake.connector.SnowflakeConnection

    def server(self) -> str:
        """Account and version."""
        [[version]] = catalog.ask(self.connection, "SELECT current_version()")
        return f"{self.address} is version {version}"

    def role(self) -> str:
        """As whom we are signed in, and what is wrong with that."""
        [[user, role]] = catalog.ask(self.connection, "SELECT current_user(), current_role()")
        message = f"signed in as {user} with the role {role}"
        if role in _ADMINISTRATORS:
            message += (
                ", which may do more than read: GRANT USAGE ON DATABASE, SCHEMA and WAREHOUSE and SELECT ON the table TO a role of its own"
            )
        if self.authentication == "password":
            message += "; Snowflake ends signing in by password alone: use a key pair or a programmatic access token"
        return f"{message}; what a transaction commits late is found within cursor_overlap, an hour by default"

    def table(self, name: tuple[str, ...]) -> Table | None:
        """The table or view of exactly this name."""
        return catalog.find(self.connection, name)

    def tables(self, name: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        """What the role may read of that database, the schema of ``name`` first."""
        return catalog.neighbours(self.connection, name)

    def look(self, table: Table, followed: FollowedColumn | None, window: Window) -> Look:  # noqa: ARG002 - nothing of others is shown
        """The account's time. Open transactions are shown to administrators only: the overlap stands for them."""
        [[now]] = catalog.ask(self.connection, "SELECT sysdate()")
        clock = now.replace(tzinfo=UTC)
        return Look(clock, clock)

    def maximum(self, table: Table, followed: FollowedColumn) -> str | None:
        """The largest value of an ``int`` or ``text`` column."""
        return stream.maximum(self.connection, table, followed)

    def stream(
        self, table: Table, followed: FollowedColumn | None, window: Window, since: str | None = None  # noqa: ARG002 - no look gives one
    ) -> Iterator[pa.Table]:  # fmt: skip
        """The rows from the window's lower bound on, and those without a cursor value."""
        return stream.batches(self.connection, table, followed, window)


@contextmanager
def signed_in(
    address: Address, authentication: Authentication, credential: str, passphrase: str | None
) -> Iterator[snowflake.connector.SnowflakeConnection]:
    """A session with nothing of this machine's configuration in it.

    Raises:
        PipelineError: signing in or a statement inside failed, by who must act. Snowflake's own words are not
            passed on, they may hold values; its number is.
    """
    guard.resolve(address.host, address.port)
    options: dict[str, Any] = {
        "account": address.account,
        "host": address.host,
        "port": address.port,
        "protocol": "https" if address.base_url.startswith("https:") else "http",
        "user": address.user,
        "authenticator": _AUTHENTICATORS[authentication],
        "session_parameters": SETTINGS,
        "paramstyle": "qmark",  # values are bound by the server
        "login_timeout": LOGIN_TIMEOUT,
        "request_timeout": REQUEST_TIMEOUT,
        "enable_server_session_keep_alive_auto_detection": False,
    }
    chosen = {"warehouse": address.warehouse, "role": address.role, "database": address.database}
    options |= {name: value for name, value in chosen.items() if value}
    if authentication == "key_pair":
        options["private_key"] = _key(credential, passphrase)
    else:
        options["password" if authentication == "password" else "token"] = credential
    try:
        connection = snowflake.connector.connect(**options)
    except errors.Error as error:
        raise _refusal(address, error) from None
    try:
        yield connection
    except errors.Error as error:
        raise failure(address, error) from None
    finally:
        with suppress(errors.Error):  # it is gone already
            connection.close()


def _key(pem: str, passphrase: str | None) -> bytes:
    """The private key as the driver takes it."""
    try:
        key = serialization.load_pem_private_key(pem.encode(), passphrase.encode() if passphrase else None)
    except (ValueError, TypeError):
        raise ConfigurationError(
            "credential: it is not a private key that can be read: expected its text, from -----BEGIN PRIVATE KEY----- on, "
            "and its passphrase under passphrase if it has one"
        ) from None
    return key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _refusal(address: Address, error: errors.Error) -> PipelineError:
    number, state = error.errno or 0, error.sqlstate or ""
    if number in _ADDRESSES:
        return CredentialError(f"{address} takes no session of this machine (error {number}): its administrator adds it to the policy")
    if number in _ROLES:
        return PermissionDenied(f"{address} does not give this user that role (error {number}): GRANT ROLE … TO USER …, or leave role out")
    if state.startswith("28") or 390000 <= number < 395000:
        return CredentialError(f"{address} does not accept user and credential (error {number}): correct them, or renew the credential")
    return SourceUnavailable(f"{address} cannot be reached at {address.host}: check account and firewall")


def failure(address: Address, error: errors.Error) -> PipelineError:
    """The error for a statement that failed, by who must act."""
    number, state = error.errno or 0, error.sqlstate or ""
    what = f"{address} answered error {number} ({type(error).__name__})"
    if number == 606:
        return ConfigurationError(f"{what}: there is no warehouse to work with: set warehouse, and GRANT USAGE ON it TO the role")
    if state == "42501":
        return PermissionDenied(f"{what}: GRANT SELECT ON the table, and USAGE ON its database and schema, TO the role")
    if 390000 <= number < 395000:
        return CredentialError(f"{what}: the session has ended: renew the credential")
    if number in _STOPPED or isinstance(error, errors.OperationalError | errors.InterfaceError | errors.InternalError) or not number:
        return SourceUnavailable(f"{what}: the same read may work later")
    return SourceRejected(f"{what}: the table or view cannot be read as it is; run SELECT * FROM it with this role")
