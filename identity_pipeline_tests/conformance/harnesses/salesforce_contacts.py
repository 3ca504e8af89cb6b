"""Salesforce: an org with a recycle bin."""

from collections.abc import Sequence
from typing import Any, ClassVar

from identity_pipeline.demo.vendor_api import serve
from identity_pipeline_tests.conformance.harness import Contact, Harness, minute
from identity_pipeline_tests.servers.salesforce_api import SalesforceAPI


class SalesforceContactsHarness(Harness):
    """An org and an access token of one of its users."""

    cursor_column = "SystemModstamp"
    note = "Description"
    traits: ClassVar = {
        "cursor", "deletion", "restoring", "merging", "pages", "counted", "credential", "permission", "framed", "nul", "surrogate",
        "line_breaks", "megabyte",
    }  # fmt: skip
    lacking: ClassVar = {
        "null_cursor": "Salesforce stamps every record with SystemModstamp",
        "future_cursor": "Salesforce stamps records by its own clock",
        "repeated_id": "ids are unique in an org",
        "text_ids": "ids are given by Salesforce, of letters and digits",
        "nested": "a record's fields stand in the record itself",
    }
    requests_before_pages = 1
    next_page = "nextRecordsUrl"
    old_configs: ClassVar = (
        {"my_domain": "acme.my.salesforce.com", "access_token": {"env": "TOKEN"}},
        {
            "my_domain": "acme--test.sandbox.my.salesforce.com", "access_token": {"credential": "sf"}, "leads": True,
            "base_url": "https://acme.my.salesforce.com", "api_version": "66.0",
        },
    )  # fmt: skip

    def start(self) -> dict[str, Any]:
        """An empty org behind faults."""
        token = self.canary("access_token")
        self.api = self.enter(serve(SalesforceAPI(token=token, page_size=1000)))
        return {
            "my_domain": "acme.my.salesforce.com",
            "access_token": self.env("ACCESS_TOKEN", token),
            "base_url": self.behind_faults(self.api.url),
        }

    def show(self, contacts: Sequence[Contact]) -> None:
        """Let the org have these contacts; the deleted ones, and those that were merged, are in the recycle bin."""
        held = self.api.records["Contact"]
        losers = {loser: c for c in contacts for loser in c.absorbed}
        for name in set(held) - {c.id for c in contacts} - set(losers):
            if not held[name]["MasterRecordId"]:
                del held[name]
        for c in contacts:
            told = {"FirstName": c.first_name, "Email": c.email, "Phone": c.phone, "Description": c.note, "IsDeleted": c.deleted}
            self.api.put(c.id, c.at or minute(0), **told)
        for loser, c in losers.items():
            if loser in held and not held[loser]["MasterRecordId"]:
                self.api.merge(loser, c.id, c.at or minute(0))

    def shrink_pages(self) -> None:
        """Serve three a page, whatever was asked."""
        self.api.page_size = 3

    def refuse_credential(self) -> None:
        """Know another token only."""
        self.api.token = "another"

    def refuse_permission(self) -> None:
        """Take the right to read contacts away from the user."""
        self.api.objects = ()
