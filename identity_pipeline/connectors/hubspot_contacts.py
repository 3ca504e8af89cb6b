"""HubSpot: the contacts of one portal with all their properties, archived ones as deletions.

Left out: companies, deals, activities. A contact erased under the GDPR goes unseen until a full
refresh.

The cursor's traps:

- `lastmodifieddate` finds changes; `createdate` and `hs_object_id` only new contacts.
- Search lags minutes behind, hence the overlap. It ends at 10,000 results, and a bulk edit stamps
  more than that with one millisecond: pages go by id, never by time. It takes the names of all
  properties and gives 200 contacts: with a cursor the first load searches too. A full refresh
  lists, since what search lacks is not gone.
- The names of many properties are too long for an address: then a page lists ids, and a batch
  read gives their contacts.
- Archived contacts (kept 90 days) have no time filter: their ids are listed each time, and what is
  new is looked up. Archiving does not move `lastmodifieddate`: there it is the moment of archiving
  (`updatedAt` keeps the other).
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
    "body.filterGroups.0.filters.0.value",
    more=lambda page: bool(page.at("paging.next")),
    tokens=rest.CursorPaginator("paging.next.after", "body.after"),
)
FOUND = rest.Total("total", "results", indexed=True)
ABOVE = {"propertyName": "hs_object_id", "operator": "GT", "value": "0"}


class HubSpotContacts(RestConnector):
    """The contacts of one HubSpot portal."""

    vendor = "hubspot"

    access_token: Secret = setting(
        "Service key, or token of a private app, that may read contacts and their schema"
    )
    base_url: str = setting("Address of the API", default="https://api.hubapi.com")
    api_version: str = setting(
        "Dated version of the API", default="2026-03", pattern=r"^20\d\d-\d\d$"
    )

    api_versions: ClassVar = {"2026-03": "2027-09-30", "2026-09": "2028-03-08"}
    interval = 0.11
    limits = (
        rest.RateHeaders("X-HubSpot-RateLimit-Remaining", period=10),
        rest.RateHeaders("X-HubSpot-RateLimit-Daily-Remaining"),
    )
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
        deleted_when=(("archived", "true"),),
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
            self._found(client, names, window)
            if window.cursor and not window.full_refresh
            else self._listed(client, names, window)
        )
        for page in self._listed(client, names, window, archived=True):
            for gone in page:
                gone["lastmodifieddate"] = gone.get("archivedAt") or gone.get("lastmodifieddate")
            yield page

    def _found(self, client: rest.Client, names: list[str], window: Window) -> rest.Pages:
        since = {
            "propertyName": window.cursor_column,
            "operator": "GTE",
            "value": window.lower_bound("ms") if window.incremental else None,
        }
        body = {
            "limit": 200,
            "properties": names,
            "sorts": [{"propertyName": "hs_object_id", "direction": "ASCENDING"}],
            "filterGroups": [{"filters": [ABOVE, since] if window.incremental else [ABOVE]}],
        }
        path = f"/crm/objects/{self.api_version}/contacts/search"
        for page in client.pages(
            rest.Request(path, body=body, size="body.limit", interval=0.21), SEARCH, FOUND
        ):
            yield page.records("results", lift="properties")

    def _listed(
        self, client: rest.Client, names: list[str], window: Window, *, archived: bool = False
    ) -> rest.Pages:
        path = f"/crm/objects/{self.api_version}/contacts"
        short = rest.fits(names) and not archived
        query = {
            "limit": 100,
            "archived": archived,
            "properties": ",".join(names) if short else "hs_object_id",
        }
        batch = rest.Request(f"{path}/batch/read", {"archived": archived}, {"properties": names})
        for page in client.pages(rest.Request(path, query, size="query.limit"), LIST):
            yield (
                page.records("results", lift="properties")
                if short
                else client.lookup(
                    page,
                    "results",
                    batch,
                    lift="properties",
                    wanted=lambda each: window.asks_for(each.get("archivedAt")),
                )
            )
