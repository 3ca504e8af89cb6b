"""The door: what may pass it, and what may not."""

import asyncio
import json
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any

import httpx
import pytest

from identity_pipeline.store import tokens
from identity_pipeline.web.access import SESSION_SECONDS, Access, Person
from identity_pipeline.web.guard import COOKIE, Guard

HOST = "127.0.0.1:3000"
HERE = {"Origin": f"http://{HOST}", "Sec-Fetch-Site": "same-origin"}
KEY = "k" * 43


async def _behind(scope: dict[str, Any], receive: Callable, send: Callable) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": scope["state"]["person"].name.encode() if scope["state"]["person"] else b"nobody"})


class Door:
    """A guard with nothing but a page behind it, asked as a browser or a program would."""

    def __init__(self, url: str, way: str = "token") -> None:
        self.now = 1_800_000_000.0
        self.access = Access(lambda: url, KEY, way, lambda: self.now)
        self.guard = Guard(_behind, self.access, frozenset({HOST}))

    def ask(self, path: str, method: str = "GET", *, role: str | None = None, host: str = HOST, **headers: str | bytes) -> httpx.Response:
        """Ask; ``role``: with the session of such a person."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if role:
            named["Cookie"] = f"{COOKIE}={self.access.session(Person('ada', role))}"

        async def asking() -> httpx.Response:
            transport = httpx.ASGITransport(self.guard)
            async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
                return await client.request(method, path, headers=named)

        return asyncio.run(asking())


@pytest.fixture
def door(database_url: str) -> Door:
    return Door(database_url)


@pytest.mark.parametrize(
    "path", ["/sources", "/api/v1/sources", "/graphql", "/", "/runs", "/logs/x/y/z", "/report_asset_materialization/a", "/download_debug/1"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_nobody_passes_without_signing_in(door: Door, path: str, method: str):
    assert door.ask(path, method, **HERE).status_code == 401


def test_a_browser_is_led_to_the_sign_in_page_and_back(door: Door):
    answer = door.ask("/sources/crm", Accept="text/html")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=/sources/crm")


def test_a_program_comes_in_with_a_token_and_a_wrong_one_does_not(door: Door, database_url: str):
    token = tokens.create(database_url, "ci", "viewer", 1)
    assert door.ask("/api/v1/sources", Authorization=f"Bearer {token}").text == "ci"
    assert door.ask("/api/v1/sources", Authorization=f"bearer {KEY}").text == "operator"
    for wrong in (token + "x", "idp_", "", KEY[:-1], "ü"):
        assert door.ask("/api/v1/sources", Authorization=f"Bearer {wrong}".encode()).status_code == 401


def test_a_session_ends_after_its_time_and_a_forged_one_is_none(door: Door):
    cookie = door.access.session(Person("ada", "viewer"))
    assert door.access.by_session(cookie) == Person("ada", "viewer", by_session=True)
    body, signature = cookie.split(".")
    for forged in (f"{body}.{signature[:-2]}aa", f"{body[:-2]}aa.{signature}", body, "", "a.b", "é.ü"):
        assert door.access.by_session(forged) is None
    assert Access(lambda: "", "another" * 7).by_session(cookie) is None
    door.now += SESSION_SECONDS + 1
    assert door.access.by_session(cookie) is None


def test_a_session_ends_with_the_token_that_it_was_begun_with(door: Door, database_url: str):
    token = tokens.create(database_url, "ada", "viewer", 1)
    cookie = f"{COOKIE}={door.access.session(door.access.by_token(token))}"
    assert door.ask("/sources", Cookie=cookie).text == "ada"
    tokens.revoke(database_url, "ada")
    tokens.create(database_url, "ada", "operator", 1)  # another one, of the same name
    assert door.ask("/sources", Cookie=cookie).status_code == 401


def test_a_link_opens_once_and_within_an_hour(door: Door):
    word = door.access.link()
    assert door.access.by_link(word).may_change
    assert door.access.by_link(word) is None
    late = door.access.link()
    door.now += 3_601
    assert door.access.by_link(late) is None


@pytest.mark.parametrize(
    "headers",
    [{}, {"Origin": "http://evil.example"}, {"Origin": "null"}, HERE | {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "none"},
     {"Origin": "http://127.0.0.1:3001", "Sec-Fetch-Site": "same-site"}],
)  # fmt: skip
@pytest.mark.parametrize(
    ("path", "method"), [("/sources/crm/ingest", "POST"), ("/graphql", "POST"), ("/graphql", "GET"), ("/credentials", "POST")]
)
def test_another_site_changes_nothing_in_the_name_of_who_is_signed_in(door: Door, path: str, method: str, headers: dict[str, str]):
    assert door.ask(path, method, role="operator", **headers).status_code == 403
    assert door.ask(path, method, role="operator", **HERE).status_code == 200


def test_a_viewer_looks_and_changes_nothing(door: Door):
    assert door.ask("/sources", role="viewer").status_code == 200
    assert door.ask("/graphql", "POST", role="viewer", **HERE).status_code == 200  # its context is the viewer's
    for path in ("/sources/crm/ingest", "/credentials", "/report_asset_materialization/crm", "/api/v1/sources/crm"):
        assert door.ask(path, "POST", role="viewer", **HERE).status_code == 403


@pytest.mark.parametrize("host", ["evil.example", "evil.example:3000", "127.0.0.1:3001", "localhost.evil.example:3000"])
def test_a_name_that_is_not_ours_reaches_nothing(door: Door, host: str):
    assert door.ask("/sources", role="operator", host=host).status_code == 421
    assert door.ask("/login", host=host).status_code == 421


def test_a_request_that_is_too_large_is_not_read(door: Door):
    answer = door.ask("/sources/draft-check", "POST", role="operator", Content_Length=str(5_000_000), **HERE)
    assert answer.status_code == 413


def test_a_web_socket_needs_a_session_and_the_same_site(door: Door):
    def opened(*headers: tuple[bytes, bytes]) -> str:
        sent: list[dict[str, Any]] = []

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        async def through(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "websocket.accept"})

        scope = {"type": "websocket", "path": "/graphql", "headers": [(b"host", HOST.encode()), *headers]}
        asyncio.run(Guard(through, door.access, frozenset({HOST}))(scope, None, send))
        return sent[0]["type"]

    cookie = (b"cookie", f"{COOKIE}={door.access.session(Person('ada', 'viewer'))}".encode())
    assert opened() == "websocket.close"
    assert opened(cookie, (b"origin", b"http://evil.example")) == "websocket.close"
    assert opened(cookie, (b"origin", f"http://{HOST}".encode())) == "websocket.accept"


def test_our_pages_are_protected_and_not_kept_by_browsers(door: Door):
    headers = door.ask("/sources", role="viewer").headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert (headers["cache-control"], headers["x-content-type-options"]) == ("no-store", "nosniff")
    assert "content-security-policy" not in door.ask("/runs", role="viewer").headers  # Dagster's has its own


def test_each_change_leaves_a_line_that_says_who_and_what(door: Door, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, "identity_pipeline.audit"):
        door.ask("/sources/crm/ingest?secret=canary", "POST", role="operator", **HERE)
        door.ask("/sources", role="operator")
    (line,) = [json.loads(record.message) for record in caplog.records]
    assert datetime.fromisoformat(line.pop("at")).tzinfo
    assert line == {"who": "ada", "role": "operator", "what": "POST /sources/crm/ingest", "status": 200}


def test_a_database_that_is_down_lets_sessions_in_and_says_so_to_tokens():
    door = Door("postgresql://nobody:x@127.0.0.1:1/none?connect_timeout=2")
    assert door.ask("/sources", role="viewer").status_code == 200
    answer = door.ask("/api/v1/sources", Authorization="Bearer idp_x")
    assert (answer.status_code, "did not answer" in answer.json()["detail"]) == (503, True)
