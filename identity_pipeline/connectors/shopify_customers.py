"""Shopify: the customers of one shop with addresses, metafields and their consent to marketing.

Left out: orders. A customer who was deleted, redacted or merged into another vanishes without a
sign (only webhooks tell), until a full refresh. `displayName` is no name where there is none: it is
the address or number then.

The cursor's traps:

- A filter that Shopify cannot read is ignored, with status 200; a time without quotes is taken for
  a whole day. The first page is looked at, and what is older is left out here.
- The search index lags, hence the overlap. `createdAt` finds new customers only.
- A version that has ended is answered by the oldest living one: the answer's header is compared.
- Errors come with status 200, and a part of the data beside them: no part is taken.
- Names, addresses and numbers are protected: to an app that may not see them they are null. A page
  that shows nobody may be of such customers, or of an app that lost the access: the shop's first
  customers tell.

https://shopify.dev/docs/api/admin-graphql/latest/queries/customers
"""

from typing import ClassVar

from identity_pipeline.connectors.base import CursorColumn, RestConnector, Secret, setting
from identity_pipeline.core.errors import (
    LimitExceeded,
    PermissionDenied,
    RateLimited,
    SourceRejected,
    SourceUnavailable,
)
from identity_pipeline.core.fieldmap import FieldMap
from identity_pipeline.core.window import Window
from identity_pipeline.readers import rest

QUERY = """
query ($first: Int!, $after: String, $query: String, $sort: CustomerSortKeys, $metafields: Int!) {
  customers(first: $first, after: $after, query: $query, sortKey: $sort) {
    pageInfo { hasNextPage endCursor }
    nodes {
      id legacyResourceId createdAt updatedAt firstName lastName displayName locale state tags note
      verifiedEmail taxExempt numberOfOrders
      defaultEmailAddress { emailAddress marketingState marketingOptInLevel marketingUpdatedAt }
      defaultPhoneNumber { phoneNumber marketingState marketingOptInLevel marketingUpdatedAt }
      defaultAddress { ...address }
      addressesV2(first: 10) { nodes { ...address } }
      metafields(first: $metafields) { pageInfo { hasNextPage } nodes { namespace key value } }
    }
  }
}
fragment address on MailingAddress {
  id firstName lastName company address1 address2 city province provinceCode zip country
  countryCodeV2 phone
}
"""
NEXT = rest.CursorPaginator(
    "data.customers.pageInfo.endCursor",
    "body.variables.after",
    more=lambda page: page.flag("data.customers.pageInfo.hasNextPage"),
)
PROTECTED = rest.Withheld(
    "data.customers.nodes",
    ("defaultEmailAddress", "defaultPhoneNumber", "firstName", "lastName"),
    "customers without name, address and number: request access to protected customer data (name, "
    "phone, email) for the app",
)
ASKED = {"updatedAt": ("updated_at", "UPDATED_AT"), "createdAt": ("created_at", "CREATED_AT")}


