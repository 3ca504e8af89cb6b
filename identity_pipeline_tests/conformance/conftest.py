"""Fixtures of the suite; each test of a promise runs once for each harness that has the traits it needs."""

import os
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partialmethod
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from identity_pipeline.core.window import ReadContext
from identity_pipeline.store.landing import Landing
from identity_pipeline_tests.conformance.harness import TRAITS, Harness, Tools, harness_classes
from identity_pipeline_tests.conformance.loader import Loader
from identity_pipeline_tests.conftest import _LOCK, _administer, _create, _named
from identity_pipeline_tests.servers.files import Authority


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*traits): run for the harnesses that have all these traits; `http` or `tcp` is a wire")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    chosen = any("harness_class" in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize"))
    if chosen or "harness_class" not in metafunc.fixturenames:
        return
    needed = {trait for mark in metafunc.definition.iter_markers("needs") for trait in mark.args}
    assert needed <= TRAITS.keys() | {"http", "tcp"}, f"{metafunc.function.__name__} needs what is no trait"
    classes = {name: cls for name, cls in harness_classes().items() if all(map(cls.has, needed))}
    metafunc.parametrize("harness_class", list(classes.values()), ids=list(classes), scope="session")


@pytest.fixture(scope="module")
def identity_database(_server: str, _migrated: str) -> Iterator[str]:
    """A migrated database for all tests of a file: each has a source name of its own in it.

    Not for all files: what a planted bug of one leaks must not stand where another looks for leaks.
    """
    database = f"conformance_{uuid.uuid4().hex[:12]}"
    with _administer(_server) as connection:
        _create(connection, database, _migrated)
        connection.execute(sql.SQL("alter database {} set synchronous_commit = off").format(sql.Identifier(database)))
        # the suite connects thousands of times: the same password, cheaper to prove; one worker at a time
        connection.execute("select pg_advisory_lock(%s)", (_LOCK,))
        connection.execute("set scram_iterations = 1")
        connection.execute(sql.SQL("alter role current_user password {}").format(sql.Literal(connection.info.password)))
    yield _named(_server, database)
    with _administer(_server) as connection:
        connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(database)))


@pytest.fixture(scope="module")
def connection(identity_database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(identity_database, autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def tools(postgres_url: str, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tools]:
    for name in [name for name in os.environ if name.startswith("IDENTITY_") and not name.startswith("IDENTITY_TESTS")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.bundle))
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "127.0.0.1")
    with ExitStack() as stack:
        yield Tools(postgres_url, authority, monkeypatch, stack)


@pytest.fixture
def harness(harness_class: type[Harness], tools: Tools) -> Harness:
    return harness_class(tools)


@pytest.fixture
def loader(
    harness: Harness, connection: psycopg.Connection, identity_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Loader:
    """A source of the harness, never loaded. No wait takes any time."""
    connection.execute("delete from identity.paces")  # a server may get the port of one before it, and naps take no time
    made = Loader(harness, connection, identity_database, Landing(str(tmp_path / "landing")))
    monkeypatch.setattr(ReadContext, "__init__", partialmethod(ReadContext.__init__, sleep=made.naps.append))
    return made
