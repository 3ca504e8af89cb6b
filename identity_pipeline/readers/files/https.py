"""The file at one https address. Whether it changed is asked with the request for it.

Only what proves the same bytes counts (RFC 9110, 8.8): a strong entity tag; or the date of the last
modification together with the length, compared here for equality. If-Modified-Since is not sent:
it asks for what is newer, and a file that was put back with an older date is not. A date that the
answer's own Date follows by less than :data:`SETTLED` is weak (8.8.2.2: the file may have changed
twice in that second, or two clocks differ), and so is then a tag, which many servers make of it.
What has no such proof is downloaded and compared by its bytes.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from typing import ClassVar
from urllib.parse import parse_qsl, urlsplit

import requests

from identity_pipeline.core.errors import ContractBroken, SourceRejected, TryLater
from identity_pipeline.core.window import ReadContext
from identity_pipeline.readers.files.link import file_address
from identity_pipeline.readers.files.store import Content, Entry, Page
from identity_pipeline.readers.http import body
from identity_pipeline.readers.http.exchange import Call, content_type, error_class, exchange, http_date, refusal
from identity_pipeline.readers.http.guard import check_url, display_url
from identity_pipeline.readers.http.session import session

DEADLINE = 900.0
"""Seconds for one download."""

# packed on the way, a body's length is no proof that it is whole; most servers comply
_HEADERS = {"User-Agent": "identity-pipeline", "Accept": "text/csv, */*", "Accept-Encoding": "identity"}
SETTLED = 60.0
"""Seconds after its last change from which on a file's date proves what it holds."""
_PAGES = frozenset({"text/html", "application/xhtml+xml"})
_DOCUMENTS = frozenset({"application/json", "application/xml", "text/xml"})
_ADVICE = {
    401: "it wants a login: give an address that works without one (a signed one, or shared by link)",
    403: "it may not be read: share the file by link, or renew the address if it was signed and has expired",
    404: "there is no such file: correct the address",
    410: "the file is gone: correct the address, or renew it if it was signed and has expired",
}
_SIGNS = re.compile(
    r"signature|token|secret|passw|api[-_]?key|access[-_]?key|credential|(?:^|[-_.])(?:sig|hmac|jwt|auth|pwd|sas)(?:$|[-_.])"
)
"""Names of parameters that let in whoever has the address."""


def is_signed(url: str) -> bool:
    """True if the address itself opens the file: its query, or a user before its host, holds a signature, token or password."""
    try:
        parts = urlsplit(url)
        named = parse_qsl(parts.query) + parse_qsl(parts.fragment)
    except ValueError:
        return False
    return "@" in parts.netloc or any(_SIGNS.search(name.lower()) or value.startswith("eyJ") for name, value in named)


@dataclass(frozen=True)
class HttpsStore:
    """A store of one file: that at ``url``, which may be a page that shows it. A download may take ``deadline`` seconds.

    Raises:
        ConfigurationError: the address may not be asked.
    """

    at_once: ClassVar[int] = 1
    url: str
    context: ReadContext
    deadline: float = DEADLINE

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", check_url(file_address(self.url)))

    def __repr__(self) -> str:
        """The address without its query, which may be a signature."""
        return f"HttpsStore({display_url(self.url)})"

    def page(self, token: str) -> Page:  # noqa: ARG002 - there is one
        """The one file."""
        return Page([Entry(display_url(self.url))])

    def stat(self, name: str) -> Entry | None:
        """The one file, if this is its name."""
        entry = Entry(display_url(self.url))
        return entry if name == entry.name else None

    @contextmanager
    def open(self, entry: Entry, known: str) -> Iterator[Content | None]:
        """The bytes of the file, None if they are still those of ``known``.

        Raises:
            ConfigurationError: a redirect leads where we may not go.
            CredentialError: 401.
            PermissionDenied: 403.
            SourceRejected: another 4xx, or a web page instead of a file.
            RateLimited: 429.
            SourceUnavailable: refused, reset, too slow or 5xx.
            TruncatedBody: the body broke off.
            ContractBroken: it is packed in a way that was not asked for.
        """
        tag = self._tag(known)
        call = Call("GET", self.url, _HEADERS | ({"If-None-Match": tag} if tag else {}), same_origin=False, setting="the address")
        with session() as connections, exchange(connections, call, self.context, self.deadline) as response:
            if tag and response.status_code == requests.codes.not_modified and response.headers.get("ETag", tag) == tag:
                yield None
                return
            _demand_file(call, response)
            version = self._version(response.headers)
            if known and version == known:
                yield None
                return
            try:
                chunks = body.stream(response, self.context)
            except ContractBroken as error:
                raise ContractBroken(f"{call.tried} answered 200, but {error}") from None
            if not body.length_known(response):
                self.context.warn(f"length_not_verified: {entry.name} is sent without its length, so that a cut goes unseen")
            length = response.headers.get("Content-Length", "")
            size = int(length) if length.isdecimal() else None
            yield Content(chunks, version, size, _charset(response))

    def close(self) -> None:
        """Nothing: each question has a connection of its own."""

    def _version(self, headers: Mapping[str, str]) -> str:
        """What proves that content is the same; empty if nothing does."""
        tag, modified, length = (headers.get(name, "") for name in ("ETag", "Last-Modified", "Content-Length"))
        if modified:
            date = headers.get("Date", "")
            changed, now = http_date(modified), http_date(date) if date.count(",") < 2 else None  # two dates are none
            if changed is None or now is None or (now - changed).total_seconds() < SETTLED:
                return ""
        if tag and not tag.startswith("W/"):
            return f"{self._fingerprint} ETag {tag}"
        return f"{self._fingerprint} Last-Modified {length or '-'} {modified}" if modified else ""

    def _tag(self, version: str) -> str:
        """The entity tag in a version of this same address."""
        fingerprint, _, validator = version.partition(" ")
        name, _, value = validator.partition(" ")
        return value if fingerprint == self._fingerprint and name == "ETag" else ""

    @property
    def _fingerprint(self) -> str:
        """Of the whole address, whose query may choose the content."""
        return hashlib.sha256(self.url.encode()).hexdigest()[:16]


def _demand_file(call: Call, response: requests.Response) -> None:
    """Refuse what is no file."""
    tried, kind = f"{call.tried} answered {response.status_code}", content_type(response.headers)
    if response.status_code != requests.codes.ok:
        error = error_class(response.status_code, "")
        advice = _ADVICE.get(response.status_code, "try again later" if issubclass(error, TryLater) else "correct the address")
        raise refusal(error(f"{tried}: {advice}"), response.headers)
    if kind in _PAGES:
        raise SourceRejected(
            f"{tried} with a web page instead of a file: it needs a login, or the address is that of a page with a link to the file"
        )
    if kind in _DOCUMENTS or kind.endswith(("+json", "+xml")):
        raise SourceRejected(f"{tried} with {kind} instead of a file, which may be a message of an error: open the address and look")


def _charset(response: requests.Response) -> str | None:
    header = Message()
    header["Content-Type"] = response.headers.get("Content-Type", "")
    return header.get_content_charset()
