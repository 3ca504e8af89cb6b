"""References: settings whose value is kept elsewhere, parsed once and resolved once, when a run starts."""

import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.core.redaction import Redactor
from identity_pipeline.core.secret import Credential, Env, Reference, StoredToken, TokenProvider

_KINDS: dict[str, tuple[type[Env] | type[Credential], re.Pattern[str], str]] = {
    "env": (Env, re.compile(r"[A-Za-z_][A-Za-z0-9_]*"), "an environment variable: letters, digits and _, first no digit"),
    "credential": (Credential, re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}"), "a stored credential: letters, digits, _, . and -"),
}


def parse(value: Any) -> Any:
    """``value``, or the reference that it is: ``{env: NAME}`` or ``{credential: NAME}``.

    Raises:
        ValueError: it has the shape of one, but no usable name.
    """
    if not (isinstance(value, Mapping) and len(value) == 1 and (kind := next(iter(value))) in _KINDS):
        return value
    cls, form, expected = _KINDS[kind]
    name = value[kind]
    if not isinstance(name, str) or not form.fullmatch(name):
        raise ValueError(f"{{{kind}: NAME}} takes the name of {expected}")
    return cls(name)


def missing(reference: Reference) -> bool:
    """True if it names an environment variable that is not set."""
    return isinstance(reference, Env) and reference.name not in os.environ


def provider_of(reference: Reference, setting: str, database_url: Callable[[], str], redactor: Redactor) -> TokenProvider:
    """The way to what is kept there: a secret that stays, or tokens that are got anew when they end.

    Raises:
        ConfigurationError: the variable is not set, or there is no such credential, or no key opens it.
    """
    if isinstance(reference, Env):
        if reference.name not in os.environ:
            raise ConfigurationError(
                f"{setting} is taken from the environment variable {reference.name}, which is not set: set it where this command and "
                "Dagster's processes start, restart them, then run it again"
            )
        return StoredToken(lambda: os.environ[reference.name], redactor)
    from identity_pipeline.credentials import refresh  # noqa: PLC0415 - loads the crypto library only where a credential is named

    return refresh.provider(database_url(), reference.name, redactor)
