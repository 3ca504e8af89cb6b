"""An SFTP server in this process (asyncssh), with a folder for each test's user."""

import asyncio
import os
import shutil
import subprocess
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Self, TypeVar

import asyncssh

from identity_pipeline_tests import packages

T = TypeVar("T")


@cache
def key(kind: str = "ssh-ed25519", name: str = "") -> asyncssh.SSHKey:
    """A key, the same one for a name in this process."""
    return asyncssh.generate_private_key(kind, comment=name)


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return loop


def _run(work: Awaitable[T]) -> T:
    return asyncio.run_coroutine_threadsafe(work, _loop()).result(30)  # type: ignore[arg-type]


class Server:
    """Serves ``folder`` to one ``user``, who signs in by ``password`` or the key ``own``.

    ``readable`` False: nothing may be listed or read, and ``says`` is why. ``on_open`` is called when a file is opened,
    ``on_list`` when a folder is listed.
    ``logins`` counts what was tried.
    """

    def __init__(self, folder: Path, *, password: str = "", own: asyncssh.SSHKey | None = None, host_keys: tuple[Any, ...] = ()) -> None:
        self.folder, self.user, self.password, self.own = folder, "reader", password, own
        self.readable, self.says = True, b"Permission denied"
        self.second = False
        self.logins: list[str] = []
        self.on_open: Callable[[str], None] = lambda _: None
        self.on_list: Callable[[str], None] = lambda _: None
        self.host_keys = host_keys or (key(),)
        self._at = 1_760_000_000

    @property
    def host_key(self) -> str:
        """The host's first key as a line of known_hosts has it."""
        return self.host_keys[0].export_public_key().decode().strip()

    def put(self, name: str, body: bytes, at: int | None = None) -> None:
        """Write a file, a second later than the one before."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
        self._at += 1
        os.utime(path, (at or self._at, at or self._at))

    def __enter__(self) -> Self:
        async def listen() -> asyncssh.SSHAcceptor:
            return await asyncssh.listen(
                "127.0.0.1", 0, server_factory=lambda: _Login(self), server_host_keys=list(self.host_keys), allow_scp=False,
                sftp_factory=lambda channel: _Files(self, channel), encoding=None,
            )  # fmt: skip

        self._acceptor = _run(listen())
        self.port = self._acceptor.get_port()
        return self

    def __exit__(self, *_: object) -> None:
        async def close() -> None:
            self._acceptor.close()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._acceptor.wait_closed(), 2)

        _run(close())


class _Login(asyncssh.SSHServer):
    def __init__(self, server: Server) -> None:
        self.server = server

    def begin_auth(self, username: str) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return bool(self.server.password)

    def validate_password(self, username: str, password: str) -> bool:
        self.server.logins.append("password")
        return (username, password) == (self.server.user, self.server.password)

    def public_key_auth_supported(self) -> bool:
        return self.server.own is not None

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        self.server.logins.append("key")
        own = self.server.own
        return own is not None and username == self.server.user and key.public_data == own.public_data


class _Files(asyncssh.SFTPServer):
    def __init__(self, server: Server, channel: Any) -> None:
        self.server = server
        super().__init__(channel, chroot=str(server.folder).encode())

    def _demand_right(self) -> None:
        if not self.server.readable:
            raise asyncssh.SFTPPermissionDenied(self.server.says)  # type: ignore[arg-type] - servers write what they like

    def scandir(self, path: bytes) -> Any:
        self._demand_right()
        self.server.on_list(path.decode())
        return super().scandir(path)

    def open(self, path: bytes, pflags: int, attrs: Any) -> Any:
        self._demand_right()
        if pflags & ~asyncssh.FXF_READ:
            raise asyncssh.SFTPPermissionDenied("read only")
        self.server.on_open(path.decode())
        return super().open(path, pflags, attrs)


def openssh() -> tuple[list[str], dict[str, str]]:
    """How to run OpenSSH's server, and its environment: that of this machine, else Debian's package."""
    program = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    folder = Path("/") if program else packages.unpacked("openssh", "openssh-server")
    if os.geteuid() == 0:  # what the package does when it is installed
        Path("/run/sshd").mkdir(exist_ok=True)
        if subprocess.run(["id", "sshd"], capture_output=True, check=False).returncode:
            subprocess.run(
                ["useradd", "--system", "--no-create-home", "--home-dir", "/run/sshd", "--shell", "/usr/sbin/nologin", "sshd"], check=True
            )
    return [program or str(folder / "usr" / "sbin" / "sshd")], os.environ | {"LD_LIBRARY_PATH": packages.libraries(folder)}
