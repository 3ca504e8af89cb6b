"""Debian's packages, unpacked where they can be used without being installed: that takes neither root nor a change to the machine."""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


def unpacked(package: str, into: Path) -> Path:
    """The folder ``into`` with the package and what it needs: unpacked once, for all processes and sessions."""
    into.parent.mkdir(exist_ok=True)
    with into.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not into.exists():
            assert shutil.which("apt-get"), f"a test needs {package}: install it so that its programs are found"
            with tempfile.TemporaryDirectory(dir=into.parent, prefix=f"{into.name}-") as place:
                _unpack(package, Path(place))
                (Path(place) / "root").rename(into)
    return into


def libraries(folder: Path) -> dict[str, str]:
    """The environment in which a program of ``folder`` finds its libraries."""
    found = [str(path) for pattern in ("usr/lib/*-linux-gnu", "lib/*-linux-gnu") for path in folder.glob(pattern)]
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(found)}


def _unpack(package: str, place: Path) -> None:
    for name in ("lists/partial", "cache/archives/partial"):
        (place / name).mkdir(parents=True)
    # lists and archives of our own: any account may fetch them, and this machine's are left alone
    apt = ["apt-get", "-q", "-y", "-o", f"Dir::State::lists={place / 'lists'}", "-o", f"Dir::Cache={place / 'cache'}",
           "-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User="]  # fmt: skip
    for arguments in (["update"], ["--no-install-recommends", "--download-only", "install", package]):
        done = subprocess.run([*apt, *arguments], capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    for archive in sorted((place / "cache" / "archives").glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", str(archive), str(place / "root")], check=True, stdout=sys.stderr, timeout=120)
