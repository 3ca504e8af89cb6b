"""E-mail addresses: canonical form, verdict, and the values that only look like an identifier.

Canonical: trimmed, NFC, lower case, domain in ASCII (IDNA). Syntax is decided by ``email-validator``
without DNS; plain ASCII addresses pass by a pattern that accepts less than the library and, of
what it accepts, nothing that the library would change. Quoted local parts and bracketed hosts are
invalid; plus tags and dots stay (which mailbox they reach is the host's matter).

Not identifiers: placeholders (typed to get past a form) and role addresses (many people share
one). Lists err on the side of a real person: ``mail@``, ``me@``, ``hi@`` are not roles.
"""

import re
import unicodedata

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from email_validator import validate_email

from identity_pipeline.normalise.cells import (
    INVALID,
    JOINERS,
    PLACEHOLDER,
    ROLE,
    VALID,
    Found,
    Judged,
    found_of,
    joined,
    listed,
    once_each,
    truth,
    visible,
    words,
)

_ATOM = r"[a-z0-9_!#$%&'*+\-/=?^`{|}~]+"
_PLAIN = rf"{_ATOM}(?:\.{_ATOM})*@(?:[a-z0-9]+(?:-[a-z0-9]+)*\.)+[a-z]{{2,}}"
_PLAIN_LENGTH = 64  # no label or address of this length can pass the library's limits
_RESERVED = r".*\.(?:arpa|invalid|local|localhost|onion|test)"

_ROLE_NAMES = (
    r"abuse|accounting|accounts?|admins?|administration|administrator|administrat[ei]on|all|anfragen?|assistance|auto[._-]?reply|"
    r"bestellung(?:en)?|billing|booking|bookings|bounces?|buchhaltung|bureau|careers?|commercial|compliance|comptabilite|contacts?|"
    r"contact[._-]?us|contacto|contato|contatti|customer[._-]?(?:care|service|support)|datenschutz|devnull|do[._-]?not[._-]?reply|dpo|"
    r"empfang|e?n?quiries|enquiry|inquiry|inquiries|events?|everyone|feedback|finance|frontdesk|general|helpdesk|help|hello|hostmaster|"
    r"hr|human[._-]?resources|informacion|informatique|informations?|info|invoices?|invoicing|it[._-]?support|jobs?|karriere|kontakt|"
    r"kundenservice|legal|mailer[._-]?daemon|management|marketing|media|news|newsletters?|no[._-]?reply|noc|notifications?|notify|"
    r"office|operations|ops|orders?|partners?|payments?|postmaster|presse?|privacy|purchasing|rechnung(?:en)?|reception|"
    r"recruiting|recruitment|reservations?|returns|root|sales|secretariat|security|sekretariat|service[._-]?(?:client|desk)?|services?|"
    r"shop|soporte|staff|suporte|subscribe|support|sysadmin|tech|technical|tech[._-]?support|team|undisclosed[._-]?recipients|"
    r"unsubscribe|usenet|uucp|ventas|verkauf|vertrieb|webmaster|www"
)
_ROLE = rf"(?:{_ROLE_NAMES})(?:\+[^@]*)?@.*"

_NO_MAIL = r"(?:no|none|not?[._-]?valid|not?[._-]?a)[._-]?(?:e?[._-]?mail(?:[._-]?address)?)|(?:no|none)[._-]?(?:given|provided|one)"
_FAKE_LOCAL = (
    rf"test(?:[._-]?(?:ing|user|e?mail|account|person|test))?[._-]?\d*|none|null|nil|nan|unknown|undefined|not[._-]?(?:provided|available|given|known)|"
    rf"{_NO_MAIL}|dummy|fake|placeholder|asdf+g?h?|qwerty|xx+|anonymous|nobody|firstname[._-]?lastname|first[._-]?last|"
    r"your[._-]?(?:e?[._-]?mail|name)(?:[._-]?here)?"
)
_FAKE_NAME = (
    rf"{_NO_MAIL}|none|null|nil|unknown|undefined|nowhere|fake(?:e?mail)?|invalid|placeholder|test(?:e?mail|ing)?|"
    r"your[._-]?(?:domain|company|site)|asdf+|qwerty|xxx+|n[._-]?a"
)
_FAKE_DOMAIN = (
    r"(?:[^@]*\.)?example(?:\.(?:com|net|org|edu))?|(?:[^@]*\.)?(?:invalid|test)|domain\.com|"
    rf"(?:{_FAKE_NAME})(?:\.(?:com|net|org|de|fr|es|it|nl|uk|co\.uk|eu|us|info|io|tld|xx|xxx|email))?|e?mail|no|a|x"
)
_SAME_TWICE = "|".join(
    rf"{word}@{word}(?:\.[a-z.]+)?" for word in ("a", "aa", "aaa", "abc", "mail", "email", "na", "no", "user", "x", "me")
)
# a tag after "null" was typed with care: that is a person's own mailbox; after "test" it is one more test
_FAKE = rf"(?:{_FAKE_LOCAL}|(?:test|dummy|fake)\+[^@]*)@.*|[^@]*@(?:{_FAKE_DOMAIN})|{_SAME_TWICE}"
_WORDS = words(
    "none na nan nil null unknown undefined noemail nomail noemailaddress notprovided notavailable notapplicable notgiven nonegiven "
    "noneprovided missing test testing tbd tba x xx xxx no nothing anonymous blank empty keine keineemail ka ninguno sincorreo aucun "
    "nessuna geen asdf placeholder donotuse false true ref"
)

