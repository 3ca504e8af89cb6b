"""Debian's packages, unpacked where they can be used without being installed: it takes neither root nor a change to the machine."""

import fcntl
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from identity_pipeline.core.settings import PACKAGE

TOOLS = PACKAGE.parent / ".tools"


def unpacked(name: str, *packages: str) -> Path:
    """The root of the packages and what they need, in ``.tools/name``: once, for all processes and sessions."""
    root = TOOLS / name
    TOOLS.mkdir(exist_ok=True)
    with root.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            assert shutil.which("apt-get"), f"the tests need {', '.join(packages)}: install it so that its program is found"
            with tempfile.TemporaryDirectory(dir=TOOLS, prefix=f"{name}-") as place:
                _unpack(Path(place), packages)
                (Path(place) / "root").rename(root)
    return root


def libraries(root: Path) -> str:
    """The folders of its libraries, as LD_LIBRARY_PATH takes them."""
    return ":".join(str(path) for pattern in ("usr/lib/*-linux-gnu", "lib/*-linux-gnu") for path in root.glob(pattern))


def _unpack(place: Path, packages: tuple[str, ...]) -> None:
    for name in ("lists/partial", "cache/archives/partial"):
        (place / name).mkdir(parents=True)
    # lists and archives of our own: any account may fetch them, and this machine's are left alone
    apt = ["apt-get", "-q", "-y", "-o", f"Dir::State::lists={place / 'lists'}", "-o", f"Dir::Cache={place / 'cache'}",
           "-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User="]  # fmt: skip
    for arguments in (["update"], ["--no-install-recommends", "--download-only", "install", *packages]):
        done = subprocess.run([*apt, *arguments], capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    for package in sorted((place / "cache" / "archives").glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", str(package), str(place / "root")], check=True, stdout=sys.stderr, timeout=120)
