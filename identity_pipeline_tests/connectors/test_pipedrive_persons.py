"""What is odd about Pipedrive: fields by hash, organizations apart, a token that sees a part, deletions of a month, a daily budget."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pydantic
import pytest
import requests

from identity_pipeline import normalise
from identity_pipeline.connectors.pipedrive_persons import PipedrivePersons
from identity_pipeline.core.errors import CredentialError, RateLimited, SourceRejected
from identity_pipeline.core.fieldmap import GONE
from identity_pipeline.core.text import cast_all_utf8
from identity_pipeline.core.window import ReadContext, Window
from identity_pipeline.demo.vendor_api import serve
from identity_pipeline_tests.connectors import reading
from identity_pipeline_tests.connectors.reading import Loads, secret
from identity_pipeline_tests.servers.faults import FaultProxy, html, status
from identity_pipeline_tests.servers.pipedrive_api import PipedriveAPI

pytestmark = pytest.mark.usefixtures("loopback")
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
TOKEN = "9dc80c50d78a15643bfc4ca79d76156a73a1ca0e"
BUDGET, TIER, TAGS = "a" * 40, "b" * 40, "c" * 40
FIELDS = [
    {"field_code": BUDGET, "field_name": "Budget", "field_type": "monetary"},
    {"field_code": TIER, "field_name": "Tier", "field_type": "enum", "options": [{"id": 7, "label": "Gold"}, {"id": 8, "label": "Tin"}]},
    {"field_code": TAGS, "field_name": "Tags", "field_type": "set", "options": [{"id": 1, "label": "VIP"}, {"id": 2, "label": "EU"}]},
]


@pytest.fixture
def company() -> Iterator[PipedriveAPI]:
    """An empty company."""
    with serve(PipedriveAPI(token=TOKEN, fields=list(FIELDS), now=NOW)) as api:
        yield api


def ago(**span: float) -> datetime:
    return NOW - timedelta(**span)


def read(
    api: PipedriveAPI, since: datetime | str | None = None, column: str | None = "update_time", **settings: Any
) -> tuple[pd.DataFrame, Window]:
    connector = PipedrivePersons(**({"api_token": secret(TOKEN), "base_url": api.url} | settings))
    window = reading.window(connector, column, since.isoformat() if isinstance(since, datetime) else since)
    return reading.read(connector, window)[0], window


def asked(api: PipedriveAPI, end: str) -> list[dict[str, str]]:
    return [dict(each.query) for each in api.asked if each.path.endswith(end)]


class Strict(pydantic.BaseModel):
    """An object of the published contract of version 2: nothing else, and of these types."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)


class Contactable(Strict):
    """An e-mail address or a phone number."""

    value: str
    primary: bool
    label: str


class Published(Strict):
    """A person of a list, as https://developers.pipedrive.com/docs/api/v1/Persons#getPersons has it."""

    id: int
    name: str
    first_name: str | None
    last_name: str | None
    owner_id: int
    org_id: int | None
    add_time: str = pydantic.Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
    update_time: str = pydantic.Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
    emails: list[Contactable]
    phones: list[Contactable]
    is_deleted: bool
    visible_to: int
    label_ids: list[int]
    picture_id: int | None
    custom_fields: dict[str, Any]


class More(Strict):
    """Where the next page begins."""

    next_cursor: str | None


class Persons(Strict):
    """A page of persons."""

    success: bool
    data: list[Published]
    additional_data: More


def test_the_pages_of_this_server_are_as_published_and_it_refuses_as_published(company):
    for n in range(5):
        company.put(n, ago(hours=n), name=f"Person {n}", emails=[{"value": f"p{n}@nordwind-demo.com", "primary": True, "label": "work"}])
    url, headers, found, query = f"{company.url}/api/v2/persons", {"x-api-token": TOKEN}, [], {"limit": "2", "sort_by": "update_time"}
    while True:
        page = Persons.model_validate(requests.get(url, query, headers=headers, timeout=5).json())
        found += [each.id for each in page.data]
        if page.additional_data.next_cursor is None:
            break
        query["cursor"] = page.additional_data.next_cursor
    assert found == [4, 3, 2, 1, 0]
    bad = [{"limit": "501"}, {"sort_by": "name"}, {"cursor": "x"}, {"updated_since": "2026-11-24T12:00:00.5Z"}, {"color": "red"}]
    bad += [{"include_fields": "marketing_status"}, {"ids": ",".join(map(str, range(101)))}]
    refused = [requests.get(url, each, headers=headers, timeout=5) for each in bad]
    assert {(each.status_code, each.json()["code"]) for each in refused} == {(400, "ERR_SCHEMA_VALIDATION_FAILED")}
    assert requests.get(url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=5).status_code == 401