_PLAIN_RE, _ROLE_RE, _FAKE_RE, _RESERVED_RE = (re.compile(p) for p in (_PLAIN, _ROLE, _FAKE, _RESERVED))
_DISPLAY = re.compile(r"[^<>]*<([^<>]+)>")
_MAX_LENGTH = 1000  # of one piece; no address is longer, and the library's time grows faster than the text


def _suspect(text: str) -> bool:
    return bool(_ROLE_RE.fullmatch(text) or _FAKE_RE.fullmatch(text) or _RESERVED_RE.fullmatch(text))


def _bare(text: str) -> str:
    """The address in ``text``: without display name, ``mailto:``, quotes around it, or what a sentence left behind it."""
    for _ in range(3):
        if shown := _DISPLAY.fullmatch(text):
            text = shown[1].strip()
        if text.startswith("mailto:"):
            text = text[7:].partition("?")[0].strip()
        if len(text) > 2 and text[0] == text[-1] and text[0] in "\"'":
            text = text[1:-1].strip()
        text = text.rstrip(".,;: \t")
    return text


def canonical_address(text: str) -> str | None:
    """The canonical form of an address by the library's rules alone, None if it is not one."""
    try:
        found = validate_email(text, check_deliverability=False)
    except ValueError:
        return None
    return f"{found.local_part.lower()}@{found.ascii_domain}"


def judge(piece: str) -> Judged | None:  # noqa: PLR0911 - one return for each verdict
    """One value as address and verdict; None if it is blank."""
    text = visible(piece).strip()
    if any(joiner in text for joiner in JOINERS) and (bare := text.replace(JOINERS[0], "").replace(JOINERS[1], "")).isascii():
        text = bare.strip()
    if not text:
        return None
    text = unicodedata.normalize("NFC", text.lower())
    if len(text) > _MAX_LENGTH:
        return None, INVALID
    bare = _bare(text)
    if len(bare) <= _PLAIN_LENGTH and _PLAIN_RE.fullmatch(bare) and not _suspect(bare):
        return bare, VALID
    letters = re.sub(r"[\W_]", "", bare)
    if _FAKE_RE.fullmatch(bare) or not letters.strip("0") or ("@" not in bare and letters in _WORDS):
        return None, PLACEHOLDER
    address = canonical_address(bare)
    if address is None:
        return None, INVALID
    if _FAKE_RE.fullmatch(address):
        return None, PLACEHOLDER
    return (None, ROLE) if _ROLE_RE.fullmatch(address) else (address, VALID)


def split(cell: str) -> list[str]:
    """The values a cell holds: a JSON list, or separated by ``;``, ``:::`` or line ends, or by commas or blanks between addresses."""
    items = listed(cell.strip())
    pieces: list[str] = []
    for item in [cell] if items is None else items:
        for part in re.split(r"[;\r\n]|:::", item):
            words = [word for word in re.split(r"[,\s]+", part) if word]
            pieces += words if len(words) > 1 and all("@" in word for word in words) else [part]
    return pieces


def read(cell: str) -> tuple[Judged, ...]:
    """Every value of a cell, judged."""
    return tuple(judged for piece in split(cell) if (judged := judge(piece)) is not None)


def plain(texts: pa.Array) -> pa.Array:
    """Which trimmed, lower-case texts are valid and canonical as they stand: beyond doubt, the rest is for :func:`read`."""
    shaped = pc.and_(pc.match_substring_regex(texts, f"^(?:{_PLAIN})$"), pc.less_equal(pc.binary_length(texts), _PLAIN_LENGTH))
    return pc.and_not(shaped, pc.match_substring_regex(texts, f"^(?:{_ROLE}|{_FAKE}|{_RESERVED})$"))


def find(column: pa.Array) -> Found:
    """The addresses of one source column."""
    rows = np.flatnonzero(truth(column.is_valid()))
    cells = column.drop_null()
    texts = pc.ascii_lower(pc.ascii_trim_whitespace(cells))
    sure = truth(plain(texts))
    if sure.all():
        return Found(rows, texts, np.full(len(rows), VALID, np.int8))
    slow = found_of(rows[~sure], once_each(cells.filter(pa.array(~sure)).to_pylist(), read))
    return joined(Found(rows[sure], texts.filter(pa.array(sure)), np.full(int(sure.sum()), VALID, np.int8)), slow)
