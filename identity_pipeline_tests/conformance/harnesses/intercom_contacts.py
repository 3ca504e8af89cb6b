"""Intercom: a workspace far west, whose days begin late."""

from collections.abc import Sequence
from typing import Any, ClassVar

from identity_pipeline.demo.vendor_api import serve
from identity_pipeline_tests.conformance.harness import Contact, Harness, minute
from identity_pipeline_tests.servers.intercom_api import IntercomAPI


class IntercomContactsHarness(Harness):
    """A workspace with an app that may read people."""

    cursor_column = "updated_at"
    note = "custom_attributes.note"
    traits: ClassVar = {
        "cursor", "future_cursor", "deletion", "merging", "pages", "counted", "credential", "permission", "framed", "nul", "surrogate",
        "line_breaks", "megabyte",
    }  # fmt: skip
    lacking: ClassVar = {
        "null_cursor": "Intercom stamps every contact with updated_at",
        "repeated_id": "ids are unique in a workspace",
        "text_ids": "ids are given by Intercom, in hexadecimal digits",
        "restoring": "what is deleted for good does not come back",
        "nested": "a contact is listed as it is",
    }
    next_page = "pages"
    second_batch_at = 5_200
    old_configs: ClassVar = (
        {"access_token": {"env": "TOKEN"}},
        {"access_token": {"credential": "intercom"}, "base_url": "https://api.eu.intercom.io", "api_version": "2.16"},
    )

    def start(self) -> dict[str, Any]:
        """An empty workspace behind faults."""
        token = self.canary("access_token")
        self.api = self.enter(serve(IntercomAPI(token=token)))
        self.shown: dict[str, Contact] = {}
        return {"access_token": self.env("ACCESS_TOKEN", token), "base_url": self.behind_faults(self.api.url)}

    def show(self, contacts: Sequence[Contact]) -> None:
        """Create, change, delete and merge contacts, each at its time; what is not told of vanishes."""
        for c in contacts:
            if self.shown.get(c.id) == c:
                continue
            at = c.at or minute(0)
            if c.deleted:
                self.api.delete(c.id, at)
                continue
            self.api.put(c.id, at, name=c.first_name, email=c.email, phone=c.phone, custom_attributes={"note": c.note})
            for loser in c.absorbed:
                self.api.merge(loser, c.id, at)
        self.shown = {c.id: c for c in contacts}
        self.api.contacts = {c.id: self.api.contacts[c.id] for c in contacts if not c.deleted}

    def shrink_pages(self) -> None:
        """Serve three a page, whatever was asked."""
        self.api.page_size = 3

    def refuse_credential(self) -> None:
        """Know another token only."""
        self.api.token = "another"

    def refuse_permission(self) -> None:
        """Take all scopes away from the app."""
        self.api.scopes = ()