def test_several_addresses_and_numbers_arrive_primary_first(company):
    emails = [
        {"value": "", "primary": False, "label": "home"},
        {"value": "b@nordwind-demo.com", "primary": False, "label": "home"},
        {"value": "a@nordwind-demo.com", "primary": True, "label": "work"},
    ]
    phones = [{"value": "+49 30 1234567", "primary": True, "label": "work"}, {"value": "+49 30 7654321", "primary": True, "label": "home"}]
    company.put(1, ago(days=1), name="Zoë Müller", first_name="Zoë", last_name="Müller", emails=emails, phones=phones)
    connector = PipedrivePersons(api_token=secret(TOKEN), base_url=company.url)
    [batch] = connector.read(reading.window(connector))
    [row] = normalise.canonicalise(cast_all_utf8(batch), PipedrivePersons.field_map).to_pylist()
    assert row["emails"] == ["a@nordwind-demo.com", "b@nordwind-demo.com"]
    assert row["phones"] == ["+49301234567", "+49307654321"]
    assert (row["first_name"], row["last_name"], row["source_updated_at"]) == ("Zoë", "Müller", ago(days=1))


def test_custom_fields_have_their_names_and_labels_and_keep_their_hashes(company):
    company.fields.append({"field_code": "e" * 40, "field_name": "Tier", "field_type": "varchar"})
    custom = {BUDGET: {"value": 2300, "currency": "EUR"}, TIER: 7, TAGS: [1, 9], "d" * 40: "unknown", "e" * 40: "other"}
    company.put(1, ago(days=1), custom_fields=custom)
    company.put(2, ago(days=1), custom_fields={TIER: None, BUDGET: None})
    found, _ = read(company)
    row = {name: found[name][0] for name in found.columns}
    assert (row["named.Budget.value"], row["named.Budget.currency"], row["named.Tags"]) == ("2300", "EUR", '["VIP",9]')
    assert (row["named." + "d" * 40], row[f"custom_fields.{TIER}"], row["custom_fields." + "e" * 40]) == ("unknown", "7", "other")
    assert row["named.Tier"] == "other", "of two fields of one name the hashes tell"


def test_the_organizations_of_a_page_are_asked_for_together_and_once_each(company):
    for n in range(1, 252):
        company.organizations[n] = {"id": n, "name": f"Firma {n}", "address": {"value": f"Weg {n}", "locality": "Berlin", "country": "DE"}}
        company.put(n, ago(days=1), org_id=n)
    company.put(900, ago(days=1), org_id=1)
    company.put(901, ago(days=1))
    found, _ = read(company)
    names = dict(zip(found["id"], found["organization.name"], strict=True))
    assert (names["7"], names["900"], pd.isna(names["901"])) == ("Firma 7", "Firma 1", True)
    assert [len(each["ids"].split(",")) for each in asked(company, "/organizations")] == [100, 100, 51]
    assert "organization.address.locality" in found


def test_the_bound_is_inclusive_and_sent_as_whole_seconds(company):
    company.put(1, ago(seconds=1))
    company.put(2, NOW)
    company.put(3, ago(seconds=-5))
    assert sorted(read(company, NOW.isoformat())[0]["id"]) == ["2", "3"]
    read(company, (NOW + timedelta(microseconds=999_999)).isoformat())
    assert [each["updated_since"] for each in asked(company, "/persons")] == ["2026-11-24T12:00:00Z"] * 2
    assert asked(company, "/persons")[0]["sort_by"] == "update_time"


def test_times_of_both_versions_are_read(company):
    cursor = PipedrivePersons(api_token=secret(TOKEN)).cursor("update_time", "timestamp")
    texts = cast_all_utf8(pd.DataFrame({"update_time": ["2026-11-24T12:00:00Z", "2026-11-24 12:00:00"]}))
    assert set(cursor.of(texts).to_pylist()) == {NOW}


