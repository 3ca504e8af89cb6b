"""One exchange: a request, through redirects on the same origin, to an answer whose body is whole."""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from identity_pipeline.core.errors import (
    ConfigurationError,
    ContractBroken,
    LimitExceeded,
    PipelineError,
    SourceUnavailable,
    TruncatedBody,
)
from identity_pipeline.core.text import parse_json
from identity_pipeline.core.window import ReadContext
from identity_pipeline.readers import network
from identity_pipeline.readers.deadline import within
from identity_pipeline.readers.rest.body import read_body
from identity_pipeline.readers.rest.fault import content_type, http_date
from identity_pipeline.readers.rest.message import Answer, Request

_REFUSAL_BYTES = 2**20


class ExchangeError(Exception):
    """An exchange failed.

    ``error`` is what that means, ``again`` whether another exchange may help, ``wait`` how many
    seconds the source asks us to wait first, ``why`` the end of "waiting: the host …".
    """

    def __init__(self, error: PipelineError, why: str, *, again: bool = True, wait: float | None = None) -> None:
        super().__init__(str(error))
        self.error, self.why, self.again, self.wait = error, why, again, wait


def exchange(
    session: requests.Session,
    request: Request,
    url: str,
    headers: Mapping[str, str],
    *,
    context: ReadContext,
    deadline: float,
    max_bytes: int,
) -> Answer:
    """The answer to ``request``, of whatever status.

    Raises:
        ExchangeError: no answer, or not a whole one, or one with status 2xx that is not JSON.
        ConfigurationError: it leads to another host, or the certificate is not accepted.
        ContractBroken: it redirects without end, or a POST to a GET.
        LimitExceeded: the body is larger than ``max_bytes``.
    """
    tried = f"{request.method} {network.display_url(url)}"

    def count(wire_bytes: int) -> None:
        context.bytes_read += wire_bytes

    for _ in range(network.MAX_REDIRECTS + 1):
        context.requests += 1
        try:
            with within(deadline), _sent(session, request, url, headers, deadline) as response:
                context.clock(http_date(response.headers.get("Date", "")) or datetime.now(UTC))
                body = _parsed(response, tried, max_bytes, count)
        except (TimeoutError, requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise _broken(error, tried) from None
        answer = Answer(request, tried, response.status_code, response.headers, body)
        if answer.status not in network.REDIRECTS:
            return answer
        url = _redirected(answer, url)
    raise ContractBroken(f"{tried} redirects more than {network.MAX_REDIRECTS} times: set base_url to where the API is")


def same_origin(one: str, other: str) -> bool:
    """True when scheme, host and port are the same."""
    return _origin(one) == _origin(other)


def _origin(url: str) -> tuple[str, str | None, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def _sent(session: requests.Session, request: Request, url: str, headers: Mapping[str, str], deadline: float) -> requests.Response:
    return session.request(
        request.method,
        url,
        params={name: str(value).lower() if isinstance(value, bool) else value for name, value in request.query.items()},
        json=request.body,
        headers={"Accept": "application/json", "User-Agent": "identity-pipeline", **headers, "Accept-Encoding": "gzip"},
        timeout=(min(10.0, deadline), min(60.0, deadline)),
        allow_redirects=False,
        stream=True,
    )


def _parsed(response: requests.Response, tried: str, max_bytes: int, count: Callable[[int], None]) -> Any:
    """The parsed body. That of a refusal is None where it cannot be read: it must not hide the status."""
    refused = response.status_code >= 300
    kind = content_type(response.headers)
    try:
        body = read_body(response, _REFUSAL_BYTES if refused else max_bytes, count)
        if kind and "json" not in kind:
            raise ContractBroken(f"with {kind} instead of JSON: a gateway or a login page stands in between, or base_url leads elsewhere")
        return _json(body)
    except (ContractBroken, LimitExceeded) as error:
        if refused:
            return None
        told = type(error)(f"{tried} answered {response.status_code}, but {error}")
        if isinstance(error, LimitExceeded):
            raise told from None
        raise ExchangeError(told, "sent a damaged page") from None


def _json(body: bytes) -> Any:
    try:
        return parse_json(body)
    except ContractBroken:
        raise TruncatedBody("its JSON breaks off or is none") from None


def _redirected(answer: Answer, url: str) -> str:
    target = answer.headers.get("Location", "").strip()
    try:
        target = urljoin(url, target)
        inside = same_origin(target, url)
    except ValueError:
        inside = False
    if not inside:
        raise ConfigurationError(
            f"{answer.tried} answered {answer.status} and leads to {network.display_url(target)[:120]}: the credential is not "
            "sent to another host; set base_url to where the API is, if that is it"
        )
    if answer.request.method == "POST" and answer.status not in {307, 308}:
        raise ContractBroken(f"{answer.tried} answered {answer.status}: a POST is not sent elsewhere as a GET")
    return target


def _broken(error: Exception, tried: str) -> Exception:
    """What a failed connection means."""
    chain = list(_chain(error))

    def holds(*kinds: type[BaseException]) -> bool:
        return any(isinstance(one, kinds) for one in chain)

    if any("CERTIFICATE_VERIFY_FAILED" in str(one) for one in chain):
        return ConfigurationError(
            f"{tried}: the certificate of the host is not accepted (expired, self-signed or of another name): "
            "check base_url, or name the bundle of your own authority in SSL_CERT_FILE"
        )
    # urllib3's own error comes from reading the body; before that, requests wraps it
    if isinstance(error, urllib3.exceptions.ProtocolError) and not holds(ConnectionError):
        return ExchangeError(TruncatedBody(f"{tried}: the body broke off"), "broke off in the middle of a page")
    if isinstance(error, TimeoutError):
        why = str(error)
    elif holds(urllib3.exceptions.NameResolutionError):
        why = "the name of the host does not resolve, check base_url"
    elif holds(ConnectionRefusedError):
        why = "the connection was refused"
    elif holds(TimeoutError, urllib3.exceptions.TimeoutError):
        why = "no answer in time"
    elif holds(OSError, urllib3.exceptions.ProtocolError):
        why = "the connection was lost"
    else:
        return ContractBroken(f"{tried}: the answer is not HTTP as we know it ({type(error).__name__})")
    return ExchangeError(SourceUnavailable(f"{tried}: {why}: try again later"), f"gave no answer ({why})")


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
