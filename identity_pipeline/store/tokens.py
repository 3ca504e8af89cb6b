"""Tokens of the web server's API: who may come in without a browser's session. Kept as hashes only."""

import hashlib
import re
import secrets
from datetime import datetime, timedelta
from typing import Any, Literal

from psycopg.rows import dict_row

from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.store.database import connect

Role = Literal["viewer", "operator"]
PREFIX = "idp_"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def digest(token: str) -> bytes:
    """What is kept of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def create(url: str, name: str, role: Role, days: int) -> str:
    """Make a token that is good for so many days. It is returned once, and kept nowhere.

    Raises:
        ConfigurationError: the name cannot be one, or is taken.
    """
    if not _NAME.fullmatch(name):
        raise ConfigurationError("token: a name is letters, digits, '_', '.' and '-', first a letter or digit, at most 100")
    token = PREFIX + secrets.token_urlsafe(32)
    with connect(url, doing="make an API token") as connection:
        made = connection.execute(
            """
            insert into identity.tokens (name, digest, role, expires_at) values (%s, %s, %s, statement_timestamp() + %s)
            on conflict (name) do nothing
            """,
            (name, digest(token), role, timedelta(days=days)),
        )
    if made.rowcount == 0:
        raise ConfigurationError(f"there is a token {name!r} already: revoke it, or choose another name")
    return token


def holder(url: str, token: str) -> tuple[str, Role, datetime] | None:
    """Name and role of the one who has this token, and until when it is good; None if it is none or has expired."""
    with connect(url, doing="look an API token up", autocommit=True) as connection:
        return connection.execute(  # type: ignore[return-value] - the columns are these
            """
            update identity.tokens set last_used_at = statement_timestamp()
            where digest = %s and expires_at > statement_timestamp() returning name, role, expires_at
            """,
            (digest(token),),
        ).fetchone()


def is_good(url: str, digest: bytes) -> bool:
    """True if the token that has this digest was not revoked, and has not expired."""
    with connect(url, doing="look an API token up") as connection:
        query = "select 1 from identity.tokens where digest = %s and expires_at > statement_timestamp()"
        return connection.execute(query, (digest,)).fetchone() is not None


def revoke(url: str, name: str) -> bool:
    """Take a token back; False if there was none."""
    with connect(url, doing="revoke an API token") as connection:
        return connection.execute("delete from identity.tokens where name = %s", (name,)).rowcount > 0


def listing(url: str) -> list[dict[str, Any]]:
    """All tokens, without what they are."""
    with connect(url, doing="list the API tokens") as connection, connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute("select name, role, created_at, expires_at, last_used_at from identity.tokens order by name").fetchall()
