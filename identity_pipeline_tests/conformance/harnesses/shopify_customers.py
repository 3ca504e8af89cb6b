"""Shopify: a shop and an app that may read its customers."""

from collections.abc import Sequence
from typing import Any, ClassVar

from identity_pipeline.demo.vendor_api import serve
from identity_pipeline_tests.conformance.harness import Contact, Harness, instant
from identity_pipeline_tests.servers.shopify_api import ShopifyAPI, customer


class ShopifyCustomersHarness(Harness):
    """A shop, read with an access token."""

    cursor_column = "updatedAt"
    traits: ClassVar = {
        "cursor", "pages", "credential", "permission", "framed", "nul", "surrogate", "line_breaks", "megabyte",
    }  # fmt: skip
    lacking: ClassVar = {
        "null_cursor": "Shopify stamps every customer with updatedAt",
        "future_cursor": "Shopify stamps customers by its own clock",
        "repeated_id": "ids are unique in a shop",
        "text_ids": "ids are numbers",
        "deletion": "only webhooks tell of a deleted customer",
        "restoring": "a deleted customer does not come back",
        "merging": "only webhooks tell of a merge",
        "nested": "a customer's fields stand in the customer itself",
        "counted": "a page does not say how many customers there are",
    }
    old_configs: ClassVar = (
        {"shop": "acme.myshopify.com", "access_token": {"env": "TOKEN"}},
        {
            "shop": "acme.myshopify.com", "access_token": {"credential": "shopify"}, "client_id": "0a1b", "metafields": 50,
            "base_url": "https://acme.myshopify.com", "api_version": "2026-10",
        },
    )  # fmt: skip

    def start(self) -> dict[str, Any]:
        """A shop without customers behind faults."""
        token = self.canary("access_token")
        self.api = self.enter(serve(ShopifyAPI(token=token)))
        return {
            "shop": "acme.myshopify.com",
            "access_token": self.env("ACCESS_TOKEN", token),
            "base_url": self.behind_faults(self.api.url),
        }

    def show(self, contacts: Sequence[Contact]) -> None:
        """Let the shop have these customers."""
        self.api.customers[:] = [
            customer(int(c.id), instant(c.at) or "", email=c.email, phone=c.phone, firstName=c.first_name, note=c.note) for c in contacts
        ]

    def shrink_pages(self) -> None:
        """Serve three customers a page, whatever was asked."""
        self.api.page_size = 3

    def refuse_credential(self) -> None:
        """Know another token only."""
        self.api.token = "another"

    def refuse_permission(self) -> None:
        """Take the scope away from the app."""
        self.api.scopes = ()
