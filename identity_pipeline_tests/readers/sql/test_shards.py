"""Shards: a large table read over several connections is what it is over one, whatever its key and whatever happens meanwhile."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import pytest

from identity_pipeline.core.errors import SourceUnavailable
from identity_pipeline.core.window import Window
from identity_pipeline.readers.sql import shards
from identity_pipeline.readers.sql.mysql import stream as mysql_stream
from identity_pipeline.readers.sql.postgres import stream as postgres_stream
from identity_pipeline.readers.sql.table import SqlTable
from identity_pipeline_tests import mysql_source, postgres_source
from identity_pipeline_tests.pooler import pooler
from identity_pipeline_tests.sql_load import load

Made = postgres_source.Customer | mysql_source.Customer


@dataclass
class Place:
    """A database of either kind, of which every table is large."""

    made: Made
    sessions: str
    """Asks for the numbers of the reader's sessions."""
    kill: str

    @property
    def is_postgres(self) -> bool:
        """Which of the two it is."""
        return isinstance(self.made, postgres_source.Customer)

    def run(self, *statements: str) -> list[tuple]:
        """Execute statements as the administrator; the last one's rows."""
        return [self.made.run(statement) for statement in statements][-1]

    def fill(self, name: str, columns: str, rows: str) -> None:
        """A table with the rows of a query."""
        self.run(f"CREATE TABLE {name} ({columns})", f"INSERT INTO {name} {rows}")
        self.run(f"ANALYZE {name}" if self.is_postgres else f"ANALYZE TABLE {name}")

    def series(self, count: int) -> str:
        """A table with the numbers ``n`` from 1 on."""
        return f"(SELECT generate_series(1, {count}) n) s" if self.is_postgres else f"(SELECT seq n FROM seq_1_to_{count}) s"

    def table(self, name: str = "people", count: int = 3, **options: str) -> SqlTable:
        """The reader's table."""
        return self.made.table(name, shards=count, **options)

    def reading(self) -> list[tuple]:
        """The reader's sessions, once there are three."""
        until = time.monotonic() + 20
        while len(found := self.run(self.sessions)) < 3:
            assert time.monotonic() < until, found
        return found

    def left(self) -> list[tuple]:
        """The reader's sessions that are still there after a while."""
        until = time.monotonic() + 10
        while (found := self.run(self.sessions)) and time.monotonic() < until:
            time.sleep(0.05)
        return found


