"""What is odd about Shopify: GraphQL that is paid for, errors with status 200, filters by quotes, versions, protected data."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from graphql import graphql_sync, parse, validate

from identity_pipeline.connectors.shopify_customers import QUERY, ShopifyCustomers
from identity_pipeline.core.errors import (
    ContractBroken,
    CredentialError,
    LimitExceeded,
    PermissionDenied,
    SourceRejected,
    SourceUnavailable,
)
from identity_pipeline.core.text import table_of
from identity_pipeline.core.window import ReadContext, Window
from identity_pipeline.demo.vendor_api import serve
from identity_pipeline.normalise import canonicalise
from identity_pipeline_tests.connectors import reading
from identity_pipeline_tests.connectors.reading import Loads, secret
from identity_pipeline_tests.servers.faults import FaultProxy, status
from identity_pipeline_tests.servers.shopify_api import SCHEMA, ShopifyAPI, address, customer, later, metafield

TOKEN = "shpat_4c1f4c1f4c1f4c1f"
AT = "2026-04-13T08:00:00Z"


@pytest.fixture(autouse=True)
def _loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    for bundle in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(bundle, raising=False)
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "127.0.0.1")


@pytest.fixture
def shopify() -> Iterator[ShopifyAPI]:
    """A shop without customers."""
    with serve(ShopifyAPI(token=TOKEN, client_secret="client-secret-09bd")) as api:
        yield api


def shop(url: str, token: str = TOKEN, **settings: Any) -> ShopifyCustomers:
    return ShopifyCustomers(shop="acme.myshopify.com", access_token=secret(token), base_url=url, **settings)


def read(connector: ShopifyCustomers, lower: str | None = None, column: str = "updatedAt") -> tuple[dict[str, dict[str, Any]], Any]:
    """The records of one load by id, and its window."""
    window = reading.window(connector, column, lower)
    frame, _ = reading.read(connector, window)
    return {str(row["legacyResourceId"]): row for row in frame.to_dict("records")}, window


def people(number: int, **given: Any) -> list[dict[str, Any]]:
    return [customer(n, AT, email=f"p{n}@nordwind-demo.com", **given) for n in range(1, number + 1)]


# the query and the server, judged by graphql-core


def test_the_query_fits_the_published_schema():
    assert validate(SCHEMA, parse(QUERY)) == []


def test_the_server_answers_a_query_as_an_engine_that_is_not_ours_does(shopify):
    shopify.customers += [
        customer(
            7,
            AT,
            email="ada@nordwind-demo.com",
            phone="+493055501997",
            defaultAddress=address(1, city="Berlin", countryCodeV2="DE"),
            addressesV2={"nodes": [address(1, city="Berlin"), address(2, city="Rom")]},
            metafields={"nodes": [metafield(n, "crm", f"f{n}", str(n)) for n in range(30)]},
        ),
        customer(9, AT),
    ]
    variables = {"first": 10, "metafields": 20, "sort": "UPDATED_AT", "query": None, "after": None}

    class Root:
        """Everything that the shop holds; the engine cuts out of it what is asked for."""

        def customers(self, _info: Any, **_: Any) -> Any:
            nodes = [dict(each) for each in shopify.customers]
            for each in nodes:
                for name, first in (("addressesV2", 10), ("metafields", 20)):
                    held = each[name]["nodes"]
                    each[name] = {"nodes": held[:first], "pageInfo": {"hasNextPage": len(held) > first}}
            return {"nodes": nodes, "pageInfo": {"hasNextPage": False, "endCursor": "x"}}

    expected = graphql_sync(SCHEMA, QUERY, Root(), variable_values=variables)
    assert expected.errors is None
    connector = shop(shopify.url)
    client = connector.client(ReadContext())
    answered = client.send(next(iter_requests(connector)).put("body.variables", variables)).body["data"]
    answered["customers"]["pageInfo"]["endCursor"] = "x"
    assert json.loads(json.dumps(answered)) == json.loads(json.dumps(expected.data))


def iter_requests(connector: ShopifyCustomers) -> Iterator[Any]:
    """The requests that a full read begins with."""
    asked = []

    class Listening:
        def pages(self, request: Any, _: Any) -> Iterator[Any]:
            asked.append(request)
            return iter(())

    list(connector.pages(Listening(), Window()))  # type: ignore[arg-type]
    yield from asked


# what is read


def test_a_tie_that_is_longer_than_a_page_is_read_to_the_end(shopify):
    shopify.customers += people(250)
    found, window = read(shop(shopify.url), AT)
    assert len(found) == 250
    assert (len(shopify.asked), window.context.warnings) == (3, [])


def test_the_bound_is_inclusive_in_quotes_and_in_whole_seconds(shopify):
    shopify.customers += [customer(1, "2026-04-13T07:59:59Z", email="a@nordwind-demo.com"), *people(2)[1:]]
    assert set(read(shop(shopify.url), "2026-04-13T08:00:00Z")[0]) == {"2"}
    read(shop(shopify.url), "2026-04-13T08:00:00.999Z")
    assert {each.body["variables"]["query"] for each in shopify.asked} == {"updated_at:>='2026-04-13T08:00:00Z'"}
    assert {each.body["variables"]["sort"] for each in shopify.asked} == {"UPDATED_AT"}


def test_created_can_be_asked_for_too_and_a_full_read_has_no_filter(shopify):
    shopify.customers += [customer(1, AT, email="a@nordwind-demo.com", createdAt="2026-01-01T00:00:00Z"), *people(2)[1:]]
    assert set(read(shop(shopify.url), "2026-02-01T00:00:00Z", "createdAt")[0]) == {"2"}
    assert set(read(shop(shopify.url))[0]) == {"1", "2"}
    assert shopify.asked[-1].body["variables"]["query"] is None


def test_a_filter_that_is_ignored_is_told(shopify):
    shopify.ignores_filters = True
    shopify.customers += [customer(1, "2020-01-01T00:00:00Z", email="a@nordwind-demo.com"), *people(2)[1:]]
    found, window = read(shop(shopify.url), AT)
    assert set(found) == {"2"}
    assert re.match(r"1 of the first 2 records are more than two days older .* the filter on updatedAt", window.context.warnings[0])


def test_customers_who_change_during_a_read_hide_no_other(shopify):
    shopify.customers += people(250)
    connector = shop(shopify.url)
    window = reading.window(connector, "updatedAt")
    found = []
    for page in connector.pages(connector.client(window.context), window):
        found += [each["legacyResourceId"] for each in page]
        for each in shopify.customers[:30]:
            each["updatedAt"] = "2026-05-01T00:00:00Z"
    assert set(found) == {str(n) for n in range(1, 251)}


def test_metafields_consent_and_a_second_number_are_kept(shopify):
    held = {"nodes": [metafield(1, "crm", "tier", "gold"), metafield(2, "custom", "birthday", "1990-01-02")]}
    home = address(
        1, company="Nordwind AG", address1="Gasse 1", city="Wien", provinceCode="9", zip="1010", countryCodeV2="AT", phone="+43150122"
    )
    shopify.customers.append(
        customer(7, AT, email="ada@nordwind-demo.com", phone="+493055501997", metafields=held, defaultAddress=home, tags=["vip"])
    )
    row = read(shop(shopify.url))[0]["7"]
    assert (row["metafields.crm.tier"], row["metafields.custom.birthday"], row["tags"]) == ("gold", "1990-01-02", '["vip"]')
    assert (row["defaultEmailAddress.marketingState"], row["defaultPhoneNumber.marketingState"]) == ("SUBSCRIBED", "SUBSCRIBED")
    [made] = canonicalise(table_of([row]), ShopifyCustomers.field_map).to_pylist()
    assert (made["company"], made["city"], made["country"], made["phones"]) == ("Nordwind AG", "Wien", "AT", ["+493055501997", "+43150122"])
    assert made["full_name"] is None, "what is shown instead of a name is none"


def test_more_metafields_than_are_read_are_told(shopify):
    shopify.customers += people(1, metafields={"nodes": [metafield(n, "crm", f"f{n}", str(n)) for n in range(21)]})
    assert read(shop(shopify.url))[1].context.warnings == ["some customers have more metafields: raise metafields"]
    assert read(shop(shopify.url, metafields=30))[1].context.warnings == []


# what it costs


def test_a_shop_is_asked_no_faster_than_its_budget_comes_back(shopify):
    shopify.customers += people(1500)
    shopify.maximum = shopify.available = 1000.0
    shopify.restore = 100.0
    connector = shop(shopify.url)
    naps: list[float] = []
    sleep = later(shopify)
    window = Window(context=ReadContext(sleep=lambda seconds: (naps.append(seconds), sleep(seconds))[0]))
    assert sum(len(batch) for batch in connector.read(window)) == 1500
    assert len(shopify.asked) == 15, "none was refused"
    assert sum(naps) == pytest.approx((15 * 402 - 1000) / 100, abs=1)


def test_a_refusal_for_the_budget_is_waited_out_as_the_answer_says(shopify):
    shopify.customers += people(3)
    shopify.storm = 1
    naps: list[float] = []
    list(shop(shopify.url).read(Window(context=ReadContext(sleep=naps.append))))
    assert naps == [pytest.approx(1.0)]


def test_a_query_that_costs_too_much_is_asked_for_in_smaller_pages(shopify):
    shopify.customers += people(120)
    found, _ = read(shop(shopify.url, metafields=100))
    assert len(found) == 120
    sizes = [each.body["variables"]["first"] for each in shopify.asked]
    assert sizes == [100, 50, 50, 50]


def test_a_query_that_costs_too_much_for_one_customer_is_told(shopify):
    too_much = {"errors": [{"message": "Query cost is 2003", "extensions": {"code": "MAX_COST_EXCEEDED"}}]}
    with FaultProxy(shopify.url) as proxy, pytest.raises(LimitExceeded, match="200 MAX_COST_EXCEEDED: lower metafields"):
        read(shop(proxy.plan([status(200, too_much)] * 20).url))


# errors with status 200, and others


def test_a_part_of_the_data_beside_an_error_is_not_taken(shopify):
    shopify.customers += people(2)
    page = {"customers": {"nodes": [people(1)[0], None], "pageInfo": {"hasNextPage": False, "endCursor": None}}}
    partial = {"data": page, "errors": [{"message": "Something", "extensions": {"code": "SOMETHING_NEW"}}]}
    with FaultProxy(shopify.url) as proxy:
        with pytest.raises(ContractBroken, match="answered 200 SOMETHING_NEW"):
            read(shop(proxy.plan([status(200, partial)]).url))
        internal = {"errors": [{"message": "Internal error", "extensions": {"code": "INTERNAL_SERVER_ERROR"}}]}
        assert set(read(shop(proxy.plan([status(200, internal)] * 2).url))[0]) == {"1", "2"}
        with pytest.raises(SourceUnavailable):
            read(shop(proxy.plan([status(200, internal)] * 20).url))


@pytest.mark.parametrize(
    ("state", "code", "words"),
    [
        ("frozen", "402", "is frozen"),
        ("locked", "423", "is locked"),
        ("closed", "200 SHOP_INACTIVE", "is closed"),
    ],
)
def test_a_shop_that_is_frozen_locked_or_closed_is_a_matter_of_its_owner(shopify, state, code, words):
    shopify.shop = state
    with pytest.raises(SourceRejected, match=f"answered {code}: the shop {words}: its owner has to"):
        read(shop(shopify.url))
    assert len(shopify.asked) == 1, "nobody tries again"


def test_a_wrong_shop_and_a_wrong_token_are_told_apart(shopify):
    with FaultProxy(shopify.url) as proxy, pytest.raises(SourceRejected, match="404: no shop answers there: check shop and api_version"):
        read(shop(proxy.plan([status(404)]).url))
    with pytest.raises(CredentialError, match="answered 401"):
        read(shop(shopify.url, "shpat_wrong"))


@pytest.mark.parametrize(("change", "words"), [({"scopes": ()}, "read_customers"), ({"protected": "denied"}, "not approved to access")])
def test_who_may_not_read_customers_hears_what_is_missing(shopify, change, words):
    shopify.customers += people(5)
    for name, value in change.items():
        setattr(shopify, name, value)
    with pytest.raises(PermissionDenied, match=rf"200 ACCESS_DENIED \({words}\): grant the app the scope read_customers"):
        read(shop(shopify.url))
    assert [step.name for step in shop(shopify.url).check() if not step.ok] == ["permission"]


def test_customers_without_anything_to_know_them_by_are_a_missing_permission_and_overwrite_nothing(shopify):
    shopify.customers += people(5)
    shopify.protected = "nulls"
    with pytest.raises(PermissionDenied, match=r"shows 5 of 5 customers without name, address and number: request access to protected"):
        read(shop(shopify.url))
    assert [step.name for step in shop(shopify.url).check() if not step.ok] == ["permission"]


@pytest.mark.parametrize("changed", [1, 2, 5])
def test_an_app_that_lost_its_access_blanks_nobody_however_few_have_changed(shopify, target, changed):
    loads = Loads(target, shop(shopify.url), "updatedAt")
    shopify.customers += people(5, firstName="Ada")
    loads.load()
    before = {name: (row["email"], row["first_name"]) for name, row in loads.rows().items()}
    for each in shopify.customers[-changed:]:
        each["updatedAt"] = "2026-04-14T08:00:00Z"
    shopify.protected = "nulls"
    with pytest.raises(PermissionDenied, match=r"shows 5 of 5 customers without name, address and number: request access to protected"):
        loads.load()
    assert {name: (row["email"], row["first_name"]) for name, row in loads.rows().items()} == before


@pytest.mark.parametrize("changed", [1, 3])
def test_customers_without_anything_are_none_that_are_withheld_where_the_shop_shows_others(shopify, changed):
    shopify.customers += [*people(3), *(customer(9 + n, "2026-05-14T08:00:00Z") for n in range(changed))]
    found, window = read(shop(shopify.url), "2026-05-01T08:00:00Z")
    assert len(found) == changed
    assert not window.context.warnings


def test_a_shop_that_is_too_small_to_tell_is_read_with_a_warning(shopify):
    shopify.customers += people(2)
    shopify.protected = "nulls"
    found, window = read(shop(shopify.url))
    assert len(found) == 2
    assert "without name, address and number: request access to protected" in window.context.warnings[0]


def test_single_customers_without_anything_are_none(shopify):
    shopify.customers += [customer(1, AT), *people(3)[1:]]
    assert len(read(shop(shopify.url))[0]) == 3


def test_a_version_that_has_ended_and_is_answered_by_another_is_told(shopify):
    shopify.customers += people(3)
    _, window = read(shop(shopify.url, api_version="2025-01"))
    assert window.context.warnings == ["version 2025-01 has ended, 2026-01 answered: set api_version to it"]
    assert read(shop(shopify.url))[1].context.warnings == []
    steps = list(shop(shopify.url, api_version="2025-01").check())
    assert "has ended" in steps[-1].message


def test_every_known_version_ends_a_year_after_its_month():
    assert all(f"{int(version[:4]) + 1}{version[4:]}-01" == end for version, end in ShopifyCustomers.api_versions.items())
    assert ShopifyCustomers.model_fields["api_version"].default in ShopifyCustomers.api_versions


# who asks and where


def test_an_app_gets_its_token_and_a_new_one_when_that_is_refused(shopify):
    shopify.customers += people(250)
    connector = shop(shopify.url, "client-secret-09bd", client_id="0a1b")
    window = reading.window(connector, "updatedAt")
    number = 0
    for page in connector.pages(connector.client(window.context), window):
        number += len(page)
        shopify.token = f"shpat_revoked-{number}"
    assert (number, shopify.tokens_given) == (250, 3)


def test_an_app_that_is_not_known_is_a_matter_of_the_credential(shopify):
    with pytest.raises(CredentialError, match=r"access_token answered 400, asked for a token: check client_id and client_secret") as caught:
        read(shop(shopify.url, "another-secret-11", client_id="0a1b"))
    assert "another-secret" not in str(caught.value)


@pytest.mark.parametrize(
    "domain", ["acme", "acme.com", "acme.myshopify.com.evil.example", "evil.example/acme.myshopify.com", "a b.myshopify.com"]
)
def test_a_shop_leads_nowhere_else(domain):
    with pytest.raises(ValueError, match="shop"):
        ShopifyCustomers(shop=domain, access_token=secret("x"))


def test_the_shop_is_the_address():
    assert ShopifyCustomers(shop="acme.myshopify.com", access_token=secret("x")).address() == "https://acme.myshopify.com"
