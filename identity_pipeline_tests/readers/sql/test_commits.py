"""Late commits on a real PostgreSQL server: whatever a transaction was doing when a load looked, the next load finds its rows."""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import psycopg
import pytest

from identity_pipeline.core.cursor import CursorType
from identity_pipeline.embedded import server as embedded
from identity_pipeline.readers.sql.postgres import commits, stream
from identity_pipeline_tests import clusters
from identity_pipeline_tests.postgres_source import Customer, customer
from identity_pipeline_tests.sql_load import Load, load

CREATE = """
    CREATE SEQUENCE handed_out;
    CREATE TABLE contacts (
        id text, n int8 DEFAULT nextval('handed_out'), at timestamptz DEFAULT now(),
        wall timestamp DEFAULT (now() AT TIME ZONE 'Asia/Tokyo')
    );
    INSERT INTO contacts SELECT 'old' || g FROM generate_series(1, 5) g
"""
CURSORS: dict[str, CursorType] = {"at": "timestamp", "wall": "timestamp", "n": "int"}
INSERT = "INSERT INTO contacts (id, n) VALUES ('late', {n})"


@pytest.fixture
def source(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Customer]:
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "127.0.0.1")
    with customer(postgres_url) as made:
        made.run(CREATE)
        yield made


@dataclass(frozen=True)
class Following:
    """Loads of one table by one cursor as one role, one after the other, without any overlap."""

    source: Customer
    dsn: str
    column: str
    name: str = "contacts"

    def load(self, before: Load | None = None) -> Load:
        """Load; ``before`` is the load before."""
        table = self.source.table(self.name, dsn=self.dsn, timezone="Asia/Tokyo")
        return load(table, self.column, CURSORS[self.column], before and before.mark, before and before.context.state)


@pytest.fixture(params=["plain", "sees all", "superuser"])
def dsn(source: Customer, request: pytest.FixtureRequest) -> Iterator[str]:
    """A connection string of each kind of role."""
    with _role(source, request.param) as made:
        yield made


@contextlib.contextmanager
def _role(source: Customer, kind: str) -> Iterator[str]:
    if kind == "superuser":
        yield source.dsn()
        return
    with source.role("follower") as dsn:
        source.run("GRANT SELECT ON ALL TABLES IN SCHEMA public TO follower")
        if kind == "sees all":
            source.run("GRANT pg_read_all_stats TO follower")
        yield dsn


Begin = Callable[[psycopg.Connection], str]
"""What a transaction does before the load looks; returns what it does after it."""


def _number(late: psycopg.Connection) -> str:
    row = late.execute("SELECT now(), nextval('handed_out')").fetchone() or ()
    return INSERT.format(n=row[1])


def _open(late: psycopg.Connection) -> str:
    return _number(late)


def _writing_elsewhere(late: psycopg.Connection) -> str:
    late.execute("INSERT INTO public.canary_notes VALUES (1)")
    return _number(late)


def _written(late: psycopg.Connection) -> str:
    late.execute(_number(late).encode())
    return "SELECT 1"


def _in_a_subtransaction(late: psycopg.Connection) -> str:
    late.execute("SAVEPOINT one")
    late.execute(_number(late).encode())
    late.execute("RELEASE one")
    return "SAVEPOINT two; INSERT INTO contacts (id, n) VALUES ('later', currval('handed_out')); RELEASE two"


def _writes_in_a_later_subtransaction(late: psycopg.Connection) -> str:
    insert = _number(late)
    return f"SAVEPOINT one; DELETE FROM contacts; ROLLBACK TO one; SAVEPOINT two; {insert}; RELEASE two"


def _updates_twice(late: psycopg.Connection) -> str:
    late.execute("UPDATE contacts SET id = 'first', at = now(), wall = now() AT TIME ZONE 'Asia/Tokyo' WHERE id = 'old1'")
    return "UPDATE contacts SET id = 'late' WHERE id = 'first'"


STATES: dict[str, Begin] = {
    "open, nothing written": _open,
    "open, an id from another table": _writing_elsewhere,
    "written": _written,
    "written in a subtransaction": _in_a_subtransaction,
    "writes in a later subtransaction": _writes_in_a_later_subtransaction,
    "updates a row twice": _updates_twice,
}


