"""The client: exchanges tried again within a budget, and page after page."""

import itertools
import json
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import urlsplit

import requests

from identity_pipeline.core.errors import ConfigurationError, ContractBroken, CredentialError, RateLimited, TryLater
from identity_pipeline.core.window import ReadContext
from identity_pipeline.readers import network
from identity_pipeline.readers.deadline import bounded
from identity_pipeline.readers.rest.auth import Auth
from identity_pipeline.readers.rest.exchange import ExchangeError, exchange, same_origin
from identity_pipeline.readers.rest.fault import Fault, asked_wait, content_type, describe, error_class
from identity_pipeline.readers.rest.message import Answer, Request
from identity_pipeline.readers.rest.paginator import Paginator

RETRY_BUDGET = 300.0
"""Seconds that failed exchanges and waits of one request may take together."""

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

    ``explain`` reads an answer, of status 200 too, and says in the vendor's words what is wrong with
    it; None leaves it to the status. ``interval`` is the least time between two requests. One answer may
    take ``deadline`` seconds and hold ``max_bytes`` unpacked. A request that fails for a passing
    reason is sent up to ``attempts`` times; failed exchanges and waits take ``retry_budget`` seconds at most.

    Raises:
        ConfigurationError: ``base_url`` is not an address we may ask.
    """

    base_url: str
    auth: Auth
    context: ReadContext
    explain: Callable[[Answer], Fault | None] = lambda _: None
    headers: Mapping[str, str] = field(default_factory=dict)
    interval: float = 0.0
    retry_budget: float = RETRY_BUDGET
    attempts: int = 8
    deadline: float = 120.0
    max_bytes: int = 64 * 2**20
    random: Callable[[], float] = random.random
    _session: requests.Session = field(default_factory=lambda: bounded(network.session()), init=False, repr=False)
    _pace: _Pace = field(init=False, repr=False)

    def __post_init__(self) -> None:
        network.check_url(self.base_url, "base_url")
        object.__setattr__(self, "_pace", _Pace(self.interval))

    def pages(self, request: Request, paginator: Paginator) -> Iterator[Answer]:
        """The answers from ``request`` on, as long as ``paginator`` names a next one.

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
            answer = self.send(following)
            self.context.pages += 1
            following = paginator.next(answer)
            yield answer
            if following is not None and _identity(following) in seen:
                raise ContractBroken(f"{answer.tried} names as next page one that was read already: its paging goes in a circle")

    def send(self, request: Request) -> Answer:
        """The answer to ``request``, asked for again while that may help.

        Raises:
            CredentialError: 401, also after renewing the credential.
            PermissionDenied: 403.
            SourceRejected: another 4xx.
            RateLimited: 429, and the source asks for a longer wait than we may take.
            SourceUnavailable: refused, reset, timed out or 5xx, to the end of the budget.
            TruncatedBody: the body broke off every time.
            LimitExceeded: the body is larger than ``max_bytes``.
            ContractBroken: not JSON, or redirected without end.
            ConfigurationError: the source leads to another host, or its certificate is not accepted.
        """
        url = self._url(request.path)
        headers = self.auth.headers()
        renewed, left = False, self.retry_budget
        for attempt in itertools.count(1):
            self._sleep(self._pace.wait())
            began = time.monotonic()
            try:
                return self._judged(request, url, headers)
            except ExchangeError as failure:
                failed = failure
            if isinstance(failed.error, CredentialError) and not renewed:
                renewed, fresh = True, self.auth.renewed(headers)
                if fresh is not None:
                    headers = fresh
                    continue
            if not failed.again:
                raise failed.error
            left -= time.monotonic() - began
            pause = self.random() * min(60.0, 2.0**attempt) if failed.wait is None else failed.wait
            if pause > left and failed.wait is not None:
                raise type(failed.error)(f"{failed.error}{_asked(failed.wait)}")
            if attempt >= self.attempts or pause > left:
                raise type(failed.error)(f"{failed.error} (asked {attempt} times)")
            left -= pause
            self.context.log(f"waiting {math.ceil(pause)} s: {urlsplit(url).hostname} {failed.why}")
            self._sleep(pause)
        raise AssertionError  # pragma: no cover - the loop has no other end

    def _sleep(self, seconds: float) -> None:
        if seconds > 0:
            self.context.throttled_seconds += seconds
            self.context.sleep(seconds)

    def _url(self, path: str) -> str:
        """The address of ``path``, always on the origin of the base URL."""
        url = path if path.startswith(("https://", "http://")) else self.base_url.rstrip("/") + path
        try:
            inside = same_origin(network.check_url(url), self.base_url)
        except (ConfigurationError, ValueError):
            inside = False
        if not inside:
            raise ContractBroken(
                f"the address of the next page leads away from {network.display_url(self.base_url)}: nothing was sent there"
            )
        return url

    def _judged(self, request: Request, url: str, auth: Mapping[str, str]) -> Answer:
        """The answer, if nothing is wrong with it."""
        answer = exchange(
            self._session,
            request,
            url,
            {**self.headers, **auth},
            context=self.context,
            deadline=self.deadline,
            max_bytes=self.max_bytes,
        )
        fault = self.explain(answer)
        if fault is None and answer.status < 300:
            return answer
        fault = fault or Fault()
        kind = fault.error or error_class(answer.status, content_type(answer.headers))
        asked = asked_wait(answer.headers, datetime.now(UTC)) or 0.0
        raise ExchangeError(
            kind(describe(answer.tried, answer.status, fault, kind, auth)),
            "asks us to slow down" if kind is RateLimited else f"answered {answer.status}",
            again=issubclass(kind, TryLater),
            wait=max(asked, fault.wait or 0.0) or None,
        )


def _identity(request: Request) -> int:
    return hash(json.dumps([request.path, request.query, request.body], sort_keys=True, default=str))


def _asked(seconds: float) -> str:
    if math.isinf(seconds):
        return ""
    for unit, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f" (it asks us to wait {seconds / size:,.0f} {unit})"
    return f" (it asks us to wait {seconds:.0f} seconds)"
