"""What is odd about HubSpot: its search ceiling, wide records, archived and merged contacts, limits and scopes."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pandas as pd
import pytest

from identity_pipeline import normalise
from identity_pipeline.connectors.hubspot_contacts import HubSpotContacts
from identity_pipeline.core.errors import ContractBroken, PermissionDenied, RateLimited
from identity_pipeline.core.fieldmap import REJECTED
from identity_pipeline.core.text import cast_all_utf8
from identity_pipeline.core.window import ReadContext, Window
from identity_pipeline.demo.hubspot_api import HubSpotAPI, contact, serve
from identity_pipeline.demo.hubspot_contacts import demo_contacts
from identity_pipeline_tests.connectors import reading
from identity_pipeline_tests.connectors.reading import Loads, secret
from identity_pipeline_tests.servers.faults import FaultProxy, status

TOKEN = "pat-eu1-demo-token"
MS = "2026-04-13T08:00:00.123Z"


pytestmark = pytest.mark.usefixtures("loopback")


@pytest.fixture
def hubspot() -> Iterator[HubSpotAPI]:
    """An empty portal."""
    with serve([], TOKEN) as api:
        yield api


def portal(url: str, token: str = TOKEN) -> HubSpotContacts:
    return HubSpotContacts(access_token=secret(token), base_url=url)


def read(url: str, cursor_column: str | None = None, lower: str | None = None, **options) -> pd.DataFrame:
    """All records of one load, cut at the window as a load does it."""
    connector = portal(url)
    return reading.read(connector, reading.window(connector, cursor_column, lower, **options))[0]


def asked(api: HubSpotAPI, end: str) -> list[dict]:
    return [sent for _, path, sent in api.requests if path.endswith(end)]


def test_a_bulk_edit_of_more_contacts_than_search_serves_is_read_to_the_end(hubspot):
    hubspot.contacts += [contact(95_000 + i, MS) for i in range(10_500)]  # ids grow from five to six digits
    found = read(hubspot.url, "lastmodifieddate", MS)
    assert found["id"].tolist() == [str(95_000 + i) for i in range(10_500)]


def test_contacts_that_leave_the_result_meanwhile_hide_no_other(hubspot):
    hubspot.contacts += [contact(i, MS) for i in range(1, 1001)]
    connector = portal(hubspot.url)
    window = reading.window(connector, "lastmodifieddate", MS)
    ids: list[str] = []
    for page in connector.pages(connector.client(window.context), window):
        ids += [record["id"] for record in page]
        del hubspot.contacts[:50]  # read already; with pages by offset fifty unread ones would move up into their place
    assert ids == [str(i) for i in range(1, 1001)]


def test_ids_out_of_order_are_an_error_and_two_neighbours_that_changed_places_are_not(hubspot):
    hubspot.contacts += [contact(i, MS) for i in range(1, 6)]
    pages = {
        name: status(200, {"results": [contact(i, MS) for i in ids], "total": 5, **more})
        for name, ids, more in (
            ("swapped", (1, 3, 2), {"paging": {"next": {"after": "3"}}}),
            ("reversed", (5, 4, 3), {}),
            ("below", (3, 4, 5), {}),
        )
    }
    with FaultProxy(hubspot.url) as proxy:
        assert read(proxy.plan([None, pages["swapped"]]).url, "lastmodifieddate", MS)["id"].tolist() == ["1", "3", "2", "4", "5"]
        for bad in ("reversed", "below"):
            proxy.plan([None, pages["swapped"], pages[bad]])
            with pytest.raises(ContractBroken, match="order"):
                read(proxy.url, "lastmodifieddate", MS)


def test_an_empty_page_of_the_search_is_no_end_and_hides_no_contact(hubspot):
    hubspot.contacts += [contact(i, MS) for i in range(1, 1001)]
    empty = status(200, {"results": [], "total": 1000, "paging": {"next": {"after": "0"}}})
    with FaultProxy(hubspot.url) as proxy:
        assert read(proxy.plan([None, None, empty]).url, "lastmodifieddate", MS)["id"].tolist() == [str(i) for i in range(1, 1001)]
        ceiling = status(200, {"results": [], "total": 1000, "paging": {"next": {"after": "10000"}}})
        with pytest.raises(ContractBroken, match="is not accepted"):  # without an id there is no way on, and no end
            read(proxy.plan([None, None, ceiling]).url, "lastmodifieddate", MS)


def test_the_bound_is_inclusive_and_sent_as_milliseconds_rounded_down(hubspot):
    hubspot.contacts += [contact(1, "2026-04-13T08:00:00.122Z"), contact(2, MS)]
    assert read(hubspot.url, "lastmodifieddate", "2026-04-13T08:00:00.123Z")["id"].tolist() == ["2"]
    read(hubspot.url, "lastmodifieddate", "2026-04-13T08:00:00.123999Z")
    first = asked(hubspot, "/search")[-1]["filterGroups"][0]["filters"][-1]
    assert first == {"propertyName": "lastmodifieddate", "operator": "GTE", "value": "1776067200123"}


@pytest.mark.parametrize(("column", "lower"), [("createdate", "2026-02-01T00:00:00Z"), ("hs_object_id", "2")])
def test_the_other_cursors_are_asked_of_the_source_too(hubspot, column, lower):
    hubspot.contacts += [contact(1, MS, createdate="2026-01-01T00:00:00Z"), contact(2, MS, createdate="2026-03-01T00:00:00Z")]
    found = read(hubspot.url, column, lower)
    assert found["id"].tolist() == ["2"]
    assert asked(hubspot, "/search")[0]["filterGroups"][0]["filters"][-1]["propertyName"] == column


def test_a_full_read_lists_and_never_searches(hubspot):
    hubspot.contacts += demo_contacts(250)
    found = read(hubspot.url)
    assert sorted(map(int, found["id"])) == [1001 + i for i in range(250)]
    assert not asked(hubspot, "/search")
    assert {sent["limit"] for sent in asked(hubspot, "/contacts") if "limit" in sent} == {"100"}


def test_every_property_is_read_also_when_their_names_are_too_long_for_an_address(hubspot):
    wide = {f"поле_{i:04}": str(i) for i in range(1000)}
    hubspot.contacts += [
        contact(1, MS, email="a@nordwind-demo.com", **wide),
        contact(2, MS, jobtitle="CTO"),
        contact(3, MS, archived_at=MS),
    ]
    with FaultProxy(hubspot.url) as proxy:
        for everything in (read(proxy.url), read(proxy.url, "lastmodifieddate", MS)):
            found = everything.set_index("id")
            assert sorted(found.index) == ["1", "2", "3"]
            assert found.loc["1", list(wide)].to_dict() == wide
            assert found.loc["2", "jobtitle"] == "CTO"
            assert found.loc[["2", "3"], list(wide)].isna().all(axis=None)
        assert max(len(path) for _, path in proxy.requests) < 200
    assert len(asked(hubspot, "/batch/read")) == 3  # live and archived, then archived again: no contact is ever put together from parts


def test_a_contact_that_a_batch_lacks_is_asked_for_again_and_then_the_read_fails(hubspot):
    hubspot.contacts += [contact(i, MS, **{"n" * 4000: "x"}) for i in (1, 2)]
    with FaultProxy(hubspot.url) as proxy:
        proxy.plan([None, None, status(200, {"results": [contact(1, MS)]})])
        assert read(proxy.url)["id"].tolist() == ["1", "2"]
        proxy.plan([None, *[None, status(200, {"results": [contact(1, MS)]})] * 3])
        with pytest.raises(ContractBroken, match="lists records that"):
            read(proxy.url)


def test_the_fields_of_the_source_are_those_of_its_schema(hubspot):
    hubspot.contacts += [contact(1, MS, firstname="Zoë", work_phone="1")]
    connector = portal(hubspot.url)
    window = reading.window(connector)
    reading.read(connector, window)
    assert {"id", "archivedAt", "email", "work_phone"} <= set(window.context.fields)
    del hubspot.contacts[0]["properties"]["work_phone"]
    window = reading.window(connector)
    reading.read(connector, window)
    assert "work_phone" not in window.context.fields


@pytest.mark.parametrize("schema", [{}, {"results": []}, {"results": [{"label": "E-mail"}]}, {"status": "error"}])
def test_a_schema_without_properties_is_a_broken_contract(hubspot, schema):
    with FaultProxy(hubspot.url) as proxy, pytest.raises(ContractBroken, match="'name' at 'results'"):
        read(proxy.plan([status(200, schema)]).url)


def test_a_search_that_ends_before_its_total_is_no_end(hubspot):
    hubspot.contacts += [contact(i, MS) for i in range(1, 601)]
    early = {"total": 600, "results": hubspot.contacts[:200]}
    with FaultProxy(hubspot.url) as proxy, pytest.raises(ContractBroken, match="there are 600 records, but its pages held 200"):
        read(proxy.plan([None, status(200, early)]).url, "lastmodifieddate", MS)


def test_what_a_search_counts_proves_no_contact_to_be_gone(hubspot):
    hubspot.contacts += [contact(i, MS) for i in range(1, 601)]
    connector = portal(hubspot.url)
    window = reading.window(connector, "lastmodifieddate", MS)
    assert len(reading.read(connector, window)[0]) == 600
    assert window.context.source_count is None


def test_a_first_load_takes_five_requests_for_a_thousand_contacts_however_wide_they_are(hubspot):
    wide = {f"property_with_a_long_name_{i:04}": None for i in range(910)}
    hubspot.contacts += [contact(i, MS, **(wide if i == 1 else {})) for i in range(1, 2001)]
    assert len(read(hubspot.url, "lastmodifieddate")) == 2000
    assert len(asked(hubspot, "/search")) == 10
    assert len(hubspot.asked) == 12  # the properties, and the archived, of which there are none


def test_a_full_refresh_lists_since_what_search_lacks_is_not_gone(hubspot):
    hubspot.contacts += [contact(i, MS) for i in range(1, 4)]
    assert len(read(hubspot.url, "lastmodifieddate", full_refresh=True)) == 3
    assert not asked(hubspot, "/search")


def test_a_recycle_bin_in_which_nothing_is_new_is_only_listed(hubspot):
    wide = {f"property_with_a_long_name_{i:04}": "x" for i in range(910)}
    old = "2026-01-05T08:00:00.000Z"
    hubspot.contacts += [contact(i, old, archived_at=old, **(wide if i < 3 else {})) for i in range(1, 2001)]
    assert len(read(hubspot.url, "lastmodifieddate", MS)) == 0
    assert len(hubspot.asked) == 22  # the properties, a search, twenty pages of ids
    hubspot.contacts[1] = contact(2, old, archived_at="2026-04-20T10:00:00.000Z", **wide)
    found = read(hubspot.url, "lastmodifieddate", MS)
    assert found[["id", "lastmodifieddate", "property_with_a_long_name_0909"]].to_numpy().tolist() == [
        ["2", "2026-04-20T10:00:00.000Z", "x"]
    ]
    assert [sent["inputs"] for sent in asked(hubspot, "/batch/read")] == [[{"id": "2"}]]


def test_a_contact_archived_at_no_time_is_deleted_too(hubspot):
    hubspot.contacts += [contact(1, MS, archived_at=MS)]
    del hubspot.contacts[0]["archivedAt"]
    connector = portal(hubspot.url)
    [batch] = connector.read(reading.window(connector, "lastmodifieddate", MS))
    [row] = normalise.canonicalise(cast_all_utf8(batch), HubSpotContacts.field_map).to_pylist()
    assert row["deleted"]


def test_lists_and_searches_keep_their_own_limits_and_the_headers(hubspot):
    naps: list[float] = []
    hubspot.contacts += [contact(i, MS) for i in range(1, 401)]
    connector = portal(hubspot.url)
    hubspot.headers = {"X-HubSpot-RateLimit-Remaining": "0"}
    list(connector.read(reading.window(connector, "lastmodifieddate", MS, context=ReadContext(sleep=naps.append))))
    assert (HubSpotContacts.interval, max(naps)) == (0.11, pytest.approx(10, abs=0.5))
    hubspot.headers = {}
    naps.clear()
    list(connector.read(reading.window(connector, "lastmodifieddate", MS, context=ReadContext(sleep=naps.append))))
    assert 0 < sum(naps) < 1


@pytest.mark.parametrize(
    "bad", [None, "text", {"properties": {"email": "x"}}, {"id": "2", "properties": None}, {"id": "2", "properties": "text"}]
)
@pytest.mark.parametrize("cursor", [(), ("lastmodifieddate", MS)])
def test_one_bad_contact_spoils_no_other(hubspot, bad, cursor):
    page = {"results": [contact(1, MS), bad, contact(3, MS)], "total": 3}
    with FaultProxy(hubspot.url) as proxy:
        found = read(proxy.plan([None, status(200, page)]).url, *cursor)
    assert len(found) == 3
    good = found[found["id"].isin(["1", "3"])]
    assert len(good) == 2
    assert REJECTED not in good or good[REJECTED].isna().all()
    assert ((found["id"].isna()) | (found[REJECTED].notna() if REJECTED in found else False)).sum() == 1


def test_a_property_named_like_a_field_of_the_contact_hides_neither(hubspot):
    hubspot.contacts += [contact(7, MS, archived="no", id="mine")]
    row = read(hubspot.url).loc[0]
    assert (row["id"], row["archived"], row["properties.id"], row["properties.archived"]) == ("7", "false", "mine", "no")


def test_a_contact_archived_since_is_seen_by_an_incremental_read(hubspot):
    hubspot.contacts += [
        contact(1, "2019-12-07T16:50:06.678Z", archived_at="2026-04-20T10:00:00.000Z", email="gone@nordwind-demo.com"),
        contact(2, "2019-12-07T16:50:06.678Z", archived_at="2026-04-01T10:00:00.000Z"),
    ]
    found = read(hubspot.url, "lastmodifieddate", MS)
    assert found["id"].tolist() == ["1"]
    row = found.loc[0]
    assert (row["archived"], row["archivedAt"], row["updatedAt"]) == ("true", "2026-04-20T10:00:00.000Z", "2019-12-07T16:50:06.678Z")
    assert HubSpotContacts.field_map.deleted_at == ("archivedAt",)


def test_a_merge_names_the_contacts_it_took_in(hubspot):
    hubspot.contacts += [contact(601, MS, hs_merged_object_ids="455;460")]
    found = read(hubspot.url, "lastmodifieddate", MS)
    assert found.loc[0, HubSpotContacts.field_map.absorbed[0]] == "455;460"


def test_a_used_up_daily_limit_ends_at_once_and_a_second_is_waited_out(hubspot):
    naps: list[float] = []
    window = Window(context=ReadContext(sleep=naps.append))
    with FaultProxy(hubspot.url) as proxy:
        connector = portal(proxy.url)
        proxy.plan([status(429, {"status": "error", "errorType": "RATE_LIMIT", "policyName": "SECONDLY", "message": "slow"})])
        list(connector.read(window))
        assert 10 in naps
        proxy.plan([status(429, {"status": "error", "errorType": "RATE_LIMIT", "policyName": "DAILY", "message": "used up"})])
        with pytest.raises(RateLimited, match=r"429 DAILY: .*midnight"):
            list(connector.read(window))
    assert max(naps) == 10


def test_the_missing_scope_is_named():
    with serve([contact(1, MS)], TOKEN, scopes=("crm.schemas.contacts.read",)) as api, pytest.raises(PermissionDenied) as caught:
        read(api.url)
    assert "403 MISSING_SCOPES (crm.objects.contacts.read): grant these scopes" in str(caught.value)


@pytest.mark.parametrize(
    ("token", "scopes", "failed"),
    [("wrong", ("crm.objects.contacts.read",), "authenticate"), (TOKEN, ("crm.schemas.contacts.read",), "permission"), (TOKEN, None, "")],
)
def test_the_connection_test_tells_a_wrong_token_from_a_missing_scope(token, scopes, failed):
    with serve([contact(1, MS)], TOKEN, **({"scopes": scopes} if scopes else {})) as api:
        steps = list(portal(api.url, token).check())
    assert [step.name for step in steps if not step.ok] == ([failed] if failed else [])
    assert TOKEN not in str(steps)


def test_the_source_clock_bounds_the_mark(hubspot):
    hubspot.contacts += [contact(1, MS), contact(2, "2999-01-01T00:00:00.000Z")]
    connector = portal(hubspot.url)
    window = reading.window(connector, "lastmodifieddate")
    found, counts = reading.read(connector, window)
    assert found["id"].tolist() == ["1", "2"]
    assert window.cursor is not None
    assert counts.mark(window.cursor) == "2026-04-13T08:00:00.123000Z"
    assert window.context.source_time is not None
    assert window.context.source_time <= datetime.now(UTC)


def test_no_more_is_asked_for_than_wanted(hubspot):
    hubspot.contacts += demo_contacts(250)
    read(hubspot.url, limit=20)
    assert len(asked(hubspot, "/contacts")) == 2  # the properties and one page


def test_the_demo_contacts_are_the_same_each_time_and_hold_the_odd_ones():
    contacts = demo_contacts(250)
    assert contacts == demo_contacts(250)
    assert len({each["id"] for each in contacts}) == 250
    assert 0 < sum(each["archived"] for each in contacts) < 20
    assert any(each["properties"].get("hs_merged_object_ids") for each in contacts)
    assert any(each["properties"]["email"] is None and each["properties"]["phone"] for each in contacts)


@pytest.mark.parametrize("column", HubSpotContacts.cursor_columns)
def test_an_archived_contact_that_is_older_than_the_mark_counts_by_every_cursor(hubspot, target, column):
    loads = Loads(target, portal(hubspot.url), column)
    one, two = contact(1, "2026-04-13T06:00:00Z"), contact(9_000, "2026-04-13T10:00:00Z")
    hubspot.contacts += [one, two]
    loads.load()
    assert loads.live() == {"1", "9000"}
    hubspot.contacts[:] = [contact(1, "2026-04-13T06:00:00Z", archived_at="2026-04-13T11:00:00Z"), two]
    assert loads.load()["deleted"] == 1
    assert loads.live() == {"9000"}
