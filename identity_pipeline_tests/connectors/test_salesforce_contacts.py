"""What is odd about Salesforce: fields by describe, a recycle bin, a daily limit that answers 403, locators that get lost."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest

from identity_pipeline.connectors.salesforce_contacts import SalesforceContacts
from identity_pipeline.core.errors import ContractBroken, PermissionDenied, RateLimited
from identity_pipeline.core.window import Window
from identity_pipeline.declarations.source import Source
from identity_pipeline.demo.vendor_api import serve
from identity_pipeline_tests.connectors import reading
from identity_pipeline_tests.connectors.reading import secret
from identity_pipeline_tests.servers.salesforce_api import SalesforceAPI

pytestmark = pytest.mark.usefixtures("loopback")
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
TOKEN = "00Dxx0000001gPL!AQcAQH0dMHZfz972"


@pytest.fixture
def org() -> Iterator[SalesforceAPI]:
    """An org with three contacts, one of them with an account, and a lead."""
    with serve(SalesforceAPI(token=TOKEN, now=NOW)) as api:
        for n in range(3):
            api.put(f"003{n}", NOW - timedelta(days=n), LastName=f"Person {n}", AccountId="001A" if n == 0 else None)
        api.accounts["001A"] = "Nordwind"
        api.put("00Q1", NOW, "Lead", LastName="Lead", Company="Südwind")
        yield api


def read(api: SalesforceAPI, since: datetime | None = None, **settings) -> tuple[pd.DataFrame, Window]:
    connector = SalesforceContacts(
        **({"my_domain": "acme.my.salesforce.com", "access_token": secret(TOKEN), "base_url": api.url} | settings)
    )
    window = reading.window(connector, "SystemModstamp", since and since.isoformat())
    return reading.read(connector, window)[0], window


def test_all_fields_that_the_user_sees_are_read_but_those_that_hold_others(org: SalesforceAPI):
    org.hidden, org.more = {"Phone"}, {"Segment__c": "picklist", "Where__c": "location"}
    found, window = read(org)
    assert {"Segment__c", "Account.Name", "Email"} <= set(window.context.fields)
    assert not {"Phone", "MailingAddress", "Logo__c", "Where__c"} & set(window.context.fields)
    assert found.set_index("Id").loc["0030", "Account.Name"] == "Nordwind"
    assert not [name for name in found.columns if "attributes" in name]


def test_leads_are_read_where_that_is_wished_and_lead_to_the_contact_that_they_became(org: SalesforceAPI):
    assert sorted(read(org)[0]["Id"]) == ["0030", "0031", "0032"]
    org.put("00Q1", NOW, "Lead", ConvertedContactId="0031")
    found = read(org, leads=True)[0].set_index("Id")
    assert (found.loc["00Q1", "Company"], found.loc["00Q1", "ConvertedContactId"]) == ("Südwind", "0031")


def test_many_records_of_one_stamp_are_found_again_at_the_mark(org: SalesforceAPI):
    for n in range(30):
        org.put(f"tie{n:02d}", NOW - timedelta(hours=1), LastName="Tie")
    org.page_size = 7
    assert len(read(org, NOW - timedelta(hours=1))[0]) == 31


def test_a_field_that_went_since_it_was_described_has_the_read_begin_again(org: SalesforceAPI):
    answer = org.answer

    def hiding(asked):
        found = answer(asked)
        org.hidden = {"Title"}
        return found

    org.answer = hiding  # type: ignore[method-assign]
    with pytest.raises(ContractBroken, match="INVALID_FIELD"):
        read(org)
    assert len(read(org)[0]) == 3


def test_a_locator_that_got_lost_has_the_read_begin_again(org: SalesforceAPI):
    org.page_size, org.lost = 1, True
    with pytest.raises(ContractBroken, match="INVALID_QUERY_LOCATOR"):
        read(org)


def test_a_tenth_of_the_daily_limit_is_left_to_others(org: SalesforceAPI):
    org.used, org.allowed = 89, 100
    with pytest.raises(RateLimited, match="left to its other programs") as raised:
        read(org)
    assert (raised.value.exhausted, org.used) == (True, 91), "the request that shows it is the last"
    org.used = 100
    with pytest.raises(RateLimited, match="REQUEST_LIMIT_EXCEEDED") as raised:
        read(org)
    assert raised.value.exhausted
    assert org.used == 101, "it is not asked again"


def test_who_may_not_read_contacts_is_told_so(org: SalesforceAPI):
    org.objects = ("Lead",)
    with pytest.raises(PermissionDenied, match=r"INVALID_TYPE.*permission set"):
        read(org)


def test_more_fields_than_an_address_takes_are_left_out_with_a_warning(org: SalesforceAPI):
    org.more = {f"Custom_Field_With_A_Long_Name_{n:04d}__c": "string" for n in range(500)}
    found, window = read(org)
    assert len(found) == 3
    assert any("more fields" in warning for warning in window.context.warnings)
    assert {"Id", "Email", "Phone", "Account.Name", "SystemModstamp"} <= set(found.columns)


@pytest.mark.parametrize(
    "domain", ["acme.lightning.force.com", "acme.my.salesforce.com.evil.example", "evil.example/x.my.salesforce.com", ""]
)
def test_only_a_my_domain_is_asked(domain: str):
    config = {"my_domain": domain, "access_token": {"env": "TOKEN"}}
    with pytest.raises(Exception, match="my_domain"):
        Source.model_validate({"name": "sf", "source_type": "salesforce_contacts", "config": config}).check()
