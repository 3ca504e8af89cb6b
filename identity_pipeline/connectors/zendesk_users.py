"""Zendesk: the end users of one account with their custom fields, deleted ones as deletions.

Left out: agents and administrators, unless they are asked for; tickets; organisations but for their
names. A phone number that users share says nothing of one of them and is kept in raw only.

The cursor's traps:

- The export lists users in the order in which they changed. Where it ended is kept beside the mark
  and the next load goes on there; without that it starts at the mark, less the overlap.
- What changed within the last minute is withheld, and a start within it is refused.
- `created_at` cannot be asked for: the export is read whole, and what is older left out here.
- Another address or number of a user may not move `updated_at`: a full refresh finds it.
- A merge deletes the loser, and nothing names the survivor. Permanently deleted users have lost all
  but their id, and tell only that they went.

https://developer.zendesk.com/api-reference/ticketing/ticket-management/incremental_exports/
"""

import time
from typing import ClassVar

from identity_pipeline.connectors.base import CursorColumn, RestConnector, Secret, setting
from identity_pipeline.core.fieldmap import GONE, FieldMap
from identity_pipeline.core.window import Window
from identity_pipeline.readers import rest

EXPORT = rest.CursorPaginator(
    "after_cursor",
    "query.cursor",
    more=lambda page: not page.flag("end_of_stream"),
    instead_of="query.start_time",
)
ERASED = "Permanently Deleted User"


class ZendeskUsers(RestConnector):
    """The users of one Zendesk account."""

    vendor = "zendesk"

    subdomain: str = setting(
        "acme of acme.zendesk.com", pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", examples=["acme"]
    )
    token: Secret = setting(
        "OAuth access token of an administrator; with client_id, the secret of that OAuth client; "
        "with email, an API token"
    )
    client_id: str = setting("Identifier of an OAuth client: tokens are got for it", default="")
    email: str = setting(
        "E-mail address of the administrator that an API token acts for. "
        "API tokens end on 2027-04-30.",
        default="",
    )
    agents: bool = setting("True to read agents and administrators too", default=False)
    identities: bool = setting(
        "True to read further e-mail addresses and phone numbers: one more request for 100 users, "
        "and a token of scope read",
        default=False,
    )
    base_url: str = setting("Address of the API. Empty: https://SUBDOMAIN.zendesk.com", default="")

    interval = 6.0
    limits = (rest.RateHeaders("ratelimit-remaining", "ratelimit-reset"),)
    retiring: ClassVar = {
        "email": ("API tokens", "2027-04-30", "use an OAuth client, by client_id and its secret")
    }
    errors = rest.ErrorBody(
        code=("error", "error.title"),
        message=("description",),
        known={
            "Forbidden": rest.VendorError(
                advice="users are exported to administrators alone, and with an OAuth token of "
                "scope users:read or read: use such a token, then run it again"
            ),
            "404": rest.VendorError(advice="no account answers there: check subdomain"),
        },
        phrases=r"\b(?:users:)?read\b",
    )
    cursor_columns: ClassVar = {
        "updated_at": CursorColumn("timestamp", overlap=120),
        "created_at": CursorColumn("timestamp", filtered_by="us"),
    }
    field_map = FieldMap(
        email=("email", "identities.email"),
        phone=("phone", "identities.phone_number"),
        full_name=("name",),
        company=("organization.name",),
        source_created_at=("created_at",),
        source_updated_at=("updated_at",),
        deleted_when=(("active", "false"),),
    )

    def address(self) -> str:
        """The account."""
        return self.base_url or f"https://{self.subdomain}.zendesk.com"

    def auth(self) -> rest.Auth:
        """An OAuth token as it is, one that a client gets, or an API token."""
        url = f"{self.address()}/oauth/tokens"
        granted = rest.ClientCredentials(url, self.client_id, self.token, "read")
        bearer = rest.BearerAuth(granted if self.client_id else self.token)
        return rest.BasicAuth(f"{self.email}/token", self.token) if self.email else bearer

    def pages(self, client: rest.Client, window: Window) -> rest.Pages:
        """Yield the users that changed since the last load, or all."""
        asked = window.incremental and window.cursor_column == "updated_at"
        start = min(int(window.lower_bound("s")) if asked else 0, int(time.time()) - 120)
        since = {"cursor": window.state} if window.state else {"start_time": start}
        window.context.asked_below = "cursor" in since
        request = rest.Request(
            "/api/v2/incremental/users/cursor",
            {"per_page": 1000, "include": "organizations", **since},
            size="query.per_page",
        )
        for page in client.pages(request, EXPORT, state="after_cursor", resumed=bool(window.state)):
            yield self._people(client, page)

    def _people(self, client: rest.Client, page: rest.Response) -> list[rest.Record]:
        people = [
            user
            for user in page.records("users")
            if self.agents or user.get("role") not in ("agent", "admin")
        ]
        organizations = page.keyed("organizations", "id")
        many = rest.Request("/api/v2/users/show_many", {"include": "identities"}, interval=0.31)
        ids = [str(user["id"]) for user in people if self.identities and "id" in user]
        further = {
            owner: found
            for answer in client.batched(many, "query.ids", ids, 100)
            for owner, found in answer.grouped("identities", "user_id", "type", "value").items()
        }
        return [
            user
            | {
                GONE: "true" if user.get("name") == ERASED else None,
                "phone": None if user.get("shared_phone_number") else user.get("phone"),
                "shared_phone": user.get("phone") if user.get("shared_phone_number") else None,
                "organization": organizations.get(str(user.get("organization_id"))),
                "identities": further.get(str(user.get("id"))),
            }
            for user in people
        ]