def test_other_cursors_read_all_and_keep_what_is_new(company):
    company.put(1, ago(days=9))
    company.put(2, ago(days=1))
    assert read(company, ago(days=2), "add_time")[0]["id"].tolist() == ["2"]
    assert read(company, "2", "id")[0]["id"].tolist() == ["2"]
    assert not any("updated_since" in each for each in asked(company, "/persons"))


def test_deleted_persons_are_told_by_the_recent_changes_whatever_is_read(company):
    company.put(1, ago(days=40))
    company.put(2, ago(days=40))
    company.delete(2, ago(days=20))
    company.page_size = 1
    company.put(3, ago(days=1))
    for since, known in ((ago(days=25), {"3"}), (None, {"1", "3"})):
        found, _ = read(company, since)
        gone = found[found[GONE].fillna("") == "true"]
        assert gone[["id", "is_deleted", "update_time"]].to_numpy().tolist() == [["2", "true", "2026-11-04 12:00:00"]]
        assert set(found["id"]) - {"2"} == known


def test_a_mark_older_than_the_recent_changes_costs_a_read_of_all_and_says_so(company):
    company.put(1, ago(days=90))
    found, window = read(company, ago(days=30))
    assert found["id"].tolist() == []  # it is older than the mark
    assert any("older than the 29 days" in warning for warning in window.context.warnings)
    assert "updated_since" not in asked(company, "/persons")[0]


def test_recent_changes_that_are_gone_are_a_warning(company):
    company.put(1, ago(days=1))
    with FaultProxy(company.url) as proxy:
        proxy.plan([None, None, None, status(410)])
        found, window = read(company, base_url=proxy.url)
    assert found["id"].tolist() == ["1"]
    assert "deleted persons are found by full refreshes only" in window.context.warnings[0]


def test_a_token_that_sees_a_part_says_so(company):
    company.put(1, ago(days=1), owner_id=1)
    company.put(2, ago(days=1), owner_id=2)
    assert not read(company)[1].context.warnings
    company.admin = False
    found, window = read(company)
    assert found["id"].tolist() == ["1"]
    assert "no administrator" in window.context.warnings[0]
    [*_, sample] = PipedrivePersons(api_token=secret(TOKEN), base_url=company.url).check()
    assert sample.ok
    assert "no administrator" in sample.message


def test_consent_is_read_where_the_company_has_it(company):
    company.put(1, ago(days=1))
    assert "marketing_status" not in read(company)[0]
    company.campaigns = True
    assert read(company)[0]["marketing_status"].tolist() == ["no_consent"]


def test_a_used_up_day_ends_the_read_and_two_seconds_are_waited_out(company):
    naps: list[float] = []
    company.put(1, ago(days=1))
    company.storm = 1
    connector = PipedrivePersons(api_token=secret(TOKEN), base_url=company.url)
    list(connector.read(Window(context=ReadContext(sleep=naps.append))))
    assert 2 in [round(nap) for nap in naps]
    company.tokens = 15
    with pytest.raises(RateLimited, match="429") as caught:
        list(connector.read(Window(context=ReadContext(sleep=naps.append))))
    assert caught.value.wait == float("inf")


def test_a_gateway_that_refuses_hasty_callers_is_no_missing_permission(company):
    with FaultProxy(company.url) as proxy:
        proxy.plan([html(403)] * 20)
        with pytest.raises(RateLimited):
            read(company, base_url=proxy.url)


def test_a_wrong_token_and_a_company_that_does_not_pay_are_told_apart(company):
    with pytest.raises(CredentialError, match=r"401: the API token is wrong .*an OAuth access token is none"):
        read(company, api_token=secret("v1u:AQIBAHj"))
    with FaultProxy(company.url) as proxy, pytest.raises(SourceRejected, match="402: the company's subscription has ended"):
        read(company, base_url=proxy.plan([None, status(402, {"success": False, "error": "Payment required"})]).url)


@pytest.mark.parametrize("stamped", [True, False])
@pytest.mark.parametrize("column", PipedrivePersons.cursor_columns)
def test_the_deletion_of_a_person_who_is_older_than_the_mark_counts_by_every_cursor(company, target, column, stamped):
    loads = Loads(target, PipedrivePersons(api_token=secret(TOKEN), base_url=company.url), column)
    company.put(1, ago(days=9))
    company.put(2, ago(hours=1))
    loads.load()
    assert loads.live() == {"1", "2"}
    company.delete(1, NOW, stamped=stamped)
    assert loads.load()["deleted"] == 1
    assert loads.live() == {"2"}