def _late(source: Customer, following: Following, begin: Begin, *, during: pytest.MonkeyPatch | None = None) -> tuple[Load, Load]:
    """Two loads, and a transaction that begins before the first and commits after it (or while it reads)."""
    source.run("CREATE TABLE IF NOT EXISTS canary_notes (id int)")
    with source.transaction() as late:
        then = begin(late)
        time.sleep(0.01)
        source.run("INSERT INTO contacts (id) VALUES ('punctual')")

        def commit() -> None:
            late.execute(then.encode())
            late.commit()

        if during is None:
            first = following.load()
            commit()
        else:
            with during.context() as patch:
                copied = stream.batches

                def meanwhile(*args: object):
                    batches = copied(*args)  # type: ignore[arg-type]
                    batch = next(batches)  # the snapshot is taken
                    commit()
                    yield batch
                    yield from batches

                patch.setattr(stream, "batches", meanwhile)
                first = following.load()
    return first, following.load(first)


def _found(loads: tuple[Load, Load]) -> tuple[bool, bool, list[str]]:
    """Whether the late row was in the first and in the second of two loads, and their warnings."""
    first, second = loads
    return "late" in first.ids, "late" in second.ids, first.context.warnings + second.context.warnings


@pytest.mark.parametrize("column", CURSORS)
@pytest.mark.parametrize("state", STATES)
def test_no_late_commit_is_lost(source: Customer, dsn: str, column: str, state: str):
    assert _found(_late(source, Following(source, dsn, column), STATES[state])) == (False, True, [])


@pytest.mark.parametrize("column", ["at", "n"])
@pytest.mark.parametrize("begin", [_open, _written])
def test_no_commit_while_a_load_reads_is_lost(source: Customer, dsn: str, column: str, begin: Begin, monkeypatch: pytest.MonkeyPatch):
    assert _found(_late(source, Following(source, dsn, column), begin, during=monkeypatch)) == (False, True, [])


@pytest.mark.parametrize("column", CURSORS)
def test_what_was_read_is_not_read_again_once_nothing_is_open(source: Customer, dsn: str, column: str):
    following = Following(source, dsn, column)
    _, second = _late(source, following, _written)
    source.run("INSERT INTO contacts (id) VALUES ('new')")
    third = following.load(second)
    assert "old1" not in third.ids
    assert "new" in third.ids


def test_a_state_is_kept_over_loads_in_which_the_transaction_stays_open(source: Customer, dsn: str):
    following = Following(source, dsn, "n")
    with source.transaction() as late:
        late.execute(_number(late).encode())
        loads = [following.load()]
        for number in range(3):
            source.run(f"INSERT INTO contacts (id) VALUES ('new{number}')")
            loads.append(following.load(loads[-1]))
        late.commit()
    assert "late" in following.load(loads[-1]).ids


# where rows live


def test_a_partitioned_table_is_followed_by_the_ids_of_its_partitions(source: Customer, dsn: str):
    source.run("DROP TABLE contacts; CREATE TABLE contacts (id text, n int8 DEFAULT nextval('handed_out'), at timestamptz DEFAULT now(),"
               " wall timestamp DEFAULT (now() AT TIME ZONE 'Asia/Tokyo')) PARTITION BY RANGE (n)")  # fmt: skip
    source.run("CREATE TABLE low PARTITION OF contacts FOR VALUES FROM (0) TO (8); CREATE TABLE high PARTITION OF contacts DEFAULT")
    source.run("INSERT INTO contacts (id) VALUES ('old1')")
    if "follower" in dsn:
        source.run("GRANT SELECT ON contacts TO follower")
    assert _found(_late(source, Following(source, dsn, "at"), _written)) == (False, True, [])


def test_what_a_materialised_view_shows_late_is_found(source: Customer, dsn: str):
    source.run("CREATE MATERIALIZED VIEW shown AS SELECT * FROM contacts")
    if "follower" in dsn:
        source.run("GRANT SELECT ON shown TO follower")
    following = Following(source, dsn, "n", "shown")
    source.run("INSERT INTO contacts (id, n) VALUES ('late', 3)")
    first = following.load()
    source.run("REFRESH MATERIALIZED VIEW shown")
    assert "late" not in first.ids
    assert "late" in following.load(first).ids


