"""MySQL and MariaDB as an engine of the SQL reader.

Belongs here: what is MySQL's own, one idea a module (address, wire, session, catalog, commits, stream). Does
not belong here: what every database shares (``readers.sql``); settings, field maps and overlaps,
which are the connector's. The driver is an extra of the package: only what is imported when a
session is opened may need it.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace

from identity_pipeline.core.secret import TokenProvider
from identity_pipeline.readers import extras
from identity_pipeline.readers.sql.engine import Session
from identity_pipeline.readers.sql.identifier import Dialect
from identity_pipeline.readers.sql.mysql.address import Address, parse
from identity_pipeline.readers.sql.mysql.names import DIALECT


def safe_mysql_identifier(name: str, setting: str = "table", database: str | None = None) -> str:
    """The full name that MySQL takes ``name`` for, every part in quotes: ``crm.contacts`` is written ```crm`.`contacts```.

    Raises:
        ConfigurationError: it is not the name of one table or view of ``database``, or of the one it names; the
            message names ``setting``.
    """
    dialect = _dialect(database)
    return dialect.quoted(dialect.readings(name, setting)[0])


def _dialect(database: str | None) -> Dialect:
    return replace(DIALECT, default=(database,) if database else ())


@dataclass(frozen=True)
class MysqlEngine:
    """A MySQL or MariaDB server. ``ca_certificate`` is the text of an authority that is not a public one (PEM).

    ``shards`` is how many connections may read a large table side by side.
    """

    connection_string: TokenProvider = field(repr=False)
    ca_certificate: str | None = field(default=None, repr=False)
    shards: int = 1

    @property
    def dialect(self) -> Dialect:
        """How MySQL writes a table's name; the connection string says of which database one is that names none."""
        return _dialect(self._address().database)

    def open(self) -> AbstractContextManager[Session]:
        """A session for as long as the context is open."""
        return self._session(self._address())

    def _address(self) -> Address:
        return parse(self.connection_string.token(), self.ca_certificate)

    @contextmanager
    def _session(self, address: Address) -> Iterator[Session]:
        try:
            from identity_pipeline.readers.sql.mysql.session import MysqlSession, read_only  # noqa: PLC0415 - the driver is an extra
        except ModuleNotFoundError as error:
            if error.name != "pymysql":
                raise
            raise extras.missing("mysql") from None
        with read_only(address) as connection:
            yield MysqlSession(address, connection, self.shards)