@pytest.fixture(params=["postgres", "mysql"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "127.0.0.1")
    monkeypatch.setattr(postgres_stream, "PIECE", 1)  # a page
    monkeypatch.setattr(mysql_stream, "PIECE", 100)
    for stream in (postgres_stream, mysql_stream):
        monkeypatch.setattr(stream, "PIECES", 2)
        monkeypatch.setattr(stream, "BATCH_ROWS", 50)
    if request.param == "postgres":
        with postgres_source.customer(request.getfixturevalue("postgres_url")) as made:
            yield Place(made, "SELECT pid FROM pg_stat_activity WHERE application_name = 'identity_pipeline' ORDER BY pid DESC",
                        "SELECT pg_terminate_backend({})")  # fmt: skip
    else:
        with mysql_source.customer() as made:
            sessions = (
                "SELECT id FROM information_schema.processlist WHERE id <> connection_id() AND user = 'administrator' ORDER BY id DESC"
            )
            before = {number for (number,) in made.run(sessions)}
            others = " AND ".join(["true", *(f"id <> {number}" for number in before)])
            yield Place(made, sessions.replace("WHERE", f"WHERE {others} AND"), "KILL {}")


@pytest.fixture(autouse=True)
def nothing_is_left_behind(place: Place) -> Iterator[None]:
    """No thread and no session outlives a read, however it ended."""
    yield
    assert [thread for thread in threading.enumerate() if thread.name == "shard"] == []
    assert place.left() == []


def _read(table: SqlTable, field: str = "id") -> tuple[list[str], Window]:
    window = Window()
    return [value for batch in table.read(window) for value in batch.column(field).to_pylist()], window


KEYS = {
    "skewed": ("bigint", "CASE WHEN n <= 900 THEN n ELSE 9000000000000000000 + n END"),
    "negative": ("int", "n * 4000000.0 - 2000000000"),
    "text": ("varchar(40)", "concat(CASE n % 4 WHEN 0 THEN 'a' WHEN 1 THEN 'Ä' WHEN 2 THEN 'ß''\\\\' ELSE '😀' END, n)"),
    "binary": ("BYTES", "MADE"),
}


@pytest.mark.parametrize("key", KEYS)
def test_every_row_is_read_once_whatever_the_key_is(place: Place, key: str):
    kind, value = KEYS[key]
    made = "decode(lpad(to_hex(n), 6, '0'), 'hex')" if place.is_postgres else "unhex(lpad(hex(n * 7), 6, '0'))"
    kind, value = kind.replace("BYTES", "bytea" if place.is_postgres else "varbinary(9)"), value.replace("MADE", made)
    place.fill(
        "people", f"k {kind} PRIMARY KEY, id int, note varchar(200)", f"SELECT {value}, n, repeat('x', 100) FROM {place.series(1000)}"
    )
    found, window = _read(place.table())
    assert sorted(map(int, found)) == list(range(1, 1001))
    assert window.context.requests >= 5, "it was read in pieces"


def test_a_key_of_several_columns_is_divided_by_its_first_and_equal_values_stay_together(place: Place):
    place.fill("people", "a int, b int, id int, PRIMARY KEY (a, b)", f"SELECT n % 3, n, n FROM {place.series(2000)}")
    found, window = _read(place.table())
    assert sorted(map(int, found)) == list(range(1, 2001))
    assert window.context.requests >= 3


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_table_smaller_than_the_shards_is_read_over_one_connection(place: Place, count: int):
    place.fill("people", "id int PRIMARY KEY", f"SELECT n FROM {place.series(10)} WHERE n <= {count}")
    found, window = _read(place.table(count=8))
    assert (len(found), window.context.requests) == (count, 1)


def test_what_has_no_order_of_its_own_is_read_over_one_connection(place: Place):
    place.fill("base", "id int PRIMARY KEY, note varchar(200)", f"SELECT n, repeat('x', 100) FROM {place.series(1000)}")
    place.run("CREATE VIEW people AS SELECT * FROM base")
    found, window = _read(place.table())
    assert (len(found), window.context.requests) == (1000, 1)


def test_only_a_whole_read_is_divided(place: Place):
    place.fill("people", "id int PRIMARY KEY, note varchar(200)", f"SELECT n, repeat('x', 100) FROM {place.series(1000)}")
    later = load(place.table(), "id", "int", "990")
    assert (later.context.requests, "1000" in later.ids) == (1, True)
    window = Window(limit=5)
    assert sum(batch.num_rows for batch in place.table().read(window)) == 5


def test_what_is_written_during_the_read_is_in_it_or_in_the_next_one(place: Place):
    now = "timestamptz" if place.is_postgres else "timestamp(6)"
    place.fill("people", f"id int PRIMARY KEY, at {now} NOT NULL, note varchar(200)",
               f"SELECT n, timestamp '2026-04-01 00:00:00', repeat('x', 100) FROM {place.series(2000)}")  # fmt: skip
    stop = threading.Event()

    def write() -> None:
        connect = place.made.transaction
        with connect() as writer:
            for number in range(1, 10**6):
                if stop.is_set():
                    return
                writer.execute(f"UPDATE people SET note = 'moved {number}', at = now() WHERE id = {number % 2000 + 1}")
                writer.execute(f"INSERT INTO people VALUES ({2000 + number}, now(), 'new')")
                writer.execute(f"UPDATE people SET id = {-number}, at = now() WHERE id = {1000 + number % 900}")
                if number % 5 == 0:
                    writer.execute("COMMIT")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        known: dict[str, str] = {}
        mark = state = None
        for _ in range(3):
            found = load(place.table(), "at", "timestamp", mark, state)
            known |= {record["id"]: record["note"] for record in found.records}
            mark, state = found.mark, found.context.state
            assert mark is not None
    finally:
        stop.set()
        thread.join(20)
    place.run("SELECT 1")
    last = load(place.table(), "at", "timestamp", mark, state)
    known |= {record["id"]: record["note"] for record in last.records}
    truth = {str(number): note for number, note in place.run("SELECT id, note FROM people")}
    assert {number: known.get(number) for number in truth} == truth


def _slow(place: Place) -> SqlTable:
    place.fill("people", "id int PRIMARY KEY, note varchar(4000)", f"SELECT n, repeat('x', 3000) FROM {place.series(4000)}")
    return place.table()


def test_a_connection_that_is_killed_ends_the_read_and_the_others(place: Place):
    with closing(_slow(place).read(Window())) as batches:
        next(batches)
        [(newest,), *_] = place.reading()
        for _ in range(15):  # by then it has a piece
            next(batches)
        place.run(place.kill.format(newest))
        with pytest.raises(SourceUnavailable, match="the same read may work later"):
            list(batches)
    # that nothing is left is looked at after each test


def test_a_read_that_nobody_takes_any_more_ends_at_once(place: Place):
    with closing(_slow(place).read(Window())) as batches:
        next(batches)
        assert place.reading()
        began = time.monotonic()
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(("allowed", "less"), [(1, "postgres"), (2, "")])
def test_a_server_with_room_for_fewer_connections_is_read_over_those(place: Place, allowed: int, less: str):
    table, said = _slow(place), list[str]()
    if place.is_postgres:
        with place.made.role("narrow") as dsn:
            place.run(
                f"ALTER ROLE narrow CONNECTION LIMIT {allowed}; GRANT USAGE ON SCHEMA public TO narrow; GRANT SELECT ON people TO narrow"
            )
            table, window = place.table(dsn=dsn), Window()
            window.context.log = said.append
            found = sum(batch.num_rows for batch in table.read(window))
            assert place.left() == []
    else:
        with place.made.user("narrow", "s3cret", "SELECT ON crm.people") as url:
            place.run(f"ALTER USER narrow@'%' WITH MAX_USER_CONNECTIONS {allowed}")
            table, window = place.table(url=url), Window()
            window.context.log = said.append
            found = sum(batch.num_rows for batch in table.read(window))
    assert found == 4000
    assert [line for line in said if "read over one connection less: " in line and "takes no session now" in line]
    assert (window.context.requests == 1) == (place.is_postgres and allowed == 1)


def test_a_reader_that_is_killed_leaves_no_session_on_the_server(place: Place):
    _slow(place)
    engine = (
        f"PostgresEngine(StoredToken(lambda: {place.made.dsn()!r}), shards=3)"
        if isinstance(place.made, postgres_source.Customer)
        else f"MysqlEngine(StoredToken(lambda: {place.made.url()!r}), {place.made.server.ca!r}, 3)"
    )
    script = f"""
import time
from identity_pipeline.core.secret import StoredToken
from identity_pipeline.core.window import Window
from identity_pipeline.readers.sql.mysql import MysqlEngine, stream as m
from identity_pipeline.readers.sql.postgres import PostgresEngine, stream as p
from identity_pipeline.readers.sql.table import SqlTable
p.PIECE, m.PIECE, p.PIECES, m.PIECES, p.BATCH_ROWS, m.BATCH_ROWS = 1, 100, 2, 2, 50, 50
batches = SqlTable({engine}, "people").read(Window())
next(batches)
print("reading", flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as reader:
        try:
            assert reader.stdout is not None
            assert reader.stdout.readline() == "reading\n"
            assert place.reading()
        finally:
            reader.kill()


# PostgreSQL's own

only_postgres = pytest.mark.parametrize("place", ["postgres"], indirect=True)


@only_postgres
def test_all_connections_see_one_snapshot(place: Place):
    place.fill("people", "id int PRIMARY KEY, note int, pad text", f"SELECT n, 0, repeat('x', 1000) FROM {place.series(4000)}")
    window = Window()
    with closing(place.table().read(window)) as batches:
        notes = next(batches).column("note").to_pylist()
        place.run("UPDATE people SET note = 1 WHERE id % 2 = 0; DELETE FROM people WHERE id % 3 = 0; INSERT INTO people VALUES (-1, 1, '')")
        notes += [note for batch in batches for note in batch.column("note").to_pylist()]
    assert (len(notes), set(notes), window.context.requests > 100) == (4000, {"0"}, True)


@only_postgres
def test_a_partitioned_table_is_divided_too(place: Place):
    place.run("CREATE TABLE people (id int, note text) PARTITION BY LIST ((id % 3))")
    for number in range(3):
        place.run(f"CREATE TABLE people_{number} PARTITION OF people FOR VALUES IN ({number})")
    place.run(f"INSERT INTO people SELECT n, repeat('x', 100) FROM {place.series(1000)}")
    found, window = _read(place.table())
    assert sorted(map(int, found)) == list(range(1, 1001))
    assert window.context.requests > 2


@only_postgres
def test_single_columns_of_a_table_are_read_over_one_connection(place: Place):
    place.fill("people", "id int, note text", f"SELECT n, repeat('x', 100) FROM {place.series(1000)}")
    with place.made.role("narrow") as dsn:
        place.run("GRANT USAGE ON SCHEMA public TO narrow; GRANT SELECT (id) ON people TO narrow")
        found, window = _read(place.table(dsn=dsn, columns=("id",)))
        assert (len(found), window.context.requests) == (1000, 1)
        assert place.left() == []


@only_postgres
@pytest.mark.parametrize(("sessions", "divided"), [(4, True), (1, False)])
def test_a_pooler_is_read_through_over_as_many_sessions_as_it_has(
    place: Place, monkeypatch: pytest.MonkeyPatch, sessions: int, divided: bool
):
    monkeypatch.setattr(shards, "OPENS_WITHIN", 1.0)
    place.fill("people", "id int, note text", f"SELECT n, repeat('x', 100) FROM {place.series(1000)}")
    with pooler(place.made.url, *["SELECT 1"] * sessions) as between:
        found, window = _read(place.table(dsn=place.made.dsn(port=str(between.port))))
    assert sorted(map(int, found)) == list(range(1, 1001))
    assert (window.context.requests > 1) == divided
