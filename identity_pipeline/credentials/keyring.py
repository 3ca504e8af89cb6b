"""The keyring: the keys that seal the stored credentials, newest first.

They come from ``IDENTITY_ENCRYPTION_KEYS`` (base64 of 32 bytes, comma-separated, newest first), else
from the file ``encryption.key`` of IDENTITY_HOME, which is made when the first secret is stored. The
newest key encrypts, each of them decrypts.
"""

import base64
import binascii
import hashlib
import logging
import os
import secrets
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


def newest() -> Key:
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
