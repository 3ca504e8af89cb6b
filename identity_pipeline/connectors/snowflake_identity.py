"""Snowflake: the rows of one table or view.

Left out: SQL of one's own (a view holds it) and keys of several columns (name a view that makes one
of them). ``external_id`` is the first of ``ID``, ``EXTERNAL_ID``, ``CONTACT_ID``, ``CUSTOMER_ID``,
``RECORD_ID``, ``UUID``, ``GUID`` that the table has; another column is named by ``id_column``.
Deleted rows show as ``DELETED_AT`` or ``IS_DELETED``, or are found by a full refresh.

The cursor's traps:

- A transaction of several statements, or a long MERGE, commits rows long after the time they carry,
  and Snowflake shows open transactions to administrators only. The overlap is an hour (3,600
  numbers for an integer, none for text): make it as long as the longest transaction.
- Rows without a cursor value are read by every load.
- A mark beyond all integers or texts of the table goes back to the largest, with a warning.
- A ``timestamp_ntz`` is wall clock in ``cursor_timezone``; a ``date`` is read again until its day
  is over everywhere. Nanoseconds are cut off a mark, never rounded up.
- A load wakes the warehouse: it costs a minute of it at least. Only a filter on what the table is
  clustered by keeps it from reading the whole table.

https://docs.snowflake.com/en/sql-reference/transactions and /en/user-guide/key-pair-auth
"""

from typing import ClassVar

from identity_pipeline.connectors.base import CursorColumn, Secret, SqlConnector, setting
from identity_pipeline.core.fieldmap import FieldMap
from identity_pipeline.readers import names
from identity_pipeline.readers.sql.snowflake import Authentication, SnowflakeEngine


class SnowflakeIdentity(SqlConnector):
    """A table or view of a Snowflake account."""

    vendor = "snowflake"
    cursor_columns: ClassVar = {"*": CursorColumn(type=None, overlap=3600)}
    field_map: ClassVar[FieldMap] = names.HEADERS

    account: str = setting("Account identifier, such as myorg-account123")
    user: str = setting("User to sign in as")
    credential: Secret = setting("Private key (PEM), token or password, as authentication says")
    authentication: Authentication = setting(
        "How the user signs in: by key pair, programmatic access token, OAuth access token or "
        "(until Snowflake ends it) password.",
        default="key_pair",
    )
    passphrase: Secret | None = setting("Passphrase of an encrypted private key.", default=None)
    table: str = setting(
        "database.schema.table, or less where database is set; "
        "a name in other than capitals goes into double quotes"
    )
    database: str = setting("Database of a table whose name has none.", default="")
    warehouse: str = setting("Warehouse that works for a load. Empty: the user's own.", default="")
    role: str = setting("Role to read with. Empty: the user's own.", default="")
    base_url: str = setting("Address of the account. Empty: that of its name.", default="")

    def engine(self) -> SnowflakeEngine:
        """One account."""
        return SnowflakeEngine(
            self.account,
            self.user,
            self.credential,
            self.authentication,
            self.passphrase,
            self.database,
            self.warehouse,
            self.role,
            self.base_url,
        )
