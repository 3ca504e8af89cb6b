"""Klaviyo: the profiles of one account with their custom properties and what they agreed to.

Left out: lists, segments, events; predictive analytics, which would cut the limits to a fifth; the
image. A deleted profile and the source of a merge vanish without a sign, until a full refresh.

The cursor's traps:

- Both cursors are asked for exclusively and by whole seconds: the bound is sent a second lower.
- A filter that Klaviyo cannot read gives all profiles, with status 200. Times are sent in UTC with
  a Z, and the first page is looked at.
- `updated` also moves with events and flows: a campaign changes everybody. `created` finds new
  profiles only.
- A revision lives two years. One that has ended is answered by another, unless the request says
  that it wants none.

https://developers.klaviyo.com/en/reference/get_profiles
"""

from collections.abc import Mapping
from typing import ClassVar

from identity_pipeline.connectors.base import CursorColumn, RestConnector, Secret, setting
from identity_pipeline.core.fieldmap import FieldMap
from identity_pipeline.core.window import Window
from identity_pipeline.readers import rest

FIELDS = (
    "created,email,external_id,first_name,last_event_date,last_name,locale,location,organization,"
    "phone_number,properties,subscriptions,title,updated"
)


class KlaviyoProfiles(RestConnector):
    """The profiles of one Klaviyo account."""

    vendor = "klaviyo"

    api_key: Secret = setting("Private API key (pk_…) with the scope Profiles: read")
    base_url: str = setting("Address of the API", default="https://a.klaviyo.com")
    api_version: str = setting(
        "Revision of the API", default="2026-07-15", pattern=r"^20\d\d-\d\d-\d\d$"
    )

    api_versions: ClassVar = {
        "2025-01-15": "2027-01-15",
        "2025-04-15": "2027-04-15",
        "2025-07-15": "2027-07-15",
        "2025-10-15": "2027-10-15",
        "2026-01-15": "2028-01-15",
        "2026-04-15": "2028-04-15",
        "2026-07-15": "2028-07-15",
        "2026-10-15": "2028-10-15",
    }
    interval = 0.08
    limits = (rest.RateHeaders("RateLimit-Remaining", "RateLimit-Reset"),)
    errors = rest.ErrorBody(
        code=("errors.0.code",),
        message=("errors.0.detail",),
        known={
            "permission_denied": rest.VendorError(
                advice="give the private key the scope Profiles: read, then run it again"
            ),
            "gone": rest.VendorError(
                advice="this revision has ended: set api_version to a later one"
            ),
        },
        phrases=r"\b[a-z-]+:read\b|\bInvalid cursor provided\b|\bin the future\b",
    )
    cursor_columns: ClassVar = {
        "updated": CursorColumn("timestamp", overlap=300),
        "created": CursorColumn("timestamp", overlap=300),
    }
    field_map = FieldMap(
        email=("email",),
        phone=("phone_number", "subscriptions.whatsapp.marketing.phone_number"),
        first_name=("first_name",),
        last_name=("last_name",),
        company=("organization",),
        job_title=("title",),
        street=("location.address1",),
        city=("location.city",),
        region=("location.region",),
        postal_code=("location.zip",),
        country=("location.country",),
        source_created_at=("created",),
        source_updated_at=("updated",),
    )

    def auth(self) -> rest.Auth:
        """A private key, which is no bearer token."""
        return rest.ApiKeyAuth(self.api_key, "Authorization", "Klaviyo-API-Key ")

    def headers(self) -> Mapping[str, str]:
        """The revision, and that no other will do."""
        return {
            "revision": self.api_version,
            "X-Klaviyo-Revision-Fall-Forward-Opt-Out": "1",
            "Accept": "application/vnd.api+json",
        }

    def pages(self, client: rest.Client, window: Window) -> rest.Pages:
        """Yield the profiles that changed, or all."""
        query = {
            "page[size]": 100,
            "sort": window.cursor_column or "id",
            "fields[profile]": FIELDS,
            "additional-fields[profile]": "subscriptions",
        }
        if window.incremental:
            since = window.lower_bound("iso_s", exclusive=True)
            query["filter"] = f"greater-than({window.cursor_column},{since})"
        request = rest.Request("/api/profiles", query, size="query.page[size]")
        for page in client.pages(request, rest.LinkPaginator("links.next")):
            yield page.records("data", lift="attributes")
