"""Where to sign in, as whom, and what a session means by each value. Looks nothing up.

The driver reads files of this machine if it is told of one (``connections_file_path``, ``private_key_file``,
``connection_name``) and opens a browser for some authenticators: none of these is ever passed on.
"""

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.readers.http import guard

Authentication = Literal["key_pair", "token", "oauth", "password"]
"""How a user signs in: a key pair, a programmatic access token, an OAuth access token, or a password."""

_NAME = re.compile(r"[^\x00-\x1f\x7f\"';]{0,255}")
_ACCOUNT = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,253}[A-Za-z0-9])?")


@dataclass(frozen=True)
class Address:
    """An account and a user of it."""

    account: str
    user: str
    warehouse: str
    role: str
    database: str
    base_url: str

    def __str__(self) -> str:
        return f"Snowflake account {self.account}"

    @property
    def host(self) -> str:
        """The host that answers."""
        return urlsplit(self.base_url).hostname or ""

    @property
    def port(self) -> int:
        """Its port."""
        return urlsplit(self.base_url).port or (443 if self.base_url.startswith("https:") else 80)


def checked(*, account: str, user: str, warehouse: str, role: str, database: str, base_url: str) -> Address:
    """The address that these settings name.

    Raises:
        ConfigurationError: one of them is refused; the message names it.
    """
    if not _ACCOUNT.fullmatch(account):
        raise ConfigurationError("account: expected the account identifier, such as myorg-account123 or xy12345.eu-central-1")
    for name, value in {"user": user, "warehouse": warehouse, "role": role}.items():
        if not _NAME.fullmatch(value) or (name == "user" and not value):
            raise ConfigurationError(f"{name}: expected a plain name without quotes")
    url = guard.check_url(base_url or f"https://{account.replace('_', '-').lower()}.snowflakecomputing.com", "base_url")
    return Address(account, user, warehouse, role, database, url)
