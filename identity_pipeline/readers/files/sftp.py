"""Files of a server that speaks SFTP.

The host proves itself by a key that is pinned in the source's settings, before anything of ours is
sent; no agent, no key file and no list of known hosts of this machine is looked at. Symbolic links
are not followed. A file's version is its time of modification (whole seconds, the server's clock)
with its size: it is read only where both are the same before and after, and one that was written to
within the last seconds is looked at once more, so that a file that grows waits for the next load.
"""

import base64
import hashlib
import io
import logging
import posixpath
import re
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar

from identity_pipeline.core.errors import (
    ConfigurationError,
    CredentialError,
    PermissionDenied,
    SourceRejected,
    SourceUnavailable,
    TruncatedBody,
)
from identity_pipeline.core.secret import TokenProvider
from identity_pipeline.core.window import ReadContext
from identity_pipeline.readers.extras import missing
from identity_pipeline.readers.files.glob import Glob
from identity_pipeline.readers.files.store import Content, Entry, Page, Replaced
from identity_pipeline.readers.http import guard

TIMEOUT = 20.0
"""Seconds for each step of signing in, and for each answer."""
DEADLINE = 900.0
"""Seconds for one file."""
YOUNG, LOOK_AGAIN = 10.0, 2.0
"""A file that was modified in so many last seconds is looked at again after so many."""
_CHUNK = 2**18
_REQUESTS = 64
"""Reads that are under way at once: one at a time is six times slower."""
_PINNED = re.compile(r"(?:^|(?<=[\s,]))(?:ssh|ecdsa)-[\w@.-]+\s+AAAA[A-Za-z0-9+/]*=*|SHA256:[A-Za-z0-9+/]{43}")
"""A key, or the fingerprint of one. What stands around it is for people: hosts, hashed or not, and remarks."""
_NEXT = "\0"
"""Between the folders that are still to be listed, in the token of a page: no name holds it."""


