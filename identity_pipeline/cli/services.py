"""What a command needs running: the identity database, Dagster's home, a daemon that starts queued runs."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from identity_pipeline.core import settings
from identity_pipeline.core.errors import ConfigurationError, PipelineError, TryLater
from identity_pipeline.embedded import server as embedded
from identity_pipeline.embedded.location import database_url
from identity_pipeline.store.migrate import migrate

_DAEMON_START_SECONDS = 90.0
_LOOK_EVERY = 5.0


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
        ConfigurationError: there is no such folder here or above.
    """
    folder = settings.project()
    os.environ.setdefault("DAGSTER_HOME", str(folder))
    return folder


def daemon_alive() -> bool:
    """True if a daemon that starts queued runs gave a sign of life not long ago."""
    import dagster as dg  # noqa: PLC0415 - half a second, for the commands that launch

    from identity_pipeline.orchestration import health  # noqa: PLC0415

    with dg.DagsterInstance.get() as instance:
        return health.daemon_alive(instance)


def forget_daemon() -> None:
    """Take back the signs of life of a daemon that was stopped: nobody shall wait for it. A living one gives new ones."""
    import dagster as dg  # noqa: PLC0415 - half a second, for the commands that launch
    from dagster_postgres.utils import DagsterPostgresException  # noqa: PLC0415
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415

    # Without the database nobody can take the old signs for new ones either.
    with suppress(PipelineError, SQLAlchemyError, DagsterPostgresException), dg.DagsterInstance.get() as instance:
        instance.wipe_daemon_heartbeats()


def end_on_sigterm() -> None:
    """Make SIGTERM end this process as Ctrl-C does: through its `finally` clauses, so that no child is left behind."""

    def end(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not cut the cleaning up short
        sys.exit(143)

    signal.signal(signal.SIGTERM, end)


@contextmanager
def daemon(progress: Callable[[str], None] = lambda _: None) -> Iterator[Callable[[], None]]:
    """Have a daemon while the body runs: one that is there already, else one of our own that ends with it.

    Yields what the body calls while it waits: one that was there may end, and ours takes its place.
    Ours also runs what other commands and the schedules give it, and stays until that has ended.

    Raises:
        TryLater: our own did not come up; its log says why.
    """
    folder = project()
    began, looked = datetime.now(UTC), float("-inf")
    own: list[subprocess.Popen[bytes]] = []

    def keep() -> None:
        nonlocal looked
        if own or time.monotonic() - looked < _LOOK_EVERY:
            return
        if not daemon_alive():
            with _one_at_a_time():  # two commands at one moment start one
                if not daemon_alive():
                    end_on_sigterm()
                    progress("starting Dagster's daemon")
                    own.append(_start(folder))
                    _await(own[0])
        looked = time.monotonic()

    try:
        keep()
        yield keep
        if own:
            _let_others_end(began, progress)
    finally:
        for process in own:
            stop(process)
            forget_daemon()


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    folder = settings.home()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / "daemon.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def check_port(host: str, port: int) -> None:
    """Raise if nobody could listen there, before anything is started."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the web server does: a port that was just left is free
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigurationError(
                f"port {port} of {host} cannot be had ({error.strerror}): end what uses it, or take another one with --port {port + 1}"
            ) from None


def _log() -> Path:
    return settings.home() / "logs" / "daemon.log"


def _start(folder: Path) -> subprocess.Popen[bytes]:
    _log().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _log().open("ab") as log:
        return subprocess.Popen(  # noqa: S603 - our own interpreter
            [sys.executable, "-m", "dagster._daemon", "run", "-w", str(folder / "workspace.yaml")],
            cwd=folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip


def _await(process: subprocess.Popen[bytes]) -> None:
    import dagster as dg  # noqa: PLC0415 - half a second, for the commands that launch

    from identity_pipeline.orchestration import health  # noqa: PLC0415

    deadline = time.monotonic() + _DAEMON_START_SECONDS
    with dg.DagsterInstance.get() as instance:
        while not health.daemon_alive(instance):
            if process.poll() is not None or time.monotonic() > deadline:
                raise TryLater(f"Dagster's daemon did not start: see {_log()}")
            time.sleep(0.5)


def _let_others_end(began: datetime, progress: Callable[[str], None]) -> None:
    """Wait for the runs that go on under our daemon: they would die with it."""
    import dagster as dg  # noqa: PLC0415 - half a second, for the commands that launch

    states = dg.DagsterRunStatus
    going_on = dg.RunsFilter(statuses=[states.STARTING, states.STARTED, states.CANCELING], updated_after=began)
    reported = False
    with dg.DagsterInstance.get() as instance:
        while count := instance.get_runs_count(going_on):
            if not reported:
                progress(f"the daemon stays until the other runs that it started have ended (now {count})")
            reported = True
            time.sleep(1)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads its own session, with everything it started."""
    # Dagster's programs clean up after an interrupt; some ignore SIGTERM.
    for sign, seconds in ((signal.SIGINT, 10), (signal.SIGTERM, 10), (signal.SIGKILL, 10)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            break
    with suppress(ProcessLookupError):  # what it left behind in its group
        os.killpg(process.pid, signal.SIGKILL)
