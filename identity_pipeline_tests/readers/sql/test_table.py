"""SqlTable over an engine that is nothing like PostgreSQL: what is promised for every database."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from identity_pipeline.core.cursor import Cursor
from identity_pipeline.core.errors import ConfigurationError, CredentialError, PermissionDenied, SourceRejected, SourceUnavailable
from identity_pipeline.core.secret import StoredToken
from identity_pipeline.core.window import Window
from identity_pipeline.readers.sql.catalog import Column, Table
from identity_pipeline.readers.sql.cursor import FollowedColumn
from identity_pipeline.readers.sql.engine import Look
from identity_pipeline.readers.sql.identifier import Dialect
from identity_pipeline.readers.sql.table import SqlTable

NOON = datetime(2026, 4, 13, 12, tzinfo=UTC)
DIALECT = Dialect(
    parts=("project", "schema", "table"),
    default=("here", "main"),
    quote="`",
    unquoted=re.compile(r"[A-Za-z_]\w*"),
    fold=str.upper,
    max_length=255,
    denied=re.compile(r"(?i)^temp$"),
)


@dataclass(frozen=True)
class SqliteSession:
    """One SQLite database, its rows streamed two by two."""

    database: sqlite3.Connection
    rows_hidden: bool

    def server(self) -> str:
        """What answers."""
        return "SQLite, in this process"

    def role(self) -> str:
        """As whom."""
        return "signed in as nobody"

    def table(self, name: tuple[str, ...]) -> Table | None:
        """The table of exactly this name, or None."""
        if name[:2] != ("here", "main"):
            return None
        kinds = {"INTEGER": "int", "TIMESTAMP": "instant", "TEXT": "text"}
        found = self.database.execute("SELECT name, type, pk FROM pragma_table_info(?)", name[2:]).fetchall()
        exact = self.database.execute("SELECT 1 FROM sqlite_master WHERE name = ?", name[2:]).fetchone()
        columns = tuple(Column(name, kind, kind, kinds.get(kind), kind != "BLOB", bool(pk)) for name, kind, pk in found)
        return Table(name, columns, rows_hidden=self.rows_hidden, dialect=DIALECT) if exact else None

    def tables(self, name: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        """All there are."""
        return (("here", "main", row[0]) for row in self.database.execute("SELECT name FROM sqlite_master"))

    def look(self, table: Table, followed: FollowedColumn | None, window: Window) -> Look:
        """Always at noon; whoever was here before is told to go on, or to begin again."""
        going_on = window.state if window.state != "of another server" else None
        return Look(NOON, NOON, "looked", going_on, window.state is not None and going_on is None, ("nobody else is here",))

    def maximum(self, table: Table, followed: FollowedColumn) -> str | None:
        """The largest value."""
        (largest,) = self.database.execute(f"SELECT CAST(max(`{followed.name}`) AS TEXT) FROM `{table.name[-1]}`").fetchone()
        return largest

    def stream(self, table: Table, followed: FollowedColumn | None, window: Window, since: str | None = None) -> Iterator[pa.Table]:
        """The rows from the lower bound on, and the one of the id ``since``."""
        columns = ", ".join(f"CAST(`{column.name}` AS TEXT)" for column in table.columns)
        where = f"WHERE `{followed.name}` >= CAST(:lower AS {followed.base_type}) OR id = :since" if followed and window.lower else ""
        query = f"SELECT {columns} FROM {'`' + table.name[-1] + '`'} {where} LIMIT {window.limit or -1}"
        rows = self.database.execute(query, {"lower": window.lower, "since": since})
        while some := rows.fetchmany(2):
            arrays = [pa.array(values, pa.string()) for values in zip(*some, strict=True)]
            yield pa.table(arrays, names=[column.name for column in table.columns])


@dataclass(frozen=True)
class SqliteEngine:
    """Opens the database in which ``script`` was run."""

    script: str
    secret: StoredToken
    rows_hidden: bool = False
    down: Exception | None = None
    dialect: Dialect = DIALECT

    def open(self) -> AbstractContextManager[SqliteSession]:
        """Ask for the secret; the database opens with the context."""
        self.secret.token()
        return self._session()

    @contextmanager
    def _session(self) -> Iterator[SqliteSession]:
        if self.down is not None:
            raise self.down
        with closing(sqlite3.connect(":memory:")) as database:
            database.executescript(self.script)
            yield SqliteSession(database, self.rows_hidden)


PEOPLE = """
    CREATE TABLE PEOPLE (id INTEGER PRIMARY KEY, email TEXT, at TIMESTAMP);
    INSERT INTO PEOPLE VALUES (1, 'a', '2026-01-01'), (2, 'b', '2026-01-02'), (3, NULL, '2026-01-03');
