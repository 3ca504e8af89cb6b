"""Airtable: a table whose name has to be encoded, with a field of the user's own as cursor."""

from collections.abc import Sequence
from typing import Any, ClassVar

from identity_pipeline.demo.vendor_api import serve
from identity_pipeline_tests.conformance.harness import Contact, Harness, instant, minute
from identity_pipeline_tests.servers.airtable_api import AirtableAPI

TABLE = "People & leads/EU"


class AirtableRecordsHarness(Harness):
    """A base with one table."""

    cursor_column = "When {it} changed"
    note = "Note"
    traits: ClassVar = {
        "cursor", "null_cursor", "future_cursor", "pages", "nested", "credential", "permission", "framed", "nul", "surrogate",
        "line_breaks", "megabyte",
    }  # fmt: skip
    lacking: ClassVar = {
        "repeated_id": "ids are unique in a table",
        "text_ids": "ids are given by Airtable, of letters and digits",
        "deletion": "a deleted record leaves no trace: a `mapping:` may name a field",
        "restoring": "a deleted record leaves no trace",
        "merging": "tables have no merges: a `mapping:` may name a field",
        "counted": "lists say only whether there is more",
    }
    requests_before_pages = 1
    old_configs: ClassVar = (
        {"access_token": {"env": "TOKEN"}, "base_id": "appHm1gE0wEh4OFA8", "table": "Contacts"},
        {
            "access_token": {"credential": "airtable"}, "base_id": "appHm1gE0wEh4OFA8", "table": "tblHm1gE0wEh4OFA8",
            "base_url": "https://api.airtable.com",
        },
    )  # fmt: skip

    def start(self) -> dict[str, Any]:
        """An empty table behind faults."""
        token = self.canary("access_token")
        fields = {
            "First Name": "singleLineText",
            "Kontakt": "email",
            "Phone": "phoneNumber",
            "Note": "multilineText",
            "When {it} changed": "dateTime",
        }
        self.api = self.enter(serve(AirtableAPI(token=token, table=TABLE, fields=fields)))
        base_url = self.behind_faults(self.api.url)
        return {"access_token": self.env("ACCESS_TOKEN", token), "base_id": self.api.base_id, "table": TABLE, "base_url": base_url}

    def show(self, contacts: Sequence[Contact]) -> None:
        """Let the table hold these records."""
        self.api.records = []
        for c in contacts:
            cells = {"First Name": c.first_name, "Kontakt": c.email, "Phone": c.phone, "Note": c.note, self.cursor_column: instant(c.at)}
            self.api.records.append(
                {
                    "id": self.external_id(c.id),
                    "createdTime": instant(minute(0)),
                    "fields": {name: value for name, value in cells.items() if value},
                }
            )

    def shrink_pages(self) -> None:
        """Serve three a page, whatever was asked."""
        self.api.page_size = 3

    def external_id(self, contact_id: str) -> str:
        """Ids of Airtable's form."""
        return f"rec{contact_id:0>14}"

    def refuse_credential(self) -> None:
        """Know another token only."""
        self.api.token = "another"

    def refuse_permission(self) -> None:
        """Take all scopes away from the token."""
        self.api.scopes = ()
