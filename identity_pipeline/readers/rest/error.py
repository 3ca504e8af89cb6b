"""What a refusal means: its status, the vendor's code for it, and phrases that we know.

Nothing else of what a vendor says is shown anywhere. Its sentences quote what they are about, and
that is persons.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from identity_pipeline.core.errors import (
    ContractBroken,
    CredentialError,
    LimitExceeded,
    PermissionDenied,
    PipelineError,
    RateLimited,
    SourceRejected,
    SourceUnavailable,
)
from identity_pipeline.readers.rest.message import REPORT, Response

GIVE_UP = math.inf
"""As a wait: waiting is useless."""

_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]{0,59}")

_ADVICE: dict[type[PipelineError], str] = {
    CredentialError: "the credential is wrong, expired or revoked: store a valid one, then run it again",
    PermissionDenied: "the credential works but may not read this: grant it the right to, then run it again",
    SourceRejected: "check base_url and the settings of this source",
    SourceUnavailable: "the source is busy or down: try again later",
    RateLimited: "the source asks us to slow down: try again later",
    ContractBroken: REPORT,
    LimitExceeded: "more was asked for at once than the source takes: report it",
}


@dataclass(frozen=True)
class VendorError:
    """What a vendor's response says went wrong. Everything is optional: the status alone gives a meaning.

    ``code`` is the vendor's word for it, ``phrases`` what its message says that we know, ``advice``
    who does what next.
    ``error`` is the class of error where the status misleads. ``wait`` is how many seconds the
    vendor asks us to wait where no Retry-After says it; or :data:`GIVE_UP`.
    """

    code: str = ""
    phrases: str = ""
    advice: str = ""
    error: type[PipelineError] | None = None
    wait: float | None = None


@dataclass(frozen=True)
class ErrorBody:
    """Where a vendor's error bodies hold their code and their message, and what some codes mean.

    ``code`` and ``message`` are dotted paths, the first that leads to something counts (a list is
    read as its items). Of the message only what ``phrases``, a regular expression, finds is ever
    shown. ``known`` is a vendor's code → what we know of it; such a code is an error with status 200 too.
    Where one code has two meanings, the phrases tell them apart: ``CODE (phrase)`` counts before ``CODE``.
    A status (``"402"``) stands there for a refusal whose code is not known. What stands at ``failed`` of
    a body with status 200 is an error, whatever its code: GraphQL answers a part beside it.
    Called with a response, it says what is wrong, or None.
    """

    code: tuple[str, ...] = ()
    message: tuple[str, ...] = ()
    known: Mapping[str, VendorError] = field(default_factory=dict)
    phrases: str = r"(?!)"
    failed: str = ""

    def __call__(self, response: Response) -> VendorError | None:
        """What is wrong with ``response``, None if nothing that a code says."""
        code = self.code_of(response)
        if response.status < 300 and code not in self.known and not (self.failed and response.at(self.failed)):
            return None
        found = (found[0] for found in re.finditer(self.phrases, _first(response, self.message)))
        said = ", ".join(dict.fromkeys(found))[:200]
        known = self.known.get(f"{code} ({said})") or self.known.get(code) or self.known.get(str(response.status), VendorError())
        return replace(known, code=code, phrases=said)

    def code_of(self, response: Response) -> str:
        """The vendor's code, empty if there is none or it may be something else."""
        code = _first(response, self.code)
        return code if code in self.known or _CODE.fullmatch(code) else ""


def _first(response: Response, paths: tuple[str, ...]) -> str:
    for path in paths:
        found = response.at(path)
        if isinstance(found, list):
            found = ", ".join(item for item in found if isinstance(item, str))
        if isinstance(found, str) and found:
            return found
    return ""


def describe(response: Response, found: VendorError, error: type[PipelineError]) -> str:
    """One sentence: what was tried, what came back, who does what next."""
    code = f" {found.code}" if found.code else ""
    said = f" ({found.phrases})" if found.phrases else ""
    advice = found.advice or _ADVICE.get(error, "look at the source")
    return f"{response.tried} answered {response.status}{code}{said}: {advice}"
