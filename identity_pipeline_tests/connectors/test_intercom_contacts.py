"""What is odd about Intercom: dates are compared by day, deletions are activities without a time filter, each region has its host."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pandas as pd
import pytest
from intercom import Intercom, SingleFilterSearchRequest
from intercom.core.api_error import ApiError

from identity_pipeline.connectors.intercom_contacts import IntercomContacts
from identity_pipeline.core.errors import ContractBroken, CredentialError, PermissionDenied, RateLimited
from identity_pipeline.core.fieldmap import GONE, REJECTED
from identity_pipeline.core.window import ReadContext, Window
from identity_pipeline.demo.vendor_api import serve
from identity_pipeline_tests.connectors import reading
from identity_pipeline_tests.connectors.reading import Loads, secret
from identity_pipeline_tests.servers.faults import FaultProxy, status
from identity_pipeline_tests.servers.intercom_api import IntercomAPI

pytestmark = pytest.mark.usefixtures("loopback")
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
TOKEN = "dG9rOjEyMzQ1Njc4"


@pytest.fixture
def workspace() -> Iterator[IntercomAPI]:
    """An empty workspace in Los Angeles."""
    with serve(IntercomAPI(token=TOKEN)) as api:
        yield api


def ago(**span: float) -> datetime:
    return NOW - timedelta(**span)


def read(
    api: IntercomAPI, since: datetime | None = None, column: str | None = "updated_at", state: str | None = None, **settings
) -> tuple[pd.DataFrame, Window]:
    connector = IntercomContacts(access_token=secret(TOKEN), **({"base_url": api.url} | settings))
    window = reading.window(connector, column, since and since.isoformat(), state=state)
    return reading.read(connector, window)[0], window


def test_its_own_sdk_reads_the_same_pages_of_this_server(workspace):
    for n in range(7):
        workspace.put(f"{n:024x}", ago(days=n), name=f"Person {n}", custom_attributes={"n": n})
    query = SingleFilterSearchRequest(field="updated_at", operator=">", value=int(ago(days=3).timestamp()))
    with httpx.Client() as wire:
        sdk = Intercom(token=TOKEN, base_url=workspace.url, httpx_client=wire)
        found = list(sdk.contacts.search(query=query))
        with pytest.raises(ApiError) as refused:
            list(Intercom(token="nope", base_url=workspace.url, httpx_client=wire).contacts.search(query=query))
    assert [each.name for each in found] == ["Person 0", "Person 1", "Person 2"], "from the day after on, the newest first"
    assert found[0].custom_attributes == {"n": 0}
    assert found[0].updated_at == int(NOW.timestamp())
    assert refused.value.status_code == 401


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "America/Los_Angeles", "UTC", "Pacific/Pago_Pago"])
@pytest.mark.parametrize("hour", [0, 7, 8, 12, 23])
def test_what_changed_later_on_the_day_of_the_mark_is_found_wherever_the_workspace_is(workspace, zone: str, hour: int):
    workspace.zone = zone
    mark = datetime(2026, 11, 1, hour, 30, tzinfo=UTC)  # a clock change in Los Angeles
    for n, minutes in enumerate((-1, 0, 1, 25 * 60)):
        workspace.put(f"c{n}", mark + timedelta(minutes=minutes))
    for hours in range(12, 120, 4):
        workspace.put(f"old{hours}", mark - timedelta(hours=hours))
    found, window = read(workspace, mark)
    assert sorted(found["id"]) == ["c1", "c2", "c3"]
    assert not window.context.warnings


def test_a_contact_that_changes_while_pages_are_read_hides_no_other(workspace):
    workspace.page_size = 2
    for n in range(6):
        workspace.put(f"c{n}", ago(hours=9 - n))
    connector = IntercomContacts(access_token=secret(TOKEN), base_url=workspace.url)
    window = reading.window(connector, "updated_at")
    ids: list[str] = []
    for page in connector.pages(connector.client(window.context), window):
        ids += [each["id"] for each in page]
        if len(ids) == 2:
            workspace.put("c0", ago(minutes=1))
            workspace.put("c3", ago(minutes=1))
    assert set(ids) == {f"c{n}" for n in range(6)}
    assert ids.count("c0") == 2


def test_a_contact_that_search_finds_late_is_within_the_overlap(workspace):
    workspace.put("c1", ago(minutes=10))
    workspace.put("c2", ago(minutes=5))
    workspace.unsearchable = {"c1"}
    assert read(workspace)[0]["id"].tolist() == ["c2"]
    workspace.unsearchable = set()
    overlap = IntercomContacts.cursor_columns["updated_at"].overlap
    assert sorted(read(workspace, ago(minutes=5, seconds=overlap))[0]["id"]) == ["c1", "c2"]


def test_deletions_and_merges_are_told_once_from_where_the_last_load_ended(workspace):
    for n in range(4):
        workspace.put(f"c{n}", ago(days=9))
    workspace.delete("c0", ago(days=8))
    _, window = read(workspace)
    ended = window.context.state
    assert ended == workspace.activities[-1]["id"]
    workspace.delete("c1", ago(hours=2))
    workspace.merge("c2", "c3", ago(hours=1))
    workspace.activities.append({**workspace.activities[-1], "id": "9999999999999.00", "event_type": "contact.merge_failed"})
    found, window = read(workspace, ago(days=1), state=ended)
    gone = found[found[GONE] == "true"] if GONE in found else found[:0]
    told = {row["id"]: (row["deleted_at"], row["merged_into"]) for row in gone[["id", "deleted_at", "merged_into"]].to_dict("records")}
    assert told["c1"][0] == str(int(ago(hours=2).timestamp()))
    assert told["c2"][1] == "c3"
    assert pd.isna(told["c2"][0])
    assert len(told) == 2
    survivor = found[found["id"] == "c3"]
    assert survivor["merged_contacts"].tolist() == ['["c2"]']
    assert window.context.state == "9999999999999.00"


def test_activities_that_cannot_be_read_move_nothing(workspace):
    workspace.put("c1", ago(days=3))
    workspace.store_down = True
    _, window = read(workspace, ago(days=1), state="1717000400000.0000e5")
    assert window.context.state is None, "what a load starts with stays unless something newer was read"


def test_a_state_that_is_not_accepted_is_a_broken_contract_and_no_wrong_setting(workspace):
    with pytest.raises(ContractBroken, match="400 parameter_invalid"):
        read(workspace, ago(days=1), state="nonsense")


@pytest.mark.parametrize("version", ["2.16", "2.17", "Preview"])
def test_activities_are_asked_of_the_only_version_that_has_them_whatever_the_others_are(workspace, version: str):
    workspace.put("c1", ago(days=3))
    workspace.put("c2", ago(days=3))
    workspace.merge("c2", "c1", ago(days=1))
    found, window = read(workspace, api_version=version)
    assert found[found[GONE] == "true"]["id"].tolist() == ["c2"]
    assert '["c2"]' in found["merged_contacts"].tolist(), "the history of merges is there in any case"
    versions = [(each.path, each.headers["Intercom-Version"]) for each in workspace.asked]
    assert versions == [("/contacts/search", version), ("/contacts/activities", "Preview")]
    assert not window.context.warnings


@pytest.mark.parametrize("fault", [None, status(403, {"errors": [{"code": "token_unauthorized"}]}), status(400, {"errors": []})])
@pytest.mark.parametrize("state", [None, "1717000400000.0000e5"])
def test_without_activities_the_contacts_are_read_and_it_is_said_what_is_not(workspace, target, fault, state):
    workspace.put("c1", ago(days=1))
    workspace.delete("c2", ago(days=1))
    with FaultProxy(workspace.url) as proxy:
        loads = Loads(target, IntercomContacts(access_token=secret(TOKEN), base_url=proxy.url), "updated_at")
        if state:
            loads.load()
        workspace.preview = fault is not None
        proxy.plan([None, fault, None, fault] if fault else [])
        assert any("deleted contacts are found by full refreshes only" in warning for warning in loads.load()["warnings"])
        assert loads.live() == {"c1"}
        steps = list(loads.connector.check())
        assert all(step.ok for step in steps)


def test_created_at_finds_new_contacts_and_what_went(workspace):
    workspace.put("c1", ago(days=9))
    workspace.put("c1", ago(hours=1))
    workspace.put("c2", ago(hours=1))
    workspace.delete("c3", ago(minutes=1))
    assert sorted(read(workspace, ago(days=1), "created_at")[0]["id"]) == ["c2", "c3"]


def test_another_region_and_a_missing_permission_are_told_apart(workspace):
    with pytest.raises(CredentialError, match=r"401 unauthorized: .*in another region"):
        list(IntercomContacts(access_token=secret("of-eu"), base_url=workspace.url).read(Window()))
    workspace.scopes = ()
    with pytest.raises(PermissionDenied, match=r"403 token_unauthorized: .*\(read_users_companies\)"):
        read(workspace)


def test_an_unknown_version_is_refused_by_its_name(workspace):
    assert [step.ok for step in IntercomContacts(access_token=secret(TOKEN), base_url=workspace.url, api_version="2.99").check()][
        -1
    ] is False


def test_the_vendors_headers_say_how_long_to_wait(workspace):
    naps: list[float] = []
    workspace.storm = 2
    workspace.put("c1", ago(days=3))
    connector = IntercomContacts(access_token=secret(TOKEN), base_url=workspace.url)
    list(connector.read(Window(context=ReadContext(sleep=naps.append))))
    assert sum(nap > 5 for nap in naps) == 2
    workspace.storm = 99
    with pytest.raises(RateLimited, match="rate_limit_exceeded"):
        list(connector.read(Window(context=ReadContext(sleep=naps.append))))


@pytest.mark.parametrize("bad", [None, "text", {}, {"event_type": "contact.deleted"}])
def test_an_activity_that_is_none_spoils_no_other(workspace, bad):
    good = {"id": "1.1", "event_type": "contact.deleted", "contact_id": "c1", "created_at": int(NOW.timestamp())}
    empty = {"type": "list", "data": [], "total_count": 0, "pages": {}}
    with FaultProxy(workspace.url) as proxy:
        proxy.plan([status(200, empty), status(200, {"data": [good, bad], "pages": {}})])
        found, _ = read(workspace, ago(days=1), base_url=proxy.url)
    assert found["id"].tolist()[0] == "c1"
    assert len(found) == (1 if bad == {} else 2)
    if not isinstance(bad, dict):
        assert found[REJECTED].notna().tolist() == [False, True]


def test_every_custom_attribute_and_consent_is_in_the_record(workspace):
    workspace.put("c1", ago(days=1), custom_attributes={"plan": "pro", "seats": 7, "vip": True}, unsubscribed_from_emails=True)
    found, _ = read(workspace)
    row = {name: found[name][0] for name in found.columns}
    assert (row["custom_attributes.plan"], row["custom_attributes.seats"], row["custom_attributes.vip"]) == ("pro", "7", "true")
    assert row["unsubscribed_from_emails"] == "true"
    assert "opted_out_subscription_types.data" in row


@pytest.mark.parametrize("column", ["updated_at", "created_at"])
def test_a_deletion_that_a_load_missed_is_found_by_the_next_however_old_it_is(workspace, target, column):
    loads = Loads(target, IntercomContacts(access_token=secret(TOKEN), base_url=workspace.url), column)
    workspace.put("c1", NOW.replace(hour=6))
    loads.load()
    workspace.delete("c1", NOW.replace(hour=7))
    workspace.put("c2", NOW.replace(hour=10))
    workspace.store_down = True
    loads.load()
    assert loads.live() == {"c1", "c2"}
    workspace.store_down = False
    assert loads.load()["deleted"] == 1
    assert loads.live() == {"c2"}
