"""What is odd about Klaviyo: exclusive filters that may be ignored, revisions that end, sparse fields, consent."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from klaviyo_api import KlaviyoAPI as VendorsOwn

from identity_pipeline.connectors.klaviyo_profiles import FIELDS, KlaviyoProfiles
from identity_pipeline.core.errors import ContractBroken, CredentialError, PermissionDenied, RateLimited, SourceRejected
from identity_pipeline.core.text import table_of
from identity_pipeline.core.window import ReadContext, Window
from identity_pipeline.demo.vendor_api import serve
from identity_pipeline.normalise import canonicalise
from identity_pipeline_tests.connectors import reading
from identity_pipeline_tests.connectors.reading import secret
from identity_pipeline_tests.servers.faults import FaultProxy, status
from identity_pipeline_tests.servers.klaviyo_api import KlaviyoAPI, profile, subscriptions

KEY = "pk_7d41c09e7d41c09e7d41c09e7d41c09e7d"
AT = "2026-04-13T08:00:00+00:00"


@pytest.fixture(autouse=True)
def _loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    for bundle in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(bundle, raising=False)
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "127.0.0.1")


@pytest.fixture
def klaviyo() -> Iterator[KlaviyoAPI]:
    """An empty account."""
    with serve(KlaviyoAPI(key=KEY)) as api:
        yield api


def account(url: str, key: str = KEY, **settings: Any) -> KlaviyoProfiles:
    return KlaviyoProfiles(api_key=secret(key), base_url=url, **settings)


def read(connector: KlaviyoProfiles, lower: str | None = None, column: str = "updated") -> tuple[dict[str, dict[str, Any]], Any]:
    """The records of one load by id, and its window."""
    window = reading.window(connector, column, lower)
    frame, _ = reading.read(connector, window)
    return {str(row["id"]): row for row in frame.to_dict("records")}, window


@pytest.mark.filterwarnings("ignore")
def test_the_vendors_own_client_reads_the_same_profiles_from_the_server(klaviyo):
    klaviyo.page_size = 3
    klaviyo.profiles += [
        profile(f"01G{n}", f"2026-04-13T08:00:0{n}+00:00", email=f"p{n}@example.com", properties={"tier": n}, subscriptions=subscriptions())
        for n in range(1, 8)
    ]
    client = VendorsOwn(KEY, max_retries=1, test_host=klaviyo.url)
    asked: dict[str, Any] = {
        "sort": "updated",
        "filter": "greater-than(updated,2026-04-13T08:00:01Z)",
        "additional_fields_profile": ["subscriptions"],
    }
    seen, cursor = [], None
    while True:
        answer = client.Profiles.get_profiles(**asked, page_size=3, **({"page_cursor": cursor} if cursor else {}))
        seen += answer.data
        if not answer.links.next:
            break
        [cursor] = parse_qs(urlsplit(answer.links.next).query)["page[cursor]"]
    assert [each.id for each in seen] == [f"01G{n}" for n in range(2, 8)]
    assert (seen[0].attributes.email, seen[0].attributes.subscriptions.email.marketing.consent) == ("p2@example.com", "SUBSCRIBED")
    assert set(read(account(klaviyo.url), "2026-04-13T08:00:02Z")[0]) == {f"01G{n}" for n in range(2, 8)}


@pytest.mark.parametrize("lower", ["2026-04-13T08:00:00Z", "2026-04-13T08:00:00.123456Z"])
def test_the_bound_is_sent_a_second_lower_and_in_whole_seconds(klaviyo, lower):
    klaviyo.profiles += [profile("a", "2026-04-13T07:59:58+00:00"), profile("b", AT), profile("c", "2026-04-13T08:00:00.500000+00:00")]
    found, _ = read(account(klaviyo.url), lower)
    assert set(found) == ({"b", "c"} if lower.endswith("00Z") else {"c"})
    assert klaviyo.asked[-1].query["filter"] == "greater-than(updated,2026-04-13T07:59:59Z)"
    assert "%3A" in klaviyo.asked[-1].address


def test_a_bound_in_the_future_is_the_operators_to_correct(klaviyo):
    with pytest.raises(SourceRejected, match=r"400 invalid \(in the future\)"):
        read(account(klaviyo.url), "2999-01-01T00:00:00Z")


def test_a_filter_that_is_ignored_is_told_and_costs_nothing_else(klaviyo):
    klaviyo.profiles += [profile("a", "2020-01-01T00:00:00+00:00"), profile("b", AT)]
    all_of_them = klaviyo.answer

    def ignoring(asked):
        return all_of_them(type(asked)(**{**vars(asked), "query": {k: v for k, v in asked.query.items() if k != "filter"}}))

    klaviyo.answer = ignoring
    found, window = read(account(klaviyo.url), "2026-04-13T08:00:00Z")
    assert set(found) == {"b"}
    [warning] = window.context.warnings
    assert re.match(r"1 of the first 2 records are more than two days older .*ignores the filter on updated", warning)


def test_a_filter_that_is_kept_is_no_cause_for_a_warning(klaviyo):
    klaviyo.profiles += [profile("a", "2026-04-13T07:59:59.900000+00:00"), profile("b", AT)]
    assert read(account(klaviyo.url), "2026-04-13T08:00:00Z")[1].context.warnings == []


def test_created_can_be_asked_for_too(klaviyo):
    klaviyo.profiles += [profile("a", AT, created="2026-01-01T00:00:00+00:00"), profile("b", AT, created="2026-03-01T00:00:00+00:00")]
    assert set(read(account(klaviyo.url), "2026-02-01T00:00:00Z", "created")[0]) == {"b"}


def test_a_tie_that_is_longer_than_a_page_is_read_to_the_end(klaviyo):
    klaviyo.profiles += [profile(f"{n:04}", AT) for n in range(350)]
    found, _ = read(account(klaviyo.url), "2026-04-13T08:00:00Z")
    assert len(found) == 350
    assert len(klaviyo.asked) == 4


def test_a_page_token_that_expired_begins_the_read_again(klaviyo):
    klaviyo.page_size = 1
    klaviyo.profiles += [profile("a", AT), profile("b", AT)]
    klaviyo.cursors_expire = True
    with pytest.raises(ContractBroken, match=r"400 invalid \(Invalid cursor provided\): the page before led here"):
        read(account(klaviyo.url))


def test_a_next_page_elsewhere_is_not_followed(klaviyo):
    page = {"data": [], "links": {"next": "https://evil.example.com/api/profiles/?page%5Bcursor%5D=x"}}
    with FaultProxy(klaviyo.url) as proxy, pytest.raises(ContractBroken, match="leads away from"):
        read(account(proxy.plan([status(200, page)]).url))


# what is kept


def test_consent_custom_properties_and_a_whatsapp_number_are_kept_and_only_chosen_fields_asked_for(klaviyo):
    agreed = subscriptions("UNSUBSCRIBED", whatsapp="+493055501997")
    klaviyo.profiles.append(
        profile("a", AT, phone_number="+493055501998", properties={"tier": "gold", "sizes": ["m", "l"]}, subscriptions=agreed, image="x")
    )
    row = read(account(klaviyo.url))[0]["a"]
    assert (row["properties.tier"], row["properties.sizes"]) == ("gold", '["m","l"]')
    assert row["subscriptions.email.marketing.consent"] == "UNSUBSCRIBED"
    [made] = canonicalise(table_of([row]), KlaviyoProfiles.field_map).to_pylist()
    assert made["phones"] == ["+493055501998", "+493055501997"]
    assert "image" not in row
    assert klaviyo.asked[-1].query["fields[profile]"] == FIELDS
    assert "predictive_analytics" not in klaviyo.asked[-1].address


def test_every_field_that_is_mapped_or_a_cursor_is_asked_for():
    mapped = {name.partition(".")[0] for name in KlaviyoProfiles.field_map.source_fields()} - {"id"}
    assert mapped | set(KlaviyoProfiles.cursor_columns) <= set(FIELDS.split(","))


def test_a_profile_of_nobody_is_kept_by_its_id(klaviyo):
    klaviyo.profiles.append(profile("a", AT))
    assert set(read(account(klaviyo.url))[0]) == {"a"}


# revisions and who asks


def test_a_revision_that_has_ended_is_refused_and_not_answered_by_another(klaviyo):
    klaviyo.now = datetime(2028, 8, 1, tzinfo=UTC)
    with pytest.raises(SourceRejected, match="410 gone: this revision has ended: set api_version to a later one"):
        read(account(klaviyo.url))
    assert {each.headers["revision"] for each in klaviyo.asked} == {"2026-07-15"}


def test_every_known_revision_ends_two_years_after_its_day():
    assert all(int(end[:4]) == int(version[:4]) + 2 and end[4:] == version[4:] for version, end in KlaviyoProfiles.api_versions.items())
    assert KlaviyoProfiles.model_fields["api_version"].default in KlaviyoProfiles.api_versions


def test_a_missing_scope_and_a_wrong_key_are_told_apart(klaviyo):
    klaviyo.scopes = ("lists:read",)
    with pytest.raises(PermissionDenied, match=r"403 permission_denied \(profiles:read\): give the private key"):
        read(account(klaviyo.url))
    assert [step.name for step in account(klaviyo.url).check() if not step.ok] == ["permission"]
    with pytest.raises(CredentialError, match="401 authentication_failed"):
        read(account(klaviyo.url, "pk_wrong"))
    assert [step.name for step in account(klaviyo.url, "XyZ123").check() if not step.ok] == ["authenticate"]


def test_what_is_left_of_a_limit_is_heeded_before_it_is_used_up(klaviyo):
    klaviyo.page_size = 1
    klaviyo.profiles += [profile("a", AT), profile("b", AT)]
    klaviyo.headers |= {"RateLimit-Limit": "75, 75;w=1, 750;w=60", "RateLimit-Remaining": "0", "RateLimit-Reset": "7"}
    naps: list[float] = []
    list(account(klaviyo.url).read(Window(context=ReadContext(sleep=naps.append))))
    assert max(naps) > 6


def test_a_wait_that_is_asked_for_is_kept(klaviyo):
    klaviyo.storm = 2
    naps: list[float] = []
    list(account(klaviyo.url).read(Window(context=ReadContext(sleep=naps.append))))
    assert [nap for nap in naps if nap == 1] == [1, 1]
    klaviyo.storm = 100
    with pytest.raises(RateLimited):
        list(account(klaviyo.url).read(Window(context=ReadContext(sleep=naps.append))))
