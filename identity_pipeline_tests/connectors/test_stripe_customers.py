"""What is odd about Stripe: changes told by events, kept for thirty days and not shown to every key; newest first; two kinds of key."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest
import stripe

from identity_pipeline.connectors.stripe_customers import StripeCustomers
from identity_pipeline.core.errors import ContractBroken, CredentialError, PermissionDenied
from identity_pipeline.core.fieldmap import REJECTED
from identity_pipeline.core.window import Window
from identity_pipeline.demo.vendor_api import serve
from identity_pipeline_tests.connectors import reading
from identity_pipeline_tests.connectors.reading import Loads, secret
from identity_pipeline_tests.servers.faults import FaultProxy, status
from identity_pipeline_tests.servers.stripe_api import StripeAPI

pytestmark = pytest.mark.usefixtures("loopback")
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
KEY = "rk_live_51HcanaryKEY"


@pytest.fixture
def account() -> Iterator[StripeAPI]:
    """A live account without customers."""
    with serve(StripeAPI(key=KEY, livemode=True, now=NOW)) as api:
        yield api


def ago(**span: float) -> datetime:
    return NOW - timedelta(**span)


def read(api: StripeAPI, since: datetime | None = None, column: str = "updated", **settings) -> tuple[pd.DataFrame, Window]:
    connector = StripeCustomers(api_key=secret(KEY), base_url=settings.pop("base_url", api.url), **settings)
    window = reading.window(connector, column, since and since.isoformat())
    return reading.read(connector, window)[0], window


def paths(api: StripeAPI) -> list[str]:
    return [each.path for each in api.asked]


def test_its_own_sdk_reads_the_same_pages_of_this_server(account):
    for n in range(7):
        account.put(f"cus_{n}", ago(days=n), email=f"p{n}@nordwind-demo.com", metadata={"n": str(n)})
    account.delete("cus_3", ago(hours=1))
    sdk = stripe.StripeClient(KEY, base_addresses={"api": account.url})
    found = list(sdk.v1.customers.list({"limit": 2}).auto_paging_iter())
    assert [each.id for each in found] == ["cus_0", "cus_1", "cus_2", "cus_4", "cus_5", "cus_6"], "the newest first"
    assert found[0].metadata["n"] == "0"
    recent = list(sdk.v1.customers.list({"limit": 2, "created": {"gte": int(ago(days=2).timestamp())}}).auto_paging_iter())
    assert [each.id for each in recent] == ["cus_0", "cus_1", "cus_2"]
    events = list(sdk.v1.events.list({"types": ["customer.deleted"], "limit": 1}).auto_paging_iter())
    assert [event.data.object["id"] for event in events] == ["cus_3"]
    assert sdk.v1.customers.retrieve("cus_3").deleted
    for refused, kind in ((("nope",), stripe.AuthenticationError), (("pk_live_1",), stripe.AuthenticationError)):
        with pytest.raises(kind):
            stripe.StripeClient(*refused, base_addresses={"api": account.url}).v1.customers.list()
    with pytest.raises(stripe.InvalidRequestError):
        sdk.v1.customers.list({"limit": 101})
    account.permissions = ()
    with pytest.raises(stripe.PermissionError):
        sdk.v1.customers.list()


def test_of_a_customers_events_the_newest_is_what_stays(account):
    account.put("cus_1", ago(days=40), name="Zoë", email="old@nordwind-demo.com")
    account.put("cus_1", ago(hours=3), email="new@nordwind-demo.com")
    account.put("cus_1", ago(hours=3), phone="+49 30 1234567")  # in the same second
    found, _ = read(account, ago(hours=4))
    assert StripeCustomers.order == "newest_first"  # of two versions the first stays
    assert [found[name][0] for name in ("name", "email", "phone")] == ["Zoë", "new@nordwind-demo.com", "+49 30 1234567"]
    assert "/v1/customers" not in paths(account)


def test_the_mark_is_the_time_at_the_start_of_the_read(account):
    account.put("cus_1", ago(days=3))
    _, window = read(account)
    assert window.cursor is not None
    assert not window.cursor.in_records
    assert window.context.source_time == NOW


def test_a_deletion_comes_with_its_time_and_what_was_known(account):
    account.put("cus_1", ago(days=40), email="gone@nordwind-demo.com")
    account.delete("cus_1", ago(hours=1))
    for since in (None, ago(hours=2)):
        found, _ = read(account, since)
        assert found[["id", "email", "deleted_at"]].to_numpy().tolist() == [
            ["cus_1", "gone@nordwind-demo.com", str(int(ago(hours=1).timestamp()))]
        ]


@pytest.mark.parametrize(("days", "by_events"), [(28, True), (30, False)])
def test_a_mark_older_than_the_events_costs_a_read_of_all_and_says_so(account, days: int, by_events: bool):
    account.put("cus_1", ago(days=50))
    account.put("cus_2", ago(days=1))
    found, window = read(account, ago(days=days))
    assert set(found["id"]) == ({"cus_2"} if by_events else {"cus_1", "cus_2"})
    assert any("older than the 29 days" in warning for warning in window.context.warnings) is not by_events


def test_a_key_that_may_not_read_events_costs_a_read_of_all_and_says_so(account):
    account.put("cus_1", ago(days=3))
    account.permissions = ("rak_customer_read",)
    found, window = read(account, ago(hours=1))
    assert found["id"].tolist() == ["cus_1"]
    [warning] = window.context.warnings
    assert "loads read all customers" in warning
    assert "(rak_event_read)" in warning
    connector = StripeCustomers(api_key=secret(KEY), base_url=account.url)
    steps = list(connector.check())
    assert all(step.ok for step in steps)
    assert "rak_event_read" in steps[-1].message


def test_the_missing_permission_and_the_wrong_kind_of_key_are_named(account):
    account.permissions = ()
    with pytest.raises(
        PermissionDenied, match=r"403 more_permissions_required_for_application \(rak_customer_read\): grant the restricted"
    ):
        read(account)
    with pytest.raises(CredentialError, match=r"401 secret_key_required: this is a publishable key"):
        list(StripeCustomers(api_key=secret("pk_live_1"), base_url=account.url).read(Window()))


def test_customers_of_a_sandbox_are_said_to_be_some(account):
    account.put("cus_1", ago(days=3))
    assert not read(account)[1].context.warnings
    account.livemode = False
    account.put("cus_1", ago(days=2))
    found, window = read(account)
    assert found["livemode"].tolist() == ["false"]
    assert window.context.warnings == ["the key is one of a sandbox: these are test customers"]


def test_created_asks_for_new_customers_only(account):
    for n in range(5):
        account.put(f"cus_{n}", ago(days=n))
    assert sorted(read(account, ago(days=2), "created")[0]["id"]) == ["cus_0", "cus_1", "cus_2"]
    assert account.asked[-2].query["created[gte]"] == str(int(ago(days=2).timestamp()))


def test_the_version_is_pinned_and_a_connected_account_named(account):
    read(account, account="acct_1Abc")
    assert {each.headers["Stripe-Version"] for each in account.asked} == {"2026-10-28.endive"}
    assert {each.headers["Stripe-Account"] for each in account.asked} == {"acct_1Abc"}


def test_a_customer_deleted_while_pages_are_read_breaks_the_read_that_is_then_begun_again(account):
    account.page_size = 1
    account.put("cus_1", ago(days=3))
    account.put("cus_2", ago(days=2))
    connector = StripeCustomers(api_key=secret(KEY), base_url=account.url)
    window = reading.window(connector)
    pages = connector.pages(connector.client(window.context), window)
    assert [each["id"] for each in next(pages)] == ["cus_2"]
    account.delete("cus_2", ago(days=0))
    with pytest.raises(ContractBroken, match="resource_missing"):
        next(pages)


@pytest.mark.parametrize("held", [None, "text", {}, {"object": None}, {"object": "text"}])
def test_an_event_without_a_customer_spoils_no_other(account, held):
    account.put("cus_1", ago(hours=1))
    good = account.events[0]
    with FaultProxy(account.url) as proxy:
        proxy.plan([None, status(200, {"object": "list", "has_more": False, "data": [good, {**good, "data": held}]})])
        found, _ = read(account, ago(hours=2), base_url=proxy.url)
    assert found["id"].tolist()[0] == "cus_1"
    assert found[REJECTED].notna().tolist() == [False, True]


@pytest.mark.parametrize("column", StripeCustomers.cursor_columns)
def test_the_deletion_of_a_customer_who_is_older_than_the_mark_counts_by_every_cursor(account, target, column):
    loads = Loads(target, StripeCustomers(api_key=secret(KEY), base_url=account.url), column)
    account.put("cus_1", ago(days=9))
    account.put("cus_2", ago(hours=1))
    loads.load()
    assert loads.live() == {"cus_1", "cus_2"}
    account.delete("cus_1", NOW)
    assert loads.load()["deleted"] == 1
    assert loads.live() == {"cus_2"}
