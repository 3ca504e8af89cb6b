"""Mailchimp: an account with one audience."""

from collections.abc import Sequence
from typing import Any, ClassVar

from identity_pipeline.demo.vendor_api import serve
from identity_pipeline_tests.conformance.harness import Contact, Harness
from identity_pipeline_tests.servers.mailchimp_api import MailchimpAPI, member

AUDIENCE = "57afe96172"


class MailchimpMembersHarness(Harness):
    """An account whose audiences are all read."""

    cursor_column = "last_changed"
    note = "merge_fields.NOTE"
    traits: ClassVar = {
        "cursor", "deletion", "restoring", "pages", "credential", "permission", "framed", "nul", "surrogate", "line_breaks", "megabyte",
    }  # fmt: skip
    lacking: ClassVar = {
        "null_cursor": "Mailchimp stamps every member with last_changed",
        "future_cursor": "Mailchimp stamps members by its own clock",
        "repeated_id": "a contact is once in an audience",
        "text_ids": "Mailchimp makes the ids",
        "merging": "Mailchimp merges no members",
        "nested": "a member's fields stand in the member itself",
        "counted": "the number of members is where pages end, and moves while they change",
    }
    requests_before_pages = 2
    second_batch_at = 6_001
    old_configs: ClassVar = (
        {"api_key": {"env": "KEY"}},
        {
            "api_key": {"credential": "mailchimp"},
            "audiences": [AUDIENCE],
            "data_centre": "us21",
            "base_url": "https://us21.api.mailchimp.com",
        },
    )

    def start(self) -> dict[str, Any]:
        """An account with an empty audience, behind faults."""
        key = self.canary("api_key")
        self.api = self.enter(serve(MailchimpAPI(key=key)))
        self.members = self.api.audience(AUDIENCE)
        return {"api_key": self.env("API_KEY", key), "base_url": self.behind_faults(self.api.url)}

    def show(self, contacts: Sequence[Contact]) -> None:
        """Let the audience hold these members."""
        self.members[:] = [
            member(
                c.id,
                c.at.isoformat(timespec="seconds") if c.at else "",
                c.email and c.email.replace("@", f"+{c.id}@"),
                full_name=c.first_name,
                status="archived" if c.deleted else "subscribed",
                merge_fields={"FNAME": c.first_name, "LNAME": "", "ADDRESS": "", "PHONE": c.phone, "NOTE": c.note},
            )
            for c in contacts
        ]

    def external_id(self, contact_id: str) -> str:
        """The audience's id and the contact's."""
        return f"{AUDIENCE}:{contact_id}"

    def without_id(self, item: dict[str, Any]) -> dict[str, Any]:
        """A member without the ids of the contact."""
        return {name: value for name, value in item.items() if name not in {"contact_id", "unique_email_id"}}

    def shrink_pages(self) -> None:
        """Serve three members a page, whatever was asked."""
        self.api.page_size = 3

    def refuse_credential(self) -> None:
        """Know another key only."""
        self.api.key = "another"
