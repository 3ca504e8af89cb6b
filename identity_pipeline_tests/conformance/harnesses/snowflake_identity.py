"""Snowflake: a table of an account, read by a user with a programmatic access token."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, ClassVar

from identity_pipeline.readers.sql.snowflake import session, stream
from identity_pipeline_tests.conformance.harness import Contact, Harness
from identity_pipeline_tests.snowflake_source import customer

_COLUMNS = ("id", "first_name", "email", "phone", "note", "updated_at", "deleted_at")


def _wall(moment: datetime | None) -> datetime | None:
    return moment and moment.replace(tzinfo=None)


class SnowflakeIdentityHarness(Harness):
    """A table without any constraint, so that everything can be in it."""

    cursor_column = "UPDATED_AT"
    note = "NOTE"
    wire = "tcp"
    trailing = 20_000  # after the rows the driver may still tell how it fared, or not
    traits: ClassVar = {
        "cursor", "null_cursor", "future_cursor", "repeated_id", "text_ids", "deletion",
        "restoring", "credential", "permission", "framed", "line_breaks", "megabyte",
    }  # fmt: skip
    lacking: ClassVar = {
        "merging": "tables have no customary column for it: a `mapping:` names one",
        "pages": "a table is one result",
        "counted": "a table is one result",
        "nested": "a row has no objects in it",
        "nul": "the server of the tests stores no U+0000",
        "surrogate": "Snowflake stores UTF-8",
    }
    second_batch_at = 50_001
    old_configs: ClassVar = (
        {"account": "myorg-shop", "user": "READER", "credential": {"env": "KEY"}, "table": "crm.public.contacts"},
        {
            "account": "myorg-shop", "user": "READER", "credential": {"credential": "shop"}, "authentication": "token", "table": "contacts",
            "passphrase": {"env": "PHRASE"},
            "database": "crm", "warehouse": "small", "role": "reader", "base_url": "", "columns": ["ID", "EMAIL"],
            "cursor_timezone": "Europe/Berlin",
        },
    )  # fmt: skip

    def start(self) -> dict[str, Any]:
        """An empty table, and a user who may read it, behind a relay."""
        self.tools.monkeypatch.setattr(session, "LOGIN_TIMEOUT", 2)
        self.tools.monkeypatch.setattr(session, "REQUEST_TIMEOUT", 5)
        self.source = self.enter(customer())
        self.source.run("CREATE TABLE contacts (id text, first_name text, email text, phone text, note text,"
                        " updated_at timestamp_ntz, deleted_at timestamp_ntz)")  # fmt: skip
        self.reader = {"token": self.canary("token")}
        self.source.account.let({"READER": self.reader})
        port = self.behind_relay("127.0.0.1", self.source.account.port)
        return {
            "account": "myorg-shop",
            "user": "READER",
            "credential": self.env("TOKEN", self.reader["token"]),
            "authentication": "token",
            "table": "contacts",
            "database": "crm",
            "base_url": f"http://127.0.0.1:{port}",
        }

    def show(self, contacts: Sequence[Contact]) -> None:
        """Replace the rows of the table."""
        rows = [(c.id, c.first_name, c.email, c.phone, c.note, _wall(c.at), _wall(c.at) if c.deleted else None) for c in contacts]
        self.source.fill("CRM.PUBLIC.CONTACTS", _COLUMNS, rows)

    def run(self, *statements: str) -> None:
        """Execute statements as the owner of the table."""
        self.source.run(*statements)

    def shrink_pages(self) -> None:
        """Cut batches at three rows."""
        self.tools.monkeypatch.setattr(stream, "BATCH_ROWS", 3)

    def refuse_credential(self) -> None:
        """Withdraw the token."""
        self.source.account.let({"READER": {"token": "another"}})

    def refuse_permission(self) -> None:
        """Take the right to select away from the user."""
        self.source.account.let({"READER": {**self.reader, "denied": True}})
