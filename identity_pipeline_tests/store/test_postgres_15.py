"""PostgreSQL 15, the oldest server that is supported: migrations, a load, a full refresh in time. All other tests use the newest."""

import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from identity_pipeline.store.landing import Landing
from identity_pipeline.store.migrate import migrate, revisions
from identity_pipeline_tests import clusters
from identity_pipeline_tests.store.contacts import Contacts, people
from identity_pipeline_tests.store.test_merge import contact


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A migrated database."""
    with clusters.postgres_15() as url:
        migrate(url)
        yield url


@pytest.fixture
def contacts(url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Contacts:
    """A source of its own."""
    return Contacts(url, Landing(str(tmp_path / "landing")), request.node.name[:60])


def test_migrations_are_whole_and_repeatable(url: str):
    before = revisions(url)
    migrate(url)
    assert (before.server, before.faults, revisions(url)) == (15, None, before)


def test_a_load_inserts_updates_deletes_merges_and_quarantines(contacts: Contacts):
    contacts.load([contact("1", "Ann"), contact("2", "Bob"), contact("3", "Eve"), contact("4", "Dan")])
    row = contacts.load(
        [contact("1", "Anna", 2), contact("2", "Bob", 2, archived="true"), contact("", "Nobody")], [contact("4", "Dan", 2, absorbed="3")]
    )
    rows = contacts.rows()
    assert (row["status"], row["updated"], row["deleted"], row["quarantined"]) == ("committed", 3, 1, 1)
    assert contacts.names() == {"1": "Anna", "2": "Bob", "3": "Eve", "4": "Dan"}
    assert (rows["2"]["deleted_at"] is None, rows["3"]["merged_into"]) == (False, "4")


def test_a_full_refresh_of_a_table_without_statistics_takes_seconds(contacts: Contacts):
    """Its plans were quadratic on this version: 20,000 rows took more than a minute."""
    with psycopg.connect(contacts.url) as connection:
        connection.execute("alter table identity.records set (autovacuum_enabled = off)")
    ids = [str(n) for n in range(20_000)]
    contacts.load(people(*ids))
    started = time.monotonic()
    row = contacts.load(people(*ids[100:]), full_refresh=True)
    assert time.monotonic() - started < 40
    assert (row["unchanged"], row["deleted"]) == (19_900, 100)
