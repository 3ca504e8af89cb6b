"""Stripe: an account whose clock stands at the last change, read by its events."""

from collections.abc import Sequence
from typing import Any, ClassVar

from identity_pipeline.demo.vendor_api import serve
from identity_pipeline_tests.conformance.harness import Contact, Harness, instant, minute
from identity_pipeline_tests.servers.stripe_api import StripeAPI


class StripeCustomersHarness(Harness):
    """An account with a key that may read customers and events."""

    cursor_column = "updated"
    note = "metadata.note"
    traits: ClassVar = {
        "cursor", "deletion", "pages", "credential", "permission", "framed", "nul", "surrogate", "line_breaks", "megabyte",
    }  # fmt: skip
    lacking: ClassVar = {
        "null_cursor": "every event has its time",
        "future_cursor": "the mark is the time of a read, whatever an event is dated",
        "repeated_id": "ids are unique in an account",
        "text_ids": "ids are given by Stripe, of letters and digits",
        "restoring": "a deleted customer stays deleted",
        "merging": "customers cannot be merged",
        "nested": "a customer is listed as it is; events hold one",
        "counted": "lists say only whether there is more",
    }
    requests_before_pages = 1
    by_events = True
    old_configs: ClassVar = (
        {"api_key": {"env": "KEY"}},
        {
            "api_key": {"credential": "stripe"}, "account": "acct_123", "base_url": "https://api.stripe.com",
            "api_version": "2026-10-28.endive",
        },
    )  # fmt: skip

    def start(self) -> dict[str, Any]:
        """An empty account behind faults."""
        key = self.canary("api_key")
        self.api = self.enter(serve(StripeAPI(key=key, now=minute(0))))
        self.held: dict[str, Contact] = {}
        return {"api_key": self.env("API_KEY", key), "base_url": self.behind_faults(self.api.url)}

    def show(self, contacts: Sequence[Contact]) -> None:
        """Create, change and delete customers, each at its time; what is not told of vanishes as if it had never been."""
        for c in contacts:
            assert c.at is not None
            if c.deleted:
                if c.id in self.held:
                    self.api.delete(self.external_id(c.id), c.at)
            elif self.held.get(c.id) != c:
                self.api.put(
                    self.external_id(c.id),
                    c.at,
                    name=c.first_name,
                    email=c.email,
                    phone=c.phone,
                    metadata={"note": c.note, "at": instant(c.at)},
                )
        self.held = {c.id: c for c in contacts if not c.deleted}
        kept = {self.external_id(c) for c in self.held}
        self.api.customers = {name: each for name, each in self.api.customers.items() if name in kept}
        self.api.now = max((c.at for c in contacts if c.at), default=self.api.now)

    def shrink_pages(self) -> None:
        """Serve three a page, whatever was asked."""
        self.api.page_size = 3

    def external_id(self, contact_id: str) -> str:
        """Ids of Stripe's form."""
        return f"cus_{contact_id}"

    def without_id(self, item: dict[str, Any]) -> dict[str, Any]:
        """Of an event, the customer's id."""
        if "data" not in item:
            return super().without_id(item)
        held = {name: value for name, value in item["data"]["object"].items() if name != "id"}
        return {**item, "data": {"object": held}}

    def refuse_credential(self) -> None:
        """Know another key only."""
        self.api.key = "another"

    def refuse_permission(self) -> None:
        """Take all permissions away from the key."""
        self.api.permissions = ()
