"""The credential store: secrets in the identity database, encrypted with a key that is not in it.

AES-256-GCM with a random 96-bit nonce. A row's name, kind and version are its associated data: a
ciphertext that was moved to another row, or put back from an older version, does not open. The keys
are the keyring's; :func:`rotate` brings every row to the newest. What tells of a credential (whose it
is, its scopes, how it stands, when it was used) is in the clear.
"""

import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from psycopg import Connection
from psycopg.rows import dict_row

from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.core.failpoint import reached
from identity_pipeline.credentials import keyring
from identity_pipeline.credentials.keyring import Key
from identity_pipeline.store.database import connect

API_KEY = "api_key"
"""The kind of a secret of which nobody says another."""
OK, NEEDS_RECONNECT = "ok", "needs_reconnect"
"""How a credential stands: it may be used, or somebody has to connect it again first."""
OAUTH = "oauth_"
"""How the kinds begin that are no secrets for a source themselves: tokens are got with them."""

_NONCE_BYTES = 12
_MOST_BYTES = 65_536
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_ABOUT = ("vendor", "source_type", "account", "account_id", "scopes", "valid_until", "expires_at")
_SEALED = ("version", "key_id", "nonce", "ciphertext")
_FRESH = ", ".join(f"{name} = %({name})s" for name in (*_SEALED, *_ABOUT))
_UPSERT = f"""
    insert into identity.credentials (name, kind, {", ".join((*_SEALED, *_ABOUT))})
    values (%(name)s, %(kind)s, {", ".join(f"%({name})s" for name in (*_SEALED, *_ABOUT))})
    on conflict (name) do update set kind = excluded.kind, {", ".join(f"{name} = excluded.{name}" for name in (*_SEALED, *_ABOUT))},
        status = 'ok', reason = null, asked_at = null, refreshed_at = null, updated_at = statement_timestamp()
        where credentials.version = excluded.version - 1
"""


@dataclass(frozen=True)
class About:
    """What is known of a credential and may be shown.

    ``account`` is who granted it, as a person says it, ``account_id`` as the vendor does.
    ``valid_until`` is when the access token that it holds is to be replaced, ``expires_at`` when it ends itself.
    """

    vendor: str | None = None
    source_type: str | None = None
    account: str | None = None
    account_id: str | None = None
    scopes: Sequence[str] = ()
    valid_until: datetime | None = None
    expires_at: datetime | None = None

    @property
    def columns(self) -> dict[str, Any]:
        """As the table has it."""
        return {name: getattr(self, name) for name in _ABOUT} | {"scopes": list(self.scopes)}


@dataclass(frozen=True)
class Held:
    """One credential, opened: its row and its secret."""

    row: Mapping[str, Any]
    secret: str = field(repr=False)


def _bound(name: str, kind: str, version: int) -> bytes:
    return json.dumps([name, kind, version]).encode()


