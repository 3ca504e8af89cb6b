"""HubSpot: the contacts of one portal with all their properties, archived ones as deletions.

Left out: companies, deals, activities. A contact erased under the GDPR goes unseen until a full
refresh.

The cursor's traps:

- `lastmodifieddate` finds changes; `createdate` and `hs_object_id` only new contacts.
- Search lags minutes behind, hence the overlap. It ends at 10,000 results, and a bulk edit stamps
  more than that with one millisecond: pages go by id, never by time.
- The names of many properties are too long for an address: then a page lists ids, and a batch
  read gives their contacts.
- Archived contacts (kept 90 days) have no time filter and are read whole each time. Archiving does
  not move `lastmodifieddate`: there it is the moment of archiving (`updatedAt` keeps the other).
- A merge makes a new contact.

https://developers.hubspot.com/docs/api-reference/2026-03/crm/search-the-crm
"""

from typing import ClassVar

from identity_pipeline.connectors.base import CursorColumn, RestConnector, Secret, setting
from identity_pipeline.core.fieldmap import FieldMap
from identity_pipeline.core.window import Window
from identity_pipeline.readers import rest

OWN_FIELDS = ("id", "createdAt", "updatedAt", "archived", "archivedAt")
LIST = rest.CursorPaginator("paging.next.after", "query.after")
SEARCH = rest.KeysetPaginator(
    "results",
    "id",
    "body.filterGroups.0.filters.1.value",
    more=lambda page: bool(page.at("paging.next")),
)
FOUND = rest.Total("total", "results")
ABOVE = {"propertyName": "hs_object_id", "operator": "GT", "value": "0"}
BY_ID = {"propertyName": "hs_object_id", "direction": "ASCENDING"}


class HubSpotContacts(RestConnector):
    """The contacts of one HubSpot portal."""

    vendor = "hubspot"

    access_token: Secret = setting(
        "Service key, private app token or access token that may read contacts and their schema"
    )
    base_url: str = setting("Address of the API", default="https://api.hubapi.com")
    api_version: str = setting(
        "Dated version of the API", default="2026-03", pattern=r"^20\d\d-\d\d$"
    )

    api_versions: ClassVar = {"2026-03": "2027-09-30", "2026-09": "2028-03-08"}
    interval = 0.21
    errors = rest.ErrorBody(
        code=("policyName", "category"),
        message=("errors.0.context.requiredGranularScopes", "message"),
        known={
            "DAILY": rest.VendorError(
                advice="the daily limit is used up: it starts again at the portal's midnight",
                wait=rest.GIVE_UP,
            ),
            "SECONDLY": rest.VendorError(wait=10),
            "TEN_SECONDLY_ROLLING": rest.VendorError(wait=10),
            "MISSING_SCOPES": rest.VendorError(
                advice="grant these scopes to the private app or service key, then run it again"
            ),
        },
        phrases=r"\bcrm\.[a-z_.]+\.(?:read|write)\b",
    )
    cursor_columns: ClassVar = {
        "lastmodifieddate": CursorColumn("timestamp", overlap=3600),
        "createdate": CursorColumn("timestamp", overlap=3600),
        "hs_object_id": CursorColumn("int", overlap=1000),
    }
    field_map = FieldMap(
        email=("email", "hs_additional_emails"),
        phone=("phone", "mobilephone", "hs_whatsapp_phone_number"),
        first_name=("firstname",),
        last_name=("lastname",),
        company=("company",),
        job_title=("jobtitle",),
        street=("address",),
        city=("city",),
        region=("state",),
        postal_code=("zip",),
        country=("country",),
        source_created_at=("createdAt",),
        source_updated_at=("updatedAt",),
        deleted_at=("archivedAt",),
        absorbed=("hs_merged_object_ids",),
    )

    def auth(self) -> rest.Auth:
        """A bearer token."""
        return rest.BearerAuth(self.access_token)

    def pages(self, client: rest.Client, window: Window) -> rest.Pages:
        """Yield the contacts that changed, or all; then the archived ones."""
        schema = client.send(rest.Request(f"/crm/properties/{self.api_version}/contacts"))
        names = schema.texts("results", "name")
        window.context.fields = (*OWN_FIELDS, *names)
        yield from (
            self._changed(client, names, window)
            if window.incremental
            else self._all(client, names, archived=False)
        )
        for page in self._all(client, names, archived=True):
            for gone in page:
                gone["lastmodifieddate"] = gone.get("archivedAt") or gone.get("lastmodifieddate")
            yield page

    def _changed(self, client: rest.Client, names: list[str], window: Window) -> rest.Pages:
        since = {
            "propertyName": window.cursor_column,
            "operator": "GTE",
            "value": window.lower_bound("ms"),
        }
        body = {
            "limit": 200,
            "properties": names,
            "sorts": [BY_ID],
            "filterGroups": [{"filters": [since, ABOVE]}],
        }
        path = f"/crm/objects/{self.api_version}/contacts/search"
        for page in client.pages(rest.Request(path, body=body, size="body.limit"), SEARCH, FOUND):
            yield page.records("results", lift="properties")

    def _all(self, client: rest.Client, names: list[str], *, archived: bool) -> rest.Pages:
        path = f"/crm/objects/{self.api_version}/contacts"
        asked = ",".join(names) if (short := rest.fits(names)) else "hs_object_id"
        query = {"limit": 100, "archived": archived, "properties": asked}
        batch = rest.Request(f"{path}/batch/read", {"archived": archived}, {"properties": names})
        for page in client.pages(rest.Request(path, query, size="query.limit"), LIST):
            yield (
                page.records("results", lift="properties")
                if short
                else client.lookup(page, "results", batch, lift="properties")
            )
