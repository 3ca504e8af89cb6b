"""Microsoft: the contacts of one mailbox, or of several, from all of their folders.

Left out: the directory's own people and the organisation's shared contacts, photos, shared folders.
`/me/contacts` alone would be the default folder without those beside and inside it.

The cursor's traps:

- Changes are told for each folder by a delta link, kept as state beside the mark; records carry no
  cursor of their own. Without a link all are listed, and what is older than the mark is left out.
- A link ends when the server forgets (410, or a 40x): then all is listed again, and who was deleted
  meanwhile is found by full refreshes. The deletion of a folder's last contact may not be told.
- A contact that is moved is told as removed in one folder and as new in another: who is in any
  folder is not gone. Ids stay in a move only as `ImmutableId`, which every request asks for.
- A folder without contacts shows no id of its own where it is the default one: it is met later.

https://learn.microsoft.com/graph/api/contact-delta
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar
from urllib.parse import quote

from identity_pipeline.connectors.base import CursorColumn, RestConnector, Secret, setting
from identity_pipeline.core.fieldmap import GONE, FieldMap
from identity_pipeline.core.window import Window
from identity_pipeline.readers import rest

FIELDS = (
    "assistantName,birthday,businessAddress,businessHomePage,businessPhones,categories,changeKey,"
    "children,companyName,createdDateTime,department,displayName,emailAddresses,fileAs,generation,"
    "givenName,homeAddress,homePhones,imAddresses,initials,jobTitle,lastModifiedDateTime,manager,"
    "middleName,mobilePhone,nickName,officeLocation,otherAddress,parentFolderId,personalNotes,"
    "profession,spouseName,surname,title,yomiCompanyName,yomiGivenName,yomiSurname"
)
SIZE = "options.Prefer.odata.maxpagesize"
WISHES = {"Prefer": {"IdType": '"ImmutableId"', "odata.maxpagesize": 500}}
NEXT = rest.LinkPaginator("@odata.nextLink")
DELTA = rest.Deltas("@odata.deltaLink", NEXT, "lastModifiedDateTime")


class MicrosoftContacts(RestConnector):
    """The contacts of one or several mailboxes of Exchange Online or Outlook.com."""

    group = "oauth"
    vendor = "microsoft"

    access_token: Secret = setting(
        "The account or app, connected by `credentials connect microsoft_contacts NAME`: "
        "{credential: NAME}"
    )
    mailboxes: list[str] = setting(
        "Addresses of the mailboxes, where the app itself is let in. Empty: the account's own one.",
        default=[],
    )
    base_url: str = setting(
        "Address of the API; national clouds have their own", default="https://graph.microsoft.com"
    )

    interval = 0.06
    errors = rest.ErrorBody(
        code=("error.code",),
        known={
            "ErrorAccessDenied": rest.VendorError(
                advice="the grant does not reach to these contacts: add the permission "
                "Contacts.Read (for an app with an administrator's consent), connect it again"
            ),
            "MailboxNotEnabledForRESTAPI": rest.VendorError(
                advice="the account has no Exchange Online mailbox: give it a licence, or take it "
                "out of mailboxes"
            ),
            "ErrorInvalidUser": rest.VendorError(
                advice="there is no such mailbox: correct mailboxes"
            ),
        },
    )
    cursor_columns: ClassVar = {
        "lastModifiedDateTime": CursorColumn("timestamp", overlap=600, in_records=False)
    }
    field_map = FieldMap(
        email=("email",),
        phone=("mobilePhone", "businessPhones", "homePhones"),
        full_name=("displayName",),
        first_name=("givenName",),
        last_name=("surname",),
        company=("companyName",),
        job_title=("jobTitle",),
        street=("businessAddress.street", "homeAddress.street", "otherAddress.street"),
        city=("businessAddress.city", "homeAddress.city", "otherAddress.city"),
        region=("businessAddress.state", "homeAddress.state", "otherAddress.state"),
        postal_code=(
            "businessAddress.postalCode",
            "homeAddress.postalCode",
            "otherAddress.postalCode",
        ),
        country=(
            "businessAddress.countryOrRegion",
            "homeAddress.countryOrRegion",
            "otherAddress.countryOrRegion",
        ),
        source_created_at=("createdDateTime",),
        source_updated_at=("lastModifiedDateTime",),
        deleted_when=(("@removed.reason", "deleted"), ("@removed.reason", "changed")),
    )

    def auth(self) -> rest.Auth:
        """A bearer token."""
        return rest.BearerAuth(self.access_token)

    def pages(self, client: rest.Client, window: Window) -> rest.Pages:
        """Yield who changed in each folder since its delta link, or all; then who is in none."""
        folders = dict.fromkeys(DELTA.known(window))
        every = [each.strip() for each in self.mailboxes]
        for root in [f"/v1.0/users/{quote(each, safe='@')}" for each in every] or ["/v1.0/me"]:
            one = rest.Request(f"{root}/contacts", {"$top": 1, "$select": "parentFolderId"})
            default = client.send(replace(one, options=WISHES)).keyed("value", "parentFolderId")
            folders |= dict.fromkeys(f"{root}/contactFolders/{each}" for each in default)
            folders |= dict.fromkeys(_folders(client, f"{root}/contactFolders"))
        delta = rest.Request(f"/contacts/delta?$select={FIELDS}", size=SIZE, options=WISHES)
        lists = [(each, replace(delta, path=each + delta.path)) for each in folders]
        return DELTA.pages(client, window, lists, _contacts)


def _folders(client: rest.Client, path: str) -> Iterator[str]:
    """The folders at ``path``, and all inside them."""
    asked, inner = rest.Request(path, {"$top": 250}, options=WISHES), path.endswith("/childFolders")
    for page in client.pages(asked, NEXT, resumed=inner):
        for each in page.records("value"):
            folder = f"{path.partition('/contactFolders')[0]}/contactFolders/{each.get('id')}"
            yield folder
            yield from _folders(client, f"{folder}/childFolders")


def _contacts(_: str, page: rest.Response) -> list[rest.Record]:
    """The contacts of a page with their addresses; one that went says so."""
    return [
        {**each, GONE: True}
        if isinstance(each.get("@removed"), dict)
        else {**each, "email": [a.get("address") for a in rest.objects(each.get("emailAddresses"))]}
        for each in page.records("value")
    ]
