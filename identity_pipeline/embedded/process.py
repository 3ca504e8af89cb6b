"""Which process the embedded Postgres is, by the files of its data folder and by /proc; and the end of what a killed one leaves."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from identity_pipeline.embedded.cluster import Cluster

RETRY_SECONDS = 10.0
"""Seconds that the remains of a killed server are waited for."""

_PROC = Path("/proc")


def pid_of(cluster: Cluster) -> int | None:
    """The process that ``postmaster.pid`` names."""
    try:
        return abs(int((cluster.data / "postmaster.pid").read_text().split("\n", 1)[0]))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def port_of(cluster: Cluster) -> int:
    """The port that the running server listens on; the one that is remembered where it is going down just now, or has written none yet."""
    try:
        return int((cluster.data / "postmaster.pid").read_text().splitlines()[3])
    except (FileNotFoundError, NotADirectoryError, IndexError, ValueError):
        return cluster.port


def alive(cluster: Cluster) -> bool:
    """True when the process of ``postmaster.pid`` lives and is this cluster's: its number may have been given again."""
    pid = pid_of(cluster)
    if pid is None:
        return False
    if _PROC.exists():
        return _belongs(cluster, pid)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _belongs(cluster: Cluster, pid: int) -> bool:
    """True for a living process of this cluster (a dead one that nobody reaped has no command line).

    It works in the data folder: this one, not a copy of it, which has the same name. Where we may not
    see that, the command line names the cluster.
    """
    try:
        line = (_PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return False
    program = line.partition(b"\0")[0]
    if not (program.endswith(b"/postgres") or program.startswith(b"postgres: ")):
        return False
    with suppress(OSError):
        return (_PROC / str(pid) / "cwd").samefile(cluster.data)
    return cluster.name.encode() in line or b"\0" + os.fsencode(cluster.data) + b"\0" in line


def clear(cluster: Cluster) -> None:
    """End the orphans of a killed server and take away its ``postmaster.pid``.

    PostgreSQL refuses to start beside either. Where there is no /proc to prove that nothing lives,
    all is left to PostgreSQL's own judgement.
    """
    if pid_of(cluster) is None or alive(cluster) or not _PROC.exists():
        return
    ends = time.monotonic() + RETRY_SECONDS
    while orphans := [int(p.name) for p in _PROC.iterdir() if p.name.isdigit() and _belongs(cluster, int(p.name))]:
        late = ends - time.monotonic() < RETRY_SECONDS / 2
        for orphan in orphans:
            try:
                os.kill(orphan, signal.SIGKILL if late else signal.SIGQUIT)
            except ProcessLookupError:
                continue
        if time.monotonic() > ends:
            return
        time.sleep(0.1)
    (cluster.data / "postmaster.pid").unlink(missing_ok=True)
