"""Zendesk: an account whose users changed a while ago."""

from collections.abc import Sequence
from typing import Any, ClassVar

from identity_pipeline.demo.vendor_api import serve
from identity_pipeline_tests.conformance.harness import Contact, Harness, instant
from identity_pipeline_tests.servers.zendesk_api import ZendeskAPI, user


class ZendeskUsersHarness(Harness):
    """An account, read by an administrator with an OAuth token."""

    cursor_column = "updated_at"
    note = "user_fields.note"
    traits: ClassVar = {
        "cursor", "deletion", "pages", "credential", "permission", "framed", "nul", "surrogate", "line_breaks", "megabyte",
    }  # fmt: skip
    lacking: ClassVar = {
        "null_cursor": "Zendesk stamps every user with updated_at",
        "future_cursor": "Zendesk stamps users by its own clock",
        "repeated_id": "ids are unique in an account",
        "text_ids": "ids are numbers",
        "restoring": "a deleted user cannot be brought back",
        "merging": "the loser is deleted, and nothing names the survivor",
        "nested": "a user's fields stand in the user itself",
        "counted": "the export does not say how many users there are",
    }
    old_configs: ClassVar = (
        {"subdomain": "acme", "token": {"env": "TOKEN"}},
        {
            "subdomain": "acme", "token": {"credential": "zendesk"}, "client_id": "sync", "email": "", "agents": True, "identities": True,
            "base_url": "https://acme.zendesk.com",
        },
    )  # fmt: skip

    def start(self) -> dict[str, Any]:
        """An empty account behind faults."""
        token = self.canary("token")
        self.api = self.enter(serve(ZendeskAPI(token=token)))
        return {"subdomain": "acme", "token": self.env("TOKEN", token), "base_url": self.behind_faults(self.api.url)}

    def show(self, contacts: Sequence[Contact]) -> None:
        """Let the account hold these users."""
        for gone in set(self.api.users) - {int(c.id) for c in contacts}:
            del self.api.users[gone]
        for c in contacts:
            self.api.put(
                user(
                    int(c.id),
                    instant(c.at) or "",
                    active=not c.deleted,
                    name=c.first_name,
                    email=c.email,
                    phone=c.phone,
                    user_fields={"note": c.note},
                )
            )

    def shrink_pages(self) -> None:
        """Serve three users a page, whatever was asked."""
        self.api.page_size = 3

    def refuse_credential(self) -> None:
        """Know another token only."""
        self.api.token = "another"

    def refuse_permission(self) -> None:
        """Make the token an agent's."""
        self.api.role = "agent"
