"""Pipedrive: a company whose persons have a custom field, and whose clock stands a minute after the last change."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from identity_pipeline.demo.vendor_api import serve
from identity_pipeline_tests.conformance.harness import Contact, Harness, minute
from identity_pipeline_tests.servers.pipedrive_api import PipedriveAPI

NOTE = "d4de1c1518b4531717c676029a45911c340390a6"


class PipedrivePersonsHarness(Harness):
    """A company with the token of an administrator."""

    cursor_column = "update_time"
    note = "named.Note"
    traits: ClassVar = {
        "cursor", "future_cursor", "deletion", "restoring", "pages", "credential", "permission", "framed", "nul", "surrogate",
        "line_breaks", "megabyte",
    }  # fmt: skip
    lacking: ClassVar = {
        "null_cursor": "Pipedrive stamps every person with update_time",
        "repeated_id": "ids are unique in a company",
        "text_ids": "ids are numbers",
        "merging": "a merged person vanishes without a word",
        "nested": "a person is listed as it is",
        "counted": "lists say only whether there is more",
    }
    requests_before_pages = 2
    old_configs: ClassVar = (
        {"api_token": {"env": "TOKEN"}},
        {"api_token": {"credential": "pipedrive"}, "base_url": "https://acme.pipedrive.com"},
    )

    def start(self) -> dict[str, Any]:
        """An empty company behind faults."""
        token = self.canary("api_token")
        fields = [{"field_code": NOTE, "field_name": "Note", "field_type": "text"}]
        self.api = self.enter(serve(PipedriveAPI(token=token, fields=fields, now=minute(0))))
        return {"api_token": self.env("API_TOKEN", token), "base_url": self.behind_faults(self.api.url)}

    def show(self, contacts: Sequence[Contact]) -> None:
        """Let the company hold these persons."""
        self.api.persons = {}
        past = (c.at + timedelta(minutes=1) for c in contacts if c.at and c.at < datetime.now(UTC))
        self.api.now = max([self.api.clock(), *past])
        for c in contacts:
            self.api.put(
                int(c.id),
                c.at or minute(0),
                name=c.first_name,
                first_name=c.first_name,
                emails=[{"value": c.email, "primary": True, "label": "work"}],
                phones=[{"value": c.phone, "primary": True, "label": "work"}],
                custom_fields={NOTE: c.note},
                is_deleted=c.deleted,
            )

    def shrink_pages(self) -> None:
        """Serve three a page, whatever was asked."""
        self.api.page_size = 3

    def refuse_credential(self) -> None:
        """Know another token only."""
        self.api.token = "another"
