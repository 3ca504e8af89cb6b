"""Intercom: the users and leads of one workspace, deleted and merged ones told by its activities.

Left out: conversations, visitors, archived contacts, the names of companies (one more request for
each contact; `raw` has their ids).

The cursor's traps:

- A date filter compares days of the workspace's own time zone, from the day after the one it names:
  the bound is sent two days lower, and what is older than the mark is filtered out here.
- The default order is the newest first: pages go by the oldest change, so that a contact which
  changes meanwhile is met again.
- New contacts can be searched after some minutes, hence the overlap.
- Deletions are in the activities, which only the version Preview has, whatever the others are asked
  in. They have no time filter: where a load ended is kept as state. An empty answer may mean that
  they cannot be read, so it moves nothing.

https://developers.intercom.com/docs/references/rest-api/api.intercom.io/contacts/searchcontacts
"""

from dataclasses import replace
from typing import ClassVar

from identity_pipeline.connectors.base import CursorColumn, RestConnector, Secret, setting
from identity_pipeline.core.cursor import Reading
from identity_pipeline.core.fieldmap import GONE, REJECTED, FieldMap
from identity_pipeline.core.window import Window
from identity_pipeline.readers import rest

TWO_DAYS = 2 * 86_400
NEXT = "pages.next.starting_after"
WENT = {"contact.deleted": "contact_id", "contact.merged": "merge_source_id"}
SECONDS = CursorColumn("timestamp", overlap=900, reading=Reading(unit="s"))


class IntercomContacts(RestConnector):
    """The contacts of one Intercom workspace."""

    vendor = "intercom"

    access_token: Secret = setting("Access token of an app of the workspace that may read people")
    base_url: str = setting(
        "Address of the API: https://api.intercom.io, https://api.eu.intercom.io or "
        "https://api.au.intercom.io, as the workspace's region is",
        default="https://api.intercom.io",
    )
    api_version: str = setting(
        "Version of the API", default="2.17", pattern=r"^(2\.\d{1,2}|Preview)$"
    )

    interval = 0.006
    limits = (rest.RateHeaders("X-RateLimit-Remaining", "X-RateLimit-Reset"),)
    errors = rest.ErrorBody(
        code=("errors.0.code",),
        known={
            "unauthorized": rest.VendorError(
                advice="the token is wrong or revoked, or the workspace is in another region: "
                "store a valid one, and see that base_url is of the region"
            ),
            "403": rest.VendorError(
                advice="let the app read people and companies (read_users_companies), then run it "
                "again"
            ),
        },
    )
    cursor_columns: ClassVar = {"updated_at": SECONDS, "created_at": SECONDS}
    field_map = FieldMap(
        email=("email",),
        phone=("phone",),
        full_name=("name",),
        city=("location.city",),
        region=("location.region",),
        country=("location.country_code", "location.country"),
        source_created_at=("created_at",),
        source_updated_at=("updated_at",),
        deleted_at=("deleted_at",),
        merged_into=("merged_into",),
        absorbed=("merged_contacts",),
    )

    def auth(self) -> rest.Auth:
        """A bearer token."""
        return rest.BearerAuth(self.access_token)

    def headers(self) -> dict[str, str]:
        """The version, without which the app's own decides."""
        return {"Intercom-Version": self.api_version}

    def pages(self, client: rest.Client, window: Window) -> rest.Pages:
        """Yield the contacts that changed, or all; then those that went."""
        column = window.cursor_column or "updated_at"
        after = int(window.lower_bound("s")) - TWO_DAYS if window.incremental else 0
        body = {
            "query": {"field": column, "operator": ">", "value": after},
            "sort": {"field": column, "order": "ascending"},
            "pagination": {"per_page": 150},
        }
        search = rest.Request(
            "/contacts/search", {"include_merge_history": True}, body, "body.pagination.per_page"
        )
        onward = rest.CursorPaginator(NEXT, "body.pagination.starting_after")
        for page in client.pages(search, onward, rest.Total("total_count", "data", indexed=True)):
            yield [_contact(each) for each in page.records("data")]
        yield from self._went(client, window, column)

    def _went(self, client: rest.Client, window: Window, column: str) -> rest.Pages:
        query = {"per_page": 150, "starting_after": window.state}
        asked = rest.Request("/contacts/activities", query, size="query.per_page")
        onward = rest.CursorPaginator(NEXT, "query.starting_after")
        for page in replace(client, headers={"Intercom-Version": "Preview"}).pages(
            asked,
            onward,
            state="data.-1.id",
            resumed=bool(window.state),
            without="deleted contacts are found by full refreshes only",
        ):
            yield [
                each if REJECTED in each else _gone(each, column)
                for each in page.records("data")
                if each.get("event_type") in WENT or REJECTED in each
            ]


def _contact(contact: rest.Record) -> rest.Record:
    """A contact, with the ids of those that were merged into it."""
    merged = [each for each in contact.get("merge_history") or () if isinstance(each, dict)]
    return {**contact, "merged_contacts": [each.get("source_contact_id") for each in merged]}


def _gone(activity: rest.Record, column: str) -> rest.Record:
    """All that an activity tells of a contact that went; the time goes into the cursor's column."""
    return {
        GONE: True,
        "id": activity.get(WENT[activity["event_type"]]),
        column: activity.get("created_at"),
        "deleted_at": None if activity.get("merge_target_id") else activity.get("created_at"),
        "merged_into": activity.get("merge_target_id"),
    }
