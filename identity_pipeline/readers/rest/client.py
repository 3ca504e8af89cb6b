"""The client: one request after the other to one API, page after page."""

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import requests

from identity_pipeline.core.errors import ConfigurationError, ContractBroken, CredentialError, LimitExceeded, TruncatedBody
from identity_pipeline.core.text import parse_json
from identity_pipeline.core.window import ReadContext
from identity_pipeline.readers.http import body, guard
from identity_pipeline.readers.http.exchange import Call, content_type, error_class, exchange, refusal, same_origin
from identity_pipeline.readers.http.retry import Retry, Transient
from identity_pipeline.readers.http.session import session
from identity_pipeline.readers.rest.auth import Auth
from identity_pipeline.readers.rest.error import VendorError, describe
from identity_pipeline.readers.rest.message import Request, Response
from identity_pipeline.readers.rest.paginator import Paginator

RETRY_BUDGET = 300.0
"""Seconds that failed exchanges and waits of one request may take together."""

_REFUSAL_BYTES = 2**20
_REMEMBERED = 100_000


@dataclass
class _Pace:
    """Keeps requests at least ``interval`` seconds apart."""

    interval: float
    _next: float = 0.0

    def wait(self) -> float:
        """Seconds until the next request may go, which is then taken as sent."""
        now = time.monotonic()
        pause = max(0.0, self._next - now)
        self._next = now + pause + self.interval
        return pause


@dataclass(frozen=True)
class Client:
    """Asks one HTTP API for JSON.

    ``errors`` reads a response, of status 200 too, and says in the vendor's words what is wrong with
    it; None leaves it to the status. ``interval`` is the least time between two requests. One response may
    take ``deadline`` seconds and hold ``max_bytes`` unpacked. A request that fails for a passing
    reason is sent up to ``attempts`` times; failed exchanges and waits take ``retry_budget`` seconds at most.

    Raises:
        ConfigurationError: ``base_url`` is not an address we may ask.
    """

    base_url: str
    auth: Auth
    context: ReadContext
    errors: Callable[[Response], VendorError | None] = lambda _: None
    headers: Mapping[str, str] = field(default_factory=dict)
    interval: float = 0.0
    retry_budget: float = RETRY_BUDGET
    attempts: int = 8
    deadline: float = 120.0
    max_bytes: int = 64 * 2**20
    random: Callable[[], float] = random.random
    _session: requests.Session = field(default_factory=session, init=False, repr=False)
    _pace: _Pace = field(init=False, repr=False)

    def __post_init__(self) -> None:
        guard.check_url(self.base_url, "base_url")
        object.__setattr__(self, "_pace", _Pace(self.interval))

    def pages(self, request: Request, paginator: Paginator) -> Iterator[Response]:
        """The responses from ``request`` on, as long as ``paginator`` names a next one.

        Raises:
            ContractBroken: the source leads back to a page that was read before.
            PipelineError: as :meth:`send`.
        """
        seen: dict[int, None] = {}
        following: Request | None = request
        while following is not None:
            seen[_identity(following)] = None
            if len(seen) > _REMEMBERED:
                del seen[next(iter(seen))]
            response = self.send(following)
            self.context.pages += 1
            following = paginator.next(response)
            yield response
            if following is not None and _identity(following) in seen:
                raise ContractBroken(f"{response.tried} names as next page one that was read already: its paging goes in a circle")

    def send(self, request: Request) -> Response:
        """The response to ``request``, asked for again while that may help.

        Raises:
            CredentialError: 401, also with a new credential where there is one.
            PermissionDenied: 403.
            SourceRejected: another 4xx, or redirected without end.
            RateLimited: 429, and the source asks for a longer wait than we may take.
            SourceUnavailable: refused, reset, timed out or 5xx, to the end of the budget.
            TruncatedBody: the body broke off every time.
            LimitExceeded: the body is larger than ``max_bytes``.
            ContractBroken: not JSON.
            ConfigurationError: the source leads to another host, or its certificate is not accepted.
        """
        url, secret = self._url(request.path), self.auth.headers()
        retry = Retry(self.context, self.retry_budget, self.attempts, self.random)
        try:
            return retry(lambda: self._once(request, url, secret))
        except CredentialError:
            if self.auth.refresh() is None or (fresh := self.auth.headers()) == secret:
                raise
        return retry(lambda: self._once(request, url, fresh))

    def _url(self, path: str) -> str:
        """The address of ``path``, always on the origin of the base URL."""
        url = path if path.startswith(("https://", "http://")) else self.base_url.rstrip("/") + path
        try:
            inside = same_origin(guard.check_url(url), self.base_url)
        except (ConfigurationError, ValueError):
            inside = False
        if not inside:
            raise ContractBroken(f"the address of the next page leads away from {guard.display_url(self.base_url)}: nothing was sent there")
        return url

    def _once(self, request: Request, url: str, secret: Mapping[str, str]) -> Response:
        """The response to one exchange, if nothing is wrong with it."""
        if pause := self._pace.wait():
            self.context.throttled_seconds += pause
            self.context.sleep(pause)
        headers = {"Accept": "application/json", "User-Agent": "identity-pipeline", **self.headers, **secret, "Accept-Encoding": "gzip"}
        call = Call(request.method, url, headers, request.query, request.body)
        with exchange(self._session, call, self.context, self.deadline) as answered:
            response = Response(request, call.tried, answered.status_code, answered.headers, self._parsed(call, answered))
        found = self.errors(response)
        if found is None and response.status < 300:
            return response
        found = found or VendorError()
        error = found.error or error_class(response.status, content_type(response.headers))
        raise refusal(error(describe(response, found, error, secret)), response.headers, found.wait)

    def _parsed(self, call: Call, response: requests.Response) -> Any:
        """The parsed body. That of a refusal is None where it cannot be read: it must not hide the status."""
        refused, kind = response.status_code >= 300, content_type(response.headers)
        try:
            text = b"".join(body.bounded(body.stream(response, self.context), _REFUSAL_BYTES if refused else self.max_bytes))
            if kind and "json" not in kind:
                raise ContractBroken(
                    f"with {kind} instead of JSON: a gateway or a login page stands in between, or base_url leads elsewhere"
                )
            return _json(text)
        except LimitExceeded as error:
            if refused:
                return None
            raise LimitExceeded(f"{call.tried} answered {response.status_code}, but {error}: ask for smaller pages") from None
        except ContractBroken as error:
            if refused:
                return None
            raise Transient(type(error)(f"{call.tried} answered {response.status_code}, but {error}")) from None


def _json(text: bytes) -> Any:
    try:
        return parse_json(text)
    except ContractBroken:
        raise TruncatedBody("its JSON breaks off or is none") from None


def _identity(request: Request) -> int:
    return hash(json.dumps([request.path, request.query, request.body], sort_keys=True, default=str))
