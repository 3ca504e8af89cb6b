"""The vendors that let us in by OAuth 2: where they are asked, for which scopes, and what their tokens tell."""

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from identity_pipeline.core.errors import ConfigurationError

_GOOGLE = "https://www.googleapis.com/auth/"
_GRAPH = "https://graph.microsoft.com/.default"
_MANY_TENANTS = frozenset({"common", "organizations", "consumers"})
_MY_DOMAIN = (
    r"[a-z0-9][a-z0-9-]{0,62}(\.(sandbox|develop|scratch|demo|patch|trailblaze))?\.my\.(salesforce\.com|salesforce\.mil|sfcrmproducts\.cn)"
)


@dataclass(frozen=True)
class Account:
    """Who granted: ``id`` as the vendor tells accounts apart, ``label`` as a person does."""

    id: str
    label: str


@dataclass(frozen=True)
class Vendor:
    """One vendor. ``{tenant}`` in an address is the customer's own part of it.

    ``scopes`` are what each source type has to be granted, read-only; ``besides`` tell who granted and
    have a grant that can be renewed, whether they are echoed or not. ``parameters`` go into the
    authorisation address. ``tenant_form`` is what a tenant looks like, empty where there is none, ``tenant``
    the one to take where none is given. ``client_scope`` is asked for where the app itself is let in, None
    where it never is. ``lifetime`` is how long a token is used of which the vendor does not say when
    it ends, ``idle`` how long a grant lives that is not used, as far as that is known.
    """

    name: str
    title: str
    authorize_url: str
    token_url: str
    scopes: Mapping[str, tuple[str, ...]]
    besides: tuple[str, ...] = ()
    parameters: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    tenant: str = ""
    tenant_form: str = ""
    tenant_help: str = ""
    client_scope: str | None = None
    lifetime: timedelta = timedelta(minutes=5)
    idle: timedelta | None = None

    def check_tenant(self, tenant: str, *, alone: bool = False) -> str:
        """``tenant``, or the one to take where none is given; ``alone`` one customer's, not anybody's.

        Raises:
            ConfigurationError: it is none of this vendor's.
        """
        given = (tenant or self.tenant).strip().lower().removeprefix("https://").rstrip("/")
        if not self.tenant_form:
            if tenant:
                raise ConfigurationError(f"{self.title} has no tenants: leave it out")
            return ""
        if not re.fullmatch(self.tenant_form, given) or (alone and given in _MANY_TENANTS):
            raise ConfigurationError(f"tenant: expected {self.tenant_help}")
        return given


# https://developers.google.com/identity/protocols/oauth2/web-server
GOOGLE = Vendor(
    "google",
    "Google",
    "https://accounts.google.com/o/oauth2/v2/auth",
    "https://oauth2.googleapis.com/token",
    {
        "google_contacts": (f"{_GOOGLE}contacts.readonly",),
        "google_sheets": (f"{_GOOGLE}spreadsheets.readonly", f"{_GOOGLE}drive.metadata.readonly"),
    },
    ("openid", "email"),
    {"access_type": "offline", "prompt": "consent"},  # a refresh token comes with the first consent only, unless it is asked for again
    idle=timedelta(days=180),
)
# https://learn.microsoft.com/entra/identity-platform/v2-oauth2-auth-code-flow
MICROSOFT = Vendor(
    "microsoft",
    "Microsoft",
    "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/authorize",
    "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token",
    {"microsoft_contacts": ("Contacts.Read",)},
    ("openid", "profile", "email", "offline_access"),
    {"prompt": "select_account"},
    "common",
    r"[a-z0-9][a-z0-9.-]{0,252}",
    "the directory's id (a GUID) or one of its domains; common, organizations or consumers where people sign in",
    _GRAPH,
    idle=timedelta(days=90),
)
# https://help.salesforce.com/s/articleView?id=xcloud.remoteaccess_oauth_web_server_flow.htm
SALESFORCE = Vendor(
    "salesforce",
    "Salesforce",
    "https://{tenant}/services/oauth2/authorize",
    "https://{tenant}/services/oauth2/token",
    {"salesforce_contacts": ("api",)},
    ("refresh_token", "id"),
    {"prompt": "login consent"},
    "",
    _MY_DOMAIN,
    "the My Domain of the org, such as acme.my.salesforce.com or acme--test.sandbox.my.salesforce.com (Setup, My Domain; not the address "
    "of the browser, which ends in lightning.force.com)",
    "",
    timedelta(minutes=10),  # it does not say when a token ends; the shortest session timeout is 15 minutes
)
VENDORS: Mapping[str, Vendor] = MappingProxyType({each.name: each for each in (GOOGLE, MICROSOFT, SALESFORCE)})
"""By name."""


def vendor(name: str) -> Vendor:
    """The vendor of that name.

    Raises:
        ConfigurationError: there is none.
    """
    if name not in VENDORS:
        raise ConfigurationError(f"no vendor that is connected by OAuth is called {name!r}: there are {', '.join(VENDORS)}")
    return VENDORS[name]


def vendor_of(source_type: str) -> Vendor:
    """The vendor whose data a source type reads.

    Raises:
        ConfigurationError: it is not connected by OAuth.
    """
    for each in VENDORS.values():
        if source_type in each.scopes:
            return each
    known = ", ".join(source_type for each in VENDORS.values() for source_type in each.scopes)
    raise ConfigurationError(
        f"{source_type} is not connected by OAuth (those are {known}): store its key with `identity-pipeline credentials set NAME`"
    )


def account(of: Vendor, answer: Mapping[str, Any]) -> Account:
    """Who granted, by the token's answer. A part that it does not tell is empty."""
    if of is SALESFORCE:
        org, _, user = urlsplit(str(answer.get("id", ""))).path.removeprefix("/id/").partition("/")
        return Account(f"{org}/{user}" if user else "", f"user {user} of org {org}" if user else "")
    claims = _claims(answer.get("id_token"))
    who = f"{claims['tid']}/{claims['oid']}" if "tid" in claims and "oid" in claims else claims.get("sub", "")
    return Account(who, claims.get("email") or claims.get("preferred_username") or who)


def home_tenant(of: Vendor, answer: Mapping[str, Any], tenant: str) -> str:
    """The tenant that a grant belongs to: a guest would be led to his own one by ``common``."""
    found = _claims(answer.get("id_token")).get("tid", "") if of is MICROSOFT else ""
    return found if found and re.fullmatch(of.tenant_form, found) else tenant


def _claims(id_token: Any) -> dict[str, str]:
    """What an ID token says. It came from the vendor over TLS, so its signature need not be looked at (OpenID Connect Core, 3.1.3.7)."""
    try:
        part = str(id_token).split(".")[1]
        found = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (IndexError, ValueError):
        return {}
    return {name: value for name, value in found.items() if isinstance(value, str)} if isinstance(found, dict) else {}


def missing(required: tuple[str, ...], answer: Mapping[str, Any]) -> list[str]:
    """Scopes that were asked for and not granted; none where the answer does not say which were (RFC 6749, section 5.1: then all)."""
    said = answer.get("scope")
    if not isinstance(said, str) or not said.strip():
        return []
    granted = {_short(scope) for scope in re.split(r"[ ,]+", said)}
    return [] if "full" in granted else [scope for scope in required if _short(scope) not in granted]


def _short(scope: str) -> str:
    return scope.rstrip("/").rpartition("/")[2].lower()
