"""Stored files, fetched whole and handed on one at a time: :class:`Stored` is what every store yields.

A file is spooled before anything is read of it: so it is one version, complete, unpacked and bounded,
and can be read twice. Its version remembers what was read and how; a file that is still the same is
left out. Spools are nameless temporary files (``TMPDIR``), gone with the process.
"""

import hashlib
import json
import random
import re
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from email.message import Message
from itertools import chain
from typing import Any, BinaryIO, cast

import requests
import urllib3

from identity_pipeline.core import cursor
from identity_pipeline.core.errors import (
    ConfigurationError,
    ContractBroken,
    LimitExceeded,
    PipelineError,
    SourceRejected,
    SourceUnavailable,
    TruncatedBody,
    TryLater,
)
from identity_pipeline.core.window import ReadContext, Window
from identity_pipeline.readers import network
from identity_pipeline.readers.deadline import bounded, within
from identity_pipeline.readers.rest.fault import asked_wait, content_type, error_class, http_date

MAX_BYTES = 50_000_000
DEADLINE = 900.0
"""Seconds for one download."""
RETRY_BUDGET = 300.0
"""Seconds that may be waited between downloads of one file."""
ATTEMPTS = 5

_CHUNK = 2**18
_IN_MEMORY = 8 * 2**20
_BOMB = 500
"""Times that a packed file may grow. A wide table of mostly empty cells reaches some 200, a bomb 1,000."""
_GZIP = b"\x1f\x8b"
_DOCUMENTS = frozenset({"application/json", "application/xml", "text/xml"})
_HTML = re.compile(rb"\s*<(!doctype html|html|head|body)\b", re.IGNORECASE)
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


@dataclass(frozen=True)
class Version:
    """What was read of a file: which content, by which rules, from which lower bound on."""

    sha256: str = ""
    etag: str = ""
    modified: str = ""
    address: str = ""
    """Fingerprint of the whole address, whose query may choose the content."""
    rules: str = ""
    column: str | None = None
    lower: str | None = None

    @classmethod
    def of(cls, text: str | None) -> "Version":
        """The version that :attr:`text` wrote; an empty one for none or for what cannot be read."""
        with suppress(ValueError, TypeError):
            return cls(**json.loads(text or "{}"))
        return cls()

    @property
    def text(self) -> str:
        """The version as text."""
        return json.dumps({name: value for name, value in asdict(self).items() if value}, sort_keys=True)

    def covers(self, window: Window, rules: str) -> bool:
        """True when all that ``window`` asks for was read from this content."""
        if not self.sha256 or self.rules != rules or window.full_refresh or window.objects:
            return False
        if self.lower is None:
            return True
        same = self.column == window.cursor_column and window.cursor_type is not None and window.lower is not None
        return same and cursor.lower_of(cast("Any", window.cursor_type), self.lower, window.lower) == self.lower


@dataclass(frozen=True)
class Stored:
    """One file of a store, spooled: ``file`` is at its start, unpacked, and closed after its turn."""

    name: str
    """Its address or path without anything secret: the key of its version, and its name in messages."""
    version: Version
    file: BinaryIO
    charset: str | None = None
    """What the store says about its encoding."""


def direct(url: str) -> str:
    """The address of the file behind a page of Google Drive, Google Sheets, Dropbox or GitHub that shows it."""
    for page, file in _LINKS:
        if found := page.fullmatch(url):
            return found.expand(file).removesuffix("&gid=")
    return url


def https_file(url: str, window: Window, *, rules: str = "", max_bytes: int = MAX_BYTES, deadline: float = DEADLINE) -> Iterator[Stored]:
    """The file at ``url``, unless it is the same as when ``window.versions`` was noted.

    ``rules`` is whatever decides how it is read: other rules read the same file again. Once the
    caller has asked for the next file, the version stands in ``context.files``.

    Raises:
        ConfigurationError: the address, or one it redirects to, may not be asked.
        CredentialError: 401.
        PermissionDenied: 403.
        SourceRejected: another 4xx, or a web page instead of a file.
        LimitExceeded: more than ``max_bytes`` bytes, unpacked or on the wire.
        RateLimited: 429, and the source asks for a longer wait than we may take.
        SourceUnavailable: refused, reset, too slow or 5xx, every time.
        TruncatedBody: it broke off every time.
        ContractBroken: it is packed in a way that was not asked for.
    """
    address, context = network.check_url(direct(url)), window.context
    name = network.display_url(url)
    if window.objects and name not in window.objects:
        raise ConfigurationError(f"objects: this source has one file, {name}")
    rules = hashlib.sha256(rules.encode()).hexdigest()[:16]
    before = Version.of(window.versions.get(name))
    known = before if before.covers(window, rules) else Version()
    download = _Download(address, context, max_bytes, deadline)
    found = download.fetch(known if known.address == _print(address) else Version())
    if found is None:
        context.files[name] = known.text
        return
    with found.file:
        # an entity tag may change without the content: the hash is the truth
        if known.sha256 == found.version.sha256:
            context.files[name] = replace(known, etag=found.version.etag, modified=found.version.modified, address=_print(address)).text
            return
        version = replace(found.version, rules=rules, column=window.cursor_column, lower=window.lower)
        yield replace(found, name=name, version=version)
    context.files[name] = version.text