def sealed(key: Key, name: str, kind: str, version: int, secret: bytes) -> dict[str, Any]:
    """The columns that hold ``secret``, bound to name, kind and version."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    ciphertext = AESGCM(key.value).encrypt(nonce, secret, _bound(name, kind, version))
    return {"name": name, "kind": kind, "version": version, "key_id": key.id, "nonce": nonce, "ciphertext": ciphertext}


def opened(row: Mapping[str, Any], known: list[Key]) -> bytes:
    """The secret of one row.

    Raises:
        ConfigurationError: its key is not there, or the row is not what was stored.
    """
    name = row["name"]
    key = next((key for key in known if key.id == row["key_id"]), None)
    if key is None:
        raise ConfigurationError(
            f"credential {name!r} was encrypted with key {row['key_id']}, which is neither in {keyring.VARIABLE} "
            f"nor in {keyring.key_file()}: add that key, or store the secret again: {stored_by(row)}"
        )
    try:
        return AESGCM(key.value).decrypt(row["nonce"], row["ciphertext"], _bound(name, row["kind"], row["version"]))
    except (InvalidTag, ValueError):
        raise ConfigurationError(
            f"credential {name!r} does not open: its row was changed outside of this program; find out by whom, then store the secret "
            f"again: {stored_by(row)}"
        ) from None


def stored_by(row: Mapping[str, Any]) -> str:
    """The command that stores this credential anew."""
    kind, given = row["kind"], ""
    if kind == "oauth_app":
        return f"identity-pipeline credentials set-app {row.get('vendor')}"
    if kind.startswith(OAUTH):
        given = {"oauth_client": " --app-only", "oauth_key": " --key-file FILE"}.get(kind, "")
        return f"identity-pipeline credentials connect {row.get('source_type')} {row['name']}{given}"
    return f"identity-pipeline credentials set {row['name']}"


def check_name(name: str) -> None:
    """Refuse a name that no credential can have.

    Raises:
        ConfigurationError: it is one.
    """
    if not _NAME.fullmatch(name):
        raise ConfigurationError("credential: a name is letters, digits, '_', '.' and '-', first a letter or digit, at most 100")


def store(url: str, name: str, kind: str, secret: str, about: About | None = None) -> None:
    """Store a secret, over the one of that name if there is one.

    Raises:
        ConfigurationError: the name or the secret is not usable.
    """
    check_name(name)
    value, told = _value(name, secret), (about or About()).columns
    with connect(url, doing="store a credential", autocommit=True) as connection:
        stored, key = False, keyring.newest()
        while not stored or key != keyring.newest():  # another writer may take the version first, a rotation the key
            key = keyring.newest()
            row = connection.execute("select version from identity.credentials where name = %s", (name,)).fetchone()
            made = sealed(key, name, kind, row[0] + 1 if row else 1, value)
            stored = connection.execute(_UPSERT.encode(), made | told).rowcount == 1


def _value(name: str, secret: str) -> bytes:
    value = secret.encode("utf-8", "surrogateescape")
    if not value or len(value) > _MOST_BYTES:
        raise ConfigurationError(f"credential {name!r}: the secret is empty or larger than {_MOST_BYTES} bytes: nothing was stored")
    return value


def held(connection: Connection[Any], name: str, *, locked: bool = False) -> Held | None:
    """The credential of that name, None if there is none; ``locked`` until the end of the transaction.

    Raises:
        ConfigurationError: no key opens it.
    """
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(f"select * from identity.credentials where name = %s {'for update' if locked else ''}", (name,)).fetchone()
    return Held(row, opened(row, keyring.keys()).decode("utf-8", "surrogateescape")) if row else None


def renew(connection: Connection[Any], was: Held, secret: str, about: About) -> bool:
    """Put another secret in the place of the one that ``was``; False if somebody else did meanwhile."""
    name, kind, version = was.row["name"], was.row["kind"], was.row["version"]
    made = sealed(keyring.newest(), name, kind, version + 1, _value(name, secret))
    statement = f"""
        update identity.credentials set {_FRESH}, status = 'ok', reason = null, asked_at = null, refreshed_at = statement_timestamp(),
            updated_at = statement_timestamp()
        where name = %(name)s and version = %(version)s - 1
    """
    return connection.execute(statement.encode(), made | about.columns).rowcount == 1


def use(url: str, name: str) -> Held:
    """The credential of that name, to be used now.

    Raises:
        ConfigurationError: there is none, or no key opens it.
    """
    with connect(url, doing="read a credential", autocommit=True) as connection:
        found = held(connection, name)
        if found is None:
            raise ConfigurationError(f"there is no credential {name!r}: store it with `identity-pipeline credentials set {name}`")
        connection.execute(  # nobody waits for who renews it at this moment
            """
            update identity.credentials set last_used_at = statement_timestamp() where name in (
                select name from identity.credentials
                where name = %s and coalesce(last_used_at < statement_timestamp() - interval '10 seconds', true) for update skip locked)
            """,
            (name,),
        )
    return found


def reveal(url: str, name: str) -> str:
    """The secret of that name, for a source.

    Raises:
        ConfigurationError: there is none, no key opens it, or tokens are got with it.
    """
    found = use(url, name)
    if found.row["kind"].startswith(OAUTH):
        raise ConfigurationError(f"credential {name!r} is of kind {found.row['kind']}: it is no secret that a source can be given")
    return found.secret


def delete(url: str, name: str, named_by: Sequence[str] = (), *, force: bool = False) -> bool:
    """Delete a credential; False if there was none. ``named_by`` are the sources that name it.

    Raises:
        ConfigurationError: it is needed, and nobody said ``force``.
    """
    with connect(url, doing="delete a credential") as connection:
        if needed := [] if force else [*named_by, *_got_by(connection, name)]:
            raise ConfigurationError(
                f"credential {name!r} is named by {', '.join(needed)}, which would fail then: take it out there first, or say --force"
            )
        return connection.execute("delete from identity.credentials where name = %s", (name,)).rowcount > 0


def _got_by(connection: Connection[Any], name: str) -> list[str]:
    """The credentials that were granted to this one, where it is an app."""
    rows = connection.execute(
        """
        select grants.name from identity.credentials grants join identity.credentials app on app.vendor = grants.vendor
        where app.name = %s and app.kind = 'oauth_app' and grants.kind like 'oauth\\_%%' and grants.kind <> 'oauth_app' order by 1
        """,
        (name,),
    )
    return [row[0] for row in rows]


def listing(url: str) -> list[dict[str, Any]]:
    """All credentials without their secrets."""
    with connect(url, doing="list the credentials") as connection, connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            """
            select name, kind, status, vendor, source_type, account, scopes, reason, last_used_at, refreshed_at, expires_at, key_id,
                version, created_at, updated_at
            from identity.credentials order by name
            """
        ).fetchall()


def unreadable(url: str) -> list[str]:
    """Why credentials do not open: one message for each that does not."""
    known, faults = keyring.keys(), []
    with connect(url, doing="check the credentials") as connection, connection.cursor(row_factory=dict_row) as cursor:
        for row in cursor.execute("select * from identity.credentials order by name"):
            try:
                opened(row, known)
            except ConfigurationError as error:
                faults.append(str(error))
    return faults


def rotate(url: str, log: Callable[[str], None] = lambda _: None) -> int:
    """Encrypt every secret with the newest key, one transaction each; how many there were to do.

    Where the keys come from the key file, that is a new one. May be broken off and repeated at any
    moment: each row opens with the old or with the new key, and both are there until all are done.

    Raises:
        ConfigurationError: there is no key, or a row does not open.
    """
    done = 0
    with keyring.rotating() as known:
        if not known:
            raise ConfigurationError(
                f"no encryption key: neither {keyring.VARIABLE} nor {keyring.key_file()} is there, so there is nothing to rotate"
            )
        while left := [row["name"] for row in listing(url) if row["key_id"] != known[0].id]:
            for name in left:
                if _renewed(url, name, known):
                    done += 1
                    log(f"{name}: encrypted with key {known[0].id}")
    return done


def _renewed(url: str, name: str, known: list[Key]) -> bool:
    """True if it had to be encrypted anew and was."""
    with connect(url, doing="rotate a credential") as connection, connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute("select * from identity.credentials where name = %s for update", (name,)).fetchone()
        if row is None or row["key_id"] == known[0].id:
            return False
        secret = opened(row, known)
        cursor.execute(
            """
            update identity.credentials set version = %(version)s, key_id = %(key_id)s, nonce = %(nonce)s,
                ciphertext = %(ciphertext)s, updated_at = statement_timestamp()
            where name = %(name)s
            """,
            sealed(known[0], name, row["kind"], row["version"] + 1, secret),
        )
        reached("rotated")
    return True
