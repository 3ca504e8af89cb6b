"""What the shared fixtures promise."""

import os
from pathlib import Path

import psycopg
import pytest

from identity_pipeline.core import settings


@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_has_a_database_of_its_own(turn: int, database_url: str):
    with psycopg.connect(database_url) as connection:
        assert connection.execute("select count(*) from identity.records").fetchone() == (0,)
        connection.execute("create table left_by_a_test ()")


def test_the_environment_points_at_this_tests_database_and_home(identity_env: Path, database_url: str, tmp_path: Path):
    assert settings.database_url() == database_url
    assert settings.home() == identity_env
    assert identity_env.is_relative_to(tmp_path)
    assert not {"IDENTITY_ENCRYPTION_KEYS", "IDENTITY_SOURCES", "IDENTITY_LANDING_URL"} & os.environ.keys()


def test_a_workers_database_has_no_schema_of_ours(postgres_url: str):
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("select to_regclass('identity.records')").fetchone() == (None,)
