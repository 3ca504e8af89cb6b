"""Foreign servers that are programs: one for each process of tests that needs it, on free ports, gone with that process."""

import atexit
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path


def folder(name: str) -> Path:
    """A new folder of the test session."""
    return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=os.environ["IDENTITY_TESTS_PLACE"]))


def free_ports(number: int) -> list[int]:
    """So many ports of 127.0.0.1 at which nobody listens."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def start(
    place: Path, command: Sequence[str | Path], ready: Callable[[], None], unready: tuple[type[Exception], ...], **environment: str
) -> None:
    """Run the program in ``place`` until this process ends. It is there once ``ready`` raises none of ``unready``, within a minute."""
    dying = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
    log = place / "log"
    with log.open("ab") as file:
        process = subprocess.Popen(
            [*dying, *command], stdin=subprocess.DEVNULL, stdout=file, stderr=file, cwd=place, env=os.environ | environment
        )
    atexit.register(_end, process)
    deadline = time.monotonic() + 60
    while True:
        try:
            ready()
        except unready as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{command[0]} does not start:\n{error}\n{log.read_text('utf-8', 'replace')[-3000:]}") from None
            time.sleep(0.1)
        else:
            return


def _end(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()
