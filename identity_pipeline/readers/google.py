"""The key of a Google service account: what is taken of it, and nothing that it leads to."""

import json
from collections.abc import Sequence
from typing import Any

from google.auth import exceptions
from google.oauth2 import service_account

from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.core.secret import TokenProvider
from identity_pipeline.readers.http import guard

_KEY = ("type", "project_id", "private_key_id", "private_key", "client_email", "token_uri")


def credentials(key: TokenProvider, scopes: Sequence[str]) -> service_account.Credentials:
    """The credentials in the JSON of a key.

    Raises:
        ConfigurationError: it is none, or leads to an address that may not be asked.
    """
    try:
        given: dict[str, Any] = json.loads(key.token())
        if given["type"] != "service_account":
            raise ConfigurationError("service_account: expected the key of a service account: other credentials lead elsewhere")
        key.learn(given["private_key"])
        guard.check_url(given["token_uri"], "service_account: token_uri")
        return service_account.Credentials.from_service_account_info({name: given[name] for name in _KEY if name in given}, scopes=scopes)
    except (ValueError, KeyError, TypeError, AttributeError, exceptions.GoogleAuthError):
        raise ConfigurationError("service_account: expected the JSON of a service account's key, as Google hands it out") from None
