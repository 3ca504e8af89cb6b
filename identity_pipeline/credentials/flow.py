"""How a token is got: by a refresh token, by the app itself, or by a key. What is kept for it, sealed, and the form that is sent."""

import base64
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from psycopg import Connection

from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.credentials import vault
from identity_pipeline.credentials.vendors import Vendor
from identity_pipeline.readers.http.endpoint import Answer
from identity_pipeline.store.database import connect

KINDS = ("oauth_grant", "oauth_client", "oauth_key")
"""By a refresh token that a person granted; by the app's own id and secret; by a private key."""
_JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_EARLY = 120
"""Seconds before its end that a token is replaced, fewer where it lives no longer than minutes."""
_ASSERTED = 180
"""Seconds that an assertion is good for: Salesforce takes no more."""


@dataclass(frozen=True)
class App:
    """An OAuth app of a vendor. An address that is not empty stands in the place of the vendor's own."""

    client_id: str
    client_secret: str = field(default="", repr=False)
    authorize_url: str = ""
    token_url: str = ""


@dataclass(frozen=True)
class Kept:
    """What is kept, sealed, of one credential that tokens are got with.

    ``key`` is a private key as PEM, ``issuer`` whose it is, ``subject`` whom the token is for.
    """

    token_url: str
    scope: str = ""
    refresh_token: str = field(default="", repr=False)
    access_token: str = field(default="", repr=False)
    key: str = field(default="", repr=False)
    issuer: str = ""
    subject: str = ""
    audience: str = ""

    @classmethod
    def read(cls, secret: str) -> "Kept":
        """What :attr:`text` was made of."""
        return cls(**json.loads(secret))

    @property
    def text(self) -> str:
        """As it is sealed."""
        return json.dumps(asdict(self))

    def answered(self, answer: Answer) -> "Kept":
        """The same with the tokens of ``answer``; the refresh token stays where it brings no other one."""
        return replace(self, access_token=answer.text("access_token"), refresh_token=answer.text("refresh_token") or self.refresh_token)

    def secrets(self, app: App | None) -> list[str]:
        """All that must be shown nowhere."""
        return [text for text in (self.refresh_token, self.access_token, self.key, app.client_secret if app else "") if text]


def app_name(vendor: str) -> str:
    """Under which name the OAuth app of a vendor is stored."""
    return f"app.{vendor}"


def app_of(connection: Connection[Any], of: Vendor) -> App | None:
    """The stored app of a vendor, None if there is none.

    Raises:
        ConfigurationError: no key opens it, or something else is stored under its name.
    """
    found = vault.held(connection, app_name(of.name))
    if found is None:
        return None
    if found.row["kind"] != "oauth_app":
        raise ConfigurationError(f"credential {app_name(of.name)!r} is no OAuth app: delete it, then {set_app(of)}")
    return App(**json.loads(found.secret))


def needed_app(url: str, of: Vendor) -> App:
    """The stored app of a vendor.

    Raises:
        ConfigurationError: there is none.
    """
    with connect(url, doing="look up the OAuth app") as connection:
        found = app_of(connection, of)
    if found is None:
        raise ConfigurationError(f"there is no OAuth app of {of.title}: register one there and store it: {set_app(of)}")
    return found


def set_app(of: Vendor) -> str:
    """The command that stores the app of a vendor."""
    return f"identity-pipeline credentials set-app {of.name}"


def form(kind: str, kept: Kept, app: App | None, now: Callable[[], float] = time.time) -> dict[str, str]:
    """The form that asks for a token; parts that are empty are not sent.

    Raises:
        ConfigurationError: the key is none that can sign.
    """
    if kind == "oauth_key":
        return {"grant_type": _JWT_BEARER, "assertion": _assertion(kept, int(now()))}
    client = {"client_id": app.client_id, "client_secret": app.client_secret} if app else {}
    if kind == "oauth_client":
        return {"grant_type": "client_credentials", "scope": kept.scope, **client}
    return {"grant_type": "refresh_token", "refresh_token": kept.refresh_token, "scope": "", **client}


def private_key(pem: str) -> RSAPrivateKey:
    """The key of a PEM.

    Raises:
        ConfigurationError: it is none, has a passphrase, or is not RSA.
    """
    try:
        key = serialization.load_pem_private_key(pem.encode(), None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, RSAPrivateKey):
        raise ConfigurationError("the key file holds no RSA private key without a passphrase (PEM): make or download it again")
    return key


def _assertion(kept: Kept, now: int) -> str:
    """A JWT signed with RS256 (RFC 7523)."""
    claims: dict[str, Any] = {"iss": kept.issuer, "aud": kept.audience, "iat": now, "exp": now + _ASSERTED}
    claims |= {"sub": kept.subject} if kept.subject else {}
    claims |= {"scope": kept.scope} if kept.scope else {}
    parts = ".".join(_base64(json.dumps(part).encode()) for part in ({"alg": "RS256", "typ": "JWT"}, claims))
    return f"{parts}.{_base64(private_key(kept.key).sign(parts.encode(), PKCS1v15(), hashes.SHA256()))}"


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def about(of: Vendor, row: Mapping[str, Any], answer: Answer, now: datetime | None = None) -> vault.About:
    """What is to be shown of a credential that has the tokens of ``answer`` from now on."""
    now = now or datetime.now(UTC)
    lives = answer.seconds("expires_in") or of.lifetime.total_seconds()
    dies = answer.seconds("refresh_token_expires_in")
    expires = now + timedelta(seconds=dies) if dies else now + of.idle if of.idle and row["kind"] == "oauth_grant" else None
    return vault.About(
        row["vendor"],
        row["source_type"],
        row["account"],
        row["account_id"],
        row["scopes"],
        now + timedelta(seconds=lives - min(_EARLY, lives / 10)),
        expires,
    )
