"""BigQuery: the rows of one table or view.

Left out: SQL of one's own (a view holds it), wildcard tables and keys of several columns (name a
view that makes one of them). ``external_id`` is the first of ``id``, ``external_id``,
``contact_id``, ``customer_id``, ``record_id``, ``uuid``, ``guid`` that the table has; another
column is named by ``id_column``. Deleted rows show as ``deleted_at`` or ``is_deleted``, or are
found by a full refresh.

The cursor's traps:

- A transaction of several statements, or a long MERGE, commits rows long after the time they carry,
  and what is open is not shown. The overlap is an hour (3,600 numbers for an integer, none for
  text): make it as long as the longest transaction.
- Rows without a cursor value are read by every load; where the table is partitioned by the cursor
  they have a partition of their own.
- A mark beyond all integers or texts of the table goes back to the largest, with a warning.
- A ``DATETIME`` is wall clock in ``cursor_timezone``; a ``DATE`` is read again until its day is
  over everywhere. A text with a collation is no cursor.
- A load is billed for the columns of all partitions that the cursor does not rule out. A dry run
  asks how much that is: more than ``maximum_bytes_billed`` is not read.

https://cloud.google.com/bigquery/docs/transactions and /bigquery/docs/best-practices-costs
"""

from typing import ClassVar, Literal

from identity_pipeline.connectors.base import CursorColumn, Secret, SqlConnector, setting
from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.readers.sql.bigquery import BigQueryEngine


class BigqueryIdentity(SqlConnector):
    """A table or view of BigQuery."""

    vendor = "bigquery"
    cursor_columns: ClassVar = {"*": CursorColumn(type=None, overlap=3600)}

    project: str = setting(
        "Project that is billed, and that of a table whose name has none", min_length=1
    )
    table: str = setting("project.dataset.table, or less where dataset is set")
    service_account: Secret | None = setting(
        "JSON of a service account's key, where authentication is service_account.", default=None
    )
    authentication: Literal["service_account", "application_default"] = setting(
        "Sign in by that key, or as the machine that a load runs on.", default="service_account"
    )
    dataset: str = setting("Dataset of a table whose name has none.", default="")
    location: str = setting("Location of the dataset, such as EU. Empty: found out.", default="")
    maximum_bytes_billed: int = setting(
        "A query that would read more bytes is refused.", default=100_000_000_000, ge=10_000_000
    )
    base_url: str = setting("Address of the API. Empty: Google's.", default="")

    def engine(self) -> BigQueryEngine:
        """One project."""
        own = self.authentication == "service_account"
        if own != (self.service_account is not None):
            raise ConfigurationError(
                "service_account: give the key of one, or set authentication: application_default"
            )
        return BigQueryEngine(
            self.service_account,
            self.project,
            self.dataset,
            self.location,
            self.maximum_bytes_billed,
            self.base_url,
        )
