"""A person at a real browser: signs in, makes sources by clicks only, mends one, looks at what came."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from identity_pipeline.demo import vendor_api
from identity_pipeline_tests import packages
from identity_pipeline_tests.servers import openid_provider
from identity_pipeline_tests.servers.files import File
from identity_pipeline_tests.servers.google_people_api import GooglePeopleAPI
from identity_pipeline_tests.servers.oauth_server import OAuthServer, serve
from identity_pipeline_tests.web.conftest import HUBSPOT_TOKEN, Served, Serving, free_port

_SLOW = 60_000
"""Milliseconds: a connection test, a load, on a machine that runs other tests too."""
expect.set_options(timeout=_SLOW)


class _People(GooglePeopleAPI):
    """An account that takes the tokens of an OAuth server."""

    accepts: Callable[[str], bool]

    def authenticate(self, asked: Any, *, dead: bool) -> None:
        """Whatever token that server gave."""
        token = asked.headers.get("Authorization", "").removeprefix("Bearer ")
        self.token = token if self.accepts(token) else "another"
        super().authenticate(asked, dead=dead)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program, environment = shutil.which("chromium"), dict(os.environ)
    if program is None:
        root = packages.unpacked("chromium", "chromium", "fonts-dejavu-core")
        program = str(root / "usr" / "lib" / "chromium" / "chromium")
        environment["LD_LIBRARY_PATH"] = packages.libraries(root)
    with sync_playwright() as playwright:
        # its sandbox needs rights that containers and root do not have; it opens our own pages only
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        launched = playwright.chromium.launch(executable_path=program, args=arguments, env=environment)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def state(served: Served, browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The session of somebody who followed the server's link."""
    kept = tmp_path_factory.mktemp("browser") / "state.json"
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(served.link)
        expect(page).to_have_url(f"{served.base}/sources")
        expect(page.get_by_text("No source is declared yet")).to_be_visible()
        context.storage_state(path=kept)
        cookie = next(each for each in context.cookies() if each["name"] == "identity_session")
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Lax")
        page.goto(served.link)
        expect(page.get_by_text("used already")).to_be_visible()
    return kept


@pytest.fixture
def page(served: Served, browser: Browser, state: Path) -> Iterator[Page]:
    faults: list[str] = []
    with browser.new_context(base_url=served.base, storage_state=state, locale="en-GB", timezone_id="Asia/Tokyo") as context:
        page = context.new_page()
        page.set_default_timeout(_SLOW)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda said: faults.append(said.text) if said.type == "error" and "status of 4" not in said.text else None)
        yield page
    assert not faults


def fine(page: Page) -> None:
    """No barrier that axe-core knows of, and nothing wider than a telephone."""
    found = Axe().run(page, options={"resultTypes": ["violations"]})
    assert found.violations_count == 0, found.generate_report()
    size = page.viewport_size
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.set_viewport_size(size)


def loaded(page: Page, name: str, rows: int) -> None:
    """Press Load on the source's page and see it through."""
    page.get_by_role("button", name="Load", exact=True).click()
    page.wait_for_url(re.compile(rf"/sources/{name}/runs/"))
    expect(page.get_by_role("row", name=f"records read {rows}")).to_be_visible(timeout=2 * _SLOW)
    fine(page)
    page.get_by_role("link", name="To the source").click()


