"""Salesforce: the contacts of one org, its leads where asked, deleted and merged ones told.

Left out: accounts but for their names, person accounts as accounts (their contact is read),
attachments. A record that was taken out of the recycle bin, or is older there than 15 days, goes
unseen until a full refresh.

The cursor's traps:

- `SystemModstamp` moves with every change, by automation and merges too; `LastModifiedDate` does
  not. It is stamped when a change is made and seen when it is committed, hence the overlap.
- Many records share one stamp: the bound includes what equals it.
- Fields that the user may not see are absent, without an error: all that he sees are asked for.
- A query in an address ends at 16,384 bytes: more fields than that, some 500, are read by the Bulk
  API, and so is what holds more than `bulk_above` records. What it gives is in no order.
- An answer of 403 may be the daily limit of the org, which all of its programs share: a tenth of it
  is left to them. Only its message tells it from too many long requests at once, which pass.

https://developer.salesforce.com/docs/platform/api-rest/guide/resources_queryall.html
"""

from typing import ClassVar

from identity_pipeline.connectors.base import CursorColumn, RestConnector, Secret, setting
from identity_pipeline.core.errors import (
    ContractBroken,
    PermissionDenied,
    RateLimited,
    SourceUnavailable,
)
from identity_pipeline.core.fieldmap import FieldMap
from identity_pipeline.core.window import Window
from identity_pipeline.readers import rest, salesforce


class SalesforceContacts(RestConnector):
    """The contacts of one Salesforce org, and its leads."""

    group = "oauth"
    vendor = "salesforce"

    my_domain: str = setting(
        "My Domain of the org: acme.my.salesforce.com (Setup, My Domain)",
        examples=["acme.my.salesforce.com"],
        pattern=r"^[a-z0-9][a-z0-9-]{0,62}(\.[a-z]{4,12})?\.my\.(salesforce\.com|salesforce\.mil|"
        r"sfcrmproducts\.cn)$",
    )
    access_token: Secret = setting(
        "The account or app, connected by `credentials connect salesforce_contacts NAME`: "
        "{credential: NAME}"
    )
    leads: bool = setting("Read leads too.", default=False)
    bulk_above: int = setting(
        "More records than this are read by the Bulk API: a few requests, however many they are",
        default=50_000,
        ge=0,
    )
    base_url: str = setting("Address of the API, where it is not My Domain", default="")
    api_version: str = setting("Version of the API", default="66.0", pattern=r"^\d\d\.0$")

    limits = (rest.Quota("Sforce-Limit-Info", r"\bapi-usage=(\d+)/(\d+)"),)
    errors = rest.ErrorBody(
        code=("0.errorCode",),
        message=("0.message",),
        known={
            "REQUEST_LIMIT_EXCEEDED (Concurrent)": rest.VendorError(
                advice="too many requests of the org's programs run for long at once: run it again "
                "later",
                error=RateLimited,
            ),
            "REQUEST_LIMIT_EXCEEDED": rest.VendorError(
                advice="the org's limit of requests is used up, which is counted over 24 hours: "
                "run it later, or have the limit raised",
                error=RateLimited,
                wait=rest.GIVE_UP,
            ),
            "API_DISABLED_FOR_ORG": rest.VendorError(
                advice="the org's edition has no API: it needs Enterprise, or API access bought"
            ),
            "INVALID_TYPE": rest.VendorError(
                advice="the user may not read this object: give him a permission set with Read on "
                "contacts (and leads), then run it again",
                error=PermissionDenied,
            ),
            "INVALID_FIELD": rest.VendorError(error=ContractBroken),
            "QUERY_TIMEOUT": rest.VendorError(error=SourceUnavailable),
            "406": rest.VendorError(error=SourceUnavailable),
        },
        phrases=r"\bConcurrent",
    )
    cursor_columns: ClassVar = {
        "SystemModstamp": CursorColumn("timestamp", overlap=600),
        "CreatedDate": CursorColumn("timestamp", overlap=600),
    }
    field_map = FieldMap(
        external_id=("Id",),
        email=("Email",),
        phone=("Phone", "MobilePhone", "HomePhone", "OtherPhone"),
        full_name=("Name",),
        first_name=("FirstName",),
        last_name=("LastName",),
        company=("Account.Name", "Company"),
        job_title=("Title",),
        street=("MailingStreet", "Street"),
        city=("MailingCity", "City"),
        region=("MailingState", "State"),
        postal_code=("MailingPostalCode", "PostalCode"),
        country=("MailingCountryCode", "MailingCountry", "CountryCode", "Country"),
        source_created_at=("CreatedDate",),
        source_updated_at=("SystemModstamp",),
        deleted_when=(("IsDeleted", "true"),),
        merged_into=("MasterRecordId", "ConvertedContactId"),
    )

    def address(self) -> str:
        """My Domain, which alone knows the org."""
        return self.base_url or f"https://{self.my_domain}"

    def auth(self) -> rest.Auth:
        """A bearer token."""
        return rest.BearerAuth(self.access_token)

    def pages(self, client: rest.Client, window: Window) -> rest.Pages:
        """Yield the contacts that changed, or all, those in the recycle bin too; then the leads."""
        base, column = f"/services/data/v{self.api_version}", window.cursor_column or "Id"
        since = f" WHERE {column} >= {window.lower_bound('iso_s')}" if window.incremental else ""
        for kind in ("Contact", "Lead") if self.leads else ("Contact",):
            described = client.send(rest.Request(f"{base}/sobjects/{kind}/describe"))
            types = salesforce.fields(described, self.field_map.source_fields())
            window.context.fields = (*window.context.fields, *types)
            query = salesforce.Query(base, kind, types, since, column, self.bulk_above)
            yield from query.pages(client, window)