class ShopifyCustomers(RestConnector):
    """The customers of one Shopify shop."""

    vendor = "shopify"

    shop: str = setting(
        "Domain of the shop: acme.myshopify.com",
        pattern=r"^[a-z0-9][a-z0-9-]*\.myshopify\.com$",
        examples=["acme.myshopify.com"],
    )
    access_token: Secret = setting(
        "Access token of the Admin API; with client_id, the secret of that app"
    )
    client_id: str = setting("Client ID of an app: tokens are got for it", default="")
    metafields: int = setting(
        "Most metafields of a customer that are read", default=20, ge=1, le=250
    )
    base_url: str = setting("Address of the shop. Empty: https://SHOP", default="")
    api_version: str = setting(
        "Version of the API", default="2026-10", pattern=r"^20\d\d-(01|04|07|10)$"
    )

    api_versions: ClassVar = {
        "2026-01": "2027-01-01",
        "2026-04": "2027-04-01",
        "2026-07": "2027-07-01",
        "2026-10": "2027-10-01",
    }
    limits = (
        rest.CostBudget(
            "extensions.cost.requestedQueryCost",
            "extensions.cost.throttleStatus.currentlyAvailable",
            "extensions.cost.throttleStatus.restoreRate",
        ),
    )
    errors = rest.ErrorBody(
        code=("errors.0.extensions.code",),
        message=("errors.0.message",),
        known={
            "THROTTLED": rest.VendorError(error=RateLimited),
            "MAX_COST_EXCEEDED": rest.VendorError(
                error=LimitExceeded, advice="lower metafields, then run it again"
            ),
            "INTERNAL_SERVER_ERROR": rest.VendorError(error=SourceUnavailable),
            "ACCESS_DENIED": rest.VendorError(
                error=PermissionDenied,
                advice="grant the app the scope read_customers and access to protected customer "
                "data (name, address, phone, email), install it again, then run it again",
            ),
            "SHOP_INACTIVE": rest.VendorError(
                error=SourceRejected, advice="the shop is closed: its owner has to open it again"
            ),
            "402": rest.VendorError(advice="the shop is frozen: its owner has to settle its plan"),
            "404": rest.VendorError(advice="no shop answers there: check shop and api_version"),
            "423": rest.VendorError(
                error=SourceRejected,
                advice="the shop is locked: its owner has to ask Shopify's support",
            ),
        },
        phrases=r"\bread_customers\b|\bnot approved to access\b",
        failed="errors",
    )
    cursor_columns: ClassVar = {
        "updatedAt": CursorColumn("timestamp", overlap=600),
        "createdAt": CursorColumn("timestamp", overlap=600),
    }
    field_map = FieldMap(
        external_id=("legacyResourceId",),
        email=("defaultEmailAddress.emailAddress",),
        phone=("defaultPhoneNumber.phoneNumber", "defaultAddress.phone"),
        first_name=("firstName",),
        last_name=("lastName",),
        company=("defaultAddress.company",),
        street=("defaultAddress.address1",),
        city=("defaultAddress.city",),
        region=("defaultAddress.provinceCode",),
        postal_code=("defaultAddress.zip",),
        country=("defaultAddress.countryCodeV2",),
        source_created_at=("createdAt",),
        source_updated_at=("updatedAt",),
    )

    def address(self) -> str:
        """The shop."""
        return self.base_url or f"https://{self.shop}"

    def auth(self) -> rest.Auth:
        """A token as it is, or one that an app gets."""
        granted = rest.ClientCredentials(
            f"{self.address()}/admin/oauth/access_token", self.client_id, self.access_token
        )
        token = granted if self.client_id else self.access_token
        return rest.ApiKeyAuth(token, "X-Shopify-Access-Token")

    def pages(self, client: rest.Client, window: Window) -> rest.Pages:
        """Yield the customers that changed, or all."""
        name, sort = ASKED[window.cursor_column or "updatedAt"]
        since = f"{name}:>='{window.lower_bound('iso_s')}'" if window.incremental else None
        request = rest.Request(
            f"/admin/api/{self.api_version}/graphql.json",
            body={
                "query": QUERY,
                "variables": {
                    "first": 100,
                    "metafields": self.metafields,
                    "sort": sort,
                    "query": since,
                },
            },
            size="body.variables.first",
        )
        every = request.put("body.variables.query", None).put("body.variables.sort", "ID")
        pages = client.pages(request, NEXT)
        for page in PROTECTED.guarded(
            pages, lambda: next(client.pages(every, NEXT)), window.context
        ):
            yield self._customers(page, window)

    def _customers(self, page: rest.Response, window: Window) -> list[rest.Record]:
        found = page.records("data.customers.nodes")
        if (served := page.headers.get("X-Shopify-API-Version")) not in {None, self.api_version}:
            window.context.warn(
                f"version {self.api_version} has ended, {served} answered: set api_version to it"
            )
        if sum(rest.folded(each, "metafields", ("namespace", "key"), "value") for each in found):
            window.context.warn("some customers have more metafields: raise metafields")
        return found
