"""Secrets as values: where one is kept, and how a reader gets it when it needs it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from identity_pipeline.core.redaction import Redactor


@dataclass(frozen=True)
class Env:
    """``{env: NAME}``: an environment variable holds it."""

    name: str

    def __str__(self) -> str:
        return f"{{env: {self.name}}}"


@dataclass(frozen=True)
class Credential:
    """``{credential: NAME}``: the encrypted credential store holds it."""

    name: str

    def __str__(self) -> str:
        return f"{{credential: {self.name}}}"


Reference = Env | Credential


class TokenProvider(Protocol):
    """What a reader asks for a secret each time it needs it."""

    def token(self) -> str:
        """The secret as it is now.

        Raises:
            CredentialError: there is none that can be used.
        """
        ...

    def refresh(self) -> str | None:
        """A new secret after the source refused the present one; None if there is no other."""
        ...

    def learn(self, secret: str) -> None:
        """Redact ``secret`` too, which was got with this one, from now on."""
        ...


@dataclass
class StoredToken:
    """A secret that is looked up once and does not change: an API key, a password.

    ``look_up`` is asked at the first use; ``redactor`` learns the secret before anybody else sees it.
    """

    look_up: Callable[[], str] = field(repr=False)
    redactor: Redactor = field(default_factory=Redactor, repr=False)
    _held: str | None = field(default=None, init=False, repr=False)

    def token(self) -> str:
        """The secret."""
        if self._held is None:
            found = self.look_up()
            self.redactor.learn(found)
            self._held = found
        return self._held

    def refresh(self) -> str | None:
        """None: there is no other."""
        return None

    def learn(self, secret: str) -> None:
        """Redact ``secret`` too from now on."""
        self.redactor.learn(secret)
