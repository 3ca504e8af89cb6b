"""HubSpot: the contacts of one portal with all their properties, archived ones as deletions.

Left out: companies, deals, activities. A contact erased under the GDPR goes unseen until a full refresh.

Cursor: `lastmodifieddate` finds changes; `createdate` and `hs_object_id` only new contacts. Search lags minutes behind,
hence the overlap. It ends at 10,000 results, and a bulk edit stamps more than that with one millisecond: pages go by id,
never by time. Archived contacts (kept 90 days) have no time filter and are read whole each time. Archiving does not move
`lastmodifieddate`: there it is the moment of archiving (`updatedAt` keeps the other). A merge makes a new contact.
https://developers.hubspot.com/docs/api-reference/2026-03/crm/search-the-crm
"""

from collections.abc import Iterator
from itertools import starmap
from typing import ClassVar

import pandas as pd

from identity_pipeline.connectors.base import CheckStep, Connector, CursorColumn, secret, setting
from identity_pipeline.core.fieldmap import FieldMap
from identity_pipeline.core.window import Window
from identity_pipeline.readers import rest

LIST = rest.CursorPaginator("paging.next.after", "query.after")
SEARCH = rest.KeysetPaginator("results", "id", "body.filterGroups.0.filters.1.value", lambda page: bool(page.at("paging.next")))
ERRORS = rest.ErrorBody(("policyName", "category"), ("errors.0.context.requiredGranularScopes", "message"), {
    "DAILY": rest.Fault(advice="the portal's daily limit is used up: it starts anew at the portal's midnight", wait=rest.GIVE_UP),
    "SECONDLY": rest.Fault(wait=10), "TEN_SECONDLY_ROLLING": rest.Fault(wait=10),
    "MISSING_SCOPES": rest.Fault(advice="grant these scopes to the private app or service key, then run it again"),
})  # fmt: skip


class HubSpotContacts(Connector):
    """The contacts of one HubSpot portal."""

    access_token: str = secret("Service key, private app token or OAuth access token that may read contacts and their schema")
    base_url: str = setting("Address of the API", default="https://api.hubapi.com")
    api_version: str = setting("Dated version of the API", default="2026-03", pattern=r"^20\d\d-\d\d$")

    group, vendor = "api", "hubspot"
    cursor_columns: ClassVar = {
        "lastmodifieddate": CursorColumn("timestamp", overlap=3600), "createdate": CursorColumn("timestamp", overlap=3600),
        "hs_object_id": CursorColumn("int", overlap=1000),
    }  # fmt: skip
    field_map = FieldMap(
        email=("email", "hs_additional_emails"), phone=("phone", "mobilephone", "hs_whatsapp_phone_number"),
        first_name=("firstname",), last_name=("lastname",), company=("company",), job_title=("jobtitle",),
        street=("address",), city=("city",), region=("state",), postal_code=("zip",), country=("country",),
        source_created_at=("createdAt",), source_updated_at=("updatedAt",),
        deleted_at=("archivedAt",), absorbed=("hs_merged_object_ids",),
    )  # fmt: skip

    def read(self, window: Window) -> Iterator[pd.DataFrame]:
        """Yield the contacts that changed, or all; then the archived ones."""
        return rest.batches(self._pages(window), window)

    def check(self) -> Iterator[CheckStep]:
        """Test the connection by reading a first page."""
        return starmap(CheckStep, rest.steps(lambda: next(self._pages(Window(), retry_budget=5))))

    def _pages(self, window: Window, retry_budget: float = rest.RETRY_BUDGET) -> rest.Pages:
        client = rest.Client(
            self.base_url, rest.BearerAuth(self.access_token), window.context, ERRORS, interval=0.21, retry_budget=retry_budget
        )
        names = [p["name"] for p in client.send(rest.Request(f"/crm/properties/{self.api_version}/contacts")).records("results")]
        yield from self._changed(client, names, window) if window.incremental else self._all(client, names, archived=False)
        for page in self._all(client, names, archived=True):
            yield [gone | {"lastmodifieddate": gone.get("archivedAt") or gone.get("lastmodifieddate")} for gone in page]

    def _changed(self, client: rest.Client, names: list[str], window: Window) -> rest.Pages:
        since = {"propertyName": window.cursor_column, "operator": "GTE", "value": rest.lower_bound(window, "ms")}
        above = {"propertyName": "hs_object_id", "operator": "GT", "value": "0"}
        order = {"propertyName": "hs_object_id", "direction": "ASCENDING"}
        body = {"limit": 200, "properties": names, "sorts": [order], "filterGroups": [{"filters": [since, above]}]}
        for page in client.pages(rest.Request(f"/crm/objects/{self.api_version}/contacts/search", body=body), SEARCH):
            yield page.records("results", lift="properties")

    def _all(self, client: rest.Client, names: list[str], *, archived: bool) -> rest.Pages:
        first, *others = rest.chunks(names)
        query = {"limit": 100, "archived": archived, "properties": first}
        for page in client.pages(rest.Request(f"/crm/objects/{self.api_version}/contacts", query), LIST):
            parts = [page, *(client.send(page.request.put("query.properties", chunk)) for chunk in others)]
            yield rest.joined(part.records("results", lift="properties") for part in parts)
