"""One exchange: a request, through its redirects, to a response; and what a failure of it means."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from identity_pipeline.core.errors import (
    ConfigurationError,
    ContractBroken,
    CredentialError,
    PermissionDenied,
    PipelineError,
    RateLimited,
    SourceRejected,
    SourceUnavailable,
    TruncatedBody,
)
from identity_pipeline.core.window import ReadContext
from identity_pipeline.readers.http.guard import check_url, display_url
from identity_pipeline.readers.http.retry import Transient
from identity_pipeline.readers.http.session import within

MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SAME_METHOD = frozenset({307, 308})
_TRAVELS = frozenset({"accept", "accept-encoding", "user-agent", "if-none-match", "if-modified-since"})
"""Request headers that follow to another host. Any other may be a credential."""
_BUSY = frozenset({408, 423, 425, 477})
_ADVICE = "try again later"
_SET = "set {} to the address it is to lead to"
_MEDIA_TYPE = re.compile(r"[a-z]{1,20}/[a-z0-9.+-]{1,40}")


@dataclass(frozen=True)
class Call:
    """What is asked of a server: one request with all that is sent. ``url`` is whole, with its query.

    ``same_origin`` keeps it on the origin of ``url``, for a request that carries a credential; without
    it redirects may lead to any allowed host, and headers that may be a credential do not go there.
    ``setting`` is where the operator set the address, for advice. ``redirects`` are followed so many
    times; None: one is an answer like any other.
    """

    method: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = field(default=None, repr=False)
    same_origin: bool = True
    setting: str = "base_url"
    redirects: int | None = MAX_REDIRECTS

    @property
    def tried(self) -> str:
        """Method and address, without the query: for messages."""
        return f"{self.method} {display_url(self.url)}"


@contextmanager
def exchange(session: requests.Session, call: Call, context: ReadContext, deadline: float) -> Iterator[requests.Response]:
    """The response to ``call``, of whatever status, past its redirects; its body is still to be read.

    The whole exchange, what is read of the body inside included, ends after ``deadline`` seconds.

    Raises:
        SourceUnavailable: no answer, or the connection was lost.
        TruncatedBody: the body broke off.
        ConfigurationError: the address or a redirect leads where we may not go, or the certificate is not accepted.
        SourceRejected: it redirects without end or without a target.
        ContractBroken: it redirects a POST to a GET, or does not speak HTTP.
    """
    try:
        with within(deadline), _followed(session, call, context, deadline) as response:
            context.clock(http_date(response.headers.get("Date", "")) or datetime.now(UTC))
            yield response
    except (TimeoutError, requests.RequestException, urllib3.exceptions.HTTPError) as error:
        # its own text is not shown: it holds the whole address
        raise _failure(error, call) from None


def error_class(status: int, kind: str) -> type[PipelineError]:
    """The class of error that a status with a body of content type ``kind`` stands for."""
    if status == 401:
        return CredentialError
    if status == 403:
        # a gateway in front of the API (Cloudflare, Akamai) refuses hasty callers in HTML
        return RateLimited if kind == "text/html" else PermissionDenied
    if status in {429, 430}:
        return RateLimited
    if status in _BUSY or status >= 500:
        return SourceUnavailable
    return SourceRejected if status >= 400 else ContractBroken


def refusal(error: PipelineError, headers: Mapping[str, str], wait: float | None = None) -> Exception:
    """``error``, where another attempt may help with what Retry-After asks for, else with ``wait``."""
    return Transient(error, _retry_after(headers, datetime.now(UTC)) or wait) if error.retryable else error


def content_type(headers: Mapping[str, str]) -> str:
    """The media type of the body, lower case, without parameters; empty where there is none that can be one."""
    kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return kind if _MEDIA_TYPE.fullmatch(kind) else ""


def http_date(text: str) -> datetime | None:
    """The instant of an HTTP date, None if it is not one."""
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def same_origin(one: str, other: str) -> bool:
    """True when scheme, host and port are the same."""
    return _origin(one) == _origin(other)


def _origin(url: str) -> tuple[str, str | None, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def _retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds that Retry-After asks for, None if it is missing, in the past or not to be read.

    A date counts from the source's own clock where it shows one.
    """
    text = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text) or None
    until, since = http_date(text), http_date(headers.get("Date", "")) or now
    return (until - since).total_seconds() if until and until > since else None


