"""Pipelines to run: each test gets its own, made from a template."""

import itertools
import os
from collections.abc import Callable

import dagster as dg
import pytest

from identity_pipeline_tests.conftest import _administer, _create, _named
from identity_pipeline_tests.orchestration.world import World, make_table

_numbers = itertools.count(1)

MakeWorld = Callable[..., World]


@pytest.fixture(scope="session")
def _template(_server: str, _migrated: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database with all migrations, Dagster's tables and the customer's, empty."""
    database = f"template_{os.environ.get('PYTEST_XDIST_WORKER', 'only')}"
    with _administer(_server) as connection:
        _create(connection, database, _migrated)
    url = _named(_server, database)
    make_table(url)
    with World(url, tmp_path_factory.mktemp("template"), url).entered() as instance:
        assert isinstance(instance, dg.DagsterInstance)
    return database


@pytest.fixture(scope="module")
def make_world(_server: str, _template: str, tmp_path_factory: pytest.TempPathFactory) -> MakeWorld:
    """Make a pipeline, empty or as a copy of another one's database. Databases go with the session's server."""

    def make(like: World | None = None) -> World:
        database = f"world_{os.getpid()}_{next(_numbers)}"
        with _administer(_server) as connection:
            _create(connection, database, like.url.rpartition("/")[2] if like else _template)
        url = _named(_server, database)
        return World(url, tmp_path_factory.mktemp("world"), url)

    return make


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    """A pipeline that has not run yet."""
    return make_world()
