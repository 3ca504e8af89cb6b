"""A MySQL database that plays the customer: tables to read, a reader's user, a canary."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import quote

import pymysql

from identity_pipeline.core.secret import StoredToken
from identity_pipeline.core.window import Window
from identity_pipeline.readers.sql.mysql import MysqlEngine
from identity_pipeline.readers.sql.table import SqlTable
from identity_pipeline_tests.mysql_server import Server, server

HOSTILE_NAMES = (
    "contacts; DROP TABLE canary",
    "contacts; DROP TABLE canary --",
    "contacts`; DROP TABLE canary; -- ",
    "`contacts`; DROP TABLE canary; -- `",
    "`contacts``; DROP TABLE canary; -- ",
    "contacts WHERE 1=1",
    "contacts UNION SELECT * FROM canary",
    "contacts PARTITION (p0)",
    "contacts AS OF TIMESTAMP '2026-01-01'",
    "contacts INTO OUTFILE '/tmp/owned'",
    "(SELECT 1)",
    "contacts/**/,canary",
    "contacts/*! ,canary */",
    "contacts -- ",
    "contacts # ",
    "contacts\\",
    "sleep(10)",
    "load_file('/etc/passwd')",
    "'contacts'",
    '"contacts"',
    "_utf8mb4 X'61'",
    "@contacts",
    "contacts\x00",
    "contacts\u202e",
    "contacts\ud800",
    "contacts\n",
    "%s",
    "{}",
    "*",
    "",
    ".",
    "crm.",
    ".contacts",
    "a.b.c",
    "``",
    "`",
    "123",
    "c" * 65,
    "mysql.user",
    "MySQL.user",
    "`mysql`.`user`",
    "sys.session",
    "`information_schema`.`tables`",
    "performance_schema.threads",
)  # fmt: skip
"""Names of tables or columns that would do more than name one."""


@dataclass(frozen=True)
class Customer:
    """The customer's server, as its administrator sees it. The database is ``crm``."""

    server: Server
    admin: pymysql.Connection

    def run(self, *statements: str) -> list[tuple]:
        """Execute statements as the administrator; the last one's rows."""
        with self.admin.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())

    def url(self, user: str = "administrator", password: str | None = None, *, port: int | None = None, query: str = "") -> str:
        """The connection string; ``query`` begins with ``?``."""
        word = quote(self.server.password if password is None else password, safe="")
        return f"mysql://{user}:{word}@127.0.0.1:{port or self.server.port}/crm{query}"

    def table(self, name: str = "contacts", url: str | None = None, shards: int = 1, **settings) -> SqlTable:
        """One of the tables, as the reader sees it."""
        return SqlTable(MysqlEngine(StoredToken(lambda: url or self.url()), self.server.ca, shards), name, **settings)

    def rows(self, name: str = "contacts", url: str | None = None, **settings) -> list[dict]:
        """All records of a table."""
        return [row for batch in self.table(name, url, **settings).read(Window()) for row in batch.to_pylist()]

    @contextmanager
    def user(self, name: str, password: str = "s3cret-of-the-user", *grants: str) -> Iterator[str]:
        """A user with some grants (``SELECT ON crm.contacts``); yields its connection string."""
        self.run(f"CREATE USER {name}@'%' IDENTIFIED BY '{password}'", *(f"GRANT {grant} TO {name}@'%'" for grant in grants))
        try:
            yield self.url(name, password)
        finally:
            self.run(f"DROP USER {name}@'%'")

    @contextmanager
    def transaction(self) -> Iterator[pymysql.cursors.Cursor]:
        """Another writer's open transaction. Whoever opens it commits it."""
        writer = self.server.connect(autocommit=False, database="crm")
        try:
            yield writer.cursor()
        finally:
            writer.close()


@contextmanager
def customer() -> Iterator[Customer]:
    """An empty database with a canary that no test may kill."""
    running = server()
    admin = running.connect()
    try:
        made = Customer(running, admin)
        made.run("DROP DATABASE IF EXISTS crm", "CREATE DATABASE crm", "USE crm", "SET SESSION sql_mode = ''", "SET time_zone = '+00:00'",
                 "SET lock_wait_timeout = 5", "CREATE TABLE canary AS SELECT 1 AS alive")  # fmt: skip
        yield made
        assert made.run("SELECT alive FROM crm.canary") == [(1,)], "the canary is dead"
    finally:
        admin.close()
