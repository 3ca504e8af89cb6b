"""Access tokens that a vendor hands out for a client's id and secret (OAuth 2, RFC 6749, section 4.4)."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from identity_pipeline.core.errors import CredentialError, PermissionDenied, SourceRejected
from identity_pipeline.core.secret import TokenProvider
from identity_pipeline.core.window import ReadContext
from identity_pipeline.readers.rest.client import Client
from identity_pipeline.readers.rest.error import ErrorBody
from identity_pipeline.readers.rest.message import Request

_EARLY = 60.0
"""Seconds before its end that a token is replaced."""


class _Anonymous:
    """The body of the request says who asks."""

    def headers(self) -> Mapping[str, str]:
        return {}

    def refresh(self) -> None:
        return None


@dataclass
class ClientCredentials:
    """A token provider: asks ``url`` for a token, and again when that ends or is refused."""

    url: str
    client_id: str
    client_secret: TokenProvider = field(repr=False)
    scope: str = ""
    _held: str = field(default="", init=False, repr=False)
    _until: float = field(default=0.0, init=False, repr=False)

    def token(self) -> str:
        """The token as it is now.

        Raises:
            CredentialError: the vendor gives none for this client.
            PipelineError: its endpoint cannot be asked, as :meth:`Client.send` says.
        """
        return self._held if self._held and time.monotonic() < self._until else self.refresh()

    def refresh(self) -> str:
        """A new token."""
        asked = {
            "grant_type": "client_credentials",
            "client_id": self.client_id,
            "client_secret": self.client_secret.token(),
            **({"scope": self.scope} if self.scope else {}),
        }
        client = Client(self.url, _Anonymous(), ReadContext(), ErrorBody(code=("error",)), retry_budget=60)
        try:
            response = client.send(Request("", body=asked))
        except (CredentialError, PermissionDenied, SourceRejected) as error:
            what = str(error).partition(": ")[0]
            raise CredentialError(
                f"{what}, asked for a token: check client_id and client_secret, and that the app is installed there"
            ) from None
        token = response.at("access_token")
        if not isinstance(token, str) or not token:
            raise response.broken("a token at 'access_token'")
        self.client_secret.learn(token)
        try:
            self._until = time.monotonic() + float(response.at("expires_in")) - _EARLY
        except (TypeError, ValueError):  # it does not say: until it is refused
            self._until = math.inf
        self._held = token
        return token

    def learn(self, secret: str) -> None:
        """Redact this text from now on."""
        self.client_secret.learn(secret)