@dataclass(frozen=True)
class SftpAccess:
    """Where the server is, who asks, and the key by which the server is known."""

    host: str
    port: int
    user: str
    host_key: str
    password: TokenProvider | None = field(default=None, repr=False)
    private_key: TokenProvider | None = field(default=None, repr=False)
    passphrase: TokenProvider | None = field(default=None, repr=False)

    def connect(self) -> Any:
        """A session with the host that was meant.

        Raises:
            ConfigurationError: the host's key is unknown or another one, or a key of ours cannot be read.
            CredentialError: it does not let us in.
            SourceUnavailable: it does not answer, or not in time.
        """
        paramiko = _paramiko()
        if (self.password is None) == (self.private_key is None) and self.password is None:
            raise ConfigurationError("set password or private_key, or both where the server asks for both")
        own = self._own_key(paramiko)
        transport = self._transport(paramiko)
        try:
            transport.start_client(timeout=TIMEOUT)
            self._recognise(transport.get_remote_server_key())
            self._sign_in(paramiko, transport, own)
            from identity_pipeline.readers.files.sftp_session import Session  # noqa: PLC0415 - as all of paramiko

            client = Session.from_transport(transport)
            client.get_channel().settimeout(TIMEOUT)
        except BaseException as error:
            transport.close()
            if isinstance(error, paramiko.IncompatiblePeer):
                raise ConfigurationError(f"{self} offers only methods that are not safe any more: have the server updated") from None
            if isinstance(error, paramiko.SSHException | EOFError | OSError | UnicodeError):
                raise SourceUnavailable(f"{self} did not finish signing in ({type(error).__name__}): try again later") from None
            raise
        return client

    def __str__(self) -> str:
        return f"sftp://{self.host}:{self.port}"

    def _transport(self, paramiko: Any) -> Any:
        host, pinned = guard.check_host(self.host, "host"), self._pinned()
        try:
            wire = socket.create_connection((guard.resolve(host, self.port), self.port), TIMEOUT)
            transport = paramiko.Transport(wire)
        except (OSError, paramiko.SSHException) as error:
            raise SourceUnavailable(f"{self} does not answer ({type(error).__name__}): check host and port, or try again later") from None
        transport.banner_timeout = transport.auth_timeout = transport.handshake_timeout = TIMEOUT
        transport.set_keepalive(30)
        kinds = {line.split()[0] for line in pinned if not line.startswith("SHA256:")}
        if kinds:  # of several keys that a host has, that one is asked for which we know
            options = transport.get_security_options()
            wanted = [kind for kind in options.key_types if kind in kinds or ("ssh-rsa" in kinds and kind.startswith("rsa-sha2"))]
            if not wanted:
                transport.close()
                raise ConfigurationError(
                    "public_host_key: of this kind of key no host is recognised any more: pin another one of the host's"
                )
            options.key_types = tuple(wanted)
        return transport

    def _pinned(self) -> list[str]:
        """The keys that are pinned: ``kind base64``, or ``SHA256:…``. Lines of known_hosts may stand as they are."""
        found = list[str]()
        for line in map(str.strip, self.host_key.splitlines()):
            if line.startswith("#"):
                continue
            if line.startswith("@"):
                raise ConfigurationError(
                    "public_host_key: a line with @cert-authority or @revoked holds no key to pin: give the host's own"
                )
            known = _PINNED.findall(line)
            if line and not known:
                raise ConfigurationError(
                    "public_host_key: write the key as in known_hosts (ssh-ed25519 AAAA…) or its fingerprint (SHA256:…)"
                )
            found += [" ".join(each.split()) for each in known]
        return found

    def _recognise(self, key: Any) -> None:
        shown = f"SHA256:{base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip('=')}"
        pinned = self._pinned()
        if shown in pinned or f"{key.get_name()} {key.get_base64()}" in pinned:
            return
        if not pinned:
            raise ConfigurationError(
                f"{self} shows the key {key.get_name()} {shown}, and none is pinned: ask whoever runs the server whether it is theirs, "
                f"then set public_host_key: {shown}"
            )
        raise ConfigurationError(
            f"{self} shows the key {key.get_name()} {shown}, which is not the pinned one: somebody may stand in between, and nothing was "
            "sent; if whoever runs the server confirms that it was changed, set public_host_key to it"
        )

    def _own_key(self, paramiko: Any) -> Any:
        if self.private_key is None:
            return None
        text, phrase = self.private_key.token(), self.passphrase.token() if self.passphrase else None
        for kind in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
            try:
                return kind.from_private_key(io.StringIO(text), phrase)
            except paramiko.PasswordRequiredException:
                raise ConfigurationError("private_key is encrypted: set passphrase") from None
            except (paramiko.SSHException, ValueError, IndexError, TypeError):
                continue
        wrong = "passphrase does not open private_key, or" if phrase else "private_key:"
        raise ConfigurationError(f"{wrong} it is no Ed25519, ECDSA or RSA key in PEM or OpenSSH's form: convert it by ssh-keygen -p")

    def _sign_in(self, paramiko: Any, transport: Any, own: Any) -> None:
        try:
            more = transport.auth_publickey(self.user, own) if own else []
            if self.password and (more or not own):
                more = transport.auth_password(self.user, self.password.token())
        except paramiko.BadAuthenticationType as error:
            ways = ", ".join(way for way in error.allowed_types if re.fullmatch(r"[a-z-]{1,40}", way))
            raise CredentialError(f"{self} signs in by {ways or 'other means'} only: set what it asks for") from None
        except paramiko.AuthenticationException:
            raise CredentialError(f"{self} does not accept the credential of its user: check user, password and private_key") from None
        if more:
            raise CredentialError(f"{self} asks for a second proof beside the first: set password and private_key")