def test_from_nothing_to_the_rows_of_a_program_by_clicks_only(served: Served, page: Page):
    page.goto("/sources")
    page.get_by_role("link", name="Declare the first one").click()
    fine(page)
    page.get_by_role("link", name=re.compile("^hubspot_contacts")).click()
    fine(page)
    page.get_by_label("Name needed").fill("crm")
    page.get_by_label("Access token needed", exact=True).fill("pat-wrong")
    page.get_by_text("More settings").click()
    page.get_by_label("Base url").fill(served.hubspot_url)
    page.get_by_role("button", name="Test connection").click()
    expect(page.locator("#steps .failed").first).to_contain_text("401")
    expect(page.locator("#steps")).to_contain_text("Mend what failed")

    page.get_by_label("Access token needed", exact=True).fill(HUBSPOT_TOKEN)
    page.get_by_role("button", name="Test connection").click()
    expect(page.locator("#steps")).to_contain_text("The connection works")
    page.get_by_role("button", name="Preview").click()
    expect(page.get_by_text("20 records from the beginning")).to_be_visible()
    fine(page)
    page.get_by_role("button", name="Show the YAML").click()
    expect(page.locator(".difference")).to_contain_text("access_token: {credential: crm_access_token}")
    assert HUBSPOT_TOKEN not in page.content()
    assert not (served.folder / "project/sources/crm.yaml").exists()  # nothing is written before it is saved
    page.get_by_role("button", name="Save").click()
    page.wait_for_url("**/sources/crm")
    expect(page.get_by_text("It was never loaded")).to_be_visible()
    fine(page)

    loaded(page, "crm", 250)
    expect(page.locator(".facts")).to_contain_text("250")
    page.goto("/sources")
    expect(page.get_by_role("row", name=re.compile("crm hubspot_contacts committed"))).to_be_visible()
    fine(page)
    page.goto("/credentials")
    expect(page.get_by_role("row", name=re.compile("crm_access_token"))).to_contain_text("crm")
    fine(page)
    for text in (page.content(), (served.folder / "server.log").read_text("utf-8", "replace")):
        assert HUBSPOT_TOKEN not in text


def test_a_source_is_broken_by_its_settings_and_mended_by_what_the_page_says(served: Served, page: Page):
    page.goto("/sources/new-source/csv_url")
    page.get_by_label("Name needed").fill("Letters")
    page.get_by_label("Url needed").fill(f"{served.files.url}/people.csv")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_label("Name needed")).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_text("use lower-case letters, digits and _")).to_be_visible()
    expect(page.get_by_label("Url needed")).to_have_value(f"{served.files.url}/people.csv")
    fine(page)
    page.get_by_label("Name needed").fill("letters")
    page.get_by_role("button", name="Preview").click()
    page.get_by_role("button", name="use as cursor").click()
    expect(page.get_by_label("Cursor column")).to_have_value("updated_at")
    page.get_by_label("What name becomes").select_option("company")
    page.get_by_role("button", name="Save").click()
    page.wait_for_url("**/sources/letters")
    served.files.files["/people.csv"].status = 404
    page.get_by_role("button", name="Load", exact=True).click()
    expect(page.locator(".fault")).to_contain_text("404", timeout=2 * _SLOW)
    page.get_by_role("link", name="To the source").click()
    expect(page.locator(".fault").first).to_contain_text("404")
    served.files.files["/people.csv"].status = 200
    loaded(page, "letters", 5)
    page.get_by_label("An id, an e-mail address or a phone number").fill("p3@nordwind-demo.com")
    page.get_by_role("button", name="Find").click()
    expect(page.locator("article")).to_contain_text("Person 3")
    expect(page.locator("article dl").first).to_contain_text("company")
    expect(page.locator("time").first).to_contain_text(re.compile(r"\d\d:\d\d"))
    fine(page)


def test_a_table_of_a_database_is_read_by_clicks_only(served: Served, page: Page):
    with psycopg.connect(served.url) as connection:
        connection.execute("create table public.customers (id int primary key, email text, updated_at timestamptz)")
        connection.execute("insert into public.customers select n, 'c' || n || '@nordwind-demo.com', now() from generate_series(1, 7) n")
    page.goto("/sources/new-source/postgres_identity")
    page.get_by_label("Name needed").fill("shop")
    page.get_by_label("Connection string needed", exact=True).fill(urlsplit(served.url)._replace(query="sslmode=disable").geturl())
    page.get_by_label("Table needed").fill("public.customers")
    page.get_by_label("Cursor column").fill("updated_at")
    page.get_by_label("Cursor type").select_option("timestamp")
    page.get_by_role("button", name="Test connection").click()
    expect(page.locator("#steps")).to_contain_text("The connection works")
    page.get_by_role("button", name="Save").click()
    page.wait_for_url("**/sources/shop")
    loaded(page, "shop", 7)
    password = urlsplit(served.url).password or "no password"
    for text in (
        page.content(),
        (served.folder / "project/sources/shop.yaml").read_text(),
        (served.folder / "server.log").read_text("utf-8", "replace"),
    ):
        assert password not in text