def spool(chunks: Iterable[bytes], limit: int) -> tuple[BinaryIO, str]:
    """The bytes, unpacked if they are gzip, as a temporary file at its start, and their SHA-256.

    Raises:
        LimitExceeded: they are more than ``limit``.
        TruncatedBody: the packing breaks off or is damaged.
    """
    file = cast("BinaryIO", tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY))  # noqa: SIM115 - the caller closes it
    digest = hashlib.sha256()
    try:
        for chunk in _within_limit(_unpacked(chunks, limit), limit):
            digest.update(chunk)
            file.write(chunk)
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return file, digest.hexdigest()


def _within_limit(chunks: Iterable[bytes], limit: int) -> Iterator[bytes]:
    total = 0
    for chunk in chunks:
        total += len(chunk)
        if total > limit:
            raise LimitExceeded(f"it holds more than {limit:,} bytes")
        yield chunk


def _unpacked(chunks: Iterable[bytes], limit: int) -> Iterator[bytes]:
    """The chunks, gunzipped if they begin like gzip: names and headers of packed files are often wrong."""
    head, rest = b"", iter(chunks)
    for chunk in rest:
        head += chunk
        if len(head) >= len(_GZIP):
            break
    whole = chain([head], rest)
    return _gunzipped(whole, limit) if head.startswith(_GZIP) else whole


def _gunzipped(chunks: Iterable[bytes], limit: int) -> Iterator[bytes]:
    """The content of all gzip members. Zeros may follow the last one, as tapes have them; nothing else."""
    inflate, packed, total = zlib.decompressobj(wbits=31), 0, 0
    try:
        for chunk in chain(chunks, [b""]):
            packed += len(chunk)
            data, more = chunk, True
            while more:
                if inflate.eof:
                    data = data.lstrip(b"\0")
                    if not data:
                        break
                    inflate = zlib.decompressobj(wbits=31)
                piece = inflate.decompress(data, _CHUNK)
                total += len(piece)
                if total > limit or total > max(10 * 2**20, packed * _BOMB):
                    raise LimitExceeded(f"it unpacks to more than {min(limit, total):,} bytes")
                yield piece
                data = inflate.unused_data if inflate.eof else inflate.unconsumed_tail
                more = bool(data)
    except zlib.error:
        raise TruncatedBody("its gzip packing is damaged, or something else follows it") from None
    if not inflate.eof:
        raise TruncatedBody("its gzip packing breaks off")


