"""BigQuery as an engine of the SQL reader.

Belongs here: what is BigQuery's own, one idea a module (names, session, catalog, stream). Does not belong here:
what every database shares (``readers.sql``); settings, field maps and overlaps, which are the connector's.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace

from identity_pipeline.core.secret import TokenProvider
from identity_pipeline.readers.sql.bigquery.names import DIALECT
from identity_pipeline.readers.sql.engine import Session
from identity_pipeline.readers.sql.identifier import Dialect


def safe_bigquery_identifier(name: str, setting: str = "table", project: str = "", dataset: str = "") -> str:
    """The full name that BigQuery takes ``name`` for, every part in quotes: ``crm.contacts`` is ```my-project`.`crm`.`contacts```.

    Raises:
        ConfigurationError: it is not the name of one table or view of ``project`` and ``dataset``, or of those it
            names; the message names ``setting``.
    """
    dialect = _dialect(project, dataset)
    return dialect.quoted(dialect.readings(name, setting)[0])


def _dialect(project: str, dataset: str) -> Dialect:
    """With the names for what a user leaves out, which are judged as those that are written."""
    if not project:
        return DIALECT
    [(known, *_)] = DIALECT.readings(f"{project}.{dataset or 'x'}.x", "project or dataset")
    return replace(DIALECT, default=(known, dataset) if dataset else (known,))


@dataclass(frozen=True)
class BigQueryEngine:
    """A project that is billed. ``service_account`` is the JSON of a key; None: the machine's own credentials."""

    service_account: TokenProvider | None = field(repr=False)
    project: str
    dataset: str = ""
    location: str = ""
    maximum_bytes_billed: int = 10**11
    base_url: str = ""

    @property
    def dialect(self) -> Dialect:
        """How BigQuery writes a table's name."""
        return _dialect(self.project, self.dataset)

    def open(self) -> AbstractContextManager[Session]:
        """A session for as long as the context is open."""
        _dialect(self.project, self.dataset)
        if self.service_account is not None:
            self.service_account.token()
        return self._session()

    @contextmanager
    def _session(self) -> Iterator[Session]:
        from identity_pipeline.readers.sql.bigquery.session import signed_in  # noqa: PLC0415 - Google's client takes a second

        with signed_in(self.service_account, self.project, self.location, self.maximum_bytes_billed, self.base_url) as session:
            yield session
