"""How a request proves who asks: one small value for each way. None shows its secret in its repr."""

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from identity_pipeline.core.errors import ConfigurationError

_SENDABLE = re.compile(r"[\x21-\x7e]+")


class Auth:
    """Headers that prove who asks."""

    def headers(self) -> Mapping[str, str]:
        """The headers to send.

        Raises:
            ConfigurationError: the credential is empty or no header can carry it.
        """
        raise NotImplementedError

    def renewed(self, refused: Mapping[str, str]) -> Mapping[str, str] | None:  # noqa: ARG002 - only a value that can renew looks at it
        """Other headers, after the source answered 401 to ``refused``; None if there are none."""
        return None


@dataclass(frozen=True)
class BearerAuth(Auth):
    """``Authorization: Bearer <token>``."""

    token: str = field(repr=False)

    def headers(self) -> Mapping[str, str]:
        """The headers to send."""
        return {"Authorization": f"Bearer {_sendable(self.token)}"}


@dataclass(frozen=True)
class ApiKeyAuth(Auth):
    """A key in a header of the vendor's own: ``ApiKeyAuth(key, "x-api-token")``.

    ``prefix`` stands before it: ``ApiKeyAuth(key, "Authorization", "Klaviyo-API-Key ")``.
    """

    key: str = field(repr=False)
    header: str
    prefix: str = ""

    def headers(self) -> Mapping[str, str]:
        """The headers to send."""
        return {self.header: self.prefix + _sendable(self.key)}


@dataclass(frozen=True)
class BasicAuth(Auth):
    """``Authorization: Basic`` with a user and a secret."""

    user: str
    password: str = field(repr=False)

    def headers(self) -> Mapping[str, str]:
        """The headers to send."""
        pair = f"{self.user}:{_sendable(self.password)}"
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


@dataclass(frozen=True)
class TokenAuth(Auth):
    """A token that can be renewed.

    ``token`` is asked before each request, with None, and answers the current token; after a 401 it
    is asked once with the refused token, and answers a new one.
    """

    token: Callable[[str | None], str] = field(repr=False)
    header: str = "Authorization"
    prefix: str = "Bearer "

    def headers(self) -> Mapping[str, str]:
        """The headers to send."""
        return {self.header: self.prefix + _sendable(self.token(None))}

    def renewed(self, refused: Mapping[str, str]) -> Mapping[str, str] | None:
        """Headers with a new token, None if it is still the refused one."""
        old = refused[self.header].removeprefix(self.prefix)
        new = _sendable(self.token(old))
        return None if new == old else {self.header: self.prefix + new}


def _sendable(secret: str) -> str:
    # requests would show the whole value in its complaint about a header
    secret = secret.strip()
    if not _SENDABLE.fullmatch(secret):
        what = "holds a space, a line break or a character outside ASCII" if secret else "is empty"
        raise ConfigurationError(f"the credential {what}: copy it again from the vendor and store it anew")
    return secret
