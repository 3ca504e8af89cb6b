"""A PostgreSQL database that plays the customer: tables to read, a reader's role, a canary."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from identity_pipeline.core.secret import StoredToken
from identity_pipeline.core.window import Window
from identity_pipeline.readers.sql.postgres import PostgresEngine
from identity_pipeline.readers.sql.table import SqlTable

HOSTILE_NAMES = (
    "contacts; DROP TABLE canary",
    "contacts; DROP TABLE canary --",
    'contacts"; DROP TABLE canary; --',
    '"contacts"; DROP TABLE canary; --"',
    '"contacts""; DROP TABLE canary; --',
    "contacts WHERE 1=1",
    "contacts UNION SELECT * FROM canary",
    "(DELETE FROM canary RETURNING 1)",
    "contacts/**/,canary",
    "contacts -- ",
    "pg_sleep(10)",
    "'contacts'",
    "$$contacts$$",
    'U&"cont\\0061cts"',
    "contacts\x00",
    "contacts\u202e",
    "contacts\ud800",
    "contacts\n",
    "contacts') TO PROGRAM 'touch /tmp/owned' --",
    "%s",
    "{}",
    "*",
    "",
    ".",
    "public.",
    ".contacts",
    "a.b.c.d",
    '""',
    '"',
    "c" * 64,
    "pg_catalog.pg_authid",
    "PG_CATALOG.pg_class",
    '"information_schema"."tables"',
    "pg_temp.contacts",
    "pg_toast.x",
)  # fmt: skip
"""Names of tables or columns that would do more than name one."""


@dataclass(frozen=True)
class Customer:
    """The customer's server, as its administrator sees it."""

    admin: psycopg.Connection
    url: str

    def run(self, statement: str) -> list[tuple]:
        """Execute statements as the administrator; the last one's rows."""
        cursor = self.admin.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []

    def dsn(self, **fields: str) -> str:
        """The connection string, as ``key=value``, with other fields."""
        return make_conninfo(**conninfo_to_dict(self.url) | {"sslmode": "disable"} | fields)

    def table(self, name: str = "contacts", dsn: str | None = None, shards: int = 1, **settings) -> SqlTable:
        """One of the tables, as the reader sees it."""
        return SqlTable(PostgresEngine(StoredToken(lambda: dsn or self.dsn()), shards=shards), name, **settings)

    def rows(self, name: str = "contacts", dsn: str | None = None, **settings) -> list[dict]:
        """All records of a table."""
        return [row for batch in self.table(name, dsn, **settings).read(Window()) for row in batch.to_pylist()]

    @contextmanager
    def role(self, name: str, password: str = "s3cret-of-the-role") -> Iterator[str]:
        """A role that may do nothing yet; yields its connection string."""
        self.run(f"CREATE ROLE {name} LOGIN PASSWORD '{password}'")
        try:
            yield self.dsn(user=name, password=password)
        finally:
            self.run(f"DROP OWNED BY {name}; DROP ROLE {name}")

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Connection]:
        """Another writer's open transaction. Whoever opens it commits it."""
        with psycopg.connect(self.url) as writer:
            yield writer
            writer.rollback()


@contextmanager
def customer(url: str) -> Iterator[Customer]:
    """An empty database with a canary that no test may kill."""
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute("SET lock_timeout = '5s'")
        admin.execute("DROP SCHEMA public CASCADE")
        admin.execute("CREATE SCHEMA public")
        admin.execute("GRANT USAGE ON SCHEMA public TO public")
        admin.execute("CREATE TABLE canary AS SELECT 1 AS alive")
        yield Customer(admin, url)
        assert admin.execute("SELECT alive FROM public.canary").fetchall() == [(1,)], "the canary is dead"
