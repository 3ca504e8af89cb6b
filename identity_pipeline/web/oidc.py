"""Signing in at an organisation's own provider: OpenID Connect, by authorisation code with PKCE.

Only what the provider's signature vouches for is believed (OpenID Connect Core 1.0, section 3.1.3.7), and its
user information where that is of the same person (section 5.3). Who may come in, and as what, is said by groups.
"""

import base64
import hashlib
import json
import logging
import os
import re
import secrets
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, quote_plus, urlencode, urlsplit

from identity_pipeline.core.errors import ConfigurationError, CredentialError, PermissionDenied, PipelineError, TryLater
from identity_pipeline.readers.http.endpoint import Answer, ask, look
from identity_pipeline.readers.http.guard import check_url, display_url
from identity_pipeline.web.access import Access, Person

CALLBACK = "/login/callback"
WITHIN = 600.0
"""Seconds from leaving to coming back."""
_ISSUER = "IDENTITY_OIDC_ISSUER"
_METADATA = "/.well-known/openid-configuration"
_PURPOSE = "signing in"
_KEPT = 3600.0
"""Seconds that a provider's description and keys are kept."""
_AGAIN_AFTER = 60.0
"""Seconds before keys are fetched once more because of one that is not among them: anybody could have that done without end."""
_LEEWAY = 120
"""Seconds by which clocks may differ."""
_SIGNATURES = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
"""Those that only the provider can make. One that is made with the client's secret vouches for nobody."""
_CODE = re.compile(r"[A-Za-z0-9_.-]{1,60}")
_ADVICE = {
    "access_denied": "you, or a rule there, refused: sign in again, or ask who looks after the provider",
    "invalid_client": "IDENTITY_OIDC_CLIENT_ID or IDENTITY_OIDC_CLIENT_SECRET is not what is registered there",
    "unauthorized_client": "the client must be registered there for the authorisation code flow",
    "invalid_grant": "the code was used already or is too old: sign in again",
    "redirect_uri_mismatch": "register the address that the server printed when it started",
    "invalid_scope": "IDENTITY_OIDC_SCOPE names a scope that it does not have",
    "temporarily_unavailable": "try again in a minute",
    "server_error": "try again in a minute",
}


@dataclass(frozen=True)
class Settings:
    """The provider and the client registered there.

    ``operators`` and ``viewers``: groups, verified e-mail addresses, ``*`` for everybody.
    """

    issuer: str
    client_id: str
    client_secret: str = field(default="", repr=False)
    operators: frozenset[str] = frozenset()
    viewers: frozenset[str] = frozenset()
    groups_claim: str = "groups"
    scope: str = "openid profile email"

    @classmethod
    def read(cls, environment: Mapping[str, str] | None = None) -> "Settings":
        """From the variables ``IDENTITY_OIDC_*``.

        Raises:
            ConfigurationError: one is missing, or the issuer is none that may be asked.
        """
        of = os.environ if environment is None else environment

        def text(name: str, default: str = "") -> str:
            return of.get(f"IDENTITY_OIDC_{name}", "").strip() or default

        def names(name: str) -> frozenset[str]:
            return frozenset(part.strip() for part in text(name).split(",") if part.strip())

        if missing := [f"IDENTITY_OIDC_{name}" for name in ("ISSUER", "CLIENT_ID") if not text(name)]:
            raise ConfigurationError(f"IDENTITY_AUTH=oidc: set {' and '.join(missing)}, as the provider's page of this client has them")
        if not names("OPERATORS") | names("VIEWERS"):
            raise ConfigurationError(
                "IDENTITY_AUTH=oidc: nobody may come in: set IDENTITY_OIDC_OPERATORS, IDENTITY_OIDC_VIEWERS or both to groups or e-mail "
                "addresses, separated by commas (* is everybody whom the provider signs in)"
            )
        check_url(text("ISSUER"), _ISSUER)
        scope = text("SCOPE", cls.scope)
        if "openid" not in scope.split():
            raise ConfigurationError(f"IDENTITY_OIDC_SCOPE: must hold openid, as in {cls.scope!r}")
        secret, claim = text("CLIENT_SECRET"), text("GROUPS_CLAIM", cls.groups_claim)
        return cls(text("ISSUER"), text("CLIENT_ID"), secret, names("OPERATORS"), names("VIEWERS"), claim, scope)

    @property
    def rules(self) -> str:
        """By what people come in: a session that was begun by others is over."""
        return json.dumps([self.issuer, self.client_id, sorted(self.operators), sorted(self.viewers), self.groups_claim])


