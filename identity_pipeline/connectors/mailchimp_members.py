"""Mailchimp: the members of one, several or all audiences, archived ones as deletions.

Left out: campaigns, segments, e-commerce. A member that was deleted for good vanishes without a
sign, until a full refresh. Unsubscribed and cleaned members are members.

A person in two audiences is two members: the external id is the audience's and the contact's. The
`id` that Mailchimp gives is a hash of the address, and changes with it. Custom fields are
`merge_fields.TAG` and, once more, `named.LABEL`.

The cursor's traps:

- Both cursors count whole seconds and leave out what equals the bound: it is sent a second lower.
- Pages are offsets into what matches at that moment, and members who change meanwhile shift all
  others: the next page is asked for from the last member's time on, with some that were read, and
  has to begin with one of these; else that second is read again.
- Archived members come only if asked for. `timestamp_opt` finds new members only.

https://mailchimp.com/developer/marketing/api/list-members/list-members-info/
"""

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from identity_pipeline.connectors.base import CursorColumn, RestConnector, Secret, setting
from identity_pipeline.core.errors import ConfigurationError, CredentialError
from identity_pipeline.core.fieldmap import FieldMap
from identity_pipeline.core.window import Window
from identity_pipeline.readers import rest

LISTS = rest.Request("/3.0/lists", {"count": 1000, "fields": "lists.id"})


class MailchimpMembers(RestConnector):
    """The members of a Mailchimp account's audiences."""

    vendor = "mailchimp"

    api_key: Secret = setting("API key (…-us21), or an OAuth access token with data_centre")
    audiences: list[str] = setting(
        "Identifiers of audiences (Audience ID). Empty: all.", default=[]
    )
    data_centre: str = setting(
        "Data centre of the account, such as us21. Empty: the end of the key.",
        default="",
        pattern=r"^([a-z]{2,3}\d{1,3})?$",
    )
    base_url: str = setting(
        "Address of the API. Empty: https://DATA_CENTRE.api.mailchimp.com", default=""
    )

    errors = rest.ErrorBody(
        code=("title",),
        known={
            "API Key Invalid": rest.VendorError(
                advice="the key is wrong or revoked, or its account is in another data centre: "
                "store a valid one, and check data_centre"
            ),
            "API Key Missing": rest.VendorError(),
            "Wrong Datacenter": rest.VendorError(
                advice="the account is in another data centre: check data_centre",
                error=ConfigurationError,
            ),
            "User Disabled": rest.VendorError(
                advice="the account or the user of this key is disabled: enable it, or use "
                "another key",
                error=CredentialError,
            ),
            "Resource Not Found": rest.VendorError(
                advice="there is no such audience in this account: check audiences"
            ),
            "Too Many Requests": rest.VendorError(),
            "Invalid Resource": rest.VendorError(),
        },
    )
    cursor_columns: ClassVar = {
        "last_changed": CursorColumn("timestamp", overlap=300),
        "timestamp_opt": CursorColumn("timestamp", overlap=300),
    }
    field_map = FieldMap(
        external_id=("external_id",),
        email=("email_address",),
        phone=("phones", "sms_phone_number"),
        full_name=("full_name",),
        first_name=("merge_fields.FNAME",),
        last_name=("merge_fields.LNAME",),
        company=("merge_fields.COMPANY",),
        street=("address.addr1",),
        city=("address.city",),
        region=("address.state", "location.region"),
        postal_code=("address.zip",),
        country=("address.country", "location.country_code"),
        source_created_at=("timestamp_signup", "timestamp_opt"),
        source_updated_at=("last_changed",),
        deleted_when=(("status", "archived"),),
    )

    def address(self) -> str:
        """The account's data centre."""
        if self.base_url:
            return self.base_url
        centre = self.data_centre or self.api_key.token().strip().rpartition("-")[2]
        if not re.fullmatch(r"[a-z]{2,3}\d{1,3}", centre):
            raise ConfigurationError(
                "data_centre: the key does not end in one, such as -us21: copy the whole key, or "
                "set data_centre"
            )
        return f"https://{centre}.api.mailchimp.com"

    def auth(self) -> rest.Auth:
        """A bearer token, which a key may be too."""
        return rest.BearerAuth(self.api_key)

    def pages(self, client: rest.Client, window: Window) -> rest.Pages:
        """Yield the members that changed, or all, audience by audience; then the archived ones."""
        by = (window.incremental and window.cursor_column) or "last_changed"
        query = {"count": 1000, "sort_field": by, "sort_dir": "ASC"}
        if window.incremental:
            query[f"since_{by}"] = window.lower_bound("iso_s", exclusive=True)
        for audience in self.audiences or client.send(LISTS).texts("lists", "id"):
            fields = client.send(
                rest.Request(f"/3.0/lists/{audience}/merge-fields", {"count": 1000})
            ).keyed("merge_fields", "tag")
            for status in (None, "archived"):
                request = rest.Request(
                    f"/3.0/lists/{audience}/members",
                    query | {"status": status, "exclude_fields": "members._links,_links"},
                    size="query.count",
                )
                for page in client.pages(
                    request, rest.TimePaginator("members", "total_items", by, f"since_{by}")
                ):
                    yield [_member(each, audience, fields) for each in page.records("members")]


def _member(member: rest.Record, audience: str, fields: Mapping[str, Any]) -> rest.Record:
    """``member`` with an id of its own, and its merge fields by name and by what they are."""
    merged = given if isinstance(given := member.get("merge_fields"), dict) else {}
    typed = [(fields.get(tag, {}).get("type"), value) for tag, value in merged.items() if value]
    return member | {
        "external_id": f"{audience}:{contact}"
        if (contact := member.get("contact_id") or member.get("unique_email_id"))
        else None,
        "list_id": audience,
        "named": {fields[tag].get("name", tag): v for tag, v in merged.items() if tag in fields},
        "phones": [value for kind, value in typed if kind == "phone"],
        "address": next((value for kind, value in typed if kind == "address"), None),
    }