@dataclass(frozen=True)
class SftpStore:
    """The files that ``names`` means; the prefix begins in the user's home, or with a slash at the root."""

    at_once: ClassVar[int] = 1
    """Of two threads that wait on one of paramiko's channels, one would take the other's answer."""
    access: SftpAccess
    names: Glob
    context: ReadContext

    def page(self, token: str) -> Page:
        """The files of one folder; the token names the folders that are still to be listed."""
        folder, *others = token.split(_NEXT) if token else [posixpath.dirname(self.names.beginning) or "."]
        found, inner, links, unreadable = list[Entry](), list[str](), 0, 0
        with self._answering(folder, SourceRejected("there is no such folder, or it is a file: check prefix")) as sftp:
            for written, item in sftp.items(folder):
                if b"/" in written or written in {b"", b".", b".."}:
                    continue  # no server of good will gives such names
                try:
                    name = posixpath.join(folder, written.decode()).removeprefix("./")
                except UnicodeDecodeError:
                    unreadable += 1
                    continue
                if stat.S_ISLNK(item.st_mode or 0):
                    links += self.names.matches(name)
                elif stat.S_ISDIR(item.st_mode or 0):
                    inner += [name] if self._leads_on(name) else []
                elif self.names.matches(name) and item.st_size:
                    found.append(_entry(name, item))
            found = list(self._settled(sftp, found))
        if links:
            self.context.warn(f"{links} symbolic links in {folder} are not followed: have the files themselves there")
        if unreadable:
            self.context.warn(f"{unreadable:,} names in {folder} are not UTF-8, and left out: have those that are meant renamed")
        return Page(found, _NEXT.join([*sorted(inner), *others]))

    def stat(self, name: str) -> Entry | None:
        """The file of this name."""
        if not self.names.matches(name):
            return None
        with self._answering(name, None) as sftp:
            try:
                item = sftp.lstat(name)
            except FileNotFoundError:
                return None
        return _entry(name, item) if stat.S_ISREG(item.st_mode or 0) else None

    @contextmanager
    def open(self, entry: Entry, known: str) -> Iterator[Content | None]:  # noqa: ARG002 - the list has shown it
        """The bytes of the file as long as it stays what was listed."""
        replaced = Replaced(f"{entry.name} was written to or removed while it was read: try again later")
        with self._answering(entry.name, replaced) as sftp, sftp.open(entry.name, "rb") as file:
            if _entry(entry.name, file.stat()).version != entry.version:
                raise replaced

            def chunks() -> Iterator[bytes]:
                left, ends = entry.size or 0, time.monotonic() + DEADLINE
                file.prefetch(left, _REQUESTS)
                while left and (chunk := file.read(min(_CHUNK, left))):
                    left -= len(chunk)
                    self.context.bytes_read += len(chunk)
                    yield chunk
                    if time.monotonic() > ends:
                        raise TimeoutError
                if left:
                    raise TruncatedBody(f"{entry.name} ends {left:,} bytes before its size: try again later")
                after = sftp.lstat(entry.name)
                if _entry(entry.name, after).version != entry.version or not stat.S_ISREG(after.st_mode or 0):
                    raise replaced

            yield Content(chunks(), size=entry.size)

    def close(self) -> None:
        """End the connection."""
        if sftp := self.__dict__.pop("_sftp", None):
            sftp.get_channel().get_transport().close()

    def _leads_on(self, folder: str) -> bool:
        """True for a folder in which there may be files that are meant."""
        beginning, pattern = self.names.beginning, self.names.pattern
        deep = "**" in pattern or folder.count("/") < (self.names.prefix + pattern).count("/")
        return deep and not self.names.hides(folder) and (f"{folder}/".startswith(beginning) or beginning.startswith(f"{folder}/"))

    def _settled(self, sftp: Any, found: list[Entry]) -> Iterator[Entry]:
        """The files without those that grow."""
        limit = time.time() - YOUNG
        young = [entry for entry in found if entry.modified and entry.modified.timestamp() > limit]
        if young:
            self.context.sleep(LOOK_AGAIN)
        for entry in found:
            if entry not in young or _entry(entry.name, sftp.lstat(entry.name)).version == entry.version:
                yield entry
            else:
                self.context.log(f"{entry.name} is being written: the next load reads it")

    @contextmanager
    def _answering(self, name: str, absent: Exception | None) -> Iterator[Any]:
        """The session, of which every failure is one of ours. After a broken connection the next question makes a new one."""
        paramiko = _paramiko()
        if "_sftp" not in self.__dict__:
            self.context.clock(datetime.now(UTC))  # the protocol shows no clock of the server's
            self.__dict__["_sftp"] = self.access.connect()
        self.context.requests += 1
        try:
            yield self.__dict__["_sftp"]
        except PermissionError:
            raise PermissionDenied(f"{self.access} does not let {self.access.user} read {name}: give the user the right") from None
        except FileNotFoundError:
            raise absent or SourceUnavailable(f"{name} is gone: try again later") from None
        except (OSError, EOFError, paramiko.SSHException) as error:
            self.close()
            raise SourceUnavailable(f"{self.access} broke off at {name} ({type(error).__name__}): try again later") from None


def _entry(name: str, item: Any) -> Entry:
    modified, size = item.st_mtime or 0, item.st_size or 0
    return Entry(name, f"{modified}-{size}", size, datetime.fromtimestamp(modified, UTC))


def _paramiko() -> Any:
    try:
        import paramiko  # noqa: PLC0415 - only where it is used
    except ImportError:
        raise missing("sftp") from None
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # what fails is raised; the log would have it with its traceback
    return paramiko
