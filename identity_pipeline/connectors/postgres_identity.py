"""PostgreSQL: the rows of one table or view.

Left out: SQL of one's own (a view holds it) and keys of several columns (name a view that makes one
of them). ``external_id`` is the first of ``id``, ``external_id``, ``contact_id``, ``customer_id``,
``record_id``, ``uuid``, ``guid`` that the table has; another column is named by ``id_column``.
Deleted rows show as ``deleted_at`` or ``is_deleted``, or are found by a full refresh.

The cursor's traps:

- A row may be committed long after the time or number it carries. Each load asks for what was
  committed since the one before, whatever its cursor says: that scans the table (0.2 s for a
  million rows). A table over 1 GiB is scanned only where the mark cannot stay behind the oldest
  open transaction: with a cursor that is no time, a role without ``pg_read_all_stats``, a replica,
  a prepared transaction. Over 16 GiB, and for a view or foreign table, which has no row versions,
  there is the mark only: if it cannot stay behind either, each load warns and says what closes it.
- The overlap is 600 seconds for a time and 600 numbers for an integer, however long it took to
  hand them out; text has none. Where a load warns, make it as long as the longest transaction.
- An ``updated_at`` that no trigger keeps misses changes.
- Rows without a place in the order (null, ``-infinity``, ``infinity``, years before 1) are read by
  every load.
- A mark beyond all integers or texts of the table goes back to the largest, with a warning.
- A ``timestamp`` without zone is wall clock in ``cursor_timezone``; a ``date`` is read again until
  its day is over everywhere.
- Text orders by its bytes (``COLLATE "C"``): only an index of that collation serves it. Without an
  index on the cursor each load reads the whole table.

https://www.postgresql.org/docs/current/sql-copy.html and /libpq-connect.html
"""

from typing import ClassVar

from identity_pipeline.connectors.base import CursorColumn, Secret, SqlConnector, setting
from identity_pipeline.readers.sql.postgres import PostgresEngine


class PostgresIdentity(SqlConnector):
    """A table or view of a PostgreSQL database, version 14 or later."""

    vendor = "postgres"
    cursor_columns: ClassVar = {"*": CursorColumn(type=None, overlap=600)}

    connection_string: Secret = setting(
        "postgresql://user:password@host:5432/database. The certificate is verified against the "
        "host's name; sslmode=disable is for hosts in IDENTITY_ALLOW_PRIVATE_HOSTS."
    )
    table: str = setting(
        "schema.table, or a table of the schema public; "
        'other characters in double quotes: "My Table"'
    )
    ca_certificate: str = setting(
        "Text of the certificate authority (PEM) when it is not a public one.", default=""
    )
    shards: int = setting(
        "Connections that read a large table side by side; 1: a single one reads it.",
        default=2,
        ge=1,
        le=8,
    )

    def engine(self) -> PostgresEngine:
        """One server."""
        return PostgresEngine(self.connection_string, self.ca_certificate or None, self.shards)
