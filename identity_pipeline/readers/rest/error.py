"""What a refusal means in the vendor's own words."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from identity_pipeline.core.errors import (
    ContractBroken,
    CredentialError,
    PermissionDenied,
    PipelineError,
    RateLimited,
    SourceRejected,
    SourceUnavailable,
)
from identity_pipeline.readers.rest.message import Response

GIVE_UP = math.inf
"""As a wait: waiting is useless."""

_ADVICE: dict[type[PipelineError], str] = {
    CredentialError: "the credential is wrong, expired or revoked: store a valid one, then run it again",
    PermissionDenied: "the credential works but may not read this: grant it the right to, then run it again",
    SourceRejected: "check base_url and the settings of this source",
    SourceUnavailable: "the source is busy or down: try again later",
    RateLimited: "the source asks us to slow down: try again later",
    ContractBroken: "the API has changed or base_url leads elsewhere",
}


@dataclass(frozen=True)
class VendorError:
    """What a vendor's response says went wrong. Everything is optional: the status alone gives a meaning.

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
    read as its items). ``known`` is a vendor's code → what we know of it; such a code is an error with
    status 200 too. Called with a response, it says what is wrong, or None.
    """

    code: tuple[str, ...]
    message: tuple[str, ...] = ()
    known: Mapping[str, VendorError] = field(default_factory=dict)

    def __call__(self, response: Response) -> VendorError | None:
        """What is wrong with ``response``, None if nothing that a code says."""
        code = _first(response, self.code)
        if response.status < 300 and code not in self.known:
            return None
        return replace(self.known.get(code, VendorError()), code=code, message=_first(response, self.message))


def _first(response: Response, paths: tuple[str, ...]) -> str:
    for path in paths:
        found = response.at(path)
        if isinstance(found, list):
            found = ", ".join(item for item in found if isinstance(item, str))
        if isinstance(found, str) and found:
            return found
    return ""


def describe(response: Response, found: VendorError, error: type[PipelineError], secrets: Mapping[str, str]) -> str:
    """One sentence: what was tried, what came back, who does what next."""
    code = f" {found.code}" if re.fullmatch(r"[\w.:-]{1,60}", found.code) else ""
    said = f" ({quoted(found.message, secrets)})" if found.message else ""
    advice = found.advice or _ADVICE.get(error, "look at the source")
    return f"{response.tried} answered {response.status}{code}{said}: {advice}"


def quoted(text: str, secrets: Mapping[str, str]) -> str:
    """A vendor's sentence, short, printable, without the credential and without what may be a person's."""
    for value in secrets.values():
        text = text.replace(value, "…").replace(value.rpartition(" ")[2], "…")
    text = re.sub(r"[^\s@<>\"'(]+@[^\s@>\"')]+", "…@…", text)
    text = re.sub(r"\+?\d[\d\s().-]{5,}\d|[\w-]{32,}", "…", text)
    text = "".join(c if c.isprintable() else " " for c in text)
    return text if len(text) <= 200 else text[:199] + "…"