def test_a_view_is_protected_by_a_role_that_sees_open_transactions_and_a_cursor_of_time(source: Customer):
    source.run("CREATE VIEW shown AS SELECT * FROM contacts")
    for state in ("open, nothing written", "written"):
        with _role(source, "sees all") as dsn:
            assert _found(_late(source, Following(source, dsn, "at", "shown"), STATES[state])) == (False, True, [])
        source.run("DELETE FROM contacts WHERE id = 'late'")


@pytest.mark.parametrize(
    ("kind", "column", "grant", "remedy"),
    [
        ("plain", "at", "GRANT SELECT ON shown TO follower", "GRANT pg_read_all_stats"),
        ("sees all", "n", "GRANT SELECT ON shown TO follower", "the table itself"),
        (
            "plain",
            "n",
            "REVOKE SELECT ON contacts FROM follower; GRANT SELECT (id, n, at, wall) ON contacts TO follower",
            "GRANT SELECT ON",
        ),
    ],
)
def test_a_load_that_can_miss_late_commits_says_so_and_what_closes_it(source: Customer, kind: str, column: str, grant: str, remedy: str):
    source.run("CREATE VIEW shown AS SELECT * FROM contacts")
    with _role(source, kind) as dsn:
        source.run(grant)
        following = Following(source, dsn, column, "shown" if "shown" in grant else "contacts")
        (warning,) = following.load().context.warnings
    assert remedy in warning
    assert "overlap as long as the longest transaction" in warning


# how large it is


def _resized(monkeypatch: pytest.MonkeyPatch, small: int, huge: int) -> None:
    monkeypatch.setattr(commits, "SMALL", small)
    monkeypatch.setattr(commits, "HUGE", huge)


@pytest.mark.parametrize("column", ["at", "wall"])
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("huge", [0, 2**40])
def test_the_mark_of_a_large_table_stays_behind_all_that_is_open(
    source: Customer, state: str, column: str, huge: int, monkeypatch: pytest.MonkeyPatch
):
    _resized(monkeypatch, 0, huge)
    with _role(source, "sees all") as dsn:
        following = Following(source, dsn, column)
        _, second = _late(source, following, STATES[state])
        assert "late" in second.ids
        assert not second.context.asked_below
        source.run("INSERT INTO contacts (id) VALUES ('new')")
        assert following.load(second).ids <= {"late", "later", "punctual", "new"}


@pytest.mark.parametrize(("kind", "column"), [("plain", "at"), ("sees all", "n")])
def test_a_large_table_is_scanned_where_the_mark_cannot_be_held_back(
    source: Customer, kind: str, column: str, monkeypatch: pytest.MonkeyPatch
):
    _resized(monkeypatch, 0, 2**40)
    with _role(source, kind) as dsn:
        _, second = _late(source, Following(source, dsn, column), _open)
    assert ("late" in second.ids, second.context.asked_below) == (True, True)


@pytest.fixture(scope="module")
def preparing() -> Iterator[str]:
    """A server of its own that takes prepared transactions."""
    place = clusters.place(f"identity-tests-{os.getpid()}-preparing-")  # a name by which it is found should this process be killed
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(embedded._SETTINGS, "max_prepared_transactions", "5")
        patch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "127.0.0.1")
        try:
            yield embedded.start(place / "home", timeout=120)
        finally:
            clusters.remove(place / "home")
            shutil.rmtree(place, ignore_errors=True)


@pytest.mark.parametrize("small", [0, 2**30])
@pytest.mark.parametrize("column", CURSORS)
def test_a_prepared_transaction_is_waited_for_though_no_session_has_it_open(
    preparing: str, column: str, small: int, monkeypatch: pytest.MonkeyPatch
):
    _resized(monkeypatch, small, 2**40)
    with customer(preparing) as source:
        source.run(CREATE)
        following = Following(source, source.dsn(), column)
        source.run("BEGIN; INSERT INTO contacts (id) VALUES ('late'); PREPARE TRANSACTION 'one'")
        source.run("INSERT INTO contacts (id) VALUES ('punctual')")
        loads = [following.load()]
        loads.append(following.load(loads[-1]))
        source.run("COMMIT PREPARED 'one'")
        assert _found((loads[-1], following.load(loads[-1]))) == (False, True, [])


