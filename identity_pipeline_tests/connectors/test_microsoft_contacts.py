"""What is odd about Microsoft: folders, each with a delta link of its own; moves; links that the server forgets."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest

from identity_pipeline.connectors.microsoft_contacts import MicrosoftContacts
from identity_pipeline.core.errors import ContractBroken, PermissionDenied, SourceRejected
from identity_pipeline.core.fieldmap import GONE
from identity_pipeline.core.window import Window
from identity_pipeline.demo.vendor_api import Asked, serve
from identity_pipeline_tests.connectors import reading
from identity_pipeline_tests.connectors.reading import secret
from identity_pipeline_tests.servers.microsoft_graph_api import DEFAULT, Folder, MicrosoftGraphAPI

pytestmark = pytest.mark.usefixtures("loopback")
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
TOKEN = "EwB4A8l6BAAU"
ADA = "ada@contoso.example"


@pytest.fixture
def directory() -> Iterator[MicrosoftGraphAPI]:
    """A mailbox with contacts in the default folder, in one beside it and in one inside that."""
    with serve(MicrosoftGraphAPI(token=TOKEN, now=NOW)) as api:
        api.mailboxes[ADA] |= {"clients": Folder("Clients"), "berlin": Folder("Berlin", "clients")}
        for n, folder in enumerate((DEFAULT, DEFAULT, "clients", "berlin")):
            api.put(f"c{n}", NOW - timedelta(days=n), folder, givenName=f"Person {n}")
        yield api


def read(api: MicrosoftGraphAPI, since: datetime | None = None, state: str | None = None, **settings) -> tuple[pd.DataFrame, Window]:
    connector = MicrosoftContacts(access_token=secret(TOKEN), **({"base_url": api.url} | settings))
    window = reading.window(connector, "lastModifiedDateTime", since and since.isoformat(), state=state)
    return reading.read(connector, window)[0], window


def test_contacts_of_all_folders_are_read_and_each_folder_goes_on_from_its_own_link(directory: MicrosoftGraphAPI):
    found, window = read(directory)
    assert sorted(found["id"]) == ["c0", "c1", "c2", "c3"]
    assert len(json.loads(window.context.state or "")) == 3
    directory.put("c3", NOW - timedelta(days=99), "berlin", givenName="Changed")
    directory.put("c9", NOW, "clients")
    later, again = read(directory, NOW, window.context.state)
    assert sorted(later["id"]) == ["c3", "c9"], "whatever its date"
    assert len(read(directory, NOW, again.context.state)[0]) == 0


def test_every_request_asks_for_ids_that_stay(directory: MicrosoftGraphAPI):
    directory.page_size = 1
    _, window = read(directory)
    read(directory, NOW, window.context.state)
    assert len(directory.asked) > 10
    assert all('IdType="ImmutableId"' in asked.headers.get("Prefer", "") for asked in directory.asked)


def test_who_is_moved_to_another_folder_is_not_gone(directory: MicrosoftGraphAPI):
    _, window = read(directory)
    directory.put("c0", NOW, "berlin")
    directory.put("c3", NOW, DEFAULT)
    directory.delete("c1")
    found, _ = read(directory, NOW, window.context.state)
    gone = found[found[GONE] == "true"]["id"].tolist()
    assert (sorted(found["id"]), gone) == (["c0", "c1", "c3"], ["c1"])


def test_of_a_contact_that_a_folder_tells_twice_the_last_word_counts(directory: MicrosoftGraphAPI, monkeypatch: pytest.MonkeyPatch):
    directory.page_size = 1
    _, window = read(directory)
    directory.put("c0", NOW, givenName="Changed")
    directory.put("c1", NOW, "berlin")
    directory.put("c3", NOW, "clients")
    since, removed = directory._since, {"@removed": {"reason": "deleted"}}

    def twice(folder: Folder, seen: int) -> list[dict]:
        names = {each["id"] for each in since(folder, seen)}
        ends = {
            DEFAULT: [{"id": "c0", **removed}, {"id": "c1", **removed}],
            "clients": [{"id": "c3", **removed}, folder.contacts.get("c3")],
        }
        told = next((more for name, more in ends.items() if folder is directory.mailboxes[ADA][name]), [])
        return [*since(folder, seen), *told] if names else []

    monkeypatch.setattr(directory, "_since", twice)
    found, _ = read(directory, NOW, window.context.state)
    assert found["id"].tolist()[-1] == "c0", "its end comes after what it was"
    assert found["id"].tolist().count("c0") == 2
    assert found[found[GONE] == "true"]["id"].tolist() == ["c0"], "c1 is in another folder, c3 came back"


def test_who_is_moved_during_the_first_read_is_not_gone(directory: MicrosoftGraphAPI, monkeypatch: pytest.MonkeyPatch):
    shown = directory._delta

    def delta(asked: Asked, folder: Folder) -> dict:
        page = shown(asked, folder)
        if folder is directory.mailboxes[ADA][DEFAULT]:
            page["value"].append({"id": "c3", "@removed": {"reason": "changed"}})
        return page

    monkeypatch.setattr(directory, "_delta", delta)
    found, _ = read(directory)
    assert sorted(found["id"]) == ["c0", "c1", "c2", "c3"]
    assert GONE not in found


def test_a_folder_that_is_new_is_read_whole_and_one_without_contacts_is_followed(directory: MicrosoftGraphAPI):
    _, window = read(directory)
    directory.mailboxes[ADA]["new"] = Folder("New")
    directory.put("old", NOW - timedelta(days=400), "new")
    for name in ("c0", "c1"):
        directory.delete(name)
    found, later = read(directory, NOW, window.context.state)
    assert sorted(found["id"]) == ["c0", "c1", "old"]
    directory.put("c0", NOW)
    assert read(directory, NOW, later.context.state)[0]["id"].tolist() == ["c0"]


@pytest.mark.parametrize("ended", [(410, "syncStateNotFound"), (400, "SyncStateInvalid"), (404, "resyncRequired")])
def test_a_link_that_the_server_forgot_has_the_read_begin_again_without_it(directory: MicrosoftGraphAPI, ended: tuple[int, str]):
    _, window = read(directory)
    directory.forgotten, directory.ended = 99, ended
    with pytest.raises(ContractBroken, match=ended[1]):
        read(directory, NOW, window.context.state)
    found, _ = read(directory, NOW - timedelta(days=1))
    assert sorted(found["id"]) == ["c0", "c1"], "without a link what is older than the mark is left out"


def test_a_link_of_another_host_is_not_asked(directory: MicrosoftGraphAPI):
    _, window = read(directory)
    state = (window.context.state or "").replace(directory.url, "https://evil.example")
    asked = len(directory.asked)
    with pytest.raises(ContractBroken, match="leads away"):
        read(directory, NOW, state)
    assert all("evil" not in each.address for each in directory.asked[asked:])


def test_an_end_without_a_link_is_no_end(directory: MicrosoftGraphAPI):
    answer = directory.answer
    directory.answer = lambda asked: {k: v for k, v in answer(asked).items() if k != "@odata.deltaLink"}  # type: ignore[method-assign]
    with pytest.raises(ContractBroken, match="deltaLink"):
        read(directory)


def test_an_app_reads_the_mailboxes_that_are_named(directory: MicrosoftGraphAPI):
    directory.app_only = True
    directory.mailboxes["bob@contoso.example"] = {DEFAULT: Folder("Contacts")}
    directory.put("b1", NOW, mailbox="bob@contoso.example")
    found, window = read(directory, mailboxes=[ADA, " bob@contoso.example"])
    assert sorted(found["id"]) == ["b1", "c0", "c1", "c2", "c3"]
    directory.delete("b1", mailbox="bob@contoso.example")
    assert read(directory, NOW, window.context.state, mailboxes=[ADA, "bob@contoso.example"])[0]["id"].tolist() == ["b1"]
    with pytest.raises(SourceRejected, match=r"ErrorInvalidUser.*correct mailboxes"):
        read(directory, mailboxes=["nobody@contoso.example/../ada"])


def test_what_is_missing_is_said_by_name(directory: MicrosoftGraphAPI):
    directory.scopes = ()
    with pytest.raises(PermissionDenied, match=r"Contacts\.Read"):
        read(directory)


def test_addresses_are_those_of_mail_and_the_rest_stays_in_raw(directory: MicrosoftGraphAPI):
    addresses = [{"name": "a", "address": "a@nordwind-demo.com"}, {"name": "b", "address": "/o=ExchangeLabs/ou=x/cn=b"}, {"name": "c"}]
    directory.put("c0", NOW, emailAddresses=addresses, businessAddress={}, homeAddress={"city": "Berlin"})
    row = read(directory)[0].set_index("id").loc["c0"]
    assert json.loads(row["email"])[0] == "a@nordwind-demo.com"
    assert json.loads(row["emailAddresses"]) == addresses
    assert row["homeAddress.city"] == "Berlin"
