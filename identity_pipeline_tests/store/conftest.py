"""A migrated database for the tests of one module; each test has a source of its own in it."""

import itertools
import os
from pathlib import Path

import pytest

from identity_pipeline.store.landing import Landing
from identity_pipeline_tests.conftest import _administer, _create, _named
from identity_pipeline_tests.store.contacts import Contacts

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def url(_server: str, _migrated: str) -> str:
    """It goes with the session's server."""
    database = f"store_{os.getpid()}_{next(_numbers)}"
    with _administer(_server) as connection:
        _create(connection, database, _migrated)
    return _named(_server, database)


@pytest.fixture
def contacts(url: str, tmp_path: Path) -> Contacts:
    """A source that no other test uses."""
    return Contacts(url, Landing(str(tmp_path / "landing")), f"source_{next(_numbers)}")
