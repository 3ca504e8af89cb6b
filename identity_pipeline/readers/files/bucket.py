"""Asking an object store over HTTP: what the stores of the clouds share.

Their own libraries sign; the request itself goes through our session, so that the guard, the
deadlines, the redactor and the one retry loop hold here as for any other source. A store says how
its addresses and answers look.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import requests

from identity_pipeline.core.errors import (
    ConfigurationError,
    ContractBroken,
    CredentialError,
    LimitExceeded,
    PermissionDenied,
    PipelineError,
    RateLimited,
    SourceRejected,
    TryLater,
)
from identity_pipeline.core.window import ReadContext
from identity_pipeline.readers.files.store import Content, Entry, Replaced
from identity_pipeline.readers.http import body
from identity_pipeline.readers.http.exchange import Call, content_type, error_class, exchange, refusal
from identity_pipeline.readers.http.session import session

DEADLINE = 900.0
"""Seconds for one file."""
AT_ONCE = 8
"""Objects that are read at the same time, at most."""
_LIST_DEADLINE = 120.0
_MAX_LIST = 64 * 2**20
_MAX_ERROR = 64 * 2**10
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,60}")

Explain = Callable[[int, bytes], tuple[str, str]]
"""Status and body of a refusal → the vendor's code for it (or nothing), and what it lets a person do about it (or nothing)."""


@dataclass(frozen=True)
class Refusals:
    """The codes by which a vendor refuses, by who has to act, each with what to do. ``place`` are those for a place that is not there."""

    credential: Mapping[str, str]
    permission: Mapping[str, str]
    place: Mapping[str, str]
    busy: frozenset[str] = frozenset()
    replaced: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Bucket:
    """One place of an object store. ``refusals`` are the vendor's, ``explain`` reads its errors."""

    context: ReadContext
    refusals: Refusals
    explain: Explain
    setting: str = "endpoint_url"
    deadline: float = field(default=DEADLINE)

    def text(self, url: str, headers: Mapping[str, str]) -> bytes:
        """The whole body of a small answer, such as a part of the list.

        Raises:
            PipelineError: it cannot be had, or is none.
        """
        call = Call("GET", url, {"User-Agent": "identity-pipeline", **headers}, setting=self.setting, redirects=None)
        with exchange(self._session, call, self.context, _LIST_DEADLINE) as response:
            self._demand(call, response)
            if content_type(response.headers) == "text/html":
                raise SourceRejected(f"{call.tried} answered 200 with a web page: check {self.setting}")
            try:
                return b"".join(body.bounded(body.stream(response, self.context), _MAX_LIST))
            except LimitExceeded as error:
                raise LimitExceeded(f"{call.tried}: {error}: check {self.setting}") from None

    @contextmanager
    def content(self, entry: Entry, url: str, headers: Mapping[str, str]) -> Iterator[Content]:
        """The bytes of the version of the file that ``url`` and ``headers`` ask for.

        Raises:
            Replaced: that version is not there any more.
            PipelineError: it cannot be read.
        """
        call = Call("GET", url, {"User-Agent": "identity-pipeline", **headers}, setting=self.setting, redirects=None)
        with exchange(self._session, call, self.context, self.deadline) as response:
            self._demand(call, response, entry)
            length = response.headers.get("Content-Length", "")
            if not body.length_known(response):
                self.context.warn(f"length_not_verified: {entry.name} is sent without its length, so that a cut goes unseen")
            # Content-Encoding is what a writer once said of the object; its bytes say how it is packed
            chunks = body.stored(response, self.context)
            yield Content(chunks, size=int(length) if length.isdecimal() else None, headers=response.headers)

    def close(self) -> None:
        """End the connections."""
        if held := self.__dict__.pop("_session", None):
            held.close()

    @cached_property
    def _session(self) -> requests.Session:
        """One for all requests of a read: its connections are kept."""
        return session()

    def _demand(self, call: Call, response: requests.Response, entry: Entry | None = None) -> None:
        """Raise what an answer other than 200 means."""
        status = response.status_code
        if status == requests.codes.ok:
            return
        said = b"".join(body.bounded(response.iter_content(2**14), 2**24))[:_MAX_ERROR] if status != requests.codes.not_modified else b""
        code, advice = self.explain(status, said)
        code = code if _CODE.fullmatch(code) else ""
        error = self._error(status, code, advice, content_type(response.headers), entry)
        tried = f"{call.tried} answered {status}{' ' if code else ''}{code}"
        error = error.reworded(f"{tried}: {error}")
        raise error if isinstance(error, Replaced) else refusal(error, response.headers)

    def _error(self, status: int, code: str, advice: str, kind: str, entry: Entry | None) -> PipelineError:
        known = self.refusals
        if entry is not None and (code in known.replaced or status == requests.codes.precondition_failed):
            return Replaced(f"{entry.name} was written anew or removed while it was read: try again later")
        for cls, codes in ((CredentialError, known.credential), (PermissionDenied, known.permission), (ConfigurationError, known.place)):
            if code in codes:
                return cls(advice or codes[code])
        if code in known.busy:
            return RateLimited(advice or "it asks for fewer requests: try again later")
        if advice:
            return ConfigurationError(advice)
        cls = error_class(status, kind)
        general = {CredentialError: "check the credential", PermissionDenied: "let the credential list and read the place"}
        if cls is ContractBroken:  # a redirect
            return ConfigurationError(f"it sends us elsewhere, and a credential does not go along: check {self.setting}")
        return cls(general.get(cls, "try again later" if issubclass(cls, TryLater) else f"check {self.setting}"))
