"""A Snowflake account that plays the customer: tables to read, users with credentials that are really checked."""

import atexit
import fcntl
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import requests
import snowflake.connector

from identity_pipeline.core.secret import StoredToken
from identity_pipeline.core.settings import PACKAGE
from identity_pipeline.core.window import Window
from identity_pipeline.readers.sql.snowflake import SnowflakeEngine
from identity_pipeline.readers.sql.table import SqlTable
from identity_pipeline_tests.servers import snowflake_account

ENVIRONMENT = PACKAGE.parent / ".tools" / "fakesnow"
ADMINISTRATOR = "ADMINISTRATOR"


@dataclass(frozen=True)
class Account:
    """A running server."""

    port: int
    folder: Path
    password: str

    def let(self, users: dict[str, dict[str, Any]]) -> None:
        """Who may sign in from now on, and how, beside the administrator."""
        content = json.dumps({ADMINISTRATOR: {"password": self.password}} | users)
        (self.folder / "users.new").write_text(content)
        (self.folder / "users.new").rename(self.folder / "users.json")


@cache
def account() -> Account:
    """The server of this process, started when it is first asked for. Its folder is the test session's."""
    folder = Path(tempfile.mkdtemp(prefix="snowflake-", dir=os.environ["IDENTITY_TESTS_PLACE"]))
    with socket.create_server(("127.0.0.1", 0)) as free:
        made = Account(free.getsockname()[1], folder, secrets.token_hex(8))
    made.let({})
    dying = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
    command = [*dying, str(_environment() / "bin" / "python"), str(snowflake_account.__file__), str(made.port), str(folder / "users.json")]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder)
    atexit.register(_end, process)
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", made.port), 1).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"fakesnow does not start:\n{(folder / 'log').read_text()[-3000:]}") from None
            time.sleep(0.05)
        else:
            return made


def _end(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()


def _environment() -> Path:
    """An environment with fakesnow in it: made once, for all processes and sessions."""
    ENVIRONMENT.parent.mkdir(exist_ok=True)
    with ENVIRONMENT.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (ENVIRONMENT / "done").exists():
            uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
            assert uv, "the tests of snowflake_identity make an environment with uv: it comes with the development dependencies"
            for arguments in (["venv", "-q", "--clear", "--python", sys.executable, str(ENVIRONMENT)],
                              ["pip", "install", "-q", "-p", str(ENVIRONMENT), *snowflake_account.PACKAGES]):  # fmt: skip
                done = subprocess.run([uv, *arguments], capture_output=True, text=True, timeout=600, check=False)
                assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
            (ENVIRONMENT / "done").touch()
    return ENVIRONMENT


@dataclass(frozen=True)
class Customer:
    """The customer's account, as its administrator sees it. The database is ``CRM``."""

    account: Account
    admin: snowflake.connector.SnowflakeConnection

    def run(self, *statements: str) -> list[tuple]:
        """Execute statements as the administrator; the last one's rows."""
        with self.admin.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())

    def fill(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Replace the rows of a table at once."""
        path = self.account.folder / "rows.parquet"
        pq.write_table(pa.Table.from_pylist([dict(zip(columns, row, strict=True)) for row in rows], self._schema(columns, rows)), path)
        requests.post(
            f"http://127.0.0.1:{self.account.port}/rows", params={"table": table, "path": str(path)}, timeout=60
        ).raise_for_status()

    def _schema(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> pa.Schema:
        return pa.schema([(name, pa.timestamp("us") if name.endswith("_at") else pa.string()) for name in columns])

    def table(self, name: str = "contacts", *, user: str = ADMINISTRATOR, credential: str = "", **settings) -> SqlTable:
        """One of the tables, as the reader sees it."""
        own = {key: settings.pop(key) for key in ("timezone", "columns") if key in settings}
        chosen = {"authentication": "password", "database": "crm", "base_url": f"http://127.0.0.1:{self.account.port}"} | settings
        return SqlTable(
            SnowflakeEngine("myorg-shop", user, StoredToken(lambda: credential or self.account.password), **chosen), name, **own
        )

    def rows(self, name: str = "contacts", **settings) -> list[dict]:
        """All records of a table."""
        return [row for batch in self.table(name, **settings).read(Window()) for row in batch.to_pylist()]


@contextmanager
def customer() -> Iterator[Customer]:
    """An empty database with a canary that no test may kill."""
    running = account()
    running.let({})
    admin = snowflake.connector.connect(
        account="myorg-shop", user=ADMINISTRATOR, password=running.password, host="127.0.0.1", port=running.port, protocol="http",
        enable_server_session_keep_alive_auto_detection=False,
    )  # fmt: skip
    try:
        made = Customer(running, admin)
        made.run("CREATE DATABASE IF NOT EXISTS crm", "USE DATABASE crm", "DROP SCHEMA IF EXISTS crm.public CASCADE",
                 "CREATE SCHEMA crm.public",
                 "USE SCHEMA crm.public", "CREATE TABLE canary (alive int)", "INSERT INTO canary VALUES (1)")  # fmt: skip
        yield made
        assert made.run("SELECT alive FROM crm.public.canary") == [(1,)], "the canary is dead"
    finally:
        admin.close()
