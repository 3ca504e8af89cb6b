"""What is odd about Mailchimp: offsets that shift, audiences, archived members, addresses as ids, merge fields, data centres."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from identity_pipeline.connectors.mailchimp_members import MailchimpMembers
from identity_pipeline.core.errors import ConfigurationError, ContractBroken, CredentialError, RateLimited, SourceRejected
from identity_pipeline.core.text import table_of
from identity_pipeline.core.window import ReadContext, Window
from identity_pipeline.demo.vendor_api import Asked, serve
from identity_pipeline.normalise import canonicalise
from identity_pipeline.readers.rest import Request
from identity_pipeline_tests.connectors import reading
from identity_pipeline_tests.connectors.reading import secret
from identity_pipeline_tests.servers.faults import FaultProxy, status
from identity_pipeline_tests.servers.mailchimp_api import MailchimpAPI, member

KEY = "0123456789abcdef0123456789abcdef-us21"
AT = "2026-04-13T08:00:00+00:00"
NEWS, SHOP = "57afe96172", "aa00bb11cc"


def at(second: int) -> str:
    return f"2026-04-13T08:{second // 60:02}:{second % 60:02}+00:00"


@pytest.fixture(autouse=True)
def _loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    for bundle in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(bundle, raising=False)
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "127.0.0.1")


@pytest.fixture
def mailchimp() -> Iterator[MailchimpAPI]:
    """An account with two empty audiences."""
    api = MailchimpAPI(key=KEY)
    api.audience(NEWS)
    api.audience(SHOP, "Shop")
    with serve(api):
        yield api


def account(url: str, key: str = KEY, **settings: Any) -> MailchimpMembers:
    return MailchimpMembers(api_key=secret(key), base_url=url, **settings)


def read(connector: MailchimpMembers, lower: str | None = None, column: str = "last_changed") -> tuple[list[dict[str, Any]], Any]:
    """The records of one load, and its window."""
    window = reading.window(connector, column, lower)
    frame, _ = reading.read(connector, window)
    return frame.to_dict("records"), window


def walked(api: MailchimpAPI, change: Any = None) -> list[str]:
    """The contacts of NEWS as pages give them; ``change(number of pages read)`` happens between two pages."""
    connector = account(api.url, audiences=[NEWS])
    window = reading.window(connector, "last_changed")
    found: list[str] = []
    for number, page in enumerate(connector.pages(connector.client(window.context), window), 1):
        found += [record["contact_id"] for record in page]
        if change:
            change(number)
    return found


# pages


def test_members_who_change_during_a_read_hide_no_other(mailchimp):
    """They move to the end; with plain offsets as many unread ones would move up into pages that were read."""
    members = mailchimp.members[NEWS]
    members += [member(f"c{n:03}", at(n)) for n in range(300)]
    mailchimp.page_size = 50

    def change(number: int) -> None:
        if number <= 4:
            for each in members[(number - 1) * 50 : (number - 1) * 50 + 20]:
                each["last_changed"] = at(1000 + number)

    found = walked(mailchimp, change)
    assert set(found) == {f"c{n:03}" for n in range(300)}
    assert len(found) == 300 + 80, "who changed is read again, nobody else"


def test_the_last_member_of_a_page_may_change_too(mailchimp):
    members = mailchimp.members[NEWS]
    members += [member(f"c{n:03}", at(n)) for n in range(100)]
    mailchimp.page_size = 10

    def change(number: int) -> None:
        if number == 3:
            next(each for each in members if each["contact_id"] == "c027")["last_changed"] = at(2000)

    assert set(walked(mailchimp, change)) == {f"c{n:03}" for n in range(100)}


@pytest.mark.parametrize("tied", [49, 50, 51, 175])
def test_a_second_that_many_share_is_read_to_the_end_once(mailchimp, tied):
    mailchimp.members[NEWS] += [
        *(member(f"a{n:03}", at(n % 7)) for n in range(20)),
        *(member(f"b{n:03}", at(10)) for n in range(tied)),
        *(member(f"c{n:03}", at(20 + n)) for n in range(20)),
    ]
    mailchimp.page_size = 50
    found = walked(mailchimp)
    assert len(found) == len(set(found)) == 40 + tied


@pytest.mark.parametrize("leaving", [1, 4, 30])
def test_a_tie_whose_members_leave_it_all_the_time_is_read_to_its_end(mailchimp, leaving):
    members = mailchimp.members[NEWS]
    members += [member(f"b{n:03}", at(10)) for n in range(600)]
    mailchimp.page_size = 50

    def change(number: int) -> None:
        for each in [each for each in members if each["last_changed"] == at(10)][:leaving]:
            each["last_changed"] = at(500 + number)

    assert set(walked(mailchimp, change)) == {f"b{n:03}" for n in range(600)}
    if leaving < 5:
        assert len(mailchimp.asked) < 25, "few who leave cost next to nothing"


@pytest.mark.parametrize("tied", [10, 25, 49, 50, 75, 180])
def test_a_bound_that_includes_what_equals_it_costs_records_twice_and_no_more(mailchimp, tied, monkeypatch):
    mailchimp.members[NEWS] += [member(f"c{n:03}", at(n // tied)) for n in range(400)]
    mailchimp.page_size = 50
    answer = mailchimp.answer

    def inclusive(asked: Asked) -> Any:
        query = dict(asked.query)
        if bound := query.get("since_last_changed"):
            query["since_last_changed"] = (datetime.fromisoformat(bound) - timedelta(seconds=1)).isoformat()
        return answer(replace(asked, query=query))

    monkeypatch.setattr(mailchimp, "answer", inclusive)
    assert set(walked(mailchimp)) == {f"c{n:03}" for n in range(400)}


def test_members_out_of_order_are_a_broken_contract(mailchimp):
    page = {"members": [member("a", at(5)), member("b", at(1))], "total_items": 2, "list_id": NEWS}
    with FaultProxy(mailchimp.url) as proxy, pytest.raises(ContractBroken, match="not in order of 'last_changed'"):
        read(account(proxy.plan([None, status(200, page)]).url, audiences=[NEWS]))


def test_a_total_that_is_not_reached_is_no_end(mailchimp):
    page = {"members": [], "total_items": 5, "list_id": NEWS}
    with FaultProxy(mailchimp.url) as proxy, pytest.raises(ContractBroken, match="there are 5 records, but gives none after 0"):
        read(account(proxy.plan([None, status(200, page)]).url, audiences=[NEWS]))


def test_no_page_is_asked_for_twice_and_none_too_many(mailchimp):
    mailchimp.members[NEWS] += [member(f"c{n:04}", at(n)) for n in range(2500)]
    found = walked(mailchimp)
    assert len(found) == len(set(found)) == 2500
    assert [each.query.get("status") for each in mailchimp.asked if each.path.endswith("members")] == [None, None, None, "archived"]
    assert {each.query["count"] for each in mailchimp.asked if each.path.endswith("members")} == {"1000"}


# what is read


def test_the_bound_is_sent_a_second_lower_and_archived_members_are_asked_for_too(mailchimp):
    mailchimp.members[NEWS] += [
        member("old", "2026-04-13T07:59:58+00:00"),
        member("tie", AT),
        member("gone", AT, status="archived"),
        member("left", AT, status="unsubscribed"),
        member("bounced", AT, status="cleaned"),
    ]
    found, window = read(account(mailchimp.url, audiences=[NEWS]), "2026-04-13T08:00:00Z")
    assert {each["contact_id"] for each in found} == {"tie", "gone", "left", "bounced"}
    rows = canonicalise(table_of(found), MailchimpMembers.field_map).to_pylist()
    assert [each["contact_id"] for each, row in zip(found, rows, strict=True) if row["deleted"]] == ["gone"]
    asked = [each for each in mailchimp.asked if each.path.endswith("members")]
    assert {each.query["since_last_changed"] for each in asked} == {"2026-04-13T07:59:59Z"}
    assert window.context.warnings == []


def test_timestamp_opt_can_be_asked_for_too(mailchimp):
    mailchimp.members[NEWS] += [member("a", AT, timestamp_opt="2026-01-01T00:00:00+00:00"), member("b", AT, timestamp_opt=AT)]
    found, _ = read(account(mailchimp.url, audiences=[NEWS]), "2026-02-01T00:00:00Z", "timestamp_opt")
    assert [each["contact_id"] for each in found] == ["b"]
    assert mailchimp.asked[-1].query["sort_field"] == "timestamp_opt"


def test_all_audiences_are_read_unless_some_are_named_and_a_person_in_two_is_two_members(mailchimp):
    mailchimp.members[NEWS].append(member("one", AT, "ada@nordwind-demo.com"))
    mailchimp.members[SHOP].append(member("one", AT, "ada@nordwind-demo.com"))
    found, _ = read(account(mailchimp.url))
    assert [each["external_id"] for each in found] == [f"{NEWS}:one", f"{SHOP}:one"]
    assert [each["external_id"] for each in read(account(mailchimp.url, audiences=[SHOP]))[0]] == [f"{SHOP}:one"]
    with pytest.raises(SourceRejected, match="404 Resource Not Found: there is no such audience in this account: check audiences"):
        read(account(mailchimp.url, audiences=["0000000000"]))


def test_a_new_address_is_the_same_member(mailchimp):
    mailchimp.members[NEWS].append(member("one", AT, "old@nordwind-demo.com"))
    [before] = read(account(mailchimp.url))[0]
    mailchimp.members[NEWS][:] = [member("one", AT, "new@nordwind-demo.com")]
    [after] = read(account(mailchimp.url))[0]
    assert before["id"] != after["id"]
    assert before["external_id"] == after["external_id"]


def test_merge_fields_are_kept_by_tag_and_by_name_and_taken_for_what_they_are(mailchimp):
    mailchimp.merge_fields[NEWS] += [("MMERGE7", "Loyalty tier", "dropdown"), ("MOBIL", "Mobile", "phone"), ("POST", "Post", "address")]
    home = {"addr1": "675 Ponce de Leon Ave NE", "addr2": "", "city": "Atlanta", "state": "GA", "zip": "30308", "country": "US"}
    fields = {"FNAME": "Urist", "LNAME": "McVankab", "ADDRESS": "", "PHONE": "404-555-0100", "MMERGE7": "gold", "MOBIL": "", "POST": home}
    mailchimp.members[NEWS].append(member("one", AT, "urist@nordwind-demo.com", merge_fields=fields, sms_phone_number="+14045550199"))
    [row] = read(account(mailchimp.url))[0]
    assert (row["merge_fields.MMERGE7"], row["named.Loyalty tier"], row["named.Post.city"]) == ("gold", "gold", "Atlanta")
    [made] = canonicalise(table_of([row]), MailchimpMembers.field_map).to_pylist()
    assert (made["first_name"], made["last_name"], made["city"], made["country"]) == ("Urist", "McVankab", "Atlanta", "US")
    assert made["phones"] == ["+14045550100", "+14045550199"]


def test_a_member_without_address_is_kept(mailchimp):
    mailchimp.members[NEWS].append(member("sms", AT, sms_phone_number="+14045550199"))
    [row] = read(account(mailchimp.url))[0]
    [made] = canonicalise(table_of([row]), MailchimpMembers.field_map).to_pylist()
    assert (row["external_id"], made["email_verdict"], made["phone"]) == (f"{NEWS}:sms", "missing", "+14045550199")


# where and who


def test_the_end_of_the_key_is_the_data_centre():
    assert MailchimpMembers(api_key=secret(KEY)).address() == "https://us21.api.mailchimp.com"
    assert MailchimpMembers(api_key=secret("oauth"), data_centre="us6").address() == "https://us6.api.mailchimp.com"


@pytest.mark.parametrize("key", ["0123456789abcdef", "key-us21.evil.example", "key-us21/", "key-"])
def test_a_key_without_data_centre_leads_nowhere_and_is_not_shown(key):
    with pytest.raises(ConfigurationError, match="data_centre: the key does not end in one") as caught:
        MailchimpMembers(api_key=secret(key)).address()
    assert key not in str(caught.value)


@pytest.mark.parametrize("centre", ["us21.evil.example", "us21/", "@", "US21"])
def test_a_data_centre_leads_nowhere_else(centre):
    with pytest.raises(ValueError, match="data_centre"):
        MailchimpMembers(api_key=secret("k"), data_centre=centre)


def test_a_wrong_key_a_disabled_user_and_a_wrong_data_centre_are_told_apart(mailchimp):
    with pytest.raises(CredentialError, match="401 API Key Invalid: the key is wrong or revoked, or its account is in another data centre"):
        read(account(mailchimp.url, "wrong-us21"))
    mailchimp.disabled = True
    with pytest.raises(CredentialError, match="403 User Disabled: the account or the user of this key is disabled"):
        read(account(mailchimp.url))
    wrong = status(403, {"title": "Wrong Datacenter", "status": 403})
    with FaultProxy(mailchimp.url) as proxy, pytest.raises(ConfigurationError, match="the account is in another data centre"):
        read(account(proxy.plan([wrong]).url))


def test_too_many_connections_are_waited_out_though_nothing_says_for_how_long(mailchimp):
    mailchimp.storm = 3
    naps: list[float] = []
    list(account(mailchimp.url).read(Window(context=ReadContext(sleep=naps.append))))
    assert len(naps) == 3
    mailchimp.storm = 100
    with pytest.raises(RateLimited, match="429 Too Many Requests"):
        list(account(mailchimp.url).read(Window(context=ReadContext(sleep=naps.append))))


# the server is judged by what Mailchimp publishes: types of a member's fields, and what an error has

PUBLISHED = {
    "id": str, "email_address": str, "unique_email_id": str, "contact_id": str, "full_name": str, "web_id": int, "email_type": str,
    "status": str, "consents_to_one_to_one_messaging": bool, "sms_phone_number": str, "sms_subscription_status": str,
    "sms_subscription_last_updated": str, "merge_fields": dict, "interests": dict, "stats": dict, "ip_signup": str,
    "timestamp_signup": str, "ip_opt": str, "timestamp_opt": str, "member_rating": int, "last_changed": str, "language": str, "vip": bool,
    "email_client": str, "location": dict, "source": str, "tags_count": int, "tags": list,
}  # fmt: skip


def test_the_server_shows_members_and_refusals_as_they_are_published(mailchimp):
    mailchimp.members[NEWS].append(member("one", AT, "ada@nordwind-demo.com"))
    connector = account(mailchimp.url)
    client = connector.client(ReadContext())
    page = client.send(Request(f"/3.0/lists/{NEWS}/members", {"count": 1}))
    assert {"members", "list_id", "total_items"} <= page.body.keys()
    [shown] = page.body["members"]
    assert {name: type(value) for name, value in shown.items()} | {"web_id": int, "member_rating": int, "tags_count": int} == PUBLISHED
    fields = client.send(Request(f"/3.0/lists/{NEWS}/merge-fields")).body["merge_fields"]
    assert {"merge_id", "tag", "name", "type", "required", "list_id"} <= fields[0].keys()
    with pytest.raises(SourceRejected, match="400 Invalid Resource"):
        client.send(Request(f"/3.0/lists/{NEWS}/members", {"count": 1001}))
    with pytest.raises(SourceRejected, match="400 Invalid Resource"):
        client.send(Request(f"/3.0/lists/{NEWS}/members", {"sort_field": "email_address"}))
