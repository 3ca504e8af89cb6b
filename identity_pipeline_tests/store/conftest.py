"""A migrated database for the tests of one module; each test has a source of its own in it."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg import sql

from identity_pipeline.store.landing import Landing
from identity_pipeline_tests.conftest import _administer, _create, _named
from identity_pipeline_tests.store.contacts import Contacts

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def url(_server: str, _migrated: str, request: pytest.FixtureRequest) -> Iterator[str]:
    database = f"of_{request.module.__name__.rpartition('.')[2]}"
    with _administer(_server) as connection:
        _create(connection, database, _migrated)
    yield _named(_server, database)
    with _administer(_server) as connection:
        connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(database)))


@pytest.fixture
def contacts(url: str, tmp_path: Path) -> Contacts:
    """A source that no other test uses."""
    return Contacts(url, Landing(str(tmp_path / "landing")), f"source_{next(_numbers)}")