def test_what_is_in_quarantine_is_seen_and_discarded(served: Served, page: Page):
    served.files.files["/torn.csv"] = File(b"id,email\n,<script>alert(1)</script>\n1,a@nordwind-demo.com\n")
    page.goto("/sources/new-source/csv_url")
    page.get_by_label("Name needed").fill("torn")
    page.get_by_label("Url needed").fill(f"{served.files.url}/torn.csv")
    page.get_by_role("button", name="Save").click()
    page.wait_for_url("**/sources/torn")
    loaded(page, "torn", 2)
    expect(page.locator("#quarantine")).to_contain_text("1 missing id")
    page.locator("#quarantine").get_by_role("link").first.click()
    expect(page.get_by_text("<script>alert(1)</script>")).to_be_visible()
    fine(page)
    page.get_by_role("button", name="Discard").click()
    expect(page.locator("#quarantine")).to_contain_text("Nothing is in quarantine")


def test_an_account_is_connected_by_redirect_and_again_by_one_button_after_it_was_revoked(served: Served, page: Page):
    with serve(OAuthServer(redirects=[f"{served.base}/oauth/callback"])) as server:
        page.goto("/credentials?source_type=google_contacts")
        page.get_by_text("The vendor's app", exact=True).click()
        page.get_by_label("Client id").fill(server.client_id)
        page.get_by_label("Client secret").fill(server.client_secret)
        page.get_by_label("Where accounts agree, instead").fill(server.authorize_url)
        page.get_by_label("Where tokens are given").fill(server.token_url)
        page.get_by_role("button", name="Store the app").click()
        expect(page.get_by_role("status")).to_contain_text("google")
        page.get_by_label("What is read").select_option("google_contacts")
        page.get_by_label("Name of the credential").fill("ada")
        page.get_by_role("button", name="Connect", exact=True).click()
        expect(page.get_by_role("status")).to_contain_text("ada is connected as ada@nordwind-demo.com")
        assert "code=" not in page.url  # it is in no history
        fine(page)
        page.get_by_role("button", name="Test ada").click()
        expect(page.locator("#tested")).to_contain_text("gives ada@nordwind-demo.com a token")
        with psycopg.connect(served.url) as connection:
            connection.execute("update identity.credentials set status = 'needs_reconnect', reason = 'it was revoked' where name = 'ada'")
        page.goto("/credentials")
        expect(page.get_by_role("row", name=re.compile("needs_reconnect"))).to_be_visible()
        fine(page)
        page.get_by_role("button", name="Reconnect ada").click()
        expect(page.get_by_role("status")).to_contain_text("ada is connected")
        expect(page.get_by_role("row", name=re.compile("needs_reconnect"))).to_have_count(0)
        page.goto("/oauth/callback?state=forged&code=1")
        expect(page.get_by_role("alert")).to_contain_text("not the answer to a connect that was begun here")
        expect(page).to_have_url(f"{served.base}/oauth/callback")

        with vendor_api.serve(_People(now=datetime(2026, 3, 1, tzinfo=UTC))) as people:
            people.accepts = server.accepts
            for n in range(1, 5):
                people.put(str(n), people.now, emailAddresses={"value": f"g{n}@nordwind-demo.com"})
            page.goto("/sources/new-source/google_contacts")
            page.get_by_label("Name needed").fill("friends")
            page.get_by_label("Name of the credential or variable for Access token").fill("ada")
            page.get_by_text("More settings").click()
            page.get_by_label("Base url").fill(people.url)
            page.get_by_role("button", name="Test connection").click()
            expect(page.locator("#steps")).to_contain_text("The connection works")
            page.get_by_role("button", name="Save").click()
            page.wait_for_url("**/sources/friends")
            loaded(page, "friends", 4)


