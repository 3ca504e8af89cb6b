"""MySQL and MariaDB: the rows of one table or view.

Left out: SQL of one's own (a view holds it) and keys of several columns (name a view that makes one
of them). ``external_id`` is the first of ``id``, ``external_id``, ``contact_id``, ``customer_id``,
``record_id``, ``uuid``, ``guid`` that the table has; another column is named by ``id_column``.
Deleted rows show as ``deleted_at`` or ``is_deleted``, or are found by a full refresh.

The cursor's traps:

- A row may be committed long after the time or number it carries. The mark stays behind the start
  of every transaction that is writing, if the user has the privilege PROCESS, the cursor is a time,
  and the rows are written on this server. Else there is the overlap, and each load warns and says
  what closes it: make it as long as the longest transaction.
- The overlap is 600 seconds for a time and 600 numbers for an integer, however long it took to
  hand them out; text has none.
- An ``updated_at`` without ``ON UPDATE CURRENT_TIMESTAMP`` misses changes.
- Rows without a place in the order (null, ``0000-00-00``) are read by every load.
- A mark beyond all integers or texts of the table goes back to the largest, with a warning.
- A ``datetime`` is wall clock in ``cursor_timezone``, a ``timestamp`` an instant; a ``date`` is
  read again until its day is over everywhere. Fractions are rounded when they are stored: a time
  may lie up to a second ahead.
- Text orders by its bytes, whatever its collation, so that no two texts are one. No index serves
  that; without one on the cursor each load reads the whole table.

https://dev.mysql.com/doc/refman/8.4/en/information-schema-innodb-trx-table.html and
https://mariadb.com/kb/en/information-schema-innodb_trx-table/
"""

from typing import ClassVar

from identity_pipeline.connectors.base import CursorColumn, Secret, SqlConnector, setting
from identity_pipeline.readers.sql.mysql import MysqlEngine


class MysqlIdentity(SqlConnector):
    """A table or view of a MySQL 8.4 or MariaDB 10.11 database, or a later one."""

    vendor = "mysql"
    cursor_columns: ClassVar = {"*": CursorColumn(type=None, overlap=600)}

    connection_string: Secret = setting(
        "mysql://user:password@host:3306/database. The certificate is verified against the host's "
        "name; ssl-mode=DISABLED, REQUIRED and VERIFY_CA are for hosts in "
        "IDENTITY_ALLOW_PRIVATE_HOSTS."
    )
    table: str = setting(
        "database.table, or a table of the connection string's database; "
        "a name with other characters goes into backticks, as `My Table`"
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

    def engine(self) -> MysqlEngine:
        """One server."""
        return MysqlEngine(self.connection_string, self.ca_certificate or None, self.shards)
