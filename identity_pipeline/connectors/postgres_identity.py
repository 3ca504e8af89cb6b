"""PostgreSQL: the rows of one table or view.

Left out: SQL of one's own (a view holds it) and keys of several columns (name a view that makes one
of them). ``external_id`` is the first of ``id``, ``external_id``, ``contact_id``, ``customer_id``,
``uuid``, ``guid`` that the table has; a key of another name goes under ``mapping: {external_id: …}``. Deleted
rows show as ``deleted_at`` or ``is_deleted``, or are found by a full refresh.

The cursor's traps:

- A row may be committed long after the time or number it carries. The mark stays behind the oldest
  transaction that is still writing, where the user may see it (``GRANT pg_read_all_stats``; on a
  replica nobody does); else the overlap covers it: 600 seconds, or 600 numbers handed out. A text
  cursor has no overlap.
- An ``updated_at`` that no trigger keeps misses changes.
- Rows without a cursor value are read by a full read only; ``infinity`` by every one.
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

    def engine(self) -> PostgresEngine:
        """One server."""
        return PostgresEngine(self.connection_string, self.ca_certificate or None)