"""


def _people(table: str = "people", script: str = PEOPLE, **options) -> SqlTable:
    return SqlTable(SqliteEngine(script, StoredToken(lambda: "secret")), table, **options)


def _rows(table: SqlTable, window: Window | None = None) -> list[dict]:
    return [row for batch in table.read(window or Window()) for row in batch.to_pylist()]


def test_a_table_is_found_under_the_engines_own_folding_and_read_in_batches_of_text():
    batches = list(_people().read(Window()))
    assert [batch.num_rows for batch in batches] == [2, 1]
    assert batches[1].to_pylist() == [{"id": "3", "email": None, "at": "2026-01-03"}]


def test_a_window_with_a_cursor_reaches_the_engine_and_fixes_the_sources_time():
    window = Window(Cursor("id", "int"), "2")
    assert [row["id"] for row in _rows(_people(), window)] == ["2", "3"]
    assert window.context.source_time == NOON


def test_the_cursor_is_read_with_the_chosen_columns():
    window = Window(Cursor("id", "int"), "3")
    assert _rows(_people(columns=("email",)), window) == [{"email": None, "id": "3"}]
    assert window.context.fields == ("email", "id")


def test_the_id_is_read_with_the_chosen_columns():
    window = Window()
    assert _rows(_people(columns=("email",), id_column="id"), window)[0] == {"email": "a", "id": "1"}
    assert window.context.key == ("id",)


@pytest.mark.parametrize("name", ["ID", "idd", "id`, (SELECT 1) AS `x", "id; DROP TABLE PEOPLE", "*"])
def test_an_id_column_is_one_of_the_catalogs_or_is_answered_with_close_names(name: str):
    with pytest.raises(ConfigurationError, match=r"id_column: .*`PEOPLE` has no column .*; (close to it|there) is id"):
        _rows(_people(id_column=name))
    assert [step.ok for step in _people(id_column=name).check()] == [True, True, False]


def test_check_says_what_the_id_is_and_whether_the_server_keeps_it_unique():
    assert [*_people(id_column="id").check()][-1].message == "3 rows, 3 columns, id id"
    assert "id email, which is not the primary key" in [*_people(id_column="email").check()][-1].message


def test_a_read_says_which_fields_there_are_though_no_row_follows():
    window = Window()
    assert _rows(_people(script="CREATE TABLE PEOPLE (id INTEGER, email TEXT)"), window) == []
    assert window.context.fields == ("id", "email")


def test_a_column_that_may_not_be_read_is_named_unless_others_were_chosen():
    table = _people(script="CREATE TABLE PEOPLE (id INTEGER, face BLOB)")
    with pytest.raises(PermissionDenied, match="'face'"):
        _rows(table)
    assert _rows(replace(table, columns=("id",))) == []


def test_an_unknown_table_is_answered_with_close_names_in_the_engines_quotes():
    with pytest.raises(SourceRejected, match=r"`PEPLE`; .*`here`\.`main`\.`PEOPLE`"):
        _rows(_people("peple"))


def test_hidden_rows_are_named_by_a_load():
    window, table = Window(), _people()
    _rows(replace(table, engine=replace(table.engine, rows_hidden=True)), window)
    assert "row-level security" in window.context.warnings[0]


def test_check_goes_the_way_of_a_load():
    steps = list(_people().check())
    assert [(step.name, step.ok) for step in steps] == [("reach", True), ("authenticate", True), ("permission", True), ("sample", True)]
    assert steps[3].message == "3 rows, 3 columns, primary key id"


def test_a_read_goes_on_from_the_look_before_and_says_that_it_asked_below_its_bound():
    window = Window(Cursor("id", "int"), "3", state="1")
    assert {row["id"] for row in _rows(_people(), window)} == {"1", "3"}
    assert (window.context.state, window.context.asked_below, window.context.warnings) == ("looked", True, ["nobody else is here"])
    first = Window(Cursor("id", "int"), "3")
    assert [row["id"] for row in _rows(_people(), first)] == ["3"]
    assert (first.context.state, first.context.asked_below) == ("looked", False)


def test_a_table_whose_last_look_cannot_be_continued_is_read_whole():
    window = Window(Cursor("id", "int"), "3", state="of another server")
    assert [row["id"] for row in _rows(_people(), window)] == ["1", "2", "3"]
    assert window.context.asked_below


@pytest.mark.parametrize("cursor", [Cursor("id", "int"), Cursor("email", "text")])
def test_a_mark_beyond_the_largest_value_is_reported_and_what_was_missed_is_read(cursor: Cursor):
    window = Window(cursor, "9000000000000000000" if cursor.type == "int" else "zzz")
    assert len(_rows(_people(), window)) == 3
    assert (window.context.source_maximum, window.context.asked_below) == ("3" if cursor.type == "int" else "b", True)
    assert "nothing in" in window.context.warnings[-1]


def test_a_mark_beyond_the_largest_value_needs_no_whole_read_where_nothing_was_missed():
    window = Window(Cursor("id", "int"), "9", state="2")
    assert [row["id"] for row in _rows(_people(), window)] == ["2"]
    assert window.context.source_maximum == "3"


@pytest.mark.parametrize(
    ("window", "script"),
    [
        (Window(Cursor("id", "int"), "3"), PEOPLE),
        (Window(Cursor("at", "timestamp"), "2999-01-01"), PEOPLE),
        (Window(Cursor("id", "int"), "9", limit=5), PEOPLE),
        (Window(Cursor("id", "int"), "9"), "CREATE TABLE PEOPLE (id INTEGER)"),
    ],
)
def test_no_maximum_is_reported_for_a_tie_a_time_a_sample_or_an_empty_table(window: Window, script: str):
    _rows(_people(script=script), window)
    assert window.context.source_maximum is None


@pytest.mark.parametrize(
    ("down", "outcome"),
    [
        (SourceUnavailable("nobody there"), [("reach", False)]),
        (CredentialError("wrong password"), [("reach", True), ("authenticate", False)]),
    ],
)
def test_check_tells_a_server_that_is_away_from_one_that_refuses_us(down: Exception, outcome: list):
    table = _people()
    steps = replace(table, engine=replace(table.engine, down=down)).check()
    assert [(step.name, step.ok) for step in steps] == outcome


def test_a_secret_that_cannot_be_had_is_no_answer_of_the_server():
    def look_up() -> str:
        raise CredentialError("the credential store has no such name")

    (step,) = SqlTable(SqliteEngine(PEOPLE, StoredToken(look_up)), "people").check()
    assert (step.name, step.ok, step.message) == ("reach", False, "the credential store has no such name")


@pytest.mark.parametrize(("table", "timezone"), [("people; DROP TABLE x", "UTC"), ("people", "Mars/Olympus")])
def test_settings_are_judged_before_the_secret_is_asked_for(table: str, timezone: str):
    def look_up() -> str:
        pytest.fail("asked for the secret")

    with pytest.raises(ConfigurationError):
        _rows(SqlTable(SqliteEngine(PEOPLE, StoredToken(look_up)), table, timezone=timezone))
