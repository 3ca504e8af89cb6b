"""Migrations: bring any PostgreSQL 15+ database to the schema that this version needs."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from psycopg import sql

from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.store.database import connect, failures

if TYPE_CHECKING:
    from alembic.config import Config

_LOCK = 0x1DE17177
_OLDEST = 15
_MIGRATIONS = Path(__file__).parent / "migrations"


@dataclass(frozen=True)
class Revisions:
    """The schema's revision (None: no schema), the one that this version needs, the server's version, is Dagster's schema there."""

    current: str | None
    head: str
    server: int
    dagster: bool

    @property
    def faults(self) -> str | None:
        """What is wrong and what to do, None if nothing is."""
        if self.server < _OLDEST:
            return f"the server is PostgreSQL {self.server}; {_OLDEST} or later is needed"
        if self.current != self.head:
            return f"the schema is {self.current or 'missing'}, this version needs {self.head}: run `identity-pipeline db migrate`"
        return None


def revisions(url: str) -> Revisions:
    """How far the database is migrated.

    Raises:
        TargetUnavailable: the server does not answer.
        ConfigurationError: it refuses us.
    """
    with connect(url, doing="look at the schema") as connection:
        looked = connection.execute("select to_regclass('identity.alembic_version') is not null, to_regnamespace('dagster') is not null")
        there, dagster = looked.fetchone() or (False, False)
        row = connection.execute("select version_num from identity.alembic_version").fetchone() if there else None
        server = connection.info.server_version // 10_000
    return Revisions(row[0] if row else None, head(), server, dagster)


def head() -> str:
    """The revision that this version needs: that of the last migration, by which its file's name begins."""
    return max(path.name for path in (_MIGRATIONS / "versions").glob("[0-9]*.py")).partition("_")[0]


def _config() -> "Config":
    from alembic.config import Config  # noqa: PLC0415 - see migrate

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    return config


def migrate(url: str) -> None:
    """Create or upgrade schema ``identity`` (and ``dagster`` for Dagster's own tables). Repeatable.

    Raises:
        ConfigurationError: the server is older than PostgreSQL 15, or refuses us.
        TargetUnavailable: the server does not answer.
    """
    found = revisions(url)
    if found.server < _OLDEST:
        raise ConfigurationError(f"migrate: the server is PostgreSQL {found.server}; {_OLDEST} or later is needed")
    if found.current == found.head and found.dagster:
        return
    from alembic import command  # noqa: PLC0415 - half a second, for what is done once a version
    from sqlalchemy import create_engine, pool  # noqa: PLC0415

    with connect(url, doing="migrate", autocommit=True) as lock:
        lock.execute("select pg_advisory_lock(%s)", (_LOCK,))
        for schema in ("identity", "dagster"):
            exists = lock.execute("select 1 from pg_namespace where nspname = %s", (schema,)).fetchone()
            if not exists:
                lock.execute(sql.SQL("create schema {}").format(sql.Identifier(schema)))
        config = _config()
        engine = create_engine(f"postgresql+psycopg://{url.partition('://')[2]}", poolclass=pool.NullPool)
        with failures("migrate"), engine.connect() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
