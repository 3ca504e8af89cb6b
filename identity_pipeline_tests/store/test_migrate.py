"""Migrations of a database that has been in use."""

import psycopg
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, pool

from identity_pipeline.store import migrate


def test_rows_that_failed_loads_merged_are_counted_once(postgres_url: str):
    """Until revision 0001 each part counted its rows, since then the commit does, also for loads that failed before it."""
    config = migrate._config()
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("create schema identity")
        engine = create_engine(f"postgresql+psycopg://{postgres_url.partition('://')[2]}", poolclass=pool.NullPool)
        with engine.connect() as other:
            config.attributes["connection"] = other
            command.upgrade(config, "0001")
        connection.execute("insert into identity.sources (source_name, source_type, row_count) values ('crm', 'csv_url', 7)")
        for status, inserted in (("failed", 1), ("committed", 4), ("failed", 2)):
            connection.execute(
                """
                with l as (
                    insert into identity.loads (source_name, source_type, run_id, token, status, full_refresh)
                    values ('crm', 'csv_url', 'run', 1, %s, false) returning load_id)
                insert into identity.load_parts (load_id, part, records, inserted, updated, unchanged, duplicates, quarantined, deleted,
                                                 valid_identifiers, fields, seconds)
                select load_id, 0, %s, %s, 0, 0, 0, 0, 0, 0, '{}', 0 from l
                """,
                (status, inserted, inserted),
            )
        migrate.migrate(postgres_url)
        assert migrate.revisions(postgres_url).faults is None
        assert connection.execute("select row_count from identity.sources").fetchone() == (5,)
        connection.execute("drop schema identity, dagster cascade")


def test_the_newest_migration_is_the_one_that_is_needed():
    assert migrate.head() == ScriptDirectory.from_config(migrate._config()).get_current_head()


def test_a_schema_of_dagsters_that_is_gone_is_made_again(database_url: str):
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("drop schema dagster cascade")
        migrate.migrate(database_url)
        assert connection.execute("select to_regnamespace('dagster') is not null").fetchone() == (True,)