@pytest.mark.parametrize(("kind", "column"), [("plain", "at"), ("sees all", "n")])
def test_a_huge_table_is_never_scanned_and_warns(source: Customer, kind: str, column: str, monkeypatch: pytest.MonkeyPatch):
    _resized(monkeypatch, 0, 0)
    with _role(source, kind) as dsn:
        following = Following(source, dsn, column)
        first = following.load()
        second = following.load(first)
    assert (first.context.state, second.context.asked_below) == (None, False)
    assert ["committed long after" in warning for warning in second.context.warnings] == [True]


@pytest.mark.parametrize("small", [0, 2**40])
def test_a_mark_that_is_held_back_does_not_hold_back_the_servers_clock(source: Customer, small: int, monkeypatch: pytest.MonkeyPatch):
    _resized(monkeypatch, small, 2**40)
    with source.transaction() as late:
        late.execute(_number(late).encode())
        (started,) = late.execute("SELECT now()").fetchone() or ()
        time.sleep(0.01)
        context = Following(source, source.dsn(), "at").load().context
    assert context.source_time == started
    assert context.source_clock is not None
    assert context.source_clock > started


# the state


def _changed(state: str | None, **fields: object) -> str:
    return json.dumps(json.loads(state or "") | fields)


@pytest.mark.parametrize("other", [{"cluster": "1"}, {"timeline": 99}, {"xmax": 2**62}])
def test_a_table_on_another_server_or_a_restored_one_is_read_whole(source: Customer, dsn: str, other: dict):
    following = Following(source, dsn, "n")
    first = following.load()
    changed = replace(first, context=replace(first.context, state=_changed(first.context.state, **other)))
    second = following.load(changed)
    assert second.ids == first.ids
    assert ["is read whole" in warning for warning in second.context.warnings] == [True]
    assert following.load(second).context.warnings == []


@pytest.mark.parametrize(
    "garbage", ["", "null", "[]", "{}", "7", "garbage", '{"cluster": 1}', '{"cluster":"1","timeline":"x","xmin":1,"xmax":1,"held":1}']
)
def test_a_state_that_cannot_be_read_counts_as_none(garbage: str):
    assert commits.Snapshot.of(garbage) is None


def test_a_state_holds_no_value_of_a_record_and_survives_being_stored(source: Customer, dsn: str):
    state = Following(source, dsn, "n").load().context.state
    assert str(commits.Snapshot.of(state)) == state
    assert set(json.loads(state or "")) == {"cluster", "timeline", "xmin", "xmax", "held"}


# ids


def _kept(source: Customer, ids: list[int], newest: int, since: int) -> set[int]:
    condition = commits.committed_since("x", str(newest), str(newest - since))
    shown = [i if i < 3 else i % 2**32 for i in ids]
    rows = source.admin.execute(
        f"SELECT i FROM unnest(%s::int8[], %s::text[]::xid[]) AS t(i, x) WHERE {condition.replace('%', '%%')}".encode(),
        (ids, list(map(str, shown))),
    )
    return {row[0] for row in rows}


WRAP = 2**32


@pytest.mark.parametrize("newest", [1000, WRAP - 1, WRAP, WRAP + 3, WRAP + 50, 2 * WRAP + 50, 5 * WRAP - 7])
def test_ids_are_compared_across_the_wraparound(source: Customer, newest: int):
    for since in (newest, newest - 1, newest - 40, newest - 60, newest - 990):
        ids = [i for i in {*range(newest - 200, newest), *range(since - 5, since + 5)} if 0 <= i < newest and i % WRAP >= 3]
        assert _kept(source, ids, newest, since) == {i for i in ids if i >= since}
    assert _kept(source, [0, 1, 2], newest, 0) == set()


def test_a_row_of_no_lost_epoch_is_ever_taken_for_old(source: Customer):
    """A frozen row of an earlier epoch may look new and is read again; a new row never looks old."""
    newest, since = 3 * WRAP + 100, 3 * WRAP - 2**31 - 5
    new = [since, since + 1, 3 * WRAP - 1, 3 * WRAP + 3, newest - 1]
    frozen = [newest - WRAP - 1, 2**31 + 7, 50]
    kept = _kept(source, new + frozen, newest, since)
    assert set(new) <= kept
    assert 50 in kept
    assert 2**31 - 100 not in _kept(source, [2**31 - 100], newest, 3 * WRAP - 5)
