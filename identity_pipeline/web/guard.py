"""The door in front of everything that the server has, Dagster's UI, GraphQL and web socket included.

Plain ASGI, so that nothing behind it can be reached past it: the host that was meant, who asks, where a
change comes from, whether this person may change anything.
"""

import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import quote, urlsplit

from starlette.concurrency import run_in_threadpool

from identity_pipeline.core.errors import PipelineError
from identity_pipeline.web.access import Access, Person

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "identity_session"
MOST_BYTES = 4_000_000
"""A form or a declaration is never larger."""
OURS = ("/sources", "/credentials", "/login", "/logout", "/oauth/", "/api/")
"""Where our own pages are; what else there is is Dagster's."""
STATIC = "/sources/static-files/"
_OPEN = ("/login", STATIC, "/healthz")
_SAFE = {"GET", "HEAD", "OPTIONS"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
_OTHER_NAME = "this server does not go by that name: open it under its own address, or set IDENTITY_PUBLIC_URL"
_ANYBODY = Person("anyone", "operator", by_session=True)
_audit = logging.getLogger("identity_pipeline.audit")


@dataclass(frozen=True)
class Guard:
    """Lets through who may. ``hosts``: the names, with their ports, under which the server is known."""

    app: Application
    access: Access
    hosts: frozenset[str]
    secure: bool = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let it through, or answer why not."""
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        path = scope["path"]
        if headers.get("host", "").lower() not in self.hosts:
            await _refuse(scope, send, 421, _OTHER_NAME)
            return
        person = await self._person(headers)
        if isinstance(person, str):
            await _refuse(scope, send, 503, person)
            return
        public, changes = path.startswith(_OPEN), _changes(scope, headers)
        if person is None and not public:
            await self._turn_away(scope, headers, send)
            return
        ours = path.startswith(OURS) or public
        if changes and (refusal := self._refusal(scope, headers, person, ours=ours)):
            await _refuse(scope, send, *refusal)
            return
        scope.setdefault("state", {})["person"] = person
        scope["state"]["secure"] = self.secure
        await self.app(scope, _bounded(receive) if ours else receive, self._sending(scope, send, person, ours=ours, changes=changes))

    def _refusal(self, scope: Scope, headers: dict[str, str], person: Person | None, *, ours: bool) -> tuple[int, str] | None:
        """Why a request that changes something must not, None if it may."""
        if (person is None or person.by_session) and not self._from_here(headers):
            return 403, "this request comes from another site, or does not say where it comes from: use this server's own pages"
        if person is not None and not person.may_change and not _may_look(scope):
            return 403, f"{person.name} may look and not change anything: ask an operator"
        if ours and _announced(headers) > MOST_BYTES:
            return 413, f"the request is larger than {MOST_BYTES} bytes: nothing was done"
        return None

    async def _person(self, headers: dict[str, str]) -> Person | str | None:
        """Who asks, None for nobody; a text says why that cannot be told now."""
        if self.access.way == "none":
            return _ANYBODY
        kind, _, token = headers.get("authorization", "").partition(" ")
        try:
            if kind.lower() == "bearer" and token:
                return await run_in_threadpool(self.access.by_token, token.strip())
            person = self.access.by_session(_session(headers))
            if person and person.digest and not await run_in_threadpool(self.access.still_good, person):
                return None
        except PipelineError as error:
            return str(error)
        return person

    def _from_here(self, headers: dict[str, str]) -> bool:
        """True if a browser says that one of our own pages asks. One that says nothing is not believed."""
        if (site := headers.get("sec-fetch-site")) and site != "same-origin":
            return False
        origin = headers.get("origin")
        if origin is None:
            return site == "same-origin"
        return urlsplit(origin).netloc.lower() in self.hosts

    async def _turn_away(self, scope: Scope, headers: dict[str, str], send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
            to = f"/login?next={quote(scope['path'], safe='/')}"
            start = {"type": "http.response.start", "status": 303, "headers": [(b"location", to.encode()), (b"cache-control", b"no-store")]}
            await send(start)
            await send({"type": "http.response.body", "body": b""})
            return
        await _refuse(
            scope, send, 401, "not signed in: send `Authorization: Bearer TOKEN`; make one with `identity-pipeline tokens create`"
        )

    def _sending(self, scope: Scope, send: Send, person: Person | None, *, ours: bool, changes: bool) -> Send:
        async def sending(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                if ours:
                    message["headers"] = [*message.get("headers", ()), *_protection(scope["path"])]
                if changes and person is not None and (ours or scope["path"].startswith("/report_")):
                    audit(person, f"{scope['method']} {scope['path']}", message["status"])
            await send(message)

        return sending


def audit(person: Person, what: str, status: int) -> None:
    """Leave a line of who changed what, and when."""
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    _audit.info(json.dumps({"at": at, "who": person.name, "role": person.role, "what": what, "status": status}))


def keep_audit() -> None:
    """Have the lines of who changed what written to standard error, each as JSON."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    _audit.addHandler(handler)
    _audit.setLevel(logging.INFO)
    _audit.propagate = False


def _session(headers: dict[str, str]) -> str:
    """The cookie of a session, empty if there is none."""
    try:
        cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return cookie.value if cookie else ""


def _announced(headers: dict[str, str]) -> int:
    length = headers.get("content-length", "")
    return int(length) if length.isdecimal() else 0


def _bounded(receive: Receive) -> Receive:
    """A body that does not say how long it is ends the connection where it grows too long."""
    came = 0

    async def receiving() -> dict[str, Any]:
        nonlocal came
        message = await receive()
        came += len(message.get("body", b""))
        return message if came <= MOST_BYTES else {"type": "http.disconnect"}

    return receiving


def _changes(scope: Scope, headers: dict[str, str]) -> bool:
    """True for what may change something: GraphQL executes what a GET asks for too, unless a browser opens its own page."""
    if scope["type"] == "websocket" or scope["method"] not in _SAFE:
        return True
    return scope["path"].rstrip("/") == "/graphql" and "text/html" not in headers.get("accept", "")


def _may_look(scope: Scope) -> bool:
    """What a viewer may send: leave, sign in, and ask GraphQL, whose context lets viewers change nothing."""
    return scope["type"] == "websocket" or scope["path"] in {"/login", "/logout"} or scope["path"].rstrip("/") == "/graphql"


def _protection(path: str) -> list[tuple[bytes, bytes]]:
    found = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"same-origin"), (b"content-security-policy", _POLICY.encode())]
    if not path.startswith(STATIC):
        found.append((b"cache-control", b"no-store"))
    return found


async def _refuse(scope: Scope, send: Send, status: int, why: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 4000 + status, "reason": why[:120]})
        return
    body = json.dumps({"type": "about:blank", "title": "refused", "status": status, "detail": why}).encode()
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
