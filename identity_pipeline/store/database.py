"""Connections to the identity database: limits set, failures in our words."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg.rows import TupleRow

from identity_pipeline.core.errors import ConfigurationError, PipelineError, TargetUnavailable

_SESSION = {
    "statement_timeout": "15min",
    "lock_timeout": "2min",
    "idle_in_transaction_session_timeout": "10min",
    "timezone": "UTC",
    "search_path": "identity",
    # A part merges some 10,000 keys at a time: room enough to stay out of temporary files.
    "work_mem": "64MB",
    "temp_buffers": "64MB",
}
_BROKEN = ("08", "57P", "53", "40", "55P03", "25P03")
_REFUSALS = {
    "28P01": r"authentication failed for user",
    "28000": r"no pg_hba\.conf entry|role .* (does not exist|is not permitted to log in)",
    "3D000": r"database .* does not exist",
    "42501": r"permission denied for database",
}


def _state(text: str) -> str:
    """The SQLSTATE of a refused connection, which libpq gives in words only."""
    return next((state for state, words in _REFUSALS.items() if re.search(f"FATAL: .*({words})", text)), "")


@contextmanager
def failures(doing: str) -> Iterator[None]:
    """Turn what the driver raises while ``doing`` into one of our errors.

    The driver's text is left out: it quotes the row that failed.

    Raises:
        TargetUnavailable: connection, resources, locks, serialisation: the same call may work later.
        ConfigurationError: wrong database, role or schema.
    """
    try:
        yield
    except psycopg.Error as error:
        state = error.sqlstate or _state(str(error))
        if state == "53100":
            raise TargetUnavailable(
                f"{doing}: the identity database's disk is full (SQLSTATE 53100); nothing was changed: free space, then run again"
            ) from None
        if state in {"28P01", "28000", "3D000", "42501"}:
            raise ConfigurationError(
                f"{doing}: the identity database refused us (SQLSTATE {state}, {type(error).__name__}): "
                "check user, password, database and grants in IDENTITY_DATABASE_URL"
            ) from None
        if state in {"3F000", "42P01", "42703"}:
            raise ConfigurationError(
                f"{doing}: the schema is missing or older than this version: run `identity-pipeline db migrate`"
            ) from None
        if (not state and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)) or state.startswith(_BROKEN):
            raise TargetUnavailable(
                f"{doing}: the identity database did not answer ({type(error).__name__}"
                f"{f', SQLSTATE {state}' if state else ''}): nothing half done stays; the run can be repeated"
            ) from None
        raise PipelineError(f"{doing}: the identity database refused a statement ({type(error).__name__}, SQLSTATE {state})") from None


@contextmanager
def connect(url: str, *, doing: str = "identity database", autocommit: bool = False) -> Iterator[psycopg.Connection[TupleRow]]:
    """A connection with timeouts, keepalives and UTC; leaves committed, or rolled back on an error."""
    with failures(doing):
        connection = psycopg.connect(
            url,
            autocommit=True,
            connect_timeout=10,
            application_name=f"identity_pipeline {doing}"[:63],
            keepalives=1,
            keepalives_idle=15,
            keepalives_interval=5,
            keepalives_count=3,
            tcp_user_timeout=30_000,
        )
    with failures(doing), connection:
        connection.execute(
            "select set_config(name, value, false) from unnest(%s::text[], %s::text[]) as setting(name, value)",
            (list(_SESSION), list(_SESSION.values())),
        )
        connection.autocommit = autocommit
        yield connection
