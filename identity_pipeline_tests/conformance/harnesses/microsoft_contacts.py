"""Microsoft: a mailbox whose clock stands at the last change, read by delta links."""

from collections.abc import Sequence
from typing import Any, ClassVar

from identity_pipeline.demo.vendor_api import serve
from identity_pipeline_tests.conformance.harness import Contact, Harness, minute
from identity_pipeline_tests.servers.microsoft_graph_api import DEFAULT, MicrosoftGraphAPI

MAILBOX = "ada@contoso.example"


class MicrosoftContactsHarness(Harness):
    """A mailbox and an access token for it."""

    cursor_column = "lastModifiedDateTime"
    note = "personalNotes"
    traits: ClassVar = {
        "cursor", "deletion", "restoring", "pages", "credential", "permission", "framed", "nul", "surrogate", "line_breaks", "megabyte",
    }  # fmt: skip
    lacking: ClassVar = {
        "null_cursor": "the delta link is the cursor: it tells of every change",
        "future_cursor": "the mark is the time of a read, whatever a contact is dated",
        "repeated_id": "ids are unique in a mailbox",
        "text_ids": "ids are given by Exchange",
        "merging": "linked contacts stay contacts of their own",
        "nested": "a contact's fields stand in the contact itself",
        "counted": "a page does not say how many changes there are",
    }
    requests_before_pages = 2
    old_configs: ClassVar = (
        {"access_token": {"env": "TOKEN"}},
        {
            "access_token": {"credential": "org"}, "mailboxes": ["ada@contoso.example", "bob@contoso.example"],
            "base_url": "https://graph.microsoft.us",
        },
    )  # fmt: skip

    def start(self) -> dict[str, Any]:
        """An empty mailbox behind faults."""
        token = self.canary("access_token")
        self.api = self.enter(serve(MicrosoftGraphAPI(token=token, now=minute(0))))
        self.shown: dict[str, Contact] = {}
        return {"access_token": self.env("ACCESS_TOKEN", token), "base_url": self.behind_faults(self.api.url)}

    def show(self, contacts: Sequence[Contact]) -> None:
        """Create, change and delete contacts; what is not told of vanishes as if it had never been."""
        for c in contacts:
            if self.shown.get(c.id) == c:
                continue
            if c.deleted:
                self.api.delete(c.id)
                continue
            self.api.put(
                c.id,
                c.at or minute(0),
                givenName=c.first_name,
                mobilePhone=c.phone,
                emailAddresses=[{"name": c.first_name, "address": c.email}],
                personalNotes=c.note,
                businessAddress={},
            )
        self.shown = {c.id: c for c in contacts}
        folder, alive = self.api.mailboxes[MAILBOX][DEFAULT], {c.id for c in contacts if not c.deleted}
        folder.contacts = {name: each for name, each in folder.contacts.items() if name in alive}
        folder.changed = {name: number for name, number in folder.changed.items() if name in self.shown}
        self.api.now = max((c.at for c in contacts if c.at), default=self.api.now)

    def shrink_pages(self) -> None:
        """Serve three a page, whatever was asked."""
        self.api.page_size = 3

    def refuse_credential(self) -> None:
        """Know another token only."""
        self.api.token = "another"

    def refuse_permission(self) -> None:
        """Let nothing have been granted."""
        self.api.scopes = ()
