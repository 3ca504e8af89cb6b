"""The redactor: takes secrets out of everything that is shown, each from the moment it is known."""

import re
from urllib.parse import quote, unquote

_PASSWORDS = (
    r"://[^:/@\s]*:([^@\s]+)@",
    r"(?i)password\s*=\s*'([^']+)'",
    r"(?i)password\s*=\s*([^'\s;&]+)",
    r"(?i)\bAccountKey\s*=\s*([^\s;]+)",  # Azure Storage
    r"(?:^|[?&;=])sig=([^\s;&]+)",  # the signature of a SAS
)
"""Where a password, a key or a signature stands in a connection string."""
_LINE_OF_A_KEY = re.compile(r"[A-Za-z0-9+/=]{32,}")
"""A line of a private key (PEM): what shows a part of the key shows whole lines, with breaks of its own between them."""
_SHORTEST = 4
"""A shorter text is a part of ordinary words."""


class Redactor:
    """The secrets of one load. What hands a secret out says so here first."""

    def __init__(self, *secrets: str) -> None:
        self._secrets: set[str] = set()
        for secret in secrets:
            self.learn(secret)

    def learn(self, secret: str) -> None:
        """Redact this text from now on, also percent-encoded, and a password or each line of a private key inside it by itself."""
        self.learn_query(secret)
        inner = {found[1] for form in _PASSWORDS if (found := re.search(form, secret))}
        if "PRIVATE KEY-----" in secret:
            inner |= set(_LINE_OF_A_KEY.findall(secret.replace("\\n", "\n")))  # in JSON it is one line
        for text in (secret, *inner):
            self._secrets |= {text, unquote(text), quote(text, safe=""), quote(unquote(text), safe="")}

    def learn_query(self, text: str) -> None:
        """Redact the query of an address, which may be a signature; the rest of it may be shown."""
        if "://" in text and (query := text.partition("#")[0].partition("?")[2]):
            for value in (query, *(pair.partition("=")[2] for pair in query.split("&"))):
                self.learn(value)

    def redact(self, text: str) -> str:
        """``text`` without the secrets and without control characters."""
        for secret in sorted(self._secrets, key=len, reverse=True):
            if len(secret) >= _SHORTEST:
                text = text.replace(secret, "***")
        return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text)

    def __repr__(self) -> str:
        """How many secrets, never which."""
        return f"Redactor({len(self._secrets)} secrets)"
