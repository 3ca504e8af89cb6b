"""Tokens of Microsoft Entra: for an app that signs in by its secret, or for the identity that this machine has."""

import json
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

import requests

from identity_pipeline.core.errors import ConfigurationError, ContractBroken, CredentialError, SourceUnavailable, TryLater
from identity_pipeline.core.secret import TokenProvider
from identity_pipeline.core.window import ReadContext
from identity_pipeline.readers.extras import missing
from identity_pipeline.readers.http import body
from identity_pipeline.readers.http.exchange import Call, content_type, error_class, exchange, refusal
from identity_pipeline.readers.http.guard import check_url
from identity_pipeline.readers.http.session import session

TOKEN_URL = "https://login.microsoftonline.com/{tenant_id}/oauth2/v2.0/token"  # noqa: S105 - an address
_EARLY = 300.0
"""Seconds before its end that a token is replaced."""
_DEADLINE = 60.0
_MAX = 2**20
# https://learn.microsoft.com/entra/identity-platform/reference-error-codes
_REFUSED = {
    7000215: "client_secret is wrong: give the value of the secret, not its id",
    7000222: "the client secret has expired: make a new one for the app",
    700016: "the directory knows no such app: check client_id and tenant_id",
    90002: "there is no such directory: check tenant_id",
    900023: "there is no such directory: check tenant_id",
    7000112: "the app is disabled: have an administrator enable it",
    53003: "a policy of the directory blocks the app: ask its administrator",
}
_OTHER = "check tenant_id, client_id and client_secret"


@dataclass
class _Held:
    """A token until it ends, asked for anew then, by one of all threads: ``ask`` gives one and its end in seconds since 1970."""

    ask: Callable[[], tuple[str, float]]
    _token: str = field(default="", init=False, repr=False)
    _until: float = field(default=0.0, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def token(self) -> str:
        with self._lock:
            if time.time() > self._until - _EARLY:
                self._token, self._until = self.ask()
            return self._token


@dataclass
class App:
    """An app of the directory ``tenant_id``, which signs in by ``client_secret``, for ``scope``. ``url`` may hold ``{tenant_id}``."""

    tenant_id: str
    client_id: str
    client_secret: TokenProvider = field(repr=False)
    scope: str
    url: str = TOKEN_URL

    def __post_init__(self) -> None:
        self._held = _Held(self._asked)

    def token(self) -> str:
        """The token as it is now.

        Raises:
            CredentialError: the directory gives none to this app.
            PipelineError: it cannot be asked.
        """
        return self._held.token()

    def _asked(self) -> tuple[str, float]:
        # https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow
        form = {
            "grant_type": "client_credentials",
            "client_id": self.client_id,
            "client_secret": self.client_secret.token(),
            "scope": self.scope,
        }
        headers = {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded", "User-Agent": "identity-pipeline"}
        url = check_url(self.url.replace("{tenant_id}", quote(self.tenant_id, safe="")), "token_url")
        call, context = Call("POST", url, headers, urlencode(form).encode(), setting="token_url", redirects=0), ReadContext()
        with session() as connections, exchange(connections, call, context, _DEADLINE) as response:
            said = b"".join(body.bounded(body.stream(response, context), _MAX))
            try:
                answer = json.loads(said)
            except ValueError:
                answer = None
            told = answer if isinstance(answer, dict) else {}
            if response.status_code != requests.codes.ok:
                raise _refusal(call, response, told)
        try:
            token, lives = str(told["access_token"]), float(told["expires_in"])
        except (KeyError, TypeError, ValueError):
            raise ContractBroken(f"{call.tried} answered 200 without a token: check token_url") from None
        self.client_secret.learn(token)
        return token, time.time() + lives


def _refusal(call: Call, response: requests.Response, told: dict[str, Any]) -> Exception:
    cls = error_class(response.status_code, content_type(response.headers))
    if issubclass(cls, TryLater):
        return refusal(cls(f"{call.tried} answered {response.status_code}: try again later"), response.headers)
    codes = told.get("error_codes")
    codes = [code for code in codes if isinstance(code, int)] if isinstance(codes, list) else []
    advice = next((_REFUSED[code] for code in codes if code in _REFUSED), _OTHER)
    shown = f"{response.status_code}{''.join(f' AADSTS{code}' for code in codes[:2])}"
    return CredentialError(f"{call.tried} answered {shown}, asked for a token: {advice}")


@dataclass
class Ambient:
    """The identity that this machine has (environment, workload or managed identity, a developer's login), for ``scope``."""

    scope: str

    def __post_init__(self) -> None:
        self._held = _Held(self._asked)

    def token(self) -> str:
        """The token as it is now.

        Raises:
            CredentialError: this machine has no identity, or it is not accepted.
            ConfigurationError: the extra is not installed.
        """
        return self._held.token()

    def _asked(self) -> tuple[str, float]:
        try:
            from azure.core.exceptions import AzureError, ClientAuthenticationError  # noqa: PLC0415 - only where it is used
            from azure.identity import DefaultAzureCredential  # noqa: PLC0415
        except ImportError:
            raise missing("azure") from None
        logging.getLogger("azure").setLevel(logging.CRITICAL)  # what fails is raised; the log would have all that was tried
        try:
            # it may ask the machine's metadata server, to which the guard leads nobody else
            with DefaultAzureCredential() as credential:
                found = credential.get_token(self.scope)
        except ClientAuthenticationError:
            raise CredentialError("this machine has no identity for Azure: give it one, or set another way to sign in") from None
        except AzureError as error:
            raise SourceUnavailable(f"this machine's identity for Azure cannot be asked for ({type(error).__name__}): try again") from None
        except ValueError as error:
            raise ConfigurationError(f"this machine's settings for Azure cannot be used ({type(error).__name__}): correct them") from None
        return found.token, float(found.expires_on)