def _followed(session: requests.Session, call: Call, context: ReadContext, deadline: float) -> requests.Response:
    """The first response that is no redirect. Each redirect is checked like the first address."""
    url, headers = call.url, dict(call.headers)
    for _ in range((call.redirects or 0) + 1):
        context.count(requests=1)
        response = session.request(
            call.method,
            url,
            data=call.body,
            headers=headers,
            timeout=(min(10.0, deadline), min(60.0, deadline)),
            stream=True,
        )
        if response.status_code not in _REDIRECTS or call.redirects is None:
            return response
        response.close()
        if not call.redirects:
            where = f"{call.tried} answered {response.status_code}, which leads elsewhere"
            raise SourceRejected(f"{where}: nothing was sent there; {_SET.format(call.setting)}")
        onward = _onward(call, url, response)
        if not same_origin(url, onward):
            headers = {name: value for name, value in headers.items() if name.lower() in _TRAVELS}
        url = onward
    raise SourceRejected(f"{call.tried} redirects more than {call.redirects} times: {_SET.format(call.setting)}")


def _onward(call: Call, url: str, response: requests.Response) -> str:
    """Where a redirect from ``url`` leads, if we may go there."""
    tried = f"{call.method} {display_url(url)} answered {response.status_code}"
    location = response.headers.get("Location", "").strip()
    if not location:
        raise SourceRejected(f"{tried} without a Location: check {call.setting}")
    try:
        target = urljoin(url, location)
        kept = same_origin(target, url)
    except ValueError:
        raise ConfigurationError(f"{tried} and leads to an address that cannot be read: check {call.setting}") from None
    if call.same_origin and not kept:
        raise ConfigurationError(
            f"{tried} and leads to {_host(target)}: the credential is not sent to another host; "
            f"set {call.setting} to where the API is, if that is it"
        )
    target = check_url(target, f"redirect from {display_url(url)}")
    if urlsplit(url).scheme == "https" and urlsplit(target).scheme != "https":
        raise ConfigurationError(f"{tried} and leads to {_host(target)}, which is not encrypted: set {call.setting} to https://")
    if call.method != "GET" and response.status_code not in _SAME_METHOD:
        raise ContractBroken(f"{tried}: a {call.method} is not sent elsewhere as a GET")
    return target


def _host(url: str) -> str:
    """Scheme and host of an address that a server gave: its path is the server's own text."""
    scheme, _, rest = display_url(url).partition("://")
    return f"{scheme}://{rest.partition('/')[0][:120]}"


def _failure(error: Exception, call: Call) -> PipelineError:
    """What a failed connection means."""
    chain = list(_chain(error))

    def holds(*kinds: type[BaseException]) -> bool:
        return any(isinstance(one, kinds) for one in chain)

    if any("CERTIFICATE_VERIFY_FAILED" in str(one) for one in chain):
        return ConfigurationError(
            f"{call.tried}: the certificate of the host is not accepted (expired, self-signed or of another name): "
            f"check {call.setting}, or name the bundle of your own authority in SSL_CERT_FILE"
        )
    # urllib3's own error comes from reading the body; before that, requests wraps it
    if isinstance(error, urllib3.exceptions.ProtocolError) and not holds(ConnectionError):
        return TruncatedBody(f"{call.tried}: the body broke off: {_ADVICE}")
    if isinstance(error, TimeoutError):
        why = str(error)
    elif holds(urllib3.exceptions.NameResolutionError):
        why = f"the name of the host does not resolve, check {call.setting}"
    elif holds(ConnectionRefusedError):
        why = "the connection was refused"
    elif holds(TimeoutError, urllib3.exceptions.TimeoutError):
        why = "no answer in time"
    elif holds(OSError, urllib3.exceptions.ProtocolError):
        why = "the connection was lost"
    else:
        return ContractBroken(f"{call.tried}: the answer is not HTTP as we know it ({type(error).__name__})")
    return SourceUnavailable(f"{call.tried}: {why}: {_ADVICE}")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """``error`` and all that led to it."""
    seen: set[int] = set()
    waiting: list[Any] = [error]
    while waiting:
        one = waiting.pop()
        if isinstance(one, BaseException) and id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]
