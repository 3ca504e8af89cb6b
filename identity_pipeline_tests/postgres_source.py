"""A PostgreSQL database that plays the customer: tables to read, a reader's role, a canary."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from identity_pipeline.connectors.postgres_identity import PostgresIdentity
from identity_pipeline.core.cursor import CursorFilter
from identity_pipeline.core.window import CursorType, ReadContext, Window


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

    def connector(self, table: str = "contacts", **settings) -> PostgresIdentity:
        """The connector of one of the tables."""
        return PostgresIdentity(**{"connection_string": self.dsn(), "table": table} | settings)

    def rows(self, table: str = "contacts", **settings) -> list[dict]:
        """All records of a table, as the connector reads them."""
        return [row for batch in self.connector(table, **settings).read(Window()) for row in batch.to_dict("records")]

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


@dataclass
class Load:
    """One load as the pipeline makes it: read, filter, mark."""

    records: list[dict]
    mark: str | None
    filtered: int
    context: ReadContext

    @property
    def ids(self) -> set[str]:
        """What was loaded."""
        return {record["id"] for record in self.records}


def load(connector: PostgresIdentity, column: str, cursor_type: CursorType, lower: str | None = None) -> Load:
    """Load what ``connector`` has from ``lower`` on."""
    window = Window(column, cursor_type, lower, context=ReadContext())
    rows = CursorFilter(window, connector.cursor_reading())
    with closing(connector.read(window)) as batches:
        records = [record for batch in batches for record in rows.apply(batch).to_dict("records")]
    return Load(records, rows.mark, rows.filtered, window.context)


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
