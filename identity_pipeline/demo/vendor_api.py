"""The part that all vendor-shaped APIs on this machine share: a server of JSON, a log of requests, refusals, a clock.

A vendor's API is a dataclass on :class:`VendorAPI` that says what is answered and to whom. It is
written from the vendor's published contract, for the demo and for tests; its contents are plain
values that may be changed while it runs.
"""

import gzip
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import Message
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

API = TypeVar("API", bound="VendorAPI")


@dataclass(frozen=True)
class Asked:
    """A request: ``query`` has the last value of each name, ``lists`` all of them, ``body`` the JSON of a POST."""

    method: str
    address: str
    path: str
    query: Mapping[str, str]
    lists: Mapping[str, list[str]]
    body: Any
    headers: Message

    @property
    def steps(self) -> list[str]:
        """The path's parts, decoded."""
        return [unquote(step) for step in self.path.strip("/").split("/")]


class Refusal(Exception):
    """An answer of another status than 200; ``body`` is JSON, or bytes as they are."""

    def __init__(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status)
        self.status, self.body, self.headers = status, body, headers or {}


@dataclass
class VendorAPI:
    """An API's state. A vendor's own says :meth:`authenticate`, :meth:`answer` and :meth:`hasty`.

    ``page_size`` is the most that a page holds, whatever is asked for. ``dies_after`` is how many more
    requests the credential is accepted for, ``storm`` how many of the next ones come too fast.
    ``now`` is the API's clock, the real one where it is None.
    """

    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    page_size: int | None = None
    dies_after: int | None = None
    storm: int = 0
    now: datetime | None = None
    headers: dict[str, str] = field(default_factory=dict)
    """Sent with each answer."""

    def clock(self) -> datetime:
        """What time it is there."""
        return self.now or datetime.now(UTC)

    def authenticate(self, asked: Asked, *, dead: bool) -> None:
        """Refuse whoever is not known; ``dead``: the credential is known no more."""
        raise NotImplementedError

    def answer(self, asked: Asked) -> Any:
        """The JSON of a 200.

        Raises:
            Refusal: any other status.
        """
        raise NotImplementedError

    def hasty(self) -> Refusal:
        """What is said to somebody who asks too often."""
        return Refusal(429, {})

    def least(self, asked: int) -> int:
        """The size of a page for which so many records are asked."""
        return min(asked, self.page_size or asked)

    def reply(self, asked: Asked) -> Any:
        """The JSON of a 200, past what stands before every answer."""
        self.asked.append(asked)
        dead = self.dies_after is not None and self.dies_after <= 0
        if self.dies_after is not None:
            self.dies_after -= 1
        self.authenticate(asked, dead=dead)
        if self.storm > 0:
            self.storm -= 1
            raise self.hasty()
        return self.answer(asked)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int, api: VendorAPI) -> None:
        self.api = api
        super().__init__(("127.0.0.1", port), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride] - it is only ever served by this one
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one segment for headers and body

    def do_GET(self) -> None:
        self._reply(None)

    def do_POST(self) -> None:
        self._reply(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    def do_PATCH(self) -> None:
        self.do_POST()

    def do_DELETE(self) -> None:
        self.do_POST()

    def date_time_string(self, timestamp: float | None = None) -> str:  # noqa: ARG002 - the parent's
        """The header ``Date``: by the API's clock."""
        return format_datetime(self.server.api.clock().astimezone(UTC), usegmt=True)

    def _reply(self, sent: bytes | None) -> None:
        api, parts = self.server.api, urlsplit(self.path)
        lists = parse_qs(parts.query, keep_blank_values=True)
        asked = Asked(
            self.command, self.path, parts.path, {name: values[-1] for name, values in lists.items()}, lists, _parsed(sent), self.headers
        )
        headers = {"Content-Type": "application/json;charset=utf-8"}
        try:
            status, answer = 200, api.reply(asked)
        except Refusal as refusal:
            status, answer = refusal.status, refusal.body
            headers |= {**({"Content-Type": "text/html"} if isinstance(answer, bytes) else {}), **refusal.headers}
        packed = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        if packed and "gzip" in self.headers.get("Accept-Encoding", ""):
            packed = gzip.compress(packed, 1)
            headers["Content-Encoding"] = "gzip"
        self.send_response(status)
        for name, value in {**api.headers, **headers, "Content-Length": str(len(packed))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(packed)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the parent's name
        """Stay silent: an access log would hold addresses with queries."""


def _parsed(sent: bytes | None) -> Any:
    """The JSON of a body, None where there is none or it is no JSON."""
    try:
        return None if sent is None else json.loads(sent or b"{}")
    except ValueError:
        return None


@contextmanager
def serve(api: API, port: int = 0) -> Iterator[API]:
    """Serve ``api`` on 127.0.0.1, on a free port unless one is given."""
    server = _Server(port, api)
    api.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
