"""Google: the contacts of one account, deleted ones told by its sync token.

Left out: profiles of other people that a contact is linked to (only what the account itself saved
is asked for), photos, groups' names. `other_contacts` adds people that mail was exchanged with.

The cursor's traps:

- The API filters by no time. It hands out a sync token, kept as state beside the mark, and tells
  what changed since: no record carries the cursor. Without a token all are listed, and what is
  older than the mark is left out here.
- A token ends seven days after the full read that it came from, with status 400: then all are
  listed again, and who was deleted meanwhile is found by full refreshes. A schedule rarer than
  weekly always reads all.
- A change may be told minutes late. The token has it the next time; else the overlap does.
- With a token every other parameter has to stay as it was.
- `resourceName` changes when a contact is linked to a profile; the id of the contact itself stays.

https://developers.google.com/people/api/rest/v1/people.connections/list
"""

from typing import ClassVar

from identity_pipeline.connectors.base import CursorColumn, RestConnector, Secret, setting
from identity_pipeline.core.fieldmap import GONE, REJECTED, FieldMap
from identity_pipeline.core.window import Window
from identity_pipeline.readers import rest

FIELDS = (
    "addresses,biographies,birthdays,calendarUrls,clientData,emailAddresses,events,externalIds,"
    "genders,imClients,interests,locales,locations,memberships,metadata,miscKeywords,names,"
    "nicknames,occupations,organizations,phoneNumbers,relations,sipAddresses,skills,urls,"
    "userDefined"
)
PAGE = {"pageSize": 1000, "requestSyncToken": True}
LISTS = {
    "connections": rest.Request(
        "/v1/people/me/connections",
        {"personFields": FIELDS, "sources": "READ_SOURCE_TYPE_CONTACT", **PAGE},
        size="query.pageSize",
    ),
    "otherContacts": rest.Request(
        "/v1/otherContacts",
        {"readMask": "emailAddresses,metadata,names,phoneNumbers", **PAGE},
        size="query.pageSize",
    ),
}
NEXT = rest.CursorPaginator("nextPageToken", "query.pageToken")
SYNC = rest.Deltas("nextSyncToken", NEXT, "updateTime", "query.syncToken")
KINDS = {"CONTACT": "", "OTHER_CONTACT": "otherContacts/"}
FIRST = {
    "name": "names",
    "organization": "organizations",
    "address": "addresses",
    "biography": "biographies",
}


class GoogleContacts(RestConnector):
    """The contacts of one Google account."""

    group = "oauth"
    vendor = "google"

    access_token: Secret = setting(
        "The account, connected by `credentials connect google_contacts NAME`: {credential: NAME}"
    )
    other_contacts: bool = setting(
        "Read people too that the account exchanged mail with and did not save; the grant has to "
        "have the scope contacts.other.readonly",
        default=False,
    )
    base_url: str = setting("Address of the API", default="https://people.googleapis.com")

    interval = 0.7
    errors = rest.ErrorBody(
        code=("error.details.0.reason", "error.status"),
        known={
            "RATE_LIMIT_EXCEEDED": rest.VendorError(wait=60),
            "RESOURCE_EXHAUSTED": rest.VendorError(wait=60),
            "ACCESS_TOKEN_SCOPE_INSUFFICIENT": rest.VendorError(
                advice="the account did not grant to read its contacts: connect it again, and "
                "leave every box ticked"
            ),
            "SERVICE_DISABLED": rest.VendorError(
                advice="enable the People API for the app's project (Google Cloud, APIs & "
                "Services), then run it again"
            ),
        },
    )
    cursor_columns: ClassVar = {
        "updateTime": CursorColumn("timestamp", overlap=600, in_records=False)
    }
    field_map = FieldMap(
        email=("email",),
        phone=("phone",),
        full_name=("name.displayName", "name.unstructuredName"),
        first_name=("name.givenName",),
        last_name=("name.familyName",),
        company=("organization.name",),
        job_title=("organization.title",),
        street=("address.streetAddress",),
        city=("address.city",),
        region=("address.region",),
        postal_code=("address.postalCode",),
        country=("address.countryCode", "address.country"),
        source_updated_at=("updateTime",),
        deleted_when=(("metadata.deleted", "true"),),
    )

    def auth(self) -> rest.Auth:
        """A bearer token."""
        return rest.BearerAuth(self.access_token)

    def pages(self, client: rest.Client, window: Window) -> rest.Pages:
        """Yield who changed since the sync tokens were handed out, or all."""
        every = LISTS if self.other_contacts else {"connections": LISTS["connections"]}
        return SYNC.pages(client, window, every.items(), _people)


def _people(name: str, page: rest.Response) -> list[rest.Record]:
    """The people of a page, which has no list of them where there are none."""
    none = page.at(name) is None and (page.at(SYNC.token) or page.at(NEXT.token))
    return [] if none else [_contact(each) for each in page.records(name)]


def _contact(person: rest.Record) -> rest.Record:
    """A contact with the id that stays, the time of its change, and the first of each list."""
    metadata = person.get("metadata")
    if REJECTED in person or not isinstance(metadata, dict):
        return person
    sources = rest.objects(metadata.get("sources"))
    own = next((each for each in sources if each.get("type") in KINDS and each.get("id")), None)
    numbers = rest.objects(person.get("phoneNumbers"))
    return {
        **person,
        **{one: rest.first(person.get(many), "metadata.primary") for one, many in FIRST.items()},
        "id": f"{KINDS[own['type']]}{own['id']}" if own else None,
        "email": [each.get("value") for each in rest.objects(person.get("emailAddresses"))],
        "phone": [each.get("canonicalForm") or each.get("value") for each in numbers],
        "updateTime": own.get("updateTime") if own else None,
        **({GONE: True} if metadata.get("deleted") is True else {}),
    }
