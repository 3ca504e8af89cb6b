"""What is odd about Google: a sync token beside the mark, which ends after seven days, and ids that change their names."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest
import requests
from google.auth.credentials import AnonymousCredentials
from googleapiclient.discovery import build
from googleapiclient.errors import HttpError

from identity_pipeline.connectors.google_contacts import FIELDS, GoogleContacts
from identity_pipeline.core.errors import ContractBroken, PermissionDenied, RateLimited
from identity_pipeline.core.fieldmap import GONE
from identity_pipeline.core.window import Window
from identity_pipeline.demo.vendor_api import serve
from identity_pipeline_tests.connectors import reading
from identity_pipeline_tests.connectors.reading import secret
from identity_pipeline_tests.servers import discovery
from identity_pipeline_tests.servers.google_people_api import GooglePeopleAPI

pytestmark = pytest.mark.usefixtures("loopback")
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
TOKEN = "ya29.a0AfB_byC"


@pytest.fixture
def account() -> Iterator[GooglePeopleAPI]:
    """An account with seven people."""
    with serve(GooglePeopleAPI(token=TOKEN, now=NOW)) as api:
        for n in range(7):
            api.put(
                f"{n:x}", NOW - timedelta(days=n), names={"givenName": f"Person {n}"}, emailAddresses={"value": f"p{n}@nordwind-demo.com"}
            )
        yield api


def read(
    api: GooglePeopleAPI, since: datetime | None = None, state: str | None = None, column: str | None = "updateTime", **settings
) -> tuple[pd.DataFrame, Window]:
    connector = GoogleContacts(access_token=secret(TOKEN), base_url=api.url, **settings)
    window = reading.window(connector, column, since and since.isoformat(), state=state)
    return reading.read(connector, window)[0], window


def test_googles_own_client_and_description_accept_this_server(account: GooglePeopleAPI):
    account.page_size = 3
    options = {"api_endpoint": account.url}
    with build("people", "v1", credentials=AnonymousCredentials(), static_discovery=True, client_options=options) as service:
        people = service.people().connections()
        account.authenticate = lambda asked, dead: None  # type: ignore[method-assign]
        asked = people.list(resourceName="people/me", personFields="names,metadata", requestSyncToken=True, pageSize=1000)
        found, last = [], {}
        while asked is not None:
            last = asked.execute()
            assert discovery.faults("people.v1", "ListConnectionsResponse", last) == []
            found += last["connections"]
            asked = people.list_next(asked, last)
        assert len(found) == 7
        account.delete("3")
        told = people.list(
            resourceName="people/me", personFields="names,metadata", requestSyncToken=True, pageSize=1000, syncToken=last["nextSyncToken"]
        ).execute()
        assert discovery.faults("people.v1", "ListConnectionsResponse", told) == []
        assert [each["metadata"]["deleted"] for each in told["connections"]] == [True]
        with pytest.raises(HttpError):
            people.list(resourceName="people/me").execute()
    assert discovery.faults("people.v1", "ListConnectionsResponse", {"people": 1, "totalItems": "7"}) != []
    known = discovery.document("people.v1")["schemas"]["Person"]["properties"]
    assert set(FIELDS.split(",")) <= set(known)


def test_what_changed_is_told_by_the_token_of_the_load_before_whatever_its_date(account: GooglePeopleAPI):
    everybody, window = read(account)
    assert len(everybody) == 7
    account.put("1", NOW - timedelta(days=30), names={"givenName": "Changed"}, organizations={"name": "Nordwind", "title": "CEO"})
    account.delete("2")
    found, later = read(account, NOW, window.context.state)
    rows = {row["id"]: row for row in found.to_dict("records")}
    assert set(rows) == {"1", "2"}
    assert (rows["1"]["name.givenName"], rows["1"]["organization.name"]) == ("Changed", "Nordwind")
    assert (rows["2"][GONE], rows["2"]["metadata.deleted"]) == ("true", "true")
    nobody, last = read(account, NOW, later.context.state)
    assert (len(nobody), bool(last.context.state)) == (0, True)


def test_without_a_token_what_is_older_than_the_mark_is_left_out(account: GooglePeopleAPI):
    found, _ = read(account, NOW - timedelta(days=2))
    assert sorted(found["id"]) == ["0", "1", "2"]


@pytest.mark.parametrize("expired", [(400, "INVALID_ARGUMENT"), (400, "FAILED_PRECONDITION"), (410, "FAILED_PRECONDITION")])
def test_a_token_that_has_ended_has_the_read_begin_again_without_it(account: GooglePeopleAPI, expired: tuple[int, str]):
    _, window = read(account)
    account.expired, account.now = expired, NOW + timedelta(days=8)
    with pytest.raises(ContractBroken, match="EXPIRED_SYNC_TOKEN"):
        read(account, NOW, window.context.state)


def test_every_parameter_stays_the_same_between_loads_and_the_token_of_each_list_apart(account: GooglePeopleAPI):
    account.scopes = ("https://www.googleapis.com/auth/contacts.readonly", "https://www.googleapis.com/auth/contacts.other.readonly")
    account.put("0", NOW, "otherContacts", emailAddresses={"value": "other@nordwind-demo.com"})
    found, window = read(account, other_contacts=True)
    assert sorted(found["id"]) == ["0", "1", "2", "3", "4", "5", "6", "otherContacts/0"]
    assert set(json.loads(window.context.state or "")) == {"connections", "otherContacts"}
    account.put("1", NOW, "otherContacts", emailAddresses={"value": "late@nordwind-demo.com"})
    assert read(account, NOW, window.context.state, other_contacts=True)[0]["id"].tolist() == ["otherContacts/1"]


def test_a_contact_that_is_linked_to_a_profile_stays_the_same_one(account: GooglePeopleAPI):
    _, window = read(account)
    account.put("1", NOW, names={"givenName": "Linked"})
    told = account.people["connections"]["1"]
    told["resourceName"] = "people/c999"
    told["metadata"]["previousResourceNames"] = ["people/c1"]
    told["metadata"]["sources"].insert(0, {"type": "PROFILE", "id": "117"})
    assert read(account, NOW, window.context.state)[0]["id"].tolist() == ["1"]


def test_the_primary_of_each_list_and_all_addresses_and_numbers_are_taken(account: GooglePeopleAPI):
    account.put("a", NOW)
    account.people["connections"]["a"] |= {
        "names": [{"displayName": "Second"}, {"metadata": {"primary": True}, "displayName": "First"}],
        "phoneNumbers": [{"value": "030 5550199", "canonicalForm": "+49305550199"}, {"value": "110"}, "none"],
        "emailAddresses": [{"value": "one@nordwind-demo.com"}, {"value": "two@nordwind-demo.com"}],
        "addresses": "none",
    }
    row = read(account)[0].set_index("id").loc["a"]
    assert row["name.displayName"] == "First"
    assert json.loads(row["phone"]) == ["+49305550199", "110"]
    assert json.loads(row["email"]) == ["one@nordwind-demo.com", "two@nordwind-demo.com"]


def test_what_is_missing_is_said_by_name(account: GooglePeopleAPI):
    account.enabled = False
    with pytest.raises(PermissionDenied, match=r"SERVICE_DISABLED.*enable the People API"):
        read(account)
    account.enabled, account.scopes = True, ()
    with pytest.raises(PermissionDenied, match="every box ticked"):
        read(account)


def test_a_quota_is_waited_out_for_a_minute(account: GooglePeopleAPI):
    account.storm = 2
    naps: list[float] = []
    connector = GoogleContacts(access_token=secret(TOKEN), base_url=account.url)
    window = reading.window(connector)
    window.context.sleep = naps.append
    assert len(reading.read(connector, window)[0]) == 7
    assert len([nap for nap in naps if nap >= 60]) == 2
    account.storm = 99
    with pytest.raises(RateLimited):
        reading.read(connector, reading.window(connector))


def test_an_answer_without_people_and_without_a_token_is_none(account: GooglePeopleAPI):
    account.answer = lambda asked: {}  # type: ignore[method-assign]
    with pytest.raises(ContractBroken, match="'connections'"):
        read(account)
    assert requests.get(f"{account.url}/v1/people/me/connections", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=5).json() == {}