@dataclass
class Provider:
    """Where people sign in. ``redirect_uri``: where it leads back to, registered there as it stands."""

    settings: Settings
    redirect_uri: str
    access: Access
    _described: dict[str, Any] = field(default_factory=dict, repr=False)
    _keys: dict[str, Any] = field(default_factory=dict, repr=False)
    _fetched: float = field(default=float("-inf"), repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def name(self) -> str:
        """As people know it: its host."""
        return urlsplit(self.settings.issuer).hostname or self.settings.issuer

    def begin(self, to: str) -> tuple[str, str]:
        """The address at which to sign in, and what the browser keeps until it comes back. ``to``: the page to open then.

        Raises:
            PipelineError: the provider cannot be asked, or describes itself in a way that cannot be used.
        """
        where = self._endpoint("authorization_endpoint")
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        asked = {
            "response_type": "code",
            "client_id": self.settings.client_id,
            "redirect_uri": self.redirect_uri,
            "scope": self.settings.scope,
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        kept = self.access.signed(_PURPOSE, [state, nonce, verifier, to], WITHIN)
        return f"{where}{'&' if '?' in where else '?'}{urlencode(asked)}", kept

    def finish(self, query: str, kept: str) -> tuple[Person, str]:
        """Who came back with this ``query``, and the page to open. ``kept``: what :meth:`begin` had the browser keep.

        Raises:
            CredentialError: it is not the answer to what this browser began, or vouches for nobody.
            PermissionDenied: the person is known there, and may not come in here.
            PipelineError: the provider cannot be asked.
        """
        given = {name: values[0] for name, values in parse_qs(query).items() if len(values) == 1}
        found = self.access.read(_PURPOSE, kept)
        if not found or not secrets.compare_digest(found[0].encode(), given.get("state", "").encode()):
            raise CredentialError(
                "this is no answer to a sign-in that was begun in this browser within the last 10 minutes, or another one was begun since: "
                "sign in again"
            )
        _, nonce, verifier, to = found
        if error := given.get("error"):
            raise CredentialError(f"{self.name} did not sign you in: {_advised(error)}")
        if given.get("iss", self.settings.issuer) != self.settings.issuer:  # RFC 9207
            raise CredentialError(f"the answer came from another provider than {self.settings.issuer}: sign in again")
        if not given.get("code"):
            raise CredentialError(f"{self.name} led back without a code: sign in again")
        answer = self._token(given["code"], verifier)
        claims = self._claims(answer.text("id_token"), nonce, answer.text("access_token"))
        return self._person(claims | self._more(claims, answer.text("access_token"))), to

    def _token(self, code: str, verifier: str) -> Answer:
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": self.redirect_uri, "code_verifier": verifier}
        basic = ""
        ways = self._description().get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        if self.settings.client_secret and "client_secret_basic" in ways:
            pair = ":".join(map(quote_plus, (self.settings.client_id, self.settings.client_secret)))  # RFC 6749, section 2.3.1
            basic = f"Basic {base64.b64encode(pair.encode()).decode()}"
        else:
            form |= {"client_id": self.settings.client_id, "client_secret": self.settings.client_secret}
        answer = ask(self._endpoint("token_endpoint"), form, authorization=basic, setting=_ISSUER)
        if answer.status != 200:
            raise _refused(answer)
        return answer

    def _claims(self, token: str, nonce: str, access_token: str) -> dict[str, Any]:
        """What the provider vouches for."""
        from authlib.oidc.core import CodeIDToken  # noqa: PLC0415 - for those who sign in by it
        from joserfc import jwt  # noqa: PLC0415
        from joserfc.errors import InvalidKeyIdError, JoseError  # noqa: PLC0415
        from joserfc.jwk import KeySet  # noqa: PLC0415
        from joserfc.jws import JWSRegistry  # noqa: PLC0415

        registry = JWSRegistry(algorithms=list(self._signatures()), strict_check_header=False)

        def decoded() -> jwt.Token:
            return jwt.decode(token, KeySet.import_key_set(self._keys), registry=registry)  # type: ignore[arg-type] - judged by it

        try:
            self._description()
            try:
                found = decoded()
            except InvalidKeyIdError:  # it has changed its keys
                self._fetch(_AGAIN_AFTER)
                found = decoded()
            options = {
                "iss": {"essential": True, "value": self.settings.issuer},
                "aud": {"essential": True, "value": self.settings.client_id},
            }
            asked = {"nonce": nonce, "client_id": self.settings.client_id, "access_token": access_token}
            claims = CodeIDToken(found.claims, found.header, options, asked)
            claims.validate(now=int(self.access.clock()), leeway=_LEEWAY)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            reason = getattr(error, "error", type(error).__name__)
            about = f" ({claim})" if (claim := getattr(error, "claim", "")) else ""
            raise CredentialError(
                f"what {self.name} answered does not vouch for anybody: {reason}{about}: sign in again; if it comes back, compare "
                f"the clocks of both servers, {_ISSUER} and IDENTITY_OIDC_CLIENT_ID"
            ) from None
        if not isinstance(claims.get("sub"), str) or not claims["sub"]:
            raise CredentialError(f"what {self.name} answered does not say who you are: sign in again")
        return dict(claims)

    def _signatures(self) -> tuple[str, ...]:
        offered = self._description().get("id_token_signing_alg_values_supported") or ["RS256"]
        return tuple(name for name in _SIGNATURES if name in offered)

    def _more(self, claims: Mapping[str, Any], access_token: str) -> dict[str, Any]:
        """What its user information adds: many providers tell groups and addresses there alone."""
        where = self._description().get("userinfo_endpoint")
        if not where or not access_token or (self.settings.groups_claim in claims and "email" in claims):
            return {}
        answer = look(check_url(str(where), _ISSUER), access_token, setting=_ISSUER)
        if answer.status != 200:
            raise _refused(answer)
        if answer.body.get("sub") != claims["sub"]:
            raise CredentialError(f"{self.name} told of another person than it signed in: nothing of it is believed")
        return {name: value for name, value in answer.body.items() if name not in claims}

    def _person(self, claims: Mapping[str, Any]) -> Person:
        address = claims.get("email") if claims.get("email_verified") is True else None
        name = next((text for text in (address, claims.get("preferred_username"), claims["sub"]) if isinstance(text, str) and text), "")
        held = claims.get(self.settings.groups_claim)
        groups = {held} if isinstance(held, str) else {one for one in held if isinstance(one, str)} if isinstance(held, list) else set()
        of = {"*"} | _folded(groups) | ({address.lower()} if isinstance(address, str) else set())
        name = "".join(letter for letter in name if letter.isprintable())[:200]
        if of & _folded(self.settings.operators):
            return Person(name, "operator", by_session=True)
        if of & _folded(self.settings.viewers):
            return Person(name, "viewer", by_session=True)
        logging.getLogger("identity_pipeline.web").warning("somebody whom %s signed in may not come in: no group of theirs may", self.name)
        raise PermissionDenied(f"{name} is signed in at {self.name}, and may not come in here: {self._why_not(claims, groups)}")

    def _why_not(self, claims: Mapping[str, Any], groups: set[str]) -> str:
        claim = self.settings.groups_claim
        sources = claims.get("_claim_names")
        if isinstance(sources, Mapping) and claim in sources:  # Entra's word for it
            return "the account is in more groups than it tells of: have it send only those assigned to this client"
        if not groups:
            return f"it told of no groups under {claim!r}: have it send them, or set IDENTITY_OIDC_GROUPS_CLAIM or IDENTITY_OIDC_SCOPE"
        told = f"none of the {len(groups)} groups that it told of is among IDENTITY_OIDC_OPERATORS or IDENTITY_OIDC_VIEWERS"
        return f"{told}: ask who runs this server"

    def _endpoint(self, name: str) -> str:
        where = self._description().get(name)
        if not isinstance(where, str):
            raise ConfigurationError(f"{_ISSUER}: {display_url(self.settings.issuer)} names no {name}: is it an OpenID provider's issuer?")
        return check_url(where, _ISSUER)

    def _description(self) -> dict[str, Any]:
        """The provider's metadata, with its keys beside it."""
        self._fetch(_KEPT)
        return self._described

    def _fetch(self, oldest: float) -> None:
        with self._lock:
            if self.access.clock() - self._fetched < oldest:
                return
            described = self._looked_up(self.settings.issuer.rstrip("/") + _METADATA)
            if described.get("issuer") != self.settings.issuer:
                raise ConfigurationError(
                    f"{_ISSUER}: what is found there calls itself {display_url(str(described.get('issuer')))!r}: set exactly that, "
                    "if it is yours"
                )
            keys = self._looked_up(check_url(str(described.get("jwks_uri", "")), _ISSUER))
            self._described, self._keys, self._fetched = described, keys, self.access.clock()

    def _looked_up(self, url: str) -> dict[str, Any]:
        answer = look(url, setting=_ISSUER)
        if answer.status != 200 or not answer.body:
            raise (TryLater if answer.status >= 500 else ConfigurationError)(
                f"{_ISSUER}: {answer.tried} answered {answer.status} and no description of an OpenID provider: check the address, "
                "or try again once it answers"
            )
        return dict(answer.body)


def _folded(names: Iterable[str]) -> set[str]:
    """Addresses of people are compared without regard to case, names of groups as they stand."""
    return {name.lower() if "@" in name else name for name in names}


def _advised(code: str) -> str:
    shown = code if _CODE.fullmatch(code) else "an error without a code"
    return f"{shown}: {_ADVICE.get(shown, 'sign in again, or ask who looks after the provider')}"


def _refused(answer: Answer) -> PipelineError:
    message = f"{answer.tried} answered {answer.status}, {_advised(answer.text('error'))}"
    return TryLater(message) if answer.status >= 500 or answer.status == 429 else CredentialError(message)
