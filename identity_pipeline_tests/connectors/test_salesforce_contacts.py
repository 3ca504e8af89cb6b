"""What is odd about Salesforce: fields by describe, a recycle bin, a daily limit that answers 403, locators that get lost."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest

from identity_pipeline.connectors.salesforce_contacts import SalesforceContacts
from identity_pipeline.core.errors import ContractBroken, PermissionDenied, RateLimited, SourceRejected, SourceUnavailable
from identity_pipeline.core.window import ReadContext, Window
from identity_pipeline.declarations.source import Source
from identity_pipeline.demo.vendor_api import serve
from identity_pipeline_tests.connectors import reading
from identity_pipeline_tests.connectors.reading import secret
from identity_pipeline_tests.servers.faults import FaultProxy, status
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


def test_too_many_requests_at_once_are_no_daily_limit_and_pass(org: SalesforceAPI):
    message = "ConcurrentRequests (Concurrent API Requests) Limit exceeded."
    busy = status(403, [{"message": message, "errorCode": "REQUEST_LIMIT_EXCEEDED"}])
    with FaultProxy(org.url) as proxy:
        assert len(read(org, base_url=proxy.plan([None, busy, busy, busy]).url)[0]) == len(read(org)[0])
        with pytest.raises(RateLimited, match=r"403 REQUEST_LIMIT_EXCEEDED \(Concurrent\): too many requests") as raised:
            read(org, base_url=proxy.plan([busy] * 9).url)
    assert raised.value.wait is None, "the next load may ask again at once"


def test_who_may_not_read_contacts_is_told_so(org: SalesforceAPI):
    org.objects = ("Lead",)
    with pytest.raises(PermissionDenied, match=r"INVALID_TYPE.*permission set"):
        read(org)


MANY = {f"Custom_Field_With_A_Long_Name_{n:04d}__c": "string" for n in range(500)}


def test_more_fields_than_an_address_takes_are_read_by_a_job(org: SalesforceAPI):
    org.more = MANY
    org.put("0030", NOW, **dict.fromkeys(MANY, "kept"))
    found, window = read(org)
    assert (found.set_index("Id").loc["0030", [*MANY]] == "kept").all()
    assert not window.context.warnings


def test_without_a_bulk_api_they_are_left_out_with_a_warning(org: SalesforceAPI):
    org.more, org.bulk = MANY, False
    found, window = read(org)
    assert len(found) == 3
    assert ["FEATURENOTENABLED" in warning or "fields" in warning for warning in window.context.warnings] == [True, True]
    assert {"Id", "Email", "Phone", "Account.Name", "SystemModstamp"} <= set(found.columns)


def test_a_record_is_the_same_by_a_query_and_by_a_job(org: SalesforceAPI):
    org.more = {"Rating__c": "double", "Birthdate": "date", "Note__c": "textarea"}
    org.put("0030", NOW, AccountId="001A", Note__c='a "quoted"\nline, and ünïcode', Rating__c=4.5, Birthdate="1980-02-29")
    org.put("0031", NOW, IsDeleted=True, MasterRecordId="0030", Note__c="=2026-01-01T00:00:00.000Z")
    by_query, by_job = (read(org, bulk_above=above)[0].set_index("Id").sort_index() for above in (100, 0))
    assert len(org.jobs) == 1
    pd.testing.assert_frame_equal(by_job[by_query.columns], by_query)


def test_a_job_is_read_page_by_page_in_the_window_and_deleted_in_the_end(org: SalesforceAPI):
    org.page_size = 7
    for n in range(30):
        org.put(f"tie{n:02d}", NOW - timedelta(hours=1), LastName="Tie")
    org.looks = 1  # so it waits once
    found, _ = read(org, NOW - timedelta(hours=1), bulk_above=20)
    assert sorted(found["Id"]) == ["0030", *(f"tie{n:02d}" for n in range(30))]
    assert [job.over for job in org.jobs.values()] == ["deleted"]
    results = [each.query for each in org.asked if each.path.endswith("/results")]
    assert [query.get("locator") for query in results] == [None, "7", "14", "21", "28"]


def test_a_preview_waits_for_no_job(org: SalesforceAPI):
    connector = SalesforceContacts(my_domain="acme.my.salesforce.com", access_token=secret(TOKEN), base_url=org.url, bulk_above=0)
    reading.read(connector, Window(limit=2))
    assert not org.jobs


@pytest.mark.parametrize("spoil", [{"cut": 1}, {"page_size": 1, "cut": 1}])
def test_results_that_are_not_whole_are_no_read(org: SalesforceAPI, spoil: dict[str, int]):
    for name, value in spoil.items():
        setattr(org, name, value)
    with pytest.raises(ContractBroken, match="its results hold 2"):
        read(org, bulk_above=0)


def test_a_job_that_the_org_stops_says_why_and_shows_nothing_of_it(org: SalesforceAPI):
    org.failure = "QUERY_TIMEOUT: canary@nordwind-demo.com"
    with pytest.raises(SourceRejected, match=r"the job is Failed, QUERY_TIMEOUT: look at it in Salesforce") as raised:
        read(org, bulk_above=0)
    assert "canary" not in str(raised.value)
    assert [job.over for job in org.jobs.values()] == ["Aborted"]


def test_a_job_that_takes_for_ever_is_given_up_and_stopped(org: SalesforceAPI):
    org.looks = 10**6
    slept: list[float] = []
    connector = SalesforceContacts(my_domain="acme.my.salesforce.com", access_token=secret(TOKEN), base_url=org.url, bulk_above=0)
    window = Window(context=ReadContext(sleep=slept.append))
    with pytest.raises(SourceUnavailable, match="not done the job within 3 hours"):
        reading.read(connector, window)
    assert 3 * 3600 - 60 <= sum(slept) <= 3 * 3600
    assert [job.over for job in org.jobs.values()] == ["Aborted"]


@pytest.mark.parametrize(
    "domain", ["acme.lightning.force.com", "acme.my.salesforce.com.evil.example", "evil.example/x.my.salesforce.com", ""]
)
def test_only_a_my_domain_is_asked(domain: str):
    config = {"my_domain": domain, "access_token": {"env": "TOKEN"}}
    with pytest.raises(Exception, match="my_domain"):
        Source.model_validate({"name": "sf", "source_type": "salesforce_contacts", "config": config}).check()
