"""Loads of a PostgreSQL table into the identity database: what the reader promises arrives there."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from identity_pipeline.core.cursor import Cursor, Mark
from identity_pipeline.core.errors import SchemaChanged
from identity_pipeline.core.load_spec import LoadSpec
from identity_pipeline.declarations import source as declared
from identity_pipeline.loading.load import load
from identity_pipeline.loading.preview import check_fields
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


def _named(made: Customer, target: Target, **config: str) -> tuple[LoadSpec, dict]:
    """What a source declares with these settings, and the ledger's row of its load."""
    settings = {"connection_string": {"env": "DSN"}, "table": "t"} | config
    source = declared.Source(name="people", source_type="postgres_identity", config=settings)
    spec = source.load_spec(source.resource())
    return spec, load(spec, made.table("t", id_column=config.get("id_column", "")), target, "run", log=lambda _: None)


def test_the_column_that_is_named_is_the_id_of_each_person(made: Customer, target: Target):
    made.run('CREATE TABLE t (id int8, "No. of person" text PRIMARY KEY)')
    made.run("INSERT INTO t VALUES (1, 'a'), (1, 'b'), (NULL, 'c')")
    spec, row = _named(made, target, id_column="No. of person")
    assert (spec.field_map.external_id, row["inserted"], row["quarantined"]) == (("No. of person",), 3, 0)
    with psycopg.connect(target.url) as connection:
        assert {i for (i,) in connection.execute("SELECT external_id FROM identity.records")} == {"a", "b", "c"}


def test_an_id_that_is_not_unique_or_null_is_warned_of_and_kept_in_quarantine(made: Customer, target: Target):
    made.run("CREATE TABLE t (no int8 PRIMARY KEY, person text)")
    made.run("INSERT INTO t VALUES (1, 'a'), (2, 'a'), (3, NULL)")
    _, row = _named(made, target, id_column="person")
    assert (row["records_read"], row["inserted"], row["duplicates"], row["quarantined"]) == (3, 1, 1, 1)
    assert any("check that the id is unique in the source" in warning for warning in row["warnings"])


def test_a_table_without_a_customary_id_is_refused_with_its_primary_key(made: Customer, target: Target):
    made.run("CREATE TABLE t (contact_no int8 PRIMARY KEY, email text); INSERT INTO t VALUES (1, 'a')")
    with pytest.raises(SchemaChanged, match="its primary key is 'contact_no': set id_column to it"):
        _named(made, target)
    spec = replace(Source(made, target, "n", "int").spec, cursor=None)
    assert "its primary key is 'contact_no': set id_column to it" in check_fields(spec, made.table("t")).message


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
