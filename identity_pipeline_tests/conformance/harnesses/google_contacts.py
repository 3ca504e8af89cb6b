"""Google: an account whose clock stands at the last change, read by sync tokens."""

from collections.abc import Sequence
from typing import Any, ClassVar

from identity_pipeline.demo.vendor_api import serve
from identity_pipeline_tests.conformance.harness import Contact, Harness, minute
from identity_pipeline_tests.servers.google_people_api import GooglePeopleAPI


class GoogleContactsHarness(Harness):
    """An account and an access token of it."""

    cursor_column = "updateTime"
    note = "biography.value"
    traits: ClassVar = {
        "cursor", "deletion", "restoring", "pages", "nested", "credential", "permission", "framed", "nul", "surrogate", "line_breaks",
        "megabyte",
    }  # fmt: skip
    lacking: ClassVar = {
        "null_cursor": "the sync token is the cursor: it tells of every change",
        "future_cursor": "the mark is the time of a read, whatever a contact is dated",
        "repeated_id": "ids are unique in an account",
        "text_ids": "ids are given by Google, in hexadecimal digits",
        "merging": "a merge of contacts is a change of one and a deletion of the others",
        "counted": "Google does not say what its totals count where a sync token is sent",
    }
    old_configs: ClassVar = (
        {"access_token": {"env": "TOKEN"}},
        {"access_token": {"credential": "google"}, "other_contacts": True, "base_url": "https://people.googleapis.com"},
    )

    def start(self) -> dict[str, Any]:
        """An empty account behind faults."""
        token = self.canary("access_token")
        self.api = self.enter(serve(GooglePeopleAPI(token=token, now=minute(0))))
        self.shown: dict[str, Contact] = {}
        return {"access_token": self.env("ACCESS_TOKEN", token), "base_url": self.behind_faults(self.api.url)}

    def show(self, contacts: Sequence[Contact]) -> None:
        """Save and delete people; what is not told of vanishes as if it had never been."""
        for c in contacts:
            if self.shown.get(c.id) == c:
                continue
            if c.deleted:
                self.api.delete(c.id)
                continue
            self.api.put(
                c.id,
                c.at,
                names={"givenName": c.first_name, "displayName": c.first_name},
                emailAddresses={"value": c.email},
                phoneNumbers={"value": c.phone},
                **({} if c.note is None else {"biographies": {"value": c.note, "contentType": "TEXT_PLAIN"}}),
            )
        self.shown = {c.id: c for c in contacts}
        self.api.people["connections"] = {name: each for name, each in self.api.people["connections"].items() if name in self.shown}
        self.api.now = max((c.at for c in contacts if c.at), default=self.api.now)

    def shrink_pages(self) -> None:
        """Serve three a page, whatever was asked."""
        self.api.page_size = 3

    def without_id(self, item: dict[str, Any]) -> dict[str, Any]:
        """Without the source that says which contact it is."""
        return {**item, "metadata": {"objectType": "PERSON"}}

    def refuse_credential(self) -> None:
        """Know another token only."""
        self.api.token = "another"

    def refuse_permission(self) -> None:
        """Let the account have granted nothing."""
        self.api.scopes = ()
