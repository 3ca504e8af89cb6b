"""Stripe: the customers of one account, what changed and was deleted told by its events.

Left out: payments and invoices; customers of test clocks; accounts of the Accounts v2 API that are
no customers. Stripe has no merges, and no consent to marketing.

The cursor's traps:

- A customer carries no time of its last change, so neither does its record: `updated` follows the
  events, and its mark is the source's own time at the start of a read.
- Events are kept for 30 days: a mark that is older, or a key that may not read them, costs a read
  of all customers, with a warning.
- Lists stream the newest first, so the mark is set once the last page is there.
- An event shows the customer in the API version of its time.
- `created` finds only new customers.

https://docs.stripe.com/api/events/list
"""

from datetime import timedelta
from typing import ClassVar

from identity_pipeline.connectors.base import CursorColumn, RestConnector, Secret, setting
from identity_pipeline.core.cursor import Reading
from identity_pipeline.core.fieldmap import REJECTED, FieldMap
from identity_pipeline.core.window import Window
from identity_pipeline.readers import rest

CHANGES = ("customer.created", "customer.updated", "customer.deleted")
NEXT = rest.CursorPaginator(
    "data.-1.id", "query.starting_after", more=lambda page: page.flag("has_more")
)


class StripeCustomers(RestConnector):
    """The customers of one Stripe account."""

    vendor = "stripe"

    api_key: Secret = setting("Restricted or secret key that may read customers and events")
    account: str = setting(
        "Connected account, acct_…, whose customers to read. Empty: the key's own.",
        default="",
        pattern=r"^(acct_[A-Za-z0-9]+)?$",
    )
    base_url: str = setting("Address of the API", default="https://api.stripe.com")
    api_version: str = setting(
        "Dated version of the API",
        default="2026-10-28.endive",
        pattern=r"^20\d\d-\d\d-\d\d(\.[a-z]+)?$",
    )

    order = "newest_first"
    interval = 0.04
    errors = rest.ErrorBody(
        code=("error.code", "error.type"),
        message=("error.message",),
        known={
            "more_permissions_required_for_application": rest.VendorError(
                advice="grant the restricted key this permission, then run it again"
            ),
            "secret_key_required": rest.VendorError(
                advice="this is a publishable key (pk_…): store a restricted or secret key"
            ),
        },
        phrases=r"\brak_[a-z_]+\b",
    )
    cursor_columns: ClassVar = {
        "updated": CursorColumn("timestamp", overlap=300, in_records=False),
        "created": CursorColumn("timestamp", overlap=300, reading=Reading(unit="s")),
    }
    field_map = FieldMap(
        email=("email",),
        phone=("phone", "shipping.phone"),
        full_name=("name", "individual_name", "shipping.name"),
        company=("business_name",),
        street=("address.line1", "shipping.address.line1"),
        city=("address.city", "shipping.address.city"),
        region=("address.state", "shipping.address.state"),
        postal_code=("address.postal_code", "shipping.address.postal_code"),
        country=("address.country", "shipping.address.country"),
        source_created_at=("created",),
        deleted_at=("deleted_at",),
    )

    def auth(self) -> rest.Auth:
        """A bearer token."""
        return rest.BearerAuth(self.api_key)

    def headers(self) -> dict[str, str]:
        """The version, and the connected account."""
        return {"Stripe-Version": self.api_version} | (
            {"Stripe-Account": self.account} if self.account else {}
        )

    def pages(self, client: rest.Client, window: Window) -> rest.Pages:
        """Yield the customers that events tell of; or all, then those that were deleted of late."""
        column = window.cursor_column if window.incremental else None
        told = client.optional(
            rest.Request("/v1/events", {"limit": 1, "types[]": CHANGES}),
            "loads read all customers, and only full refreshes find who was deleted",
        )
        if told and column == "updated" and window.within(timedelta(days=29)):
            yield from self._changed(client, CHANGES, window.lower_bound("s"))
            return
        new = window.lower_bound("s") if column == "created" else None
        for page in client.pages(
            rest.Request("/v1/customers", {"limit": 100, "created[gte]": new}, size="query.limit"),
            NEXT,
        ):
            if page.at("data.0.livemode") is False:
                window.context.warn("the key is one of a sandbox: these are test customers")
            yield page.records("data")
        if told:
            yield from self._changed(client, CHANGES[-1:])

    def _changed(
        self, client: rest.Client, types: tuple[str, ...], since: str | None = None
    ) -> rest.Pages:
        query = {"limit": 100, "types[]": types, "created[gte]": since}
        for page in client.pages(rest.Request("/v1/events", query, size="query.limit"), NEXT):
            yield [_customer(event) for event in page.records("data", lift="data")]


def _customer(event: rest.Record) -> rest.Record:
    """The customer that an event holds, as the event left it."""
    held, none = event.get("data.object"), {REJECTED: "malformed: an event without a customer"}
    gone = {"deleted_at": event.get("created")} if event.get("type") == CHANGES[-1] else {}
    return {**held, **gone} if isinstance(held, dict) else {**none, **event}
