"""The keyring: the keys that seal the stored credentials, newest first.

They come from ``IDENTITY_ENCRYPTION_KEYS`` (base64 of 32 bytes, comma-separated, newest first), else
from the file ``encryption.key`` of IDENTITY_HOME, which is made when the first secret is stored. The
newest key encrypts, each of them decrypts. A rotation makes a new key in the file by itself.
"""

import base64
import binascii
import fcntl
import hashlib
import logging
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from identity_pipeline.core import settings
from identity_pipeline.core.errors import ConfigurationError

VARIABLE = "IDENTITY_ENCRYPTION_KEYS"
_KEY_BYTES = 32
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


def old_keys() -> Path:
    """Where the keys lie that a rotation took out of use."""
    return key_file().with_name("encryption.key.old")


def newest() -> Key:
    """The key to encrypt with; a key file is made if there is none at all."""
    if found := keys():
        return found[0]
    path = key_file()
    try:
        _put(path, _new(), os.link)  # never over another's key
    except FileExistsError:
        pass
    else:
        _LOG.warning(
            "%s is not set: made an encryption key in %s. Without this file the stored credentials are lost: keep a copy in a safe place.",
            VARIABLE,
            path,
        )
    return keys()[0]


@contextmanager
def rotating() -> Iterator[list[Key]]:
    """The keys while all secrets are encrypted anew, the one to do it with first; none if there are none.

    The key file gets a new key before the old one, unless it has several: then a rotation was broken off,
    and goes on. When the body has ended without an error, the file keeps the new one alone, and the old
    ones stand in :func:`old_keys`: backups of the database may need them. Keys of the environment are
    left as they are.
    """
    known = keys()
    if os.environ.get(VARIABLE, "").strip() or not known:
        yield known
        return
    path = key_file()
    with _alone(path.parent):
        if len(keys()) == 1:
            _put(path, f"{_new()},{_text(path)}", os.replace)
        yield keys()
        new, *older = _text(path).split(",")
        _put(old_keys(), "\n".join([*older, _text(old_keys())]), os.replace)
        _put(path, new, os.replace)


def _new() -> str:
    return base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode()


def _text(path: Path) -> str:
    return path.read_text("ascii").strip() if path.exists() else ""


def _put(path: Path, text: str, place: Callable[[Path, Path], None]) -> None:
    """Have ``text`` at ``path`` whole or not at all, for its owner alone, and on the disk before anything is encrypted with it.

    Raises:
        FileExistsError: ``place`` does not overwrite, and there is a file.
        ConfigurationError: it cannot be written.
    """
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            if os.geteuid() == 0 and key_file().exists():  # root must not take it from whom it belongs to
                os.fchown(file.fileno(), key_file().stat().st_uid, key_file().stat().st_gid)
            file.write(text.strip() + "\n")
            file.flush()
            os.fsync(file.fileno())
        place(draft, path)
        with _opened(path.parent) as folder:
            os.fsync(folder)
    except FileExistsError:
        raise
    except OSError as error:
        raise ConfigurationError(
            f"{path}: the encryption key cannot be written (errno {error.errno}): make the folder writable, or set {VARIABLE}"
        ) from None
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One rotation at a time; the lock goes with the process that holds it."""
    with _opened(folder) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
