"""Where our errors become Dagster's: once, redacted, with the retry decision made."""

import logging
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote

import dagster as dg
from dagster._core.storage.tags import RETRY_ON_ASSET_OR_OP_FAILURE_TAG

from identity_pipeline.connectors.base import Connector
from identity_pipeline.core.errors import ConfigurationError, PipelineError
from identity_pipeline.orchestration.sources import CREDENTIAL, UNSET

_PASSWORDS = (r"://[^:/@\s]*:([^@\s]+)@", r"(?i)password\s*=\s*'([^']+)'", r"(?i)password\s*=\s*([^'\s;&]+)")
"""Where a password stands in a connection string."""


def _with_passwords(secrets: tuple[str, ...]) -> set[str]:
    inner = {found[1] for secret in secrets for form in _PASSWORDS if (found := re.search(form, secret))}
    return {*secrets, *inner, *map(unquote, inner)}


def redact(text: str, secrets: tuple[str, ...]) -> str:
    """``text`` without the secrets, the passwords inside them, and without control characters."""
    for secret in sorted(_with_passwords(secrets), key=len, reverse=True):
        if len(secret) >= 4:
            text = text.replace(secret, "***")
    return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text)


class _Redacting(logging.Filter):
    def __init__(self, secrets: tuple[str, ...]) -> None:
        super().__init__()
        self._secrets = secrets

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redact(record.getMessage(), self._secrets), ()
        return True


@contextmanager
def boundary(context: dg.OpExecutionContext, connector: Connector | None = None) -> Iterator[None]:
    """Run an op's body: what it raises becomes one :class:`dagster.Failure` that says who acts next.

    A failure of a class we do not know keeps its text to itself, since drivers quote records in
    theirs: it shows its type and where it arose.

    Raises:
        dg.Failure: with ``allow_retries`` from the class of the error.
    """
    secrets = connector.secrets() if connector else ()
    redacting = _Redacting(secrets)
    context.log.addFilter(redacting)
    try:
        yield
    except PipelineError as error:
        if not error.retryable:  # `allow_retries` speaks of the step only: the run itself would be started once more
            context.instance.add_run_tags(context.run_id, {RETRY_ON_ASSET_OR_OP_FAILURE_TAG: "false"})
        raise dg.Failure(
            description=redact(str(error), secrets),
            metadata={"error_code": error.code, "a_retry_helps": error.retryable},
            allow_retries=error.retryable,
        ) from None
    except dg.Failure:
        raise
    except Exception as error:  # noqa: BLE001 - the outermost boundary: an unknown error must not show a record or a secret
        frames = traceback.extract_tb(error.__traceback__)[-3:]
        where = " ← ".join(f"{f.filename.rpartition('/')[2]}:{f.lineno} {f.name}" for f in reversed(frames))
        raise dg.Failure(
            description=f"unexpected {type(error).__name__} at {where}: please report this; nothing half done stays",
            metadata={"error_code": "unexpected", "a_retry_helps": False},
            allow_retries=False,
        ) from None
    finally:
        context.log.removeFilter(redacting)


def resolved(connector: Connector, url: str) -> Connector:
    """``connector`` with every ``{credential: NAME}`` looked up in the credential store.

    Raises:
        ConfigurationError: an environment variable is not set, there is no such credential, or no key opens it.
    """
    texts = {name: value for name in type(connector).model_fields if isinstance(value := getattr(connector, name), str)}
    for name, value in texts.items():
        if value.startswith(UNSET):
            raise ConfigurationError(
                f"config.{name} is taken from the environment variable {value.removeprefix(UNSET)}, which is not set: set it where "
                "Dagster's processes start, start them anew, then run it again"
            )
    named = {name: value.removeprefix(CREDENTIAL) for name, value in texts.items() if value.startswith(CREDENTIAL)}
    if not named:
        return connector
    from identity_pipeline.credentials import vault  # noqa: PLC0415 - loads the crypto library only where a credential is named

    return connector.model_copy(update={name: vault.reveal(url, credential) for name, credential in named.items()})
