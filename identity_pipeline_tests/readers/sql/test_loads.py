"""Loads of a PostgreSQL table into the identity database: what the reader promises arrives there."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from identity_pipeline.core.cursor import Cursor, Mark
from identity_pipeline.core.load_spec import LoadSpec
from identity_pipeline.loading.load import load
from identity_pipeline.loading.spec import RunOptions, Target
from identity_pipeline.readers import names
from identity_pipeline.store.landing import Landing
from identity_pipeline_tests.postgres_source import Customer, customer


class Source:
    """A table, followed by one column into the identity database."""

    def __init__(self, made: Customer, target: Target, column: str, kind) -> None:
        self.made, self.target = made, target
        self.spec = LoadSpec("people", "postgres_identity", names.COLUMNS, Cursor(column, kind), settings="same", snapshot=True)
        self.logged: list[str] = []
        self.mark: Mark | None = None

    def load(self, **options) -> dict:
        """One load."""
        chosen = RunOptions(**options)
        row = load(self.spec, self.made.table(), self.target, "run", options=chosen, published=self.mark, log=self.logged.append)
        self.mark = Mark(row["cursor_column"], row["cursor_type"], row["cursor_after"])
        return row

    def stored(self, column: str = "company") -> dict[str, str | None]:
        """What the identity database has of each record."""
        with psycopg.connect(self.target.url) as connection:
            return dict(connection.execute(f"SELECT external_id, {column} FROM identity.records".encode()).fetchall())


@pytest.fixture
def made(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Customer]:
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "127.0.0.1")
    with customer(postgres_url) as made:
        made.run("CREATE TABLE contacts (id text PRIMARY KEY, n int8, company text, at timestamptz DEFAULT now())")
        made.run("INSERT INTO contacts SELECT g, g, 'Company ' || g FROM generate_series(1, 5) g")
        yield made


@pytest.fixture
def target(database_url: str, tmp_path: Path) -> Target:
    return Target(database_url, Landing(str(tmp_path / "landing")))


@pytest.mark.parametrize(("column", "kind"), [("n", "int"), ("at", "timestamp")])
def test_a_row_that_is_committed_late_arrives_and_the_mark_stays(made: Customer, target: Target, column: str, kind):
    source = Source(made, target, column, kind)
    with made.transaction() as late:
        late.execute("SELECT now()")
        made.run("INSERT INTO contacts VALUES ('7', 7, 'g')")
        mark = source.load()["cursor_after"]
        late.execute("INSERT INTO contacts VALUES ('6', 6, 'f')")
        late.commit()
    row = source.load()
    assert source.stored().keys() == {"1", "2", "3", "4", "5", "6", "7"}
    assert (row["inserted"], row["filtered"], row["cursor_after"]) == (1, 0, mark)


def test_a_row_that_is_updated_by_an_older_transaction_arrives(made: Customer, target: Target):
    source = Source(made, target, "at", "timestamp")
    with made.transaction() as late:
        late.execute("SELECT now()")
        made.run("UPDATE contacts SET company = 'between', at = now() WHERE id = '1'")
        source.load()
        late.execute("UPDATE contacts SET company = 'late', at = now() WHERE id = '1'")
        late.commit()
    source.load()
    assert source.stored()["1"] == "late"


def test_a_row_that_loses_its_cursor_value_arrives(made: Customer, target: Target):
    source = Source(made, target, "at", "timestamp")
    source.load()
    made.run("UPDATE contacts SET company = 'timeless', at = NULL WHERE id = '1'")
    source.load()
    assert source.stored()["1"] == "timeless"


@pytest.mark.parametrize("kept", [True, False])
def test_a_mark_that_one_wrong_row_set_comes_back(made: Customer, target: Target, kept: bool):
    source = Source(made, target, "n", "int")
    made.run("INSERT INTO contacts VALUES ('9', 9000000000000000000, 'i')")
    assert source.load()["cursor_after"] == "9000000000000000000"
    made.run("UPDATE contacts SET n = 6 WHERE id = '9'; INSERT INTO contacts VALUES ('7', 7, 'g')")
    if not kept:
        with psycopg.connect(target.url) as connection:
            connection.execute("UPDATE identity.sources SET state = NULL")
    row = source.load()
    assert row["cursor_after"] == "7"
    assert any("goes back" in warning for warning in row["warnings"])
    assert source.stored().keys() == {"1", "2", "3", "4", "5", "7", "9"}
    assert source.load()["records_read"] == 1


def test_a_transaction_that_writes_late_is_no_clock_that_went_back(made: Customer, target: Target):
    source = Source(made, target, "at", "timestamp")
    with made.transaction() as late:
        late.execute("SELECT now()")
        made.run("INSERT INTO contacts VALUES ('7', 7, 'g')")
        mark = source.load()["cursor_after"]
        late.execute("INSERT INTO contacts VALUES ('6', 6, 'f')")
        row = source.load()
        assert (row["cursor_after"], row["warnings"]) == (mark, [])
