"""HubSpot: the bundled server of its contract, with pages of three where asked."""

from collections.abc import Sequence
from typing import Any, ClassVar

from identity_pipeline.demo.hubspot_api import contact, serve
from identity_pipeline_tests.conformance.harness import Contact, Harness, instant


class HubSpotContactsHarness(Harness):
    """A portal with a private app."""

    cursor_column = "lastmodifieddate"
    traits: ClassVar = {
        "cursor", "future_cursor", "deletion",
        "restoring", "merging", "pages", "nested", "counted", "credential",
        "permission", "framed", "nul", "surrogate", "line_breaks", "megabyte",
    }  # fmt: skip
    lacking: ClassVar = {
        "null_cursor": "HubSpot stamps every contact with lastmodifieddate",
        "repeated_id": "ids are unique in a portal, and both list and search go by them",
        "text_ids": "ids are numbers",
    }
    requests_before_pages = 1
    next_page = "paging"
    old_configs: ClassVar = (
        {"access_token": {"env": "TOKEN"}},
        {"access_token": {"credential": "hubspot"}, "base_url": "https://api.hubapi.com", "api_version": "2026-03"},
    )

    def start(self) -> dict[str, Any]:
        """An empty portal behind faults."""
        token = self.canary("access_token")
        self.api = self.enter(serve([], token))
        return {"access_token": self.env("ACCESS_TOKEN", token), "base_url": self.behind_faults(self.api.url)}

    def show(self, contacts: Sequence[Contact]) -> None:
        """Let the portal hold these contacts."""
        self.api.contacts[:] = [
            contact(
                int(c.id),
                instant(c.at) or "",
                archived_at=instant(c.at) if c.deleted else None,
                firstname=c.first_name,
                email=c.email,
                phone=c.phone,
                note=c.note,
                hs_merged_object_ids=";".join(c.absorbed) or None,
            )
            for c in contacts
        ]

    def shrink_pages(self) -> None:
        """Serve three contacts a page, whatever was asked."""
        self.api.page_size = 3

    def refuse_credential(self) -> None:
        """Know another token only."""
        self.api.token = "another"

    def refuse_permission(self) -> None:
        """Take all scopes away from the app."""
        self.api.scopes = ()
