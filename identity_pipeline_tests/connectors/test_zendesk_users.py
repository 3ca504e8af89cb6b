"""What is odd about Zendesk: a cursor that is kept, a minute that is withheld, agents, identities, shared phones, tokens."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pytest
import requests
from requests.adapters import HTTPAdapter
from zenpy import Zenpy

from identity_pipeline.connectors.zendesk_users import ZendeskUsers
from identity_pipeline.core.errors import ContractBroken, CredentialError, PermissionDenied, SourceRejected
from identity_pipeline.core.fieldmap import GONE
from identity_pipeline.core.text import table_of
from identity_pipeline.core.window import ReadContext, Window
from identity_pipeline.demo.vendor_api import serve
from identity_pipeline.normalise import canonicalise
from identity_pipeline_tests.connectors import reading
from identity_pipeline_tests.connectors.reading import Loads, secret
from identity_pipeline_tests.servers.faults import FaultProxy, status
from identity_pipeline_tests.servers.zendesk_api import ZendeskAPI, identity, user

TOKEN = "zendesk-oauth-token-4c1f"
AT = "2026-04-13T08:00:00Z"


@pytest.fixture(autouse=True)
def _loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    for bundle in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(bundle, raising=False)
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "127.0.0.1")


@pytest.fixture
def zendesk() -> Iterator[ZendeskAPI]:
    """An empty account."""
    with serve(ZendeskAPI(token=TOKEN, api_token="api-token-77aa", client_secret="client-secret-09bd")) as api:
        yield api


def account(url: str, token: str = TOKEN, **settings: Any) -> ZendeskUsers:
    return ZendeskUsers(subdomain="acme", token=secret(token), base_url=url, **settings)


def read(connector: ZendeskUsers, lower: str | None = None, **options: Any) -> tuple[dict[str, dict[str, Any]], Any]:
    """The records of one load by id, and its window."""
    window = reading.window(connector, "updated_at", lower, **options)
    frame, _ = reading.read(connector, window)
    return {str(row["id"]): row for row in frame.to_dict("records")}, window


def test_a_library_that_is_not_ours_reads_the_same_users_from_the_server(zendesk):
    zendesk.page_size = 3
    for n in range(1, 8):
        zendesk.put(user(n, AT, name=f"User {n}", email=f"u{n}@example.com", user_fields={"tier": "gold"}))

    class ToServer(HTTPAdapter):
        def send(self, request, *args, **kwargs):
            address = request.url
            request.url = address.replace("https://acme.zendesk.com", zendesk.url)
            request.headers["Host"] = "acme.zendesk.com"
            response = super().send(request, *args, **kwargs)
            request.url = response.url = address
            return response

    session = requests.Session()
    session.mount("https://acme.zendesk.com", ToServer())
    client = Zenpy(subdomain="acme", oauth_token=TOKEN, session=session)
    found = {each.id: each for each in client.users.incremental(start_time=0, paginate_by_time=False)}
    ours, _ = read(account(zendesk.url))
    assert {str(each) for each in found} == set(ours) == {str(n) for n in range(1, 8)}
    assert (found[7].email, found[7].user_fields["tier"], found[7].active) == ("u7@example.com", "gold", True)


def test_the_next_load_goes_on_where_the_export_ended(zendesk):
    zendesk.page_size = 2
    for n in range(1, 6):
        zendesk.put(user(n, AT))
    _, first = read(account(zendesk.url))
    assert first.context.state
    zendesk.asked.clear()
    zendesk.put(user(6, "2026-04-01T00:00:00Z"))  # what it carries is older than the mark, it changed after the export
    found, second = read(account(zendesk.url), AT, state=first.context.state)
    assert set(found) == {"6"}
    assert [set(each.query) & {"cursor", "start_time"} for each in zendesk.asked] == [{"cursor"}]
    zendesk.asked.clear()
    found, third = read(account(zendesk.url), AT, state=second.context.state)
    assert (found, third.context.state) == ({}, second.context.state)
    assert len(zendesk.asked) == 1


def test_without_that_place_it_starts_at_the_mark_and_loses_nothing(zendesk):
    zendesk.put(user(1, "2026-04-13T07:59:59Z"))
    zendesk.put(user(2, AT))
    found, window = read(account(zendesk.url), AT)
    assert set(found) == {"2"}
    assert zendesk.asked[0].query["start_time"] == "1776067200"
    assert window.context.state


def test_a_load_that_breaks_off_leaves_no_place_to_go_on_from(zendesk):
    zendesk.page_size = 2
    for n in range(1, 6):
        zendesk.put(user(n, AT))
    connector = account(zendesk.url)
    window = reading.window(connector, "updated_at")
    pages = connector.pages(connector.client(window.context), window)
    assert len(next(pages)) == 2
    pages.close()
    assert window.context.state is None


def test_a_place_that_is_not_accepted_any_more_is_no_fault_of_the_settings(zendesk):
    with FaultProxy(zendesk.url) as proxy, pytest.raises(ContractBroken):  # the load then reads once more, from the mark
        read(account(proxy.plan([status(422, {"error": "InvalidCursor"})]).url), AT, state="gone")


def test_what_is_left_of_the_accounts_limit_is_heeded(zendesk):
    zendesk.page_size = 1
    zendesk.headers |= {"ratelimit-limit": "700", "ratelimit-remaining": "0", "ratelimit-reset": "41"}
    for n in (1, 2):
        zendesk.put(user(n, AT))
    naps: list[float] = []
    list(account(zendesk.url).read(Window(context=ReadContext(sleep=naps.append))))
    assert 40 < max(naps) <= 41


def test_what_changed_within_the_last_minute_comes_with_a_later_load(zendesk):
    now = datetime.now(UTC).replace(microsecond=0)
    zendesk.put(user(1, AT))
    zendesk.put(user(2, now.isoformat()), changed=now)
    found, window = read(account(zendesk.url))
    assert set(found) == {"1"}
    zendesk.now = now + timedelta(seconds=61)
    found, _ = read(account(zendesk.url), AT, state=window.context.state)
    assert set(found) == {"2"}


def test_a_start_within_the_withheld_minute_is_put_before_it(zendesk):
    found, _ = read(account(zendesk.url), datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
    assert (found, len(zendesk.asked)) == ({}, 1)


def test_an_export_goes_on_until_it_says_that_it_ends(zendesk):
    """A page may be short, or empty, in the middle."""
    zendesk.put(user(1, AT))
    empty = {"users": [], "after_cursor": "MHx8MHw=", "after_url": "", "before_cursor": None, "end_of_stream": False}
    with FaultProxy(zendesk.url) as proxy:
        found, _ = read(account(proxy.plan([status(200, empty)]).url))
    assert set(found) == {"1"}


@pytest.mark.parametrize("bad", [{"end_of_stream": None}, {"after_cursor": None, "end_of_stream": False}])
def test_a_page_that_neither_ends_nor_goes_on_is_a_broken_contract(zendesk, bad):
    page = {"users": [user(1, AT)], "after_cursor": "MHx8MHw=", **bad}
    with FaultProxy(zendesk.url) as proxy, pytest.raises(ContractBroken):
        read(account(proxy.plan([status(200, page)]).url))


def test_deleted_and_permanently_deleted_users_are_deletions_and_suspended_ones_are_not(zendesk):
    zendesk.put(user(1, AT, name="Ada Lovelace", suspended=True))
    zendesk.put(user(2, AT, name="Grace Hopper", active=False))
    zendesk.put(user(3, AT, name="Permanently Deleted User", active=False))
    found, _ = read(account(zendesk.url))
    rows = canonicalise(table_of(found.values()), ZendeskUsers.field_map).to_pylist()
    assert [(row["full_name"], row["deleted"]) for row in rows[:2]] == [("Ada Lovelace", False), ("Grace Hopper", True)]
    assert found["1"]["suspended"] == "true"
    assert (found["3"][GONE], rows[2]["deleted"], pd.isna(found["1"][GONE])) == ("true", True, True), "what is known of it is kept"


def test_agents_and_administrators_are_read_only_if_asked_for(zendesk):
    for n, role in enumerate(("end-user", "agent", "admin"), 1):
        zendesk.put(user(n, AT, role=role))
    assert set(read(account(zendesk.url))[0]) == {"1"}
    assert set(read(account(zendesk.url, agents=True))[0]) == {"1", "2", "3"}


def test_further_addresses_and_numbers_come_with_the_user_where_they_are_asked_for(zendesk):
    for n in range(1, 251):
        zendesk.put(user(n, AT, email=f"u{n}@nordwind-demo.com"))
    zendesk.identities += [
        identity(1, 7, "email", "u7@nordwind-demo.com", primary=True),
        identity(2, 7, "email", "seven@nordwind-demo.com"),
        identity(3, 7, "phone_number", "+493055501997"),
        identity(4, 7, "twitter", "seven"),
    ]
    found, _ = read(account(zendesk.url, identities=True))
    [row] = canonicalise(table_of([found["7"]]), ZendeskUsers.field_map).to_pylist()
    assert (row["emails"], row["phones"]) == (["u7@nordwind-demo.com", "seven@nordwind-demo.com"], ["+493055501997"])
    assert found["7"]["identities.twitter"] == '["seven"]'
    assert [each.path.rpartition("/")[2] for each in zendesk.asked] == ["cursor", *["show_many"] * 3]
    zendesk.asked.clear()
    assert "identities.email" not in read(account(zendesk.url))[0]["7"]
    assert len(zendesk.asked) == 1


def test_a_phone_number_that_users_share_is_no_ones(zendesk):
    zendesk.put(user(1, AT, phone="+493055501998", shared_phone_number=True))
    zendesk.put(user(2, AT, phone="+493055501999"))
    found, _ = read(account(zendesk.url))
    rows = canonicalise(table_of(found.values()), ZendeskUsers.field_map).to_pylist()
    assert [row["phone"] for row in rows] == [None, "+493055501999"]
    assert found["1"]["shared_phone"] == "+493055501998"


def test_the_company_is_the_name_of_the_organisation_and_custom_fields_are_kept(zendesk):
    zendesk.organizations[57542] = "Nordwind AG"
    zendesk.put(user(1, AT, organization_id=57542, user_fields={"tier": "gold", "since": "2020-01-01"}, tags=["vip"]))
    zendesk.put(user(2, AT))
    found, _ = read(account(zendesk.url))
    [first, second] = canonicalise(table_of(found.values()), ZendeskUsers.field_map).to_pylist()
    assert (first["company"], second["company"]) == ("Nordwind AG", None)
    assert (found["1"]["user_fields.tier"], found["1"]["user_fields.since"], found["1"]["tags"]) == ("gold", "2020-01-01", '["vip"]')


def test_a_cursor_on_created_at_reads_all_and_keeps_the_newer(zendesk):
    zendesk.put(user(1, AT, created_at="2026-01-01T00:00:00Z"))
    zendesk.put(user(2, AT, created_at="2026-03-01T00:00:00Z"))
    connector = account(zendesk.url)
    window = reading.window(connector, "created_at", "2026-02-01T00:00:00Z")
    frame, counts = reading.read(connector, window)
    assert (frame["id"].tolist(), counts.filtered) == (["2"], 1)
    assert zendesk.asked[0].query["start_time"] == "0"


# who asks


def test_a_client_gets_its_token_and_a_new_one_when_that_is_refused(zendesk):
    zendesk.page_size = 1
    for n in range(1, 4):
        zendesk.put(user(n, AT))
    connector = account(zendesk.url, "client-secret-09bd", client_id="sync")
    window = reading.window(connector, "updated_at")
    ids = []
    for page in connector.pages(connector.client(window.context), window):
        ids += [each["id"] for each in page]
        zendesk.token = f"revoked-{len(ids)}"
    assert ids == ["1", "2", "3"]
    assert zendesk.tokens_given == 3


def test_a_client_that_is_not_known_is_a_matter_of_the_credential(zendesk):
    with pytest.raises(CredentialError, match=r"oauth/tokens answered 401 invalid_client, asked for a token: check client_id") as caught:
        read(account(zendesk.url, "another-secret-11", client_id="sync"))
    assert "another-secret" not in str(caught.value)


def test_an_api_token_still_works_and_its_end_is_told(zendesk):
    zendesk.put(user(1, AT))
    connector = account(zendesk.url, "api-token-77aa", email="agent@example.com")
    assert set(read(connector)[0]) == {"1"}
    ending = connector.ending(datetime(2027, 2, 1, tzinfo=UTC).date())
    assert ending == "zendesk ends API tokens on 2027-04-30: use an OAuth client, by client_id and its secret"
    assert connector.ending(datetime(2027, 1, 1, tzinfo=UTC).date()) is None
    assert account(zendesk.url).ending(datetime(2028, 1, 1, tzinfo=UTC).date()) is None


@pytest.mark.parametrize(
    ("change", "words"), [({"role": "agent"}, "403 Forbidden: users are exported"), ({"scopes": ("tickets:read",)}, "users:read")]
)
def test_who_may_not_export_hears_what_is_missing(zendesk, change, words):
    for name, value in change.items():
        setattr(zendesk, name, value)
    with pytest.raises(PermissionDenied, match=words):
        read(account(zendesk.url))
    assert [step.name for step in account(zendesk.url).check() if not step.ok] == ["permission"]


def test_a_wrong_subdomain_is_told(zendesk):
    with FaultProxy(zendesk.url) as proxy, pytest.raises(SourceRejected, match="404: no account answers there: check subdomain"):
        read(account(proxy.plan([status(404)]).url))


@pytest.mark.parametrize("subdomain", ["acme.evil.example", "acme/..", "@evil", "", "ACME", "acme:443", "a" * 64])
def test_a_subdomain_leads_nowhere_else(subdomain):
    with pytest.raises(ValueError, match="subdomain"):
        ZendeskUsers(subdomain=subdomain, token=secret("x"))


def test_the_subdomain_is_the_address():
    assert ZendeskUsers(subdomain="acme", token=secret("x")).address() == "https://acme.zendesk.com"


@pytest.mark.parametrize("column", ZendeskUsers.cursor_columns)
def test_the_deletion_of_a_user_who_is_older_than_the_mark_counts_by_every_cursor(zendesk, target, column):
    loads = Loads(target, account(zendesk.url), column)
    one, two = user(1, AT, created_at=AT), user(2, AT, created_at="2026-04-14T08:00:00Z")
    zendesk.put(one)
    zendesk.put(two)
    loads.load()
    assert loads.live() == {"1", "2"}
    zendesk.put({**one, "active": False})
    assert loads.load()["deleted"] == 1
    assert loads.live() == {"2"}
