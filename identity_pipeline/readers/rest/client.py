"""The client: one request after the other to one API, page after page."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any

import requests

from identity_pipeline.core.errors import (
    ConfigurationError,
    ContractBroken,
    CredentialError,
    LimitExceeded,
    PermissionDenied,
    RateLimited,
    SourceRejected,
    TruncatedBody,
)
from identity_pipeline.core.text import parse_json
from identity_pipeline.core.window import ReadContext
from identity_pipeline.readers.http import body, guard
from identity_pipeline.readers.http.exchange import Call, content_type, error_class, exchange, refusal, same_origin
from identity_pipeline.readers.http.retry import Retry, Transient
from identity_pipeline.readers.http.session import session
from identity_pipeline.readers.rest.auth import Auth
from identity_pipeline.readers.rest.error import GIVE_UP, ErrorBody, VendorError, describe
from identity_pipeline.readers.rest.limit import Limit, longest
from identity_pipeline.readers.rest.message import REPORT, Request, Response
from identity_pipeline.readers.rest.paginator import Paginator, Total
from identity_pipeline.readers.rest.record import Received, Record, rows

RETRY_BUDGET = 300.0
"""Seconds that failed exchanges and waits of one request may take together."""

_REFUSAL_BYTES = 2**20
_REMEMBERED = 100_000
_TOO_LARGE = frozenset({413, 414})
_LISTED = 3
"""Times that a page is asked for until all it lists can be read: records may go between the two requests."""
_KEPT = "what is left of the account's limit of requests is left to its other programs: run it later, or have the limit raised"
_MEDIA_TYPES = {"json": "application/json", "csv": "text/csv"}
_LED_HERE = f"the page before led here, and what it gave is not accepted (any more): {REPORT}"


@dataclass(frozen=True)
class Client:
    """Asks one HTTP API for JSON, or for CSV where a request says so.

    ``errors`` reads a response, of status 200 too, and says what is wrong with it. ``interval`` is
    the least time between two requests, ``limits`` are where an answer says what is left of a limit. One
    response may take ``deadline`` seconds and hold ``max_bytes`` unpacked. A request that fails for a
    passing reason is sent up to ``attempts`` times; failed exchanges and waits take ``retry_budget``
    seconds at most.

    Raises:
        ConfigurationError: ``base_url`` is not an address we may ask.
    """

    base_url: str
    auth: Auth
    context: ReadContext
    errors: ErrorBody = field(default_factory=ErrorBody)
    headers: Mapping[str, str] = field(default_factory=dict)
    interval: float = 0.0
    limits: tuple[Limit, ...] = ()
    retry_budget: float = RETRY_BUDGET
    attempts: int = 8
    deadline: float = 120.0
    max_bytes: int = 64 * 2**20
    random: Callable[[], float] = random.random
    received: Received = field(default_factory=Received, repr=False)
    _session: requests.Session = field(default_factory=session, init=False, repr=False)

    def __post_init__(self) -> None:
        guard.check_url(self.base_url, "base_url")

    def pages(
        self,
        request: Request,
        paginator: Paginator,
        total: Total | None = None,
        state: str = "",
        *,
        resumed: bool = False,
        without: str = "",
    ) -> Iterator[Response]:
        """The responses from ``request`` on, as long as ``paginator`` names a next one.

        With ``total`` they have to hold as many records as the first one says there are. What stands at
        ``state`` of the last one that has it is where the next load is to go on: it is kept beside the mark.
        ``resumed`` says that ``request`` carries such a state: its refusal is no fault of the settings. With ``without``
        there may be no such pages: the refusal of the first one is a warning then, which begins so.

        Raises:
            ContractBroken: the source leads back to a page that was read before, no longer accepts
                what it gave to get to a page, or ends early.
            PipelineError: as :meth:`send`.
        """
        seen: dict[int, None] = {}
        following: Request | None = request
        read, expected = 0, None
        while following is not None:
            try:
                response = self._page(following, onward=resumed or bool(seen))
            except (PermissionDenied, SourceRejected) as error:
                if not without or seen:
                    raise
                self.context.warn(f"{without}: {error}")
                return
            for asked in (following, response.request):  # two if a smaller page was asked for
                seen[_identity(asked)] = None
            if len(seen) > _REMEMBERED:
                del seen[next(iter(seen))]
            self.context.pages += 1
            if total:
                read += len(response.records(total.records))
                expected = response.number(total.at) if expected is None else expected
            following = paginator.next(response)
            yield response
            if following is not None and _identity(following) in seen:
                raise ContractBroken(f"{response.tried} names as next page one that was read already, in a circle: {REPORT}")
            if state and isinstance(held := response.at(state), str):
                self.context.state = held
        if total and expected is not None:
            self._reached(request, total, expected, read)

    def batched(self, request: Request, into: str, keys: Sequence[str], size: int) -> Iterator[Response]:
        """The responses to ``request`` for ``keys``, at most ``size`` of them at a time, joined by commas and put ``into`` it."""
        for start in range(0, len(keys), size):
            yield self.send(request.put(into, ",".join(keys[start : start + size])))

    def _reached(self, request: Request, total: Total, expected: int, read: int) -> None:
        """Compare what was read with what the source said; once more with what it says now, since records may have gone."""
        if read < expected:
            response = self._page(request, onward=False)
            expected = min(expected, response.number(total.at))
            if read < expected:
                raise ContractBroken(f"{response.tried} says that there are {expected:,} records, but its pages held {read:,}: {REPORT}")
        if not total.indexed:
            self.context.source_count = (self.context.source_count or 0) + expected

    def lookup(
        self,
        page: Response,
        records: str,
        batch: Request,
        lift: str = "",
        *,
        key: str = "id",
        wanted: Callable[[Record], bool] = lambda _: True,
    ) -> list[Record]:
        """What ``page`` lists at ``records``, each as the answer to ``batch`` holds it there, whole and of one moment.

        Those that are not ``wanted``, as they are listed, are left out. ``batch`` is sent with the keys as
        ``inputs`` of its body: ``[{key: …}, …]``. A key that the answer lacks may have gone meanwhile: the
        page is then asked for again. An answer that is too large is asked for in halves.

        Raises:
            ContractBroken: the source goes on listing a record that it does not give.
            PipelineError: as :meth:`send`.
        """
        for attempt in range(_LISTED):
            page = self.send(page.request) if attempt else page
            listed = [record for record in page.records(records) if wanted(record)]
            keys = dict.fromkeys(str(record[key]) for record in listed if isinstance(record.get(key), str))
            found = self._looked_up([{key: each} for each in keys], records, batch, lift)
            keyless = [record for record in found if not isinstance(record.get(key), str)]  # one of those that seem to be missing
            if len(keys.keys() - {record.get(key) for record in found}) <= len(keyless):
                return [*found, *(record for record in listed if not isinstance(record.get(key), str))]
        raise ContractBroken(f"{page.tried} lists records that {batch.path} does not give: {REPORT}")

    def _looked_up(self, inputs: list[dict[str, str]], records: str, batch: Request, lift: str) -> list[Record]:
        try:
            return self.send(batch.put("body.inputs", inputs)).records(records, lift) if inputs else []
        except LimitExceeded:
            if len(inputs) == 1:
                raise
            half = len(inputs) // 2
            return [record for part in (inputs[:half], inputs[half:]) for record in self._looked_up(part, records, batch, lift)]

    def _page(self, request: Request, *, onward: bool) -> Response:
        """The response to ``request``, or to one for a smaller page where that one is too large."""
        while True:
            try:
                return self._send(request, onward=onward)
            except LimitExceeded as error:
                smaller = request.halved()
                if smaller is None:
                    raise
                self.context.log(f"asking for smaller pages: {error}")
                request = smaller

    def send(self, request: Request) -> Response:
        """The response to ``request``, asked for again while that may help.

        Raises:
            CredentialError: 401, also with a new credential where there is one.
            PermissionDenied: 403.
            SourceRejected: another 4xx, or redirected without end.
            RateLimited: 429, and the source asks for a longer wait than we may take.
            SourceUnavailable: refused, reset, timed out or 5xx, to the end of the budget.
            TruncatedBody: the body broke off every time.
            LimitExceeded: the body is larger than ``max_bytes``, or the request larger than the source takes.
            ContractBroken: not JSON, or not CSV where that was asked for.
            ConfigurationError: the source leads to another host, or its certificate is not accepted.
        """
        return self._send(request, onward=False)

    def optional(self, request: Request, without: str) -> Response | None:
        """The response to ``request``, or None where the source does not give it to us: then ``without`` is a warning, with the reason.

        Raises:
            PipelineError: as :meth:`send`, but for a missing permission or a refusal.
        """
        try:
            return self.send(request)
        except (PermissionDenied, SourceRejected) as error:
            self.context.warn(f"{without}: {error}")
            return None

    def _send(self, request: Request, *, onward: bool) -> Response:
        """As :meth:`send`; ``onward`` says that a page before led to this request, so that its refusal is a broken contract."""
        url, secret = self._url(request.address), self.auth.headers()
        retry = Retry(self.context, self.retry_budget, self.attempts, self.random)

        def attempt() -> Response:
            return self._once(request, url, secret, onward=onward)

        try:
            return retry(attempt)
        except CredentialError:
            refused = secret
            if self.auth.refresh() is None or (secret := self.auth.headers()) == refused:
                raise
        return retry(attempt)

    def _url(self, path: str) -> str:
        """The address of ``path``, always on the origin of the base URL."""
        url = path if path.startswith(("https://", "http://")) else self.base_url.rstrip("/") + path
        try:
            inside = same_origin(guard.check_url(url), self.base_url)
        except (ConfigurationError, ValueError):
            inside = False
        if not inside:
            raise ContractBroken(
                f"the address of the next page leads away from {guard.display_url(self.base_url)}: nothing was sent there; {REPORT}"
            )
        return url

    def _once(self, request: Request, url: str, secret: Mapping[str, str], *, onward: bool) -> Response:
        """The response to one exchange, if nothing is wrong with it."""
        interval = self.interval if request.interval is None else request.interval
        pace, limit = self.context.pace, self._limit(secret, interval)
        if (interval or self.limits) and (pause := pace.turn(limit, interval)):
            self.context.throttled_seconds += pause
            self.context.sleep(pause)
        common = {"Accept": _MEDIA_TYPES[request.answers], "User-Agent": "identity-pipeline"}
        headers = {**common, **self.headers, **request.headers, **secret, "Accept-Encoding": "gzip"}
        if request.content is not None:
            headers["Content-Type"] = "application/json"
        call = Call(request.method, url, headers, request.content)
        with exchange(self._session, call, self.context, self.deadline) as answered:
            response = Response(request, call.tried, answered.status_code, answered.headers, self._parsed(request, call, answered))
        found = self.errors(response)
        if found is None and response.status < 300:
            if 0 < (pause := longest(self.limits, response) or 0) <= self.retry_budget:
                pace.rest(limit, pause)
            elif pause == GIVE_UP:
                raise Transient(RateLimited(f"{call.tried}: {_KEPT}"), GIVE_UP)
            return replace(response, code=self.errors.code_of(response))
        found = found or VendorError()
        error = found.error or error_class(response.status, content_type(response.headers))
        if response.status in _TOO_LARGE:
            error = LimitExceeded
        if onward and error is SourceRejected:
            error, found = ContractBroken, replace(found, advice=found.advice or _LED_HERE)
        wait = longest(self.limits, response, refused=True) if error is RateLimited and found.wait is None else found.wait
        refused = refusal(error(describe(response, found, error)), response.headers, wait)
        if isinstance(refused, Transient) and error is RateLimited and refused.wait and refused.wait <= self.retry_budget:
            pace.refused(limit, refused.wait)
        raise refused

    def _limit(self, secret: Mapping[str, str], interval: float) -> str:
        """What requests of one kind to one account share."""
        return repr((self.base_url, sorted(secret.items()), interval))

    def _parsed(self, request: Request, call: Call, response: requests.Response) -> Any:
        """The parsed body. That of a refusal is None where it cannot be read: it must not hide the status."""
        refused, kind = response.status_code >= 300, content_type(response.headers)
        expected = "json" if refused else request.answers
        if response.status_code == HTTPStatus.NO_CONTENT:
            return None
        try:
            text = b"".join(body.bounded(body.stream(response, self.context), _REFUSAL_BYTES if refused else self.max_bytes))
            self.received.size += len(text)
            if kind and expected not in kind:
                raise ContractBroken(f"with {kind} instead of {expected.upper()}: a gateway or a login page stands in between")
            return _json(text) if expected == "json" else {"records": rows(text)}
        except LimitExceeded as error:
            if refused:
                return None
            raise LimitExceeded(
                f"{call.tried} answered {response.status_code}, but {error}, and no smaller page can be asked for: {REPORT}"
            ) from None
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
    return hash((request.address, request.content, request.again))
