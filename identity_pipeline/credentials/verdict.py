"""What a refused token means: who has to do what, told apart by the vendor's codes. None of its sentences is shown.

Microsoft's numbers: https://learn.microsoft.com/entra/identity-platform/reference-error-codes
Google's words: https://developers.google.com/identity/protocols/oauth2#expiration
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from identity_pipeline.readers.http.endpoint import Answer

Act = Literal["reconnect", "app", "admin", "network", "clock", "busy", "unknown"]
"""``reconnect``: the grant is dead, whatever happens elsewhere. ``app``: the OAuth app's own id, secret or settings. ``admin``:
somebody has to approve the app or the account. ``network``: this address may not ask. ``clock``: this machine's is wrong.
``busy``: nobody, later. ``unknown``: refused, and the grant may be alive."""

_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,59}")
_BUSY = frozenset({"rate_limit_exceeded", "server_error", "temporarily_unavailable"})
_APP = frozenset(
    {
        "invalid_client", "invalid_client_id", "invalid_client_credentials", "unauthorized_client", "deleted_client", "disabled_client",
        "app_not_found", "unsupported_grant_type", "invalid_scope", "invalid_request", "org_internal",
    }
)  # fmt: skip
_ADMIN = frozenset({"admin_policy_enforced", "OAUTH_APP_BLOCKED", "OAUTH_APPROVAL_ERROR_GENERIC", "OAUTH_EC_APP_NOT_FOUND"})
_INACTIVE = frozenset({"inactive_user", "inactive_org"})
_DEAD = frozenset(
    {
        "invalid_grant", "interaction_required", "login_required", "consent_required", "invalid_token", "authorization_denied",
    }
)  # fmt: skip


@dataclass(frozen=True)
class _Rule:
    """What it means if one of ``numbers`` is among Microsoft's, or ``words`` (a regular expression) in the vendor's sentence."""

    act: Act
    why: str
    numbers: frozenset[int] = frozenset()
    words: str = r"(?!)"


def _rule(act: Act, why: str, numbers: Collection[int] = (), words: str = r"(?!)") -> _Rule:
    return _Rule(act, why, frozenset(numbers), words)


_RULES = (
    _rule("busy", "it is busy", (90033, 90006, 50196, 50000)),
    _rule("network", "this machine's address is not among those that may sign in", words=r"\bip restricted\b"),
    _rule("app", "the app's client secret has expired", (7000222,)),
    _rule("app", "the app's client secret is wrong", (7000215,)),
    _rule("app", "the app, or the directory that it is looked for in, does not exist", (700016, 90002)),
    _rule("app", "the app's certificate or its assertion is not accepted", (700027, 700021)),
    _rule(
        "clock",
        "this machine's clock is wrong: what it signed is not of the present",
        (700024,),
        r"\bshort-lived token\b|\bassertion\b.*\bexpired\b|\bexpired\b.*\bassertion\b",
    ),
    _rule("admin", "the app is disabled, or an administrator has to approve it", (7000112, 90094, 650052, 50105)),
    _rule("reconnect", "it was not used for too long and has expired", (700082, 70008, 700084, 70043), r"\binactivity\b"),
    _rule("reconnect", "the password was changed, or the grant was taken back", (50173, 50132, 50133)),
    _rule(
        "reconnect",
        "the administrator's policy asks for another sign-in (multi-factor authentication)",
        (50076, 50079, 50078, 50158),
        r"\binvalid_rapt\b",
    ),
    _rule("admin", "a policy of the administrator (Conditional Access) refuses it", (53000, 53001, 53002, 53003)),
    _rule("unknown", "consent to what the app asks for is missing", (65001, 65004)),
    _rule("admin", "the account is disabled or locked", (50057, 50053)),
    _rule("reconnect", "the account is gone", (50034, 50020), r"\baccount (has been deleted|not found)\b"),
    _rule("admin", "the user has not approved the app, which an administrator can do for him", words=r"hasn't approved this consumer"),
    _rule("unknown", "the key is not (any more, or not yet) the account's", words=r"\binvalid jwt signature\b"),
    _rule("reconnect", "it was revoked, or has expired", words=r"\b(expired|revoked)\b"),
)

_BY_ERROR: tuple[tuple[Act, str, frozenset[str]], ...] = (
    ("app", "the app is not accepted", _APP),
    ("admin", "an administrator has to approve the app", _ADMIN),
    ("admin", "the account is disabled", _INACTIVE),
    ("reconnect", "it was revoked, or has expired", _DEAD),
)


@dataclass(frozen=True)
class Verdict:
    """Who has to act, why in our words, and the vendor's code, empty where it gave none that may be shown."""

    act: Act
    why: str
    code: str


def judge(answer: Answer) -> Verdict:
    """What ``answer``, which brought no token, means."""
    error, detail = answer.text("error"), answer.text("error_subtype") or answer.text("suberror")
    sentence = f"{answer.text('error_description')} {detail}".lower()
    numbers = {number for number in answer.body.get("error_codes") or () if isinstance(number, int)}
    numbers |= {int(found) for found in re.findall(r"\baadsts(\d{4,8})\b", sentence)}
    shown = " ".join([*(text for text in (error, detail) if _CODE.fullmatch(text)), *(f"AADSTS{number}" for number in sorted(numbers)[:3])])
    if not error or answer.status in {406, 408, 425, 429} or answer.status >= 500 or error in _BUSY:
        return Verdict("busy", _unusable(answer), shown)
    for rule in _RULES:
        if numbers & rule.numbers or re.search(rule.words, sentence):
            return Verdict(rule.act, rule.why, shown)
    for act, why, errors in _BY_ERROR:
        if error in errors:
            return Verdict(act, why, shown)
    return Verdict("unknown", "it refused", shown)


def _unusable(answer: Answer) -> str:
    if answer.status in {429, 406} or answer.status >= 500 or answer.text("error"):
        return "it is busy or down"
    return f"a gateway or a login page stands in between ({answer.kind or 'no content type'} instead of a token)"
