"""The credential store: secrets in the identity database, encrypted with a key that is not in it.

AES-256-GCM with a random 96-bit nonce. A row's name, kind and version are its associated data: a
ciphertext that was moved to another row, or put back from an older version, does not open. The keys
are the keyring's; :func:`rotate` brings every row to the newest.
"""

import json
import re
import secrets
from collections.abc import Callable
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from psycopg.rows import dict_row

from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.core.failpoint import reached
from identity_pipeline.credentials import keyring
from identity_pipeline.credentials.keyring import Key
from identity_pipeline.store.database import connect

_NONCE_BYTES = 12
_MOST_BYTES = 65_536
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_UPSERT = """
    insert into identity.credentials (name, kind, version, key_id, nonce, ciphertext)
    values (%(name)s, %(kind)s, %(version)s, %(key_id)s, %(nonce)s, %(ciphertext)s)
    on conflict (name) do update set kind = excluded.kind, version = excluded.version, key_id = excluded.key_id, nonce = excluded.nonce,
        ciphertext = excluded.ciphertext, status = 'active', updated_at = statement_timestamp()
        where credentials.version = excluded.version - 1
"""


def _bound(name: str, kind: str, version: int) -> bytes:
    return json.dumps([name, kind, version]).encode()


def _sealed(key: Key, name: str, kind: str, version: int, secret: bytes) -> dict[str, Any]:
    nonce = secrets.token_bytes(_NONCE_BYTES)
    ciphertext = AESGCM(key.value).encrypt(nonce, secret, _bound(name, kind, version))
    return {"name": name, "kind": kind, "version": version, "key_id": key.id, "nonce": nonce, "ciphertext": ciphertext}


def _opened(row: dict[str, Any], known: list[Key]) -> bytes:
    """The secret of one row.

    Raises:
        ConfigurationError: its key is not there, or the row is not what was stored.
    """
    name = row["name"]
    key = next((key for key in known if key.id == row["key_id"]), None)
    if key is None:
        raise ConfigurationError(
            f"credential {name!r} was encrypted with key {row['key_id']}, which is neither in {keyring.VARIABLE} "
            f"nor in {keyring.key_file()}: add that key, or store the secret again: identity-pipeline credentials set {name}"
        )
    try:
        return AESGCM(key.value).decrypt(row["nonce"], row["ciphertext"], _bound(name, row["kind"], row["version"]))
    except (InvalidTag, ValueError):
        raise ConfigurationError(
            f"credential {name!r} does not open: its row was changed outside of this program; find out by whom, then store the secret "
            f"again: identity-pipeline credentials set {name}"
        ) from None


def store(url: str, name: str, kind: str, secret: str) -> None:
    """Store a secret, over the one of that name if there is one.

    Raises:
        ConfigurationError: the name or the secret is not usable.
    """
    if not _NAME.fullmatch(name):
        raise ConfigurationError("credential: a name is letters, digits, '_', '.' and '-', first a letter or digit, at most 100")
    value = secret.encode("utf-8", "surrogateescape")
    if not value or len(value) > _MOST_BYTES:
        raise ConfigurationError(f"credential {name!r}: the secret is empty or larger than {_MOST_BYTES} bytes: nothing was stored")
    with connect(url, doing="store a credential", autocommit=True) as connection:
        stored, key = False, keyring.newest()
        while not stored or key != keyring.newest():  # another writer may take the version first, a rotation the key
            key = keyring.newest()
            row = connection.execute("select version from identity.credentials where name = %s", (name,)).fetchone()
            sealed = _sealed(key, name, kind, row[0] + 1 if row else 1, value)
            stored = connection.execute(_UPSERT, sealed).rowcount == 1


def reveal(url: str, name: str) -> str:
    """The secret of that name.

    Raises:
        ConfigurationError: there is none, or no key opens it.
    """
    with connect(url, doing="read a credential") as connection, connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute("select * from identity.credentials where name = %s", (name,)).fetchone()
    if row is None:
        raise ConfigurationError(f"there is no credential {name!r}: store it with `identity-pipeline credentials set {name}`")
    return _opened(row, keyring.keys()).decode("utf-8", "surrogateescape")


def delete(url: str, name: str) -> bool:
    """Delete a credential; False if there was none."""
    with connect(url, doing="delete a credential") as connection:
        return connection.execute("delete from identity.credentials where name = %s", (name,)).rowcount > 0


def listing(url: str) -> list[dict[str, Any]]:
    """All credentials without their secrets."""
    with connect(url, doing="list the credentials") as connection, connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "select name, kind, status, key_id, version, created_at, updated_at from identity.credentials order by name"
        ).fetchall()


def unreadable(url: str) -> list[str]:
    """Why credentials do not open: one message for each that does not."""
    known, faults = keyring.keys(), []
    with connect(url, doing="check the credentials") as connection, connection.cursor(row_factory=dict_row) as cursor:
        for row in cursor.execute("select * from identity.credentials order by name"):
            try:
                _opened(row, known)
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
        secret = _opened(row, known)
        cursor.execute(
            """
            update identity.credentials set version = %(version)s, key_id = %(key_id)s, nonce = %(nonce)s,
                ciphertext = %(ciphertext)s, updated_at = statement_timestamp()
            where name = %(name)s
            """,
            _sealed(known[0], name, row["kind"], row["version"] + 1, secret),
        )
        reached("rotated")
    return True
