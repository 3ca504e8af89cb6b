"""Pipedrive: the persons of one company, with the names and addresses of their organizations.

Left out: deals, activities, leads. A person that was merged into another vanishes without a word:
a full refresh finds it.

The cursor's traps:

- `updated_since` takes whole seconds in UTC and includes its bound. `add_time` and `id` are no
  filters: with them each load reads all.
- Deleted persons are in no list; they are told by the recent changes, which reach back a month.
- A token sees what its user may see: a person that is hidden from the user is missing here.
- Custom fields come by a hash: `named` has them by name, with the labels of their options. Two
  fields of one name are told apart in `custom_fields` alone.
- An organization that changes does not touch its persons: its new name comes with their next
  change.

https://developers.pipedrive.com/docs/api/v1/Persons
"""

from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from identity_pipeline.connectors.base import CursorColumn, RestConnector, Secret, setting
from identity_pipeline.core.cursor import Reading
from identity_pipeline.core.fieldmap import GONE, FieldMap
from identity_pipeline.core.window import Window
from identity_pipeline.readers import rest

TOLD = timedelta(days=29)
WRITTEN = Reading(timezone="UTC")  # version 2: 2026-04-13T08:00:00Z, version 1: 2026-04-13 08:00:00
NEXT = rest.CursorPaginator("additional_data.next_cursor", "query.cursor")
LATER = rest.CursorPaginator("additional_data.pagination.next_start", "query.start")
Fields = dict[str, tuple[str, dict[str, Any]]]


class PipedrivePersons(RestConnector):
    """The persons of one Pipedrive company."""

    vendor = "pipedrive"

    api_token: Secret = setting("Personal API token of an administrator")
    base_url: str = setting(
        "Address of the API: the company's own, https://COMPANY.pipedrive.com, works too",
        default="https://api.pipedrive.com",
    )

    interval = 0.1
    limits = (
        rest.RateHeaders("x-ratelimit-remaining", "x-ratelimit-reset"),
        rest.RateHeaders("x-daily-ratelimit-token-remaining"),
    )
    errors = rest.ErrorBody(
        code=("code",),
        known={
            "401": rest.VendorError(
                advice="the API token is wrong or was made anew (an OAuth access token is none): "
                "store the one under Personal preferences, API"
            ),
            "402": rest.VendorError(advice="the company's subscription has ended: it has to pay"),
        },
    )
    cursor_columns: ClassVar = {
        "update_time": CursorColumn("timestamp", overlap=120, reading=WRITTEN),
        "add_time": CursorColumn("timestamp", filtered_by="us", reading=WRITTEN),
        "id": CursorColumn("int", filtered_by="us"),
    }
    field_map = FieldMap(
        email=("emails",),
        phone=("phones",),
        full_name=("name",),
        first_name=("first_name",),
        last_name=("last_name",),
        company=("organization.name",),
        job_title=("job_title",),
        street=("postal_address.value", "organization.address.value"),
        city=("postal_address.locality", "organization.address.locality"),
        region=(
            "postal_address.admin_area_level_1",
            "organization.address.admin_area_level_1",
        ),
        postal_code=("postal_address.postal_code", "organization.address.postal_code"),
        country=("postal_address.country", "organization.address.country"),
        source_created_at=("add_time",),
        source_updated_at=("update_time",),
        deleted_when=(("is_deleted", "true"),),
    )

    def auth(self) -> rest.Auth:
        """The token in a header of Pipedrive's own."""
        return rest.ApiKeyAuth(self.api_token, "x-api-token")

    def pages(self, client: rest.Client, window: Window) -> rest.Pages:
        """Yield the persons that changed, or all; then those that were deleted of late."""
        me = client.optional(
            rest.Request("/v1/users/me"), "whether the token sees all persons is not known"
        )
        if me and str(me.at("data.is_admin")) in {"0", "False"}:
            window.context.warn(
                "the token is of a user who is no administrator: persons that this user may not "
                "see are missing"
            )
        fields = {
            code: (
                each.get("field_name", code),
                {str(o.get("id")): o.get("label") for o in each.get("options") or ()},
            )
            for page in client.pages(rest.Request("/api/v2/personFields", {"limit": 500}), NEXT)
            for code, each in page.keyed("data", "field_code").items()
        }
        kept = window.cursor_column == "update_time" and window.incremental and window.within(TOLD)
        since = window.lower_bound("iso_s") if kept else None
        query = {
            "limit": 500,
            "updated_since": since,
            "sort_by": "update_time" if since else "id",
            "include_fields": "marketing_status,doi_status"
            if "marketing_status" in fields
            else None,
        }
        for page in client.pages(rest.Request("/api/v2/persons", query, size="query.limit"), NEXT):
            yield self._people(client, page.records("data"), fields)
        oldest = (window.context.source_time or datetime.now(UTC)) - TOLD
        recent = {
            "since_timestamp": (since or f"{oldest:%Y-%m-%dT%H:%M:%SZ}")[:19].replace("T", " "),
            "items": "person",
            "limit": 500,
        }
        for page in client.pages(
            rest.Request("/v1/recents", recent, size="query.limit"),
            LATER,
            without="deleted persons are found by full refreshes only",
        ):
            yield [
                {GONE: True, "id": number, "is_deleted": True}
                | {time: person.get(time) for time in ("update_time", "add_time")}
                for number, each in page.keyed("data", "id").items()
                if isinstance(person := each.get("data"), dict)
                and person.get("active_flag") is False
            ]

    def _people(
        self, client: rest.Client, people: list[rest.Record], fields: Fields
    ) -> list[rest.Record]:
        ids = dict.fromkeys(str(each["org_id"]) for each in people if each.get("org_id"))
        many = rest.Request("/api/v2/organizations", {"limit": 100})
        companies = {
            number: company
            for answer in client.batched(many, "query.ids", list(ids), 100)
            for number, company in answer.keyed("data", "id").items()
        }
        return [
            {
                **each,
                "organization": companies.get(str(each.get("org_id"))),
                "named": _named(each.get("custom_fields"), fields),
            }
            for each in people
        ]


def _named(custom: Any, fields: Fields) -> dict[str, Any]:
    """Custom fields by their names, with the labels of options in place of their numbers."""
    held = custom if isinstance(custom, dict) else {}
    return {
        name: [labels.get(str(one), one) for one in value]
        if isinstance(value, list)
        else labels.get(str(value), value)
        for code, value in held.items()
        for name, labels in [fields.get(code, (code, {}))]
    }
