"""PostgreSQL: a table of a database, read by a role that may only do that."""

from collections.abc import Sequence
from typing import Any, ClassVar
from urllib.parse import quote
from uuid import uuid4

from psycopg.conninfo import conninfo_to_dict

from identity_pipeline.readers.sql.postgres import stream
from identity_pipeline_tests.conformance.harness import Contact, Harness
from identity_pipeline_tests.postgres_source import customer

_COLUMNS = "id, first_name, email, phone, note, updated_at, deleted_at"


class PostgresIdentityHarness(Harness):
    """A table without any constraint, so that everything can be in it."""

    cursor_column = "updated_at"
    wire = "tcp"
    traits: ClassVar = {
        "cursor", "null_cursor", "future_cursor", "repeated_id", "text_ids", "deletion",
        "restoring", "credential", "permission", "framed", "line_breaks", "megabyte",
    }  # fmt: skip
    lacking: ClassVar = {
        "merging": "tables have no customary column for it: a `mapping:` names one",
        "pages": "a table is one stream",
        "counted": "a table is one stream",
        "nested": "a row has no objects in it",
        "nul": "PostgreSQL stores no U+0000",
        "surrogate": "PostgreSQL stores no lone surrogates",
    }
    second_batch_at = 50_001
    old_configs: ClassVar = (
        {"connection_string": {"env": "DSN"}, "table": "contacts"},
        {
            "connection_string": {"credential": "shop"}, "table": "crm.contacts", "columns": ["id", "email"],
            "cursor_timezone": "Europe/Berlin", "ca_certificate": "",
        },
    )  # fmt: skip

    def start(self) -> dict[str, Any]:
        """An empty table, and a role that may read it, behind a relay."""
        self.source = self.enter(customer(self.tools.postgres_url))
        self.source.run("CREATE TABLE contacts (id text, first_name text, email text, phone text, note text,"
                        " updated_at timestamptz, deleted_at timestamptz)")  # fmt: skip
        self.role, password = f"source_{uuid4().hex[:8]}", self.canary("password")
        fields = conninfo_to_dict(self.enter(self.source.role(self.role, password)))
        self.source.run(f"GRANT SELECT ON contacts TO {self.role}")
        port = self.behind_relay(str(fields["host"]), int(fields["port"] or 5432))
        address = f"postgresql://{self.role}:{quote(password)}@127.0.0.1:{port}/{fields['dbname']}?sslmode=disable"
        return {"connection_string": self.env("CONNECTION_STRING", address), "table": "contacts"}

    def show(self, contacts: Sequence[Contact]) -> None:
        """Replace the rows of the table."""
        self.source.run("TRUNCATE contacts")
        with self.source.admin.cursor() as cursor, cursor.copy(f"COPY contacts ({_COLUMNS}) FROM STDIN") as copy:
            for c in contacts:
                copy.write_row((c.id, c.first_name, c.email, c.phone, c.note, c.at, c.at if c.deleted else None))

    def run(self, *statements: str) -> None:
        """Execute statements as the owner of the table."""
        for statement in statements:
            self.source.run(statement)

    def shrink_pages(self) -> None:
        """Cut frames at three rows."""
        self.tools.monkeypatch.setattr(stream, "BATCH_ROWS", 3)

    def refuse_credential(self) -> None:
        """Change the role's password."""
        self.source.run(f"ALTER ROLE {self.role} PASSWORD 'another'")

    def refuse_permission(self) -> None:
        """Take the right to read away from the role."""
        self.source.run(f"REVOKE SELECT ON contacts FROM {self.role}")
