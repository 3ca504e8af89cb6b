"""Migrations: bring any PostgreSQL 15+ database to the schema that this version needs."""

from dataclasses import dataclass
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from psycopg import sql
from sqlalchemy import create_engine, pool

from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.store.database import connect, failures

_LOCK = 0x1DE17177
_OLDEST = 15


@dataclass(frozen=True)
class Revisions:
    """The schema's revision (None: no schema), the one that this version needs, and the server's version."""

    current: str | None
    head: str | None
    server: int

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
        there = connection.execute("select to_regclass('identity.alembic_version') is not null").fetchone()
        row = connection.execute("select version_num from identity.alembic_version").fetchone() if there and there[0] else None
        server = connection.info.server_version // 10_000
    return Revisions(row[0] if row else None, ScriptDirectory.from_config(_config()).get_current_head(), server)


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def migrate(url: str) -> None:
    """Create or upgrade schema ``identity`` (and ``dagster`` for Dagster's own tables). Repeatable.

    Raises:
        ConfigurationError: the server is older than PostgreSQL 15, or refuses us.
        TargetUnavailable: the server does not answer.
    """
    with connect(url, doing="migrate", autocommit=True) as lock:
        version = lock.info.server_version // 10_000
        if version < _OLDEST:
            raise ConfigurationError(f"migrate: the server is PostgreSQL {version}; {_OLDEST} or later is needed")
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
