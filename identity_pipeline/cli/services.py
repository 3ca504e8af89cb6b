"""What a command needs running: the identity database, Dagster's home, a daemon that starts queued runs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from identity_pipeline.core import settings
from identity_pipeline.core.errors import ConfigurationError, TryLater
from identity_pipeline.store import embedded
from identity_pipeline.store.location import database_url
from identity_pipeline.store.migrate import migrate

_DAEMON_START_SECONDS = 90.0


def database(progress: Callable[[str], None] = lambda _: None) -> str:
    """The identity database's URL: the embedded server is started if no other is set, the schema is brought up to date.

    Raises:
        PipelineError: it cannot be reached, started or migrated.
    """
    if settings.database_url() is None:
        embedded.start(progress=progress)
    url = database_url()
    migrate(url)
    return url


def project() -> Path:
    """The folder with workspace.yaml and dagster.yaml; DAGSTER_HOME is set to it unless it is set already.

    Raises:
        ConfigurationError: the files are not there (an installed package without its project).
    """
    folder = settings.PACKAGE.parent
    if not (folder / "workspace.yaml").is_file():
        folder = Path.cwd()
    if not (folder / "workspace.yaml").is_file():
        raise ConfigurationError("there is no workspace.yaml here: change into the project's folder and run the command again")
    os.environ.setdefault("DAGSTER_HOME", str(folder))
    return folder


def daemon_alive() -> bool:
    """True if a daemon that starts queued runs gave a sign of life in the last 30 seconds."""
    import dagster as dg  # noqa: PLC0415 - half a second, for the commands that launch

    with dg.DagsterInstance.get() as instance:
        heartbeat = instance.get_daemon_heartbeats().get("QUEUED_RUN_COORDINATOR")
    return heartbeat is not None and time.time() - heartbeat.timestamp < 30


def end_on_sigterm() -> None:
    """Make SIGTERM end this process as Ctrl-C does: through its `finally` clauses, so that no child is left behind."""

    def end(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not cut the cleaning up short
        sys.exit(143)

    signal.signal(signal.SIGTERM, end)


@contextmanager
def daemon(progress: Callable[[str], None] = lambda _: None) -> Iterator[None]:
    """Have a daemon while the body runs: one that is there already, else one of our own that ends with it.

    Raises:
        TryLater: our own did not come up; its log says why.
    """
    folder = project()
    if daemon_alive():
        yield
        return
    end_on_sigterm()
    logs = settings.home() / "logs"
    logs.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = logs / "daemon.log"
    progress("starting Dagster's daemon")
    with path.open("ab") as log:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter
            [sys.executable, "-m", "dagster._daemon", "run", "-w", str(folder / "workspace.yaml")],
            cwd=folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + _DAEMON_START_SECONDS
        while not daemon_alive():
            if process.poll() is not None or time.monotonic() > deadline:
                raise TryLater(f"Dagster's daemon did not start: see {path}")
            time.sleep(0.5)
        yield
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads its own session, with everything it started."""
    # Dagster's programs clean up after an interrupt; some ignore SIGTERM.
    for sign, patience in ((signal.SIGINT, 10), (signal.SIGTERM, 10), (signal.SIGKILL, 10)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)
            break
    with suppress(ProcessLookupError):  # what it left behind in its group
        os.killpg(process.pid, signal.SIGKILL)
