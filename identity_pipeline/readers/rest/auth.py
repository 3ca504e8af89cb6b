"""How a request proves who asks: one small value for each way. None shows its secret in its repr."""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.core.secret import TokenProvider

_SENDABLE = re.compile(r"[\x21-\x7e]+")


class Auth(Protocol):
    """Headers that prove who asks."""

    def headers(self) -> Mapping[str, str]:
        """The headers to send, by the secret as it is now.

        Raises:
            CredentialError: there is no secret that can be used.
            ConfigurationError: the secret is empty or no header can carry it.
        """
        ...

    def refresh(self) -> str | None:
        """A new secret after the source refused the present one; None if there is no other."""
        ...


@dataclass(frozen=True)
class ApiKeyAuth:
    """A key in a header of the vendor's own: ``ApiKeyAuth(key, "x-api-token")``.

    ``prefix`` stands before it: ``ApiKeyAuth(key, "Authorization", "Klaviyo-API-Key ")``.
    """

    key: TokenProvider = field(repr=False)
    header: str
    prefix: str = ""

    def headers(self) -> Mapping[str, str]:
        """The headers to send."""
        return {self.header: self.prefix + _sendable(self.key)}

    def refresh(self) -> str | None:
        """A new key, None if there is no other."""
        return self.key.refresh()


class BearerAuth(ApiKeyAuth):
    """``Authorization: Bearer <token>``."""

    def __init__(self, token: TokenProvider) -> None:
        super().__init__(token, "Authorization", "Bearer ")


@dataclass(frozen=True)
class BasicAuth:
    """``Authorization: Basic`` with a user and a secret."""

    user: str
    password: TokenProvider = field(repr=False)

    def headers(self) -> Mapping[str, str]:
        """The headers to send."""
        pair = f"{self.user}:{_sendable(self.password)}"
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}

    def refresh(self) -> str | None:
        """A new password, None if there is no other."""
        return self.password.refresh()


def _sendable(provider: TokenProvider) -> str:
    # requests would show the whole value in its complaint about a header
    secret = provider.token().strip()
    if not _SENDABLE.fullmatch(secret):
        what = "holds a space, a line break or a character outside ASCII" if secret else "is empty"
        raise ConfigurationError(f"the credential {what}: copy it from the vendor and store it again")
    return secret
