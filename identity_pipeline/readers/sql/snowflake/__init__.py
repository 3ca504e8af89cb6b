"""Snowflake as an engine of the SQL reader.

Belongs here: what is Snowflake's own, one idea a module (address, session, catalog, stream). Does not belong here:
what every database shares (``readers.sql``); settings, field maps and overlaps, which are the
connector's. The driver is an extra of the package: only what is imported when a session is opened may need it.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace

from identity_pipeline.core.secret import TokenProvider
from identity_pipeline.readers import extras
from identity_pipeline.readers.sql.engine import Session
from identity_pipeline.readers.sql.identifier import Dialect
from identity_pipeline.readers.sql.snowflake.address import Address, Authentication, checked
from identity_pipeline.readers.sql.snowflake.names import DIALECT

__all__ = ["Authentication", "SnowflakeEngine", "safe_snowflake_identifier"]


def safe_snowflake_identifier(name: str, setting: str = "table", database: str = "") -> str:
    """The full name that Snowflake takes ``name`` for, every part in quotes: ``crm.public.contacts`` is ``"CRM"."PUBLIC"."CONTACTS"``.

    Raises:
        ConfigurationError: it is not the name of one table or view of ``database``, or of the one it names; the
            message names ``setting``.
    """
    dialect = _dialect(database)
    return dialect.quoted(dialect.readings(name, setting)[0])


def _dialect(database: str) -> Dialect:
    """With the names for what a user leaves out; ``database`` is itself written as in a statement."""
    if not database:
        return DIALECT
    [name, *_] = DIALECT.readings(f"{database}.x.x", "database")
    return replace(DIALECT, default=(name[0], "PUBLIC"))


@dataclass(frozen=True)
class SnowflakeEngine:
    """An account of Snowflake and how to sign in to it. Empty texts: the user's own defaults."""

    account: str
    user: str
    credential: TokenProvider = field(repr=False)
    authentication: Authentication = "key_pair"
    passphrase: TokenProvider | None = field(default=None, repr=False)
    database: str = ""
    warehouse: str = ""
    role: str = ""
    base_url: str = ""

    @property
    def dialect(self) -> Dialect:
        """How Snowflake writes a table's name."""
        return _dialect(self.database)

    def open(self) -> AbstractContextManager[Session]:
        """A session for as long as the context is open."""
        passphrase = self.passphrase.token() if self.passphrase else None
        address = checked(
            account=self.account,
            user=self.user,
            warehouse=self.warehouse,
            role=self.role,
            database=self.database,
            base_url=self.base_url,
        )
        return self._session(address, self.credential.token(), passphrase)

    @contextmanager
    def _session(self, address: Address, credential: str, passphrase: str | None) -> Iterator[Session]:
        try:
            from identity_pipeline.readers.sql.snowflake.session import SnowflakeSession, signed_in  # noqa: PLC0415 - the driver is an extra
        except ModuleNotFoundError as error:
            if not (error.name or "").startswith("snowflake"):
                raise
            raise extras.missing("snowflake") from None
        with signed_in(address, self.authentication, credential, passphrase) as connection:
            yield SnowflakeSession(address, self.authentication, connection)