def test_people_sign_in_at_their_provider_and_what_they_change_is_told(browser: Browser, serve_another: Serving):
    port = free_port()
    with openid_provider.serve([f"http://127.0.0.1:{port}/login/callback"], {"ada": ["crew"], "bob": ["staff"]}) as foreign:
        told = {
            "IDENTITY_AUTH": "oidc",
            "IDENTITY_OIDC_ISSUER": foreign.issuer,
            "IDENTITY_OIDC_CLIENT_ID": openid_provider.CLIENT_ID,
            "IDENTITY_OIDC_CLIENT_SECRET": openid_provider.CLIENT_SECRET,
            "IDENTITY_OIDC_SCOPE": "openid email groups",
            "IDENTITY_OIDC_OPERATORS": "crew",
            "IDENTITY_OIDC_VIEWERS": "staff",
        }
        with serve_another(port, "--no-daemon", **told) as served:

            def come_in(page: Page, account: str) -> None:
                page.set_default_timeout(_SLOW)
                page.goto("/sources/new-source/csv_url")
                fine(page)
                page.get_by_role("link", name="Sign in at 127.0.0.1").click()
                page.locator("input[name=login]").fill(account)
                page.locator("input[name=password]").fill("any")
                page.get_by_role("button", name="Sign-in").click()
                page.get_by_role("button", name="Continue").click()

            with browser.new_context(base_url=served.base) as context:
                page = context.new_page()
                come_in(page, "ada")
                expect(page).to_have_url(f"{served.base}/sources/new-source/csv_url")
                expect(page.get_by_text("ada@nordwind-demo.com")).to_be_visible()
                assert "identity_signing_in" not in {each["name"] for each in context.cookies(f"{served.base}/login/callback")}
                ask = {"query": 'mutation Stop { terminateRuns(runIds: ["none"]) { __typename } }', "operationName": "Stop"}
                assert page.request.post("/graphql", data=ask, headers={"Origin": served.base}).ok
                page.get_by_label("Name needed").fill("letters")
                page.get_by_label("Url needed").fill(f"{served.files.url}/people.csv")
                page.get_by_role("button", name="Save").click()
                page.wait_for_url("**/sources/letters")
                page.get_by_role("button", name="Load", exact=True).click()
                expect(page.get_by_role("alert")).to_contain_text("no daemon takes queued runs up: start the server with")
                fine(page)
            with browser.new_context(base_url=served.base) as context:
                page = context.new_page()
                come_in(page, "bob")
                expect(page.get_by_text("bob@nordwind-demo.com")).to_be_visible()
                expect(page.get_by_role("button", name="Save")).to_have_count(0)
            with browser.new_context(base_url=served.base) as context:
                page = context.new_page()
                come_in(page, "eve")
                expect(page.get_by_role("alert")).to_contain_text(
                    "eve@nordwind-demo.com is signed in at 127.0.0.1, and may not come in here"
                )
                expect(page).to_have_url(f"{served.base}/login/callback")
                fine(page)
                page.goto("/sources")
                expect(page).to_have_url(f"{served.base}/login?next=/sources")
        log = (served.folder / "server.log").read_text("utf-8", "replace")
    assert '"who": "ada@nordwind-demo.com", "role": "operator", "what": "Dagster: terminateRuns", "status": 200' in log
    assert '"who": "bob@nordwind-demo.com", "role": "viewer", "what": "signed in"' in log
    assert "eve@" not in log
    assert openid_provider.CLIENT_SECRET not in log
    assert "code=" not in log


def test_dagsters_own_ui_stands_behind_the_same_login_and_its_links_work(served: Served, page: Page):
    page.goto("/locations")
    expect(page.get_by_text("identity_pipeline.definitions").first).to_be_visible()
    page.get_by_role("link", name="Runs").first.click()
    expect(page).to_have_url(re.compile("/runs"))


def test_the_pages_are_light(served: Served, page: Page):
    weight = []
    page.on("response", lambda answer: weight.append(len(answer.body())) if answer.ok and answer.request.resource_type != "other" else None)
    page.goto("/sources/new-source/hubspot_contacts")
    page.wait_for_load_state("networkidle")
    assert 10_000 < sum(weight) <= 150_000


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_in_the_light_and_in_the_dark_and_by_keyboard_alone(served: Served, browser: Browser, state: Path, scheme: str):
    with browser.new_context(base_url=served.base, storage_state=state, color_scheme=scheme) as context:
        page = context.new_page()
        page.goto("/sources/new-source/csv_url")
        fine(page)
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="To the content")).to_be_focused()
        page.goto("/sources")
        fine(page)
        page.get_by_role("button", name="Sign out").click()
        expect(page).to_have_url(f"{served.base}/login")
        fine(page)
        page.get_by_label("Token").fill("wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_text("No such token")).to_be_visible()
        page.get_by_label("Token").fill(served.key)
        page.keyboard.press("Enter")
        expect(page).to_have_url(f"{served.base}/sources")
