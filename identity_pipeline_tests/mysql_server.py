"""A MariaDB server for tests, with TLS: one for each process that needs it, gone with it.

Its programs are those of this machine, else Debian's packages, unpacked where they can be used without being installed:
that takes five seconds and neither root nor a change to the machine. Oracle's MySQL is in none of the
registries that a test may use: its own way to sign in (caching_sha2_password) is not tried here.
"""

import atexit
import os
import shutil
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pymysql
import trustme

from identity_pipeline_tests import packages

_SCRIPTS = ("mysql_system_tables.sql", "mysql_performance_tables.sql", "mysql_system_tables_data.sql")
_FAST = ("--innodb-log-file-size=8M", "--innodb-buffer-pool-size=64M", "--aria-log-file-size=8M", "--skip-log-bin",
         "--innodb-flush-log-at-trx-commit=0", "--innodb-flush-method=nosync", "--skip-innodb-doublewrite")  # fmt: skip


@dataclass(frozen=True)
class Server:
    """A running server: where it is, its authority (PEM), and a user who may do everything."""

    port: int
    ca: str
    user: str = "administrator"
    password: str = "of-the-administrator"

    def connect(self, **options) -> pymysql.Connection:
        """A session of the administrator's."""
        chosen = {"user": self.user, "password": self.password, "charset": "utf8mb4", "autocommit": True, "ssl_disabled": True}
        return pymysql.connect(host="127.0.0.1", port=self.port, **chosen | options)


@cache
def server() -> Server:
    """The server of this process, started when it is first asked for. Its folder is the test session's."""
    folder = Path(tempfile.mkdtemp(prefix="mariadb-", dir=os.environ["IDENTITY_TESTS_PLACE"]))
    (folder / "data").mkdir()
    command, environment = _command(folder)
    made = Server(_free_port(), _certify(folder))
    bootstrap = "\n".join((
        "CREATE DATABASE mysql;", "USE mysql;", "SET @auth_root_socket = NULL;",
        *((_share() / name).read_text("utf-8") for name in _SCRIPTS),
        "FLUSH PRIVILEGES;", f"CREATE USER {made.user}@'%' IDENTIFIED BY '{made.password}';",
        f"GRANT ALL ON *.* TO {made.user}@'%' WITH GRANT OPTION;",
    ))  # fmt: skip
    with (folder / "log").open("ab") as log:
        subprocess.run(
            [*command, "--skip-networking", "--bootstrap", "--silent-startup"], input=bootstrap.encode(), env=environment,
            stdout=log, stderr=log, timeout=120, check=False,
        )  # fmt: skip
        # it dies with this process, however that ends
        dying = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        serving = [*dying, *command, f"--port={made.port}", "--bind-address=127.0.0.1", f"--socket={folder / 's'}", "--skip-name-resolve",
                   f"--ssl-cert={folder / 'cert.pem'}", f"--ssl-key={folder / 'key.pem'}", f"--ssl-ca={folder / 'ca.pem'}",
                   "--character-set-server=utf8mb4", "--default-time-zone=-03:00", "--max-allowed-packet=128M"]  # fmt: skip
        process = subprocess.Popen(serving, env={**environment, "TZ": "JST-9"}, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    atexit.register(_end, process)
    deadline = time.monotonic() + 60
    while True:
        try:
            made.connect().close()
        except pymysql.err.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"MariaDB does not start:\n{(folder / 'log').read_text('utf-8', 'replace')[-3000:]}") from None
            time.sleep(0.05)
        else:
            return made


def _end(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def _certify(folder: Path) -> str:
    """A certificate for 127.0.0.1 in ``folder``; the text of its authority."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    return (folder / "ca.pem").read_text()


def _command(folder: Path) -> tuple[list[str], dict[str, str]]:
    """How to run the server on ``folder``, and its environment."""
    program = _installed()
    environment = {"PATH": os.environ.get("PATH", ""), "HOME": str(folder), "LC_ALL": "C.UTF-8"}
    where = [f"--lc-messages-dir={_share()}", f"--character-sets-dir={_share() / 'charsets'}"]
    if program is None:
        program = str(_unpacked() / "usr" / "sbin" / "mariadbd")
        environment["LD_LIBRARY_PATH"] = packages.libraries(_unpacked())
    account = ["--user=root"] if os.geteuid() == 0 else []
    return [program, "--no-defaults", *account, f"--datadir={folder / 'data'}", f"--tmpdir={folder}", *where, *_FAST], environment


def _installed() -> str | None:
    return shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def _share() -> Path:
    """The folder of the server's messages and first tables."""
    program = _installed()
    base = _unpacked() / "usr" if program is None else Path(program).resolve().parent.parent
    return next(path for name in ("mysql", "mariadb") if (path := base / "share" / name / _SCRIPTS[0]).exists()).parent


@cache
def _unpacked() -> Path:
    return packages.unpacked("mariadb", "mariadb-server-core")