class _Download:
    """Fetches one address, again while that may help."""

    def __init__(
        self, address: str, context: ReadContext, max_bytes: int, deadline: float, draw: Callable[[], float] = random.random
    ) -> None:
        self._address, self._context, self._limit, self._deadline, self._draw = address, context, max_bytes, deadline, draw
        self._tried = f"GET {network.display_url(address)}"
        self._client = bounded(network.session())
        self._wait: float | None = None

    def fetch(self, known: Version) -> Stored | None:
        """The file, None if it is unchanged since ``known``."""
        waited = 0.0
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with self._client:
                    return self._once(known)
            except (TryLater, TruncatedBody) as error:
                pause = self._draw() * min(60.0, 2.0**attempt) if self._wait is None else self._wait
                if attempt == ATTEMPTS or waited + pause > RETRY_BUDGET:
                    raise type(error)(
                        f"{error} (asked {attempt} times{f', it asks us to wait {pause:,.0f} s' if self._wait else ''})"
                    ) from None
                self._context.log(f"waiting {pause:.0f} s: {error}")
            waited += pause
            self._context.throttled_seconds += pause
            self._context.sleep(pause)
        raise AssertionError  # pragma: no cover - the loop has no other end

    def _once(self, known: Version) -> Stored | None:
        self._context.requests += 1
        self._wait = None
        # packed on the way, a body's length is no proof that it is whole; most servers comply
        headers = {"User-Agent": "identity-pipeline", "Accept": "text/csv, */*", "Accept-Encoding": "identity"}
        if known.etag:
            headers["If-None-Match"] = known.etag
        elif known.modified:
            headers["If-Modified-Since"] = known.modified
        timeout = min(10.0, self._deadline), min(60.0, self._deadline)
        try:
            with within(self._deadline), network.follow(self._client, self._address, headers=headers, timeout=timeout) as response:
                self._context.clock(http_date(response.headers.get("Date", "")) or datetime.now(UTC))
                if response.status_code == requests.codes.not_modified and known.sha256:
                    return None
                return self._spooled(response)
        except (TimeoutError, requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise self._broken(error) from None

    def _spooled(self, response: requests.Response) -> Stored:
        tried, kind = f"{self._tried} answered {response.status_code}", content_type(response.headers)
        if response.status_code != requests.codes.ok:
            self._wait = asked_wait(response.headers, datetime.now(UTC))
            fault = error_class(response.status_code, "")
            advice = "try again later" if issubclass(fault, TryLater) else "correct the address"
            raise fault(f"{tried}: {_ADVICE.get(response.status_code, advice)}")
        page = f"{tried} with a web page instead of a file: it needs a login, or the address is that of a page with a link to the file"
        if kind in {"text/html", "application/xhtml+xml"}:
            raise SourceRejected(page)
        if kind in _DOCUMENTS or kind.endswith(("+json", "+xml")):
            raise SourceRejected(f"{tried} with {kind} instead of a file, which may be a message of an error: open the address and look")
        length = response.headers.get("Content-Length", "")
        if length.isdecimal() and int(length) > self._limit:
            raise LimitExceeded(f"{tried} with {int(length):,} bytes: {self._advice()}")
        try:
            file, sha256 = spool(self._body(response), self._limit)
        except (TruncatedBody, LimitExceeded) as error:
            raise type(error)(f"{tried}, but {error}{f': {self._advice()}' if isinstance(error, LimitExceeded) else ''}") from None
        if _HTML.match(file.read(1024)):
            file.close()
            raise SourceRejected(page)
        file.seek(0)
        return Stored(
            network.display_url(self._address),
            Version(sha256, response.headers.get("ETag", ""), response.headers.get("Last-Modified", ""), _print(self._address)),
            file,
            _charset(response),
        )

    def _advice(self) -> str:
        return f"the limit is {self._limit:,}; export less, or raise max_bytes"

    def _body(self, response: requests.Response) -> Iterator[bytes]:
        """The body as it was before the transport packed it."""
        encoding = response.headers.get("Content-Encoding", "").strip().lower()
        if encoding not in {"", "identity", "gzip", "x-gzip"}:
            raise ContractBroken(f"{self._tried} is packed as {encoding[:20]!r}, which was not asked for: have the server send it as it is")
        wire = _within_limit(self._wire(response), self._limit)
        if encoding in {"gzip", "x-gzip"}:
            return _gunzipped(wire, self._limit)
        if "Content-Length" not in response.headers and not response.raw.chunked:
            self._context.warn(
                f"length_not_verified: {network.display_url(self._address)} is sent without its length, so that a cut goes unseen"
            )
        return wire

    def _wire(self, response: requests.Response) -> Iterator[bytes]:
        for chunk in response.raw.stream(_CHUNK, decode_content=False):
            self._context.bytes_read += len(chunk)
            yield chunk

    def _broken(self, error: Exception) -> PipelineError:
        """What a failed connection means. Its own text is not shown: it holds the whole address."""
        text = str(error)
        if "CERTIFICATE_VERIFY_FAILED" in text:
            return ConfigurationError(
                f"{self._tried}: the certificate of the host is not accepted (expired, self-signed or of another name): "
                "check the address, or name the bundle of your own authority in SSL_CERT_FILE"
            )
        if isinstance(error, TimeoutError):
            return SourceUnavailable(f"{self._tried}: {error}: try again later")
        if isinstance(error, urllib3.exceptions.ProtocolError) and not any(isinstance(cause, ConnectionError) for cause in error.args):
            return TruncatedBody(f"{self._tried}: the body broke off: try again later")
        reason = "its name does not resolve" if "NameResolutionError" in text else "no answer, or the connection was lost"
        return SourceUnavailable(f"{self._tried}: {reason}: try again later")


def _print(address: str) -> str:
    return hashlib.sha256(address.encode()).hexdigest()[:16]


def _charset(response: requests.Response) -> str | None:
    header = Message()
    header["Content-Type"] = response.headers.get("Content-Type", "")
    return header.get_content_charset()
