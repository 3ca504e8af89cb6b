"""The credential store: secrets in the identity database, encrypted with a key that is not in it.

AES-256-GCM with a random 96-bit nonce. A row's name, kind and version are its associated data: a
ciphertext that was moved to another row, or put back from an older version, does not open. Keys come
from ``IDENTITY_ENCRYPTION_KEYS`` (base64 of 32 bytes, comma-separated, newest first), else from the
file ``encryption.key`` of IDENTITY_HOME, which is made when the first secret is stored. The newest
key encrypts, each of them decrypts; :func:`rotate` brings every row to the newest.
"""

import base64
import binascii
import hashlib
import json
import logging
import os
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from psycopg.rows import dict_row

from identity_pipeline.core import settings
from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.core.failpoint import reached
from identity_pipeline.store.database import connect

VARIABLE = "IDENTITY_ENCRYPTION_KEYS"
_KEY_BYTES, _NONCE_BYTES = 32, 12
_MOST_BYTES = 65_536
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_UPSERT = """
    insert into identity.credentials (name, kind, version, key_id, nonce, ciphertext)
    values (%(name)s, %(kind)s, %(version)s, %(key_id)s, %(nonce)s, %(ciphertext)s)
    on conflict (name) do update set kind = excluded.kind, version = excluded.version, key_id = excluded.key_id, nonce = excluded.nonce,
        ciphertext = excluded.ciphertext, status = 'active', updated_at = statement_timestamp()
        where credentials.version = excluded.version - 1
"""
_LOG = logging.getLogger("identity_pipeline.credentials")


@dataclass(frozen=True)
class Key:
    """One encryption key. ``id`` names it in the rows without telling anything of it."""

    id: str
    value: bytes = field(repr=False)


def key_file() -> Path:
    """Where the key lies when the environment names none."""
    return settings.home() / "encryption.key"


def keys() -> list[Key]:
    """The keys, newest first; none if neither variable nor file is there.

    Raises:
        ConfigurationError: a key is not 32 bytes in base64, or others than its owner may read the file.
    """
    given = os.environ.get(VARIABLE, "").strip()
    if given:
        return _parsed(given, VARIABLE)
    path = key_file()
    try:
        mode = path.stat().st_mode
        text = path.read_text("ascii", errors="replace")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigurationError(f"{path}: the encryption key cannot be read (errno {error.errno}): run this as the file's owner") from None
    if mode & 0o077:
        raise ConfigurationError(f"{path}: others may read the encryption key (mode {mode & 0o777:04o}): run `chmod 600 {path}`")
    return _parsed(text.strip(), str(path))


def _parsed(text: str, where: str) -> list[Key]:
    found = []
    for number, part in enumerate(text.split(","), start=1):
        try:
            value = base64.b64decode(part.strip(), validate=True)
        except (binascii.Error, ValueError):
            value = b""
        if len(value) != _KEY_BYTES:
            raise ConfigurationError(
                f"{where}: key {number} is not the base64 of {_KEY_BYTES} bytes: make one with `openssl rand -base64 {_KEY_BYTES}`"
            )
        found.append(Key(hashlib.blake2b(value, digest_size=8, person=b"identity-key-id").hexdigest(), value))
    return found


def _newest() -> Key:
    """The key to encrypt with; a key file is made if there is none at all."""
    if found := keys():
        return found[0]
    path = key_file()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode() + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)  # whole or not at all, and never over another's key
    except FileExistsError:
        pass
    except OSError as error:
        raise ConfigurationError(
            f"{path}: the encryption key cannot be written (errno {error.errno}): make the folder writable, or set {VARIABLE}"
        ) from None
    else:
        _LOG.warning(
            "%s is not set: made an encryption key in %s. Without this file the stored credentials are lost: keep a copy in a safe place.",
            VARIABLE,
            path,
        )
    finally:
        draft.unlink(missing_ok=True)
    return keys()[0]


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
            f"credential {name!r} was encrypted with key {row['key_id']}, which is neither in {VARIABLE} nor in {key_file()}: "
            f"add that key, or store the secret anew: identity-pipeline credentials set {name}"
        )
    try:
        return AESGCM(key.value).decrypt(row["nonce"], row["ciphertext"], _bound(name, row["kind"], row["version"]))
    except (InvalidTag, ValueError):
        raise ConfigurationError(
            f"credential {name!r} does not open: its row was changed outside of this program; find out by whom, then store the secret "
            f"anew: identity-pipeline credentials set {name}"
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
    key = _newest()
    with connect(url, doing="store a credential", autocommit=True) as connection:
        stored = False
        while not stored:  # another writer may take the version first
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
    return _opened(row, keys()).decode("utf-8", "surrogateescape")


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
    known, faults = keys(), []
    with connect(url, doing="check the credentials") as connection, connection.cursor(row_factory=dict_row) as cursor:
        for row in cursor.execute("select * from identity.credentials order by name"):
            try:
                _opened(row, known)
            except ConfigurationError as error:
                faults.append(str(error))
    return faults


def rotate(url: str, log: Callable[[str], None] = lambda _: None) -> int:
    """Encrypt every secret with the newest key, one transaction each; how many there were to do.

    May be broken off and repeated at any moment: each row opens with the old or with the new key.

    Raises:
        ConfigurationError: there is no key, or a row does not open.
    """
    known = keys()
    if not known:
        raise ConfigurationError(f"no encryption key: neither {VARIABLE} nor {key_file()} is there, so there is nothing to rotate")
    done = 0
    for name in [row["name"] for row in listing(url) if row["key_id"] != known[0].id]:
        with connect(url, doing="rotate a credential") as connection, connection.cursor(row_factory=dict_row) as cursor:
            row = cursor.execute("select * from identity.credentials where name = %s for update", (name,)).fetchone()
            if row is None or row["key_id"] == known[0].id:
                continue
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
        done += 1
        log(f"{name}: encrypted with key {known[0].id}")
    return done
