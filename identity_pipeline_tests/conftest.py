"""Fixtures that tests of several packages share: the identity database and its environment.

One embedded server serves a test session, the workers of pytest-xdist included: the first process
that needs it starts it, the controlling process stops it and deletes its folder.
"""

import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import hypothesis  # noqa: F401 - its plugin imports it after the last test otherwise, which Python before 3.11.8 may fail at (CPython issue 106905)
import pandas as pd  # noqa: F401 - a process of ours does without it from its first load on, this one reads what came as frames
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from identity_pipeline.embedded import server as embedded
from identity_pipeline_tests import clusters

_HARNESSES = "|".join(path.stem for path in (Path(__file__).parent / "conformance" / "harnesses").glob("[a-z]*.py"))
_HARNESS = re.compile(rf"/conformance/.*[\[-]({_HARNESSES})[\]-]")
_PLACE = "IDENTITY_TESTS_PLACE"
_PREFIX = "identity-tests-"
_LOCK = 0x7E57


def pytest_configure(config: pytest.Config) -> None:
    """Name the session's folder, for the workers too, which inherit the environment."""
    if hasattr(config, "workerinput"):
        return
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):  # of sessions that were killed
        ours, alive = left.stat().st_uid == os.getuid(), Path(f"/proc/{left.name.split('-')[2]}").exists()
        if ours and not alive and Path("/proc/self").exists():
            clusters.remove(left / "home")
            shutil.rmtree(left, ignore_errors=True)
    os.environ[_PLACE] = str(clusters.place(f"{_PREFIX}{os.getpid()}-"))


class _ByHarness(LoadScopeScheduling):
    """Tests of one harness, else of one file, go to one worker: what they set up once is set up once."""

    def _split_scope(self, nodeid: str) -> str:
        harness = _HARNESS.search(nodeid)
        return harness[1] if harness else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """How tests are spread over workers, whatever --dist says."""
    return _ByHarness(config, log)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the session's server after the last worker has ended."""
    place = None if hasattr(config, "workerinput") else os.environ.pop(_PLACE, None)
    if place is not None:
        clusters.remove(Path(place) / "home")
        shutil.rmtree(place, ignore_errors=True)


def _administer(server: str) -> psycopg.Connection:
    return psycopg.connect(make_conninfo(server, dbname="postgres"), autocommit=True)


def _has(connection: psycopg.Connection, database: str) -> bool:
    return bool(connection.execute("select from pg_database where datname = %s", (database,)).fetchall())


def _create(connection: psycopg.Connection, database: str, template: str = "template1") -> None:
    statement = sql.SQL("create database {} template {}")
    connection.execute(statement.format(sql.Identifier(database), sql.Identifier(template)))


def _named(server: str, database: str) -> str:
    return f"{server.rpartition('/')[0]}/{database}"


@pytest.fixture(scope="session")
def _server() -> str:
    return embedded.start(Path(os.environ[_PLACE]) / "home", timeout=120)


@pytest.fixture(scope="session")
def postgres_url(_server: str) -> str:
    """A database without any schema, one for each worker, for the whole session."""
    database = f"worker_{os.environ.get('PYTEST_XDIST_WORKER', 'only')}"
    with _administer(_server) as connection:
        _create(connection, database)
    return _named(_server, database)


@pytest.fixture(scope="session")
def _migrated(_server: str) -> str:
    """The name of a database with all migrations, made once for all workers."""
    from identity_pipeline.store.migrate import migrate  # noqa: PLC0415 - most tests need no schema

    with _administer(_server) as connection:
        connection.execute("select pg_advisory_lock(%s)", (_LOCK,))
        if not _has(connection, "migrated"):
            _create(connection, "migrating")
            migrate(_named(_server, "migrating"))
            connection.execute("alter database migrating rename to migrated")
    return "migrated"


@pytest.fixture
def database_url(_server: str, _migrated: str) -> Iterator[str]:
    """A migrated database without records, for one test."""
    database = f"test_{uuid.uuid4().hex[:12]}"
    with _administer(_server) as connection:
        _create(connection, database, _migrated)
    yield _named(_server, database)
    with _administer(_server) as connection:
        connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(database)))


@pytest.fixture
def identity_env(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The pipeline's environment for one test: ``database_url`` and an empty ``IDENTITY_HOME``, which it returns."""
    for name in [name for name in os.environ if name.startswith("IDENTITY_") and name != _PLACE]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    monkeypatch.setenv("IDENTITY_DATABASE_URL", database_url)
    monkeypatch.setenv("IDENTITY_HOME", str(home))
    return home
