"""Tokens of Microsoft Entra: for an app that signs in by its secret, or for the identity that this machine has."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import quote

import requests

from identity_pipeline.core.errors import ConfigurationError, ContractBroken, CredentialError, SourceUnavailable, TryLater
from identity_pipeline.core.secret import TokenProvider
from identity_pipeline.readers.extras import missing
from identity_pipeline.readers.http.endpoint import Answer, ask
from identity_pipeline.readers.http.exchange import error_class, refusal
from identity_pipeline.readers.http.guard import check_url

TOKEN_URL = "https://login.microsoftonline.com/{tenant_id}/oauth2/v2.0/token"  # noqa: S105 - an address
_EARLY = 300.0
"""Seconds before its end that a token is replaced."""
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
        answer = ask(check_url(self.url.replace("{tenant_id}", quote(self.tenant_id, safe="")), "token_url"), form, setting="token_url")
        if answer.status != requests.codes.ok:
            raise _refusal(answer)
        token, lives = answer.text("access_token"), answer.seconds("expires_in")
        if not token or lives is None:
            raise ContractBroken(f"{answer.tried} answered 200 without a token: check token_url")
        self.client_secret.learn(token)
        return token, time.time() + lives


def _refusal(answer: Answer) -> Exception:
    cls = error_class(answer.status, answer.kind)
    if issubclass(cls, TryLater):
        return refusal(cls(f"{answer.tried} answered {answer.status}: try again later"), answer.headers)
    codes = answer.body.get("error_codes")
    codes = [code for code in codes if isinstance(code, int)] if isinstance(codes, list) else []
    advice = next((_REFUSED[code] for code in codes if code in _REFUSED), _OTHER)
    shown = f"{answer.status}{''.join(f' AADSTS{code}' for code in codes[:2])}"
    return CredentialError(f"{answer.tried} answered {shown}, asked for a token: {advice}")


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
