"""The process of a run: which it is, as a tag of the run, whether it is alive, and how it is ended."""

import json
import os
import signal
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

TAG = ".dagster/identity_worker"
"""Hidden in the UI, as all tags that begin so."""


def worker_tags(pid: int | None = None) -> dict[str, str]:
    """The tag that names a process of this machine, this one by default."""
    pid = pid or os.getpid()
    return {TAG: json.dumps({"host": _host(), "pid": pid, "began": _began(pid)})}


def is_alive(tags: Mapping[str, str]) -> bool | None:
    """Whether the process that a run's tags name is at work. None where nobody here can know: no tag, or another machine."""
    named = _named(tags)
    if named is None or named["host"] != _host():
        return None
    return named["began"] is not None and _began(named["pid"]) == named["began"]


def interrupt(tags: Mapping[str, str]) -> bool:
    """Interrupt that process, as Ctrl-C would. False if it is not there, or not here."""
    named = _named(tags)
    if named is None or not is_alive(tags):
        return False
    with suppress(ProcessLookupError):
        os.kill(named["pid"], signal.SIGINT)
        return True
    return False


def _named(tags: Mapping[str, str]) -> dict | None:
    return json.loads(tags[TAG]) if TAG in tags else None


def _host() -> str:
    """This machine since it was started: after that its process numbers begin anew."""
    with suppress(OSError):
        return f"{socket.gethostname()} {Path('/proc/sys/kernel/random/boot_id').read_text().strip()}"
    return socket.gethostname()


def _began(pid: int) -> str | None:
    """When a process began, which tells it from a later one of the same number. None if there is none.

    Where there is no ``/proc`` (macOS) any process of the number counts as the one.
    """
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if state in "ZX" else fields[18]
    except FileNotFoundError:
        pass
    if Path("/proc").is_dir():
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "there"
