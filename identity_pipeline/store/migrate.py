"""Migrations: bring any PostgreSQL 14+ database to the schema that this version needs."""

from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, pool

from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.store.database import connect, failures

_LOCK = 0x1DE17177
_OLDEST = 14


def migrate(url: str) -> None:
    """Create or upgrade schema ``identity`` (and ``dagster`` for Dagster's own tables). Repeatable.

    Raises:
        ConfigurationError: the server is older than PostgreSQL 14, or refuses us.
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
                lock.execute(psycopg.sql.SQL("create schema {}").format(psycopg.sql.Identifier(schema)))
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        engine = create_engine(f"postgresql+psycopg://{url.partition('://')[2]}", poolclass=pool.NullPool)
        with failures("migrate"), engine.connect() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
