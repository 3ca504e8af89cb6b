"""Klaviyo: an account with a private key."""

from collections.abc import Sequence
from typing import Any, ClassVar

from identity_pipeline.demo.vendor_api import serve
from identity_pipeline_tests.conformance.harness import Contact, Harness, instant
from identity_pipeline_tests.servers.klaviyo_api import KlaviyoAPI, profile


class KlaviyoProfilesHarness(Harness):
    """An account, read with a private key."""

    cursor_column = "updated"
    note = "properties.note"
    traits: ClassVar = {
        "cursor", "pages", "nested", "credential", "permission", "framed", "nul", "surrogate", "line_breaks", "megabyte",
    }  # fmt: skip
    lacking: ClassVar = {
        "null_cursor": "Klaviyo stamps every profile with updated",
        "future_cursor": "Klaviyo stamps profiles by its own clock",
        "repeated_id": "ids are unique in an account",
        "text_ids": "Klaviyo makes the ids: ULIDs",
        "deletion": "a deleted profile vanishes without a sign",
        "restoring": "a deleted profile does not come back",
        "merging": "the source of a merge vanishes without a sign",
        "counted": "a page does not say how many profiles there are",
    }
    old_configs: ClassVar = (
        {"api_key": {"env": "KEY"}},
        {"api_key": {"credential": "klaviyo"}, "base_url": "https://a.klaviyo.com", "api_version": "2026-07-15"},
    )

    def start(self) -> dict[str, Any]:
        """An empty account behind faults."""
        key = self.canary("api_key")
        self.api = self.enter(serve(KlaviyoAPI(key=key)))
        return {"api_key": self.env("API_KEY", key), "base_url": self.behind_faults(self.api.url)}

    def show(self, contacts: Sequence[Contact]) -> None:
        """Let the account hold these profiles."""
        self.api.profiles[:] = [
            profile(c.id, instant(c.at) or "", first_name=c.first_name, email=c.email, phone_number=c.phone, properties={"note": c.note})
            for c in contacts
        ]

    def shrink_pages(self) -> None:
        """Serve three profiles a page, whatever was asked."""
        self.api.page_size = 3

    def refuse_credential(self) -> None:
        """Know another key only."""
        self.api.key = "another"

    def refuse_permission(self) -> None:
        """Take the scope away from the key."""
        self.api.scopes = ()
