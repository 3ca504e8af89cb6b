"""BigQuery: a table of a project, read by a service account."""

import json
from collections.abc import Sequence
from typing import Any, ClassVar

import pyarrow as pa

from identity_pipeline.readers.sql.bigquery import stream
from identity_pipeline_tests.conformance.harness import Contact, Harness
from identity_pipeline_tests.servers.bigquery_api import PROJECT, BigQueryAPI

_TIMES = ("updated_at", "deleted_at")
_COLUMNS = ("id", "first_name", "email", "phone", "note", *_TIMES)


class BigqueryIdentityHarness(Harness):
    """A table without any constraint, so that everything can be in it."""

    cursor_column = "updated_at"
    wire = "tcp"
    traits: ClassVar = {
        "cursor", "null_cursor", "future_cursor", "repeated_id", "text_ids", "deletion",
        "restoring", "credential", "permission", "framed", "line_breaks", "megabyte",
    }  # fmt: skip
    lacking: ClassVar = {
        "merging": "tables have no customary column for it: a `mapping:` names one",
        "pages": "a table is one result, whose pages have no names of their own",
        "counted": "a table is one result",
        "nested": "a row has no objects in it that have to be there",
        "nul": "the database of the tests stores no U+0000",
        "surrogate": "BigQuery stores UTF-8",
    }
    second_batch_at = 50_001
    old_configs: ClassVar = (
        {"project": "my-project", "table": "crm.contacts", "service_account": {"env": "KEY"}},
        {
            "project": "my-project", "table": "contacts", "service_account": {"credential": "shop"}, "authentication": "service_account",
            "dataset": "crm", "location": "EU", "maximum_bytes_billed": 1_000_000_000, "base_url": "", "columns": ["id", "email"],
            "cursor_timezone": "Europe/Berlin",
        },
    )  # fmt: skip

    def start(self) -> dict[str, Any]:
        """An empty table, and an account that may read it, behind a relay."""
        self.tools.monkeypatch.setattr(stream, "PATIENCE", 0.0)  # what breaks is not asked for again: that is a test of its own
        self.api = self.enter(BigQueryAPI())
        self.api.run("CREATE SCHEMA crm", "CREATE TABLE crm.contacts (id text, first_name text, email text, phone text, note text,"
                     " updated_at timestamptz, deleted_at timestamptz)")  # fmt: skip
        port = self.behind_relay("127.0.0.1", self.api.port)
        key = self.api.account(port)
        self.canaries.append(json.loads(key)["private_key"].splitlines()[5])
        return {
            "project": PROJECT,
            "table": "crm.contacts",
            "service_account": self.env("SERVICE_ACCOUNT", key),
            "base_url": f"http://127.0.0.1:{port}",
        }

    def show(self, contacts: Sequence[Contact]) -> None:
        """Replace the rows of the table."""
        rows = [(c.id, c.first_name, c.email, c.phone, c.note, c.at, c.at if c.deleted else None) for c in contacts]
        schema = pa.schema([(name, pa.timestamp("us", "UTC") if name in _TIMES else pa.string()) for name in _COLUMNS])
        self.api.run("DELETE FROM crm.contacts")
        self.api.database.register("shown", pa.Table.from_pylist([dict(zip(_COLUMNS, row, strict=True)) for row in rows], schema))
        self.api.run("INSERT INTO crm.contacts SELECT * FROM shown")

    def run(self, *statements: str) -> None:
        """Execute statements as the owner of the table."""
        self.api.run("SET schema = 'crm'", *statements)

    def shrink_pages(self) -> None:
        """Cut batches at three rows."""
        self.tools.monkeypatch.setattr(stream, "BATCH_ROWS", 3)

    def refuse_credential(self) -> None:
        """Give the account another key."""
        self.api.new_key()

    def refuse_permission(self) -> None:
        """Take the right to read data away from the account."""
        self.api.rights.remove("bigquery.tables.getData")
