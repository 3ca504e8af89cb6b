"""MySQL: a table of a MariaDB database, read over TLS by a user who may only do that."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, ClassVar
from urllib.parse import quote
from uuid import uuid4

from identity_pipeline.readers.sql.mysql import stream
from identity_pipeline_tests.conformance.harness import Contact, Harness
from identity_pipeline_tests.mysql_source import customer


def _wall(moment: datetime | None) -> datetime | None:
    return moment and moment.replace(tzinfo=None)


class MysqlIdentityHarness(Harness):
    """A table without any constraint, so that everything can be in it."""

    cursor_column = "updated_at"
    wire = "tcp"
    traits: ClassVar = {
        "cursor", "null_cursor", "future_cursor", "repeated_id", "text_ids", "deletion",
        "restoring", "credential", "permission", "framed", "nul", "line_breaks", "megabyte",
    }  # fmt: skip
    lacking: ClassVar = {
        "merging": "tables have no customary column for it: a `mapping:` names one",
        "pages": "a table is one stream",
        "counted": "a table is one stream",
        "nested": "a row has no objects in it",
        "surrogate": "MySQL stores no lone surrogates in utf8mb4",
    }
    second_batch_at = 50_001
    old_configs: ClassVar = (
        {"connection_string": {"env": "URL"}, "table": "contacts"},
        {
            "connection_string": {"credential": "shop"}, "table": "crm.contacts", "columns": ["id", "email"],
            "cursor_timezone": "Europe/Berlin", "ca_certificate": "",
        },
    )  # fmt: skip

    def start(self) -> dict[str, Any]:
        """An empty table, and a user who may read it, behind a relay."""
        self.source = self.enter(customer())
        self.source.run("CREATE TABLE contacts (id text, first_name text, email text, phone text, note longtext,"
                        " updated_at datetime(6), deleted_at datetime(6))")  # fmt: skip
        self.user, password = f"source_{uuid4().hex[:8]}", self.canary("password")
        self.enter(self.source.user(self.user, password, "SELECT ON crm.contacts", "PROCESS ON *.*"))
        port = self.behind_relay("127.0.0.1", self.source.server.port)
        address = f"mysql://{self.user}:{quote(password)}@127.0.0.1:{port}/crm"
        return {
            "connection_string": self.env("MYSQL_CONNECTION_STRING", address),
            "table": "contacts",
            "ca_certificate": self.source.server.ca,
        }

    def show(self, contacts: Sequence[Contact]) -> None:
        """Replace the rows of the table."""
        rows = [(c.id, c.first_name, c.email, c.phone, c.note, _wall(c.at), _wall(c.at) if c.deleted else None) for c in contacts]
        self.source.run("TRUNCATE contacts")
        with self.source.admin.cursor() as cursor:
            cursor.executemany("INSERT INTO contacts VALUES (%s, %s, %s, %s, %s, %s, %s)", rows)

    def run(self, *statements: str) -> None:
        """Execute statements as the owner of the table."""
        self.source.run(*statements)

    def shrink_pages(self) -> None:
        """Cut frames at three rows."""
        self.tools.monkeypatch.setattr(stream, "BATCH_ROWS", 3)

    def refuse_credential(self) -> None:
        """Change the user's password."""
        self.source.run(f"ALTER USER {self.user}@'%' IDENTIFIED BY 'another'")

    def refuse_permission(self) -> None:
        """Take the right to read away from the user."""
        self.source.run(f"REVOKE SELECT ON crm.contacts FROM {self.user}@'%'")
