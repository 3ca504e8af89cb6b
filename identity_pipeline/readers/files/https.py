"""The file at one https address. Whether it changed is asked with the request for it."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message

import requests

from identity_pipeline.core.errors import ConfigurationError, ContractBroken, SourceRejected, TryLater
from identity_pipeline.core.window import ReadContext
from identity_pipeline.readers.files.store import Content, Entry
from identity_pipeline.readers.http import body
from identity_pipeline.readers.http.exchange import Call, content_type, error_class, exchange, refusal
from identity_pipeline.readers.http.guard import check_url, display_url
from identity_pipeline.readers.http.session import session

DEADLINE = 900.0
"""Seconds for one download."""

# packed on the way, a body's length is no proof that it is whole; most servers comply
_HEADERS = {"User-Agent": "identity-pipeline", "Accept": "text/csv, */*", "Accept-Encoding": "identity"}
_CONDITIONS = {"ETag": "If-None-Match", "Last-Modified": "If-Modified-Since"}
"""What shows that content is another → the header that asks for another one only."""
_PAGES = frozenset({"text/html", "application/xhtml+xml"})
_DOCUMENTS = frozenset({"application/json", "application/xml", "text/xml"})
_ADVICE = {
    401: "it wants a login: give an address that works without one (a signed one, or shared by link)",
    403: "it may not be read: share the file by link, or renew the address if it was signed and has expired",
    404: "there is no such file: correct the address",
    410: "the file is gone: correct the address, or renew it if it was signed and has expired",
}
_LINKS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"(https://docs\.google\.com/spreadsheets/d/[\w-]+)/(?:edit|view)\b[^#]*(?:#gid=(\d+).*)?"),
        r"\1/export?format=csv&gid=\2",
    ),
    (re.compile(r"https://drive\.google\.com/file/d/([\w-]+)(?:/view|/edit)?\b.*"), r"https://drive.google.com/uc?export=download&id=\1"),
    (re.compile(r"(https://www\.dropbox\.com/.*[?&])dl=0(.*)"), r"\1dl=1\2"),
    (re.compile(r"https://github\.com/([\w.-]+/[\w.-]+)/blob/(.*)"), r"https://raw.githubusercontent.com/\1/\2"),
)
"""Pages that show a file → the address of the file itself."""


def file_address(url: str) -> str:
    """The address of the file behind a page of Google Drive, Google Sheets, Dropbox or GitHub that shows it."""
    for page, file in _LINKS:
        if found := page.fullmatch(url):
            return found.expand(file).removesuffix("&gid=")
    return url


@dataclass(frozen=True)
class HttpsStore:
    """A store of one file: that at ``url``, which may be a page that shows it. A download may take ``deadline`` seconds.

    Raises:
        ConfigurationError: the address may not be asked.
    """

    url: str
    context: ReadContext
    deadline: float = DEADLINE

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", check_url(file_address(self.url)))

    def __repr__(self) -> str:
        """The address without its query, which may be a signature."""
        return f"HttpsStore({display_url(self.url)})"

    def list(self) -> Iterator[Entry]:
        """The one file."""
        yield Entry(display_url(self.url))

    def stat(self, name: str) -> Entry:
        """The one file, if this is its name."""
        entry = next(self.list())
        if name != entry.name:
            raise ConfigurationError(f"objects: this source has one file, {entry.name}")
        return entry

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
        condition = self._condition(known)
        call = Call("GET", self.url, _HEADERS | condition, same_origin=False, setting="the address")
        with session() as connections, exchange(connections, call, self.context, self.deadline) as response:
            if condition and response.status_code == requests.codes.not_modified:
                yield None
                return
            _demand_file(call, response)
            try:
                chunks = body.stream(response, self.context)
            except ContractBroken as error:
                raise ContractBroken(f"{call.tried} answered 200, but {error}") from None
            if not body.length_known(response):
                self.context.warn(f"length_not_verified: {entry.name} is sent without its length, so that a cut goes unseen")
            length = response.headers.get("Content-Length", "")
            size = int(length) if length.isdecimal() else None
            yield Content(chunks, self._version(response.headers), size, _charset(response))

    def _version(self, headers: Mapping[str, str]) -> str:
        return next((f"{self._fingerprint} {name} {headers[name]}" for name in _CONDITIONS if headers.get(name)), "")

    def _condition(self, version: str) -> dict[str, str]:
        """Headers that ask for content of another version than this one of the same address."""
        fingerprint, _, validator = version.partition(" ")
        name, _, value = validator.partition(" ")
        return {_CONDITIONS[name]: value} if fingerprint == self._fingerprint else {}

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
