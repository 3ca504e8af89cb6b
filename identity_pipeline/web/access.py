"""Who is asking: the key of this installation, API tokens, the session of a browser."""

import base64
import hashlib
import hmac
import json
import os
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from identity_pipeline.core import settings
from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.store import tokens
from identity_pipeline.store.tokens import Role

SESSION_SECONDS = 12 * 3600
_LINK_SECONDS = 3600
_VARIABLE = "IDENTITY_AUTH"
MODES = ("token", "oidc", "none")


@dataclass(frozen=True)
class Person:
    """Who asks, and what they may: a viewer looks, an operator changes.

    ``by_session``: a browser sent it by itself. ``digest``: of the API token by which they signed in.
    """

    name: str
    role: Role
    by_session: bool = False
    digest: str = ""

    @property
    def may_change(self) -> bool:
        """True for an operator."""
        return self.role == "operator"


def mode() -> str:
    """``IDENTITY_AUTH``: how people come in.

    Raises:
        ConfigurationError: it names no way.
    """
    found = os.environ.get(_VARIABLE, "").strip() or "token"
    if found not in MODES:
        raise ConfigurationError(f"{_VARIABLE}: expected {', '.join(MODES[:-1])} or {MODES[-1]}")
    return found


def key_file() -> Path:
    """The file that holds the key of this installation: who can read it is an operator."""
    return settings.home() / "web.key"


def installation_key() -> str:
    """The key, made when there is none, in a file that only its owner can read."""
    path = key_file()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileExistsError):
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(number, "w") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
    if path.stat().st_mode & 0o077:
        raise ConfigurationError(f"{path} can be read by others: chmod 600 it, or delete it and start again for a new key")
    key = path.read_text("ascii").strip()
    if len(key) < 32:
        raise ConfigurationError(f"{path} holds no key: delete it and start again for a new one")
    return key


@dataclass
class Access:
    """What opens the door. ``url`` leads to the identity database, where API tokens are.

    ``rules``: by which people come in beside tokens. A session ends where they have changed.
    """

    url: Callable[[], str]
    key: str = field(repr=False)
    way: str = "token"
    clock: Callable[[], float] = time.time
    rules: str = ""
    _links: dict[str, float] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def link(self) -> str:
        """A word that opens once, within an hour."""
        word = secrets.token_urlsafe(24)
        with self._lock:
            self._links[word] = self.clock() + _LINK_SECONDS
        return word

    def by_link(self, word: str) -> Person | None:
        """The operator who was given this word, the first time that it comes."""
        with self._lock:
            until = self._links.pop(word, 0.0)
        return Person("operator", "operator", by_session=True) if until > self.clock() else None

    def by_token(self, token: str) -> Person | None:
        """Who has this token: the installation's key, or an API token that is good."""
        if hmac.compare_digest(token.encode("utf-8", "surrogateescape"), self.key.encode()):
            return Person("operator", "operator")
        if not token.startswith(tokens.PREFIX):
            return None
        found = tokens.holder(self.url(), token)
        return Person(found[0], found[1], digest=tokens.digest(token).hex()) if found else None

    def still_good(self, person: Person) -> bool:
        """True if the token is still good by which they signed in."""
        return tokens.is_good(self.url(), bytes.fromhex(person.digest))

    def session(self, person: Person) -> str:
        """The value of the cookie that says who a browser's person is: signed, good for twelve hours."""
        return self.signed(self._session, [person.name, person.role, person.digest], SESSION_SECONDS)

    def by_session(self, cookie: str) -> Person | None:
        """Whom a session's cookie names, while it is good and ours."""
        found = self.read(self._session, cookie)
        return Person(found[0], found[1], by_session=True, digest=found[2]) if found else None

    @property
    def _session(self) -> str:
        return f"session of a browser {self.rules}"

    def signed(self, purpose: str, values: list[str], seconds: float) -> str:
        """``values`` as a text that a browser keeps: they can be read there, and not changed."""
        body = json.dumps([*values, int(self.clock() + seconds)]).encode()
        return f"{_text(body)}.{_text(self._sign(purpose, body))}"

    def read(self, purpose: str, text: str) -> list[Any] | None:
        """What :meth:`signed` was given for this purpose; None if it is too old, or none of ours."""
        with suppress(ValueError, TypeError):
            body, signature = map(_bytes, text.split(".", 1))
            if hmac.compare_digest(signature, self._sign(purpose, body)):
                *values, until = json.loads(body)
                return values if until > self.clock() else None
        return None

    def _sign(self, purpose: str, body: bytes) -> bytes:
        return hmac.digest(hashlib.sha256(purpose.encode() + b"\0" + self.key.encode()).digest(), body, "sha256")


def _text(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
