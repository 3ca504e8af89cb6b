"""What a refusal means: from the status, the vendor's own words and its wish that we wait."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from identity_pipeline.core.errors import (
    ContractBroken,
    CredentialError,
    PermissionDenied,
    PipelineError,
    RateLimited,
    SourceRejected,
    SourceUnavailable,
)
from identity_pipeline.readers.rest.message import Answer

GIVE_UP = math.inf
"""As a wait: waiting is useless."""

_BUSY = frozenset({408, 423, 425, 477})
_ADVICE: dict[type[PipelineError], str] = {
    CredentialError: "the credential is wrong, expired or revoked: store a valid one, then run it again",
    PermissionDenied: "the credential works but may not read this: grant it the right to, then run it again",
    SourceRejected: "check base_url and the settings of this source",
    SourceUnavailable: "the source is busy or down: try again later",
    RateLimited: "the source asks us to slow down: try again later",
    ContractBroken: "the API has changed or base_url leads elsewhere",
}


@dataclass(frozen=True)
class Fault:
    """What a vendor's answer says went wrong. Everything is optional: the status alone gives a meaning.

    ``code`` is the vendor's word for it, ``message`` its sentence, ``advice`` who does what next.
    ``error`` is the class of error where the status misleads. ``wait`` is how many seconds the
    vendor asks us to wait where no Retry-After says it; or :data:`GIVE_UP`.
    """

    code: str = ""
    message: str = ""
    advice: str = ""
    error: type[PipelineError] | None = None
    wait: float | None = None


@dataclass(frozen=True)
class ErrorBody:
    """Where a vendor's error bodies hold their code and their message, and what some codes mean.

    ``code`` and ``message`` are dotted paths, the first that leads to something counts (a list is
    read as its items). ``known`` is a vendor's code → what we know of it; such a code is a fault with
    status 200 too. Called with an answer, it says what is wrong, or None.
    """

    code: tuple[str, ...]
    message: tuple[str, ...] = ()
    known: Mapping[str, Fault] = field(default_factory=dict)

    def __call__(self, answer: Answer) -> Fault | None:
        """What is wrong with ``answer``, None if nothing that a code says."""
        code = _first(answer, self.code)
        if answer.status < 300 and code not in self.known:
            return None
        return replace(self.known.get(code, Fault()), code=code, message=_first(answer, self.message))


def _first(answer: Answer, paths: tuple[str, ...]) -> str:
    for path in paths:
        found = answer.at(path)
        if isinstance(found, list):
            found = ", ".join(item for item in found if isinstance(item, str))
        if isinstance(found, str) and found:
            return found
    return ""


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


def describe(tried: str, status: int, fault: Fault, kind: type[PipelineError], secrets: Mapping[str, str]) -> str:
    """One line: what was tried, what came back, who does what next."""
    code = f" {fault.code}" if re.fullmatch(r"[\w.:-]{1,60}", fault.code) else ""
    said = f" ({quoted(fault.message, secrets)})" if fault.message else ""
    return f"{tried} answered {status}{code}{said}: {fault.advice or _ADVICE.get(kind, 'look at the source')}"


def quoted(text: str, secrets: Mapping[str, str]) -> str:
    """A vendor's sentence, short, printable, without the credential and without what may be a person's."""
    for value in secrets.values():
        text = text.replace(value, "…").replace(value.rpartition(" ")[2], "…")
    text = re.sub(r"[^\s@<>\"'(]+@[^\s@>\"')]+", "…@…", text)
    text = re.sub(r"\+?\d[\d\s().-]{5,}\d|[\w-]{32,}", "…", text)
    text = "".join(c if c.isprintable() else " " for c in text)
    return text if len(text) <= 200 else text[:199] + "…"


def asked_wait(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds that Retry-After asks for, None if it is missing, in the past or not to be read.

    A date counts from the source's own clock where it shows one.
    """
    text = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text) or None
    until, since = http_date(text), http_date(headers.get("Date", "")) or now
    return (until - since).total_seconds() if until and until > since else None


def content_type(headers: Mapping[str, str]) -> str:
    """The media type of the body, lower case, without parameters."""
    return headers.get("Content-Type", "").partition(";")[0].strip().lower()[:60]


def http_date(text: str) -> datetime | None:
    """The instant of an HTTP date, None if it is not one."""
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
