"""The ledger: one writer per source, loads that are whole or not at all, a mark that never leads the data."""

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from identity_pipeline.core.cursor import Cursor, Mark
from identity_pipeline.core.errors import AlreadyRunning, ConfigurationError, ContractBroken, PipelineError, Superseded, TargetUnavailable
from identity_pipeline.store import lease, ledger
from identity_pipeline.store.database import connect, failures
from identity_pipeline_tests.store.contacts import Contacts, Record, balance

_HOLDER = """
import json, os, sys, time
from identity_pipeline.store import lease, ledger
from identity_pipeline.store.database import connect
from identity_pipeline.store.ledger import Load
url, source, seconds, place = sys.argv[1:]
lease.LEASE_SECONDS = float(seconds)
load = ledger.open_load(url, source, "csv_url", "held")
with lease.hold(url, load):
    print(json.dumps(vars(load)), flush=True)
    if place == "transaction":
        with connect(url) as connection:
            lease.fenced(connection, load)
            print("locked", flush=True)
            time.sleep(600)
    time.sleep(600)
"""


def people(*ids: str, at: str = "2026-01-01T00:00:00Z", name: str = "Ann") -> list[Record]:
    return [{"id": external_id, "name": name, "at": at} for external_id in ids]


@contextmanager
def another_process(contacts: Contacts, seconds: float, place: str = "lease") -> Iterator[tuple[subprocess.Popen, ledger.Load]]:
    """A process that holds the source, and its load."""
    command = [sys.executable, "-c", _HOLDER, contacts.url, contacts.name, str(seconds), place]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            load = ledger.Load(**json.loads(process.stdout.readline()))
            if place == "transaction":
                assert process.stdout.readline() == "locked\n"
            yield process, load
        finally:
            process.kill()


def wait_until(holds: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def leases(contacts: Contacts) -> list[dict]:
    return contacts.query("select * from identity.leases where source_name = %s", contacts.name)


def status(contacts: Contacts, load_id: int) -> tuple[str, str | None]:
    [row] = contacts.query("select status, error_code from identity.loads where load_id = %s", load_id)
    return row["status"], row["error_code"]


# -- One writer ---------------------------------------------------------------------------------


def test_a_load_that_was_taken_over_merges_and_commits_nothing(contacts: Contacts):
    old = contacts.open("frozen")
    contacts.merge(old, people("1", name="Old"), part=0)
    ledger.fail(contacts.url, old, "x", "x")
    new = contacts.open("newer")
    contacts.merge(new, people("1", name="New", at="2026-01-02T00:00:00Z"))
    for deed in (
        lambda: contacts.merge(old, people("1", "2", name="Zombie", at="2026-01-03T00:00:00Z"), part=1),
        lambda: contacts.commit(old, contacts.summary(people("1"))),
        lambda: ledger.resume(contacts.url, old),
    ):
        with pytest.raises(Superseded, match=rf"load {old.load_id} was superseded by load {new.load_id}"):
            deed()
    assert contacts.names() == {"1": "New"}
    assert contacts.mark is None
    assert [row["load_id"] for row in leases(contacts)] == [new.load_id]


def test_a_living_load_keeps_others_out(contacts: Contacts):
    load = contacts.open("first")
    with lease.hold(contacts.url, load), pytest.raises(AlreadyRunning, match=f"load {load.load_id} of run first is still at work"):
        contacts.open("second", wait=0)
    assert status(contacts, load.load_id) == ("running", None)


def test_who_waits_is_let_in_when_the_other_commits(contacts: Contacts):
    first, said = contacts.open("first"), []
    with lease.hold(contacts.url, first):
        waiting = threading.Thread(target=lambda: contacts.open("second", wait=30, log=said.append))
        waiting.start()
        wait_until(lambda: bool(said))
        contacts.merge(first, people("1"))
        contacts.commit(first, contacts.summary(people("1")))
    waiting.join(30)
    assert said == [f"waiting for load {first.load_id} of run first, which holds the source"]
    assert [row["run_id"] for row in leases(contacts)] == ["second"]


def test_the_same_run_opens_its_next_try_at_once(contacts: Contacts):
    first = contacts.open("run")
    with lease.hold(contacts.url, first):
        assert contacts.open("run", wait=0).token == first.token + 1


def test_of_many_that_start_at_once_each_gets_a_token_of_its_own(contacts: Contacts, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lease, "LEASE_SECONDS", 2.0)  # so long that no slow machine ends a session at work
    loads: list[ledger.Load] = []
    threads = [threading.Thread(target=lambda n=n: loads.append(contacts.open(f"run {n}", wait=60))) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(load.token for load in loads) == [1, 2, 3, 4, 5]
    done = []
    for load in loads:
        try:
            contacts.merge(load, people("1"))
            done.append(load.token)
        except Superseded:
            continue
    assert done == [5]


@pytest.mark.parametrize("place", ["lease", "transaction"])
def test_a_killed_load_is_taken_over_at_once(contacts: Contacts, place: str):
    with another_process(contacts, 30, place) as (process, dead):
        wait_until(lambda: leases(contacts)[0]["backend_pid"] is not None)
        process.kill()
        process.wait()
        started = time.monotonic()
        contacts.open("next")
    assert time.monotonic() - started < 10
    assert status(contacts, dead.load_id) == ("failed", "died")


@pytest.mark.parametrize("place", ["lease", "transaction"])
def test_a_frozen_load_is_taken_over_when_its_lease_has_run_out(contacts: Contacts, monkeypatch: pytest.MonkeyPatch, place: str):
    """Also when it froze inside a transaction, whose lock nobody else would free."""
    monkeypatch.setattr(lease, "LEASE_SECONDS", 2.0)
    with another_process(contacts, 2.0, place) as (process, frozen):
        wait_until(lambda: leases(contacts)[0]["backend_pid"] is not None)
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(AlreadyRunning):
            contacts.open("too early", wait=0)
        new = contacts.open("next", wait=20)
        contacts.merge(new, people("1", name="New"))
        process.send_signal(signal.SIGCONT)
        with pytest.raises(Superseded):
            contacts.merge(frozen, people("1", name="Zombie", at="2026-01-09T00:00:00Z"))
        contacts.commit(new, contacts.summary(people("1", name="New")))
    assert contacts.names() == {"1": "New"}
    assert status(contacts, frozen.load_id) == ("failed", "died")


def test_a_lease_beats_for_as_long_as_it_is_held(contacts: Contacts, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lease, "LEASE_SECONDS", 1.0)
    load = contacts.open("long")
    with lease.hold(contacts.url, load):
        first = leases(contacts)[0]["heartbeat_at"]
        assert leases(contacts)[0]["backend_pid"]
        wait_until(lambda: (leases(contacts)[0]["heartbeat_at"] - first).total_seconds() > 1.0)
        with pytest.raises(AlreadyRunning):
            contacts.open("other", wait=0)
    assert leases(contacts)[0]["backend_pid"] is None


def test_a_lease_survives_the_loss_of_its_connection(contacts: Contacts, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lease, "LEASE_SECONDS", 1.0)
    load = contacts.open("long")
    with lease.hold(contacts.url, load):
        lost = leases(contacts)[0]["backend_pid"]
        contacts.query("select pg_terminate_backend(%s)", lost)
        wait_until(lambda: leases(contacts)[0]["backend_pid"] not in {lost, None})


# -- A load is whole or not at all --------------------------------------------------------------


def test_a_commit_closes_the_load_and_publishes_its_balance_and_mark(contacts: Contacts):
    row = contacts.load(people("1", "2"), people("3", "", at="2026-01-05T00:00:00Z"))
    assert balance(row) == {"inserted": 3, "quarantined": 1}
    assert {n: row[n] for n in ("status", "parts", "records_read", "row_count", "cursor_before", "cursor_after")} == {
        "status": "committed", "parts": 2, "records_read": 4, "row_count": 3, "cursor_before": None,
        "cursor_after": "2026-01-05T00:00:00Z",
    }  # fmt: skip
    assert contacts.mark == Mark("at", "timestamp", "2026-01-05T00:00:00Z")
    assert leases(contacts) == []


def test_a_commit_may_be_repeated(contacts: Contacts):
    load, part = contacts.open(), people("1", "2")
    contacts.merge(load, part)
    row = contacts.commit(load, contacts.summary(part))
    assert contacts.commit(load, contacts.summary(part)) == row
    assert row["row_count"] == 2


@pytest.mark.parametrize("merged", [(), (0,), (0, 2), (1, 2)])
def test_a_load_with_a_part_missing_is_not_committed(contacts: Contacts, merged: tuple[int, ...]):
    load, parts = contacts.open(), [people("1"), people("2"), people("3")]
    for number in merged:
        contacts.merge(load, parts[number], part=number)
    with pytest.raises(ContractBroken, match=f"{len(merged)} of 3 parts are merged, so the mark stays"):
        contacts.commit(load, contacts.summary(*parts))
    assert contacts.mark is None


@pytest.mark.parametrize(("read", "filtered"), [(3, 0), (1, 0), (2, 1), (0, 0)])
def test_a_load_whose_counts_do_not_add_up_is_not_committed(contacts: Contacts, read: int, filtered: int):
    load, part = contacts.open(), people("1", "2")
    contacts.merge(load, part)
    with pytest.raises(ContractBroken, match="the counts do not balance"):
        contacts.commit(load, contacts.summary(part, records_read=read, filtered=filtered))
    assert contacts.mark is None


def test_a_commit_is_refused_if_the_mark_moved_meanwhile(contacts: Contacts):
    contacts.load(people("1"))
    load, part = contacts.open(), people("2", at="2026-01-03T00:00:00Z")
    contacts.merge(load, part)
    contacts.query("update identity.sources set cursor_after = '2026-01-02T00:00:00Z' where source_name = %s returning 1", contacts.name)
    with pytest.raises(Superseded, match="the mark moved"):
        contacts.commit(load, contacts.summary(part))


def test_the_mark_never_goes_back(contacts: Contacts):
    contacts.load(people("1", at="2026-01-05T00:00:00Z"))
    contacts.load(people("2", at="2026-01-02T00:00:00Z"))
    contacts.load()
    assert contacts.mark == Mark("at", "timestamp", "2026-01-05T00:00:00Z")


def test_marks_compare_by_their_type(contacts: Contacts):
    numbers = replace(contacts, cursor=Cursor("version", "int"))
    numbers.load([{"id": "1", "version": "9"}])
    numbers.load([{"id": "2", "version": "10"}])
    assert contacts.mark == Mark("version", "int", "10")


def test_a_new_cursor_column_starts_a_mark_of_its_own(contacts: Contacts):
    contacts.load(people("1"))
    replace(contacts, cursor=Cursor("version", "int")).load([{"id": "1", "version": "3"}])
    assert contacts.mark == Mark("version", "int", "3")


def test_a_partial_load_leaves_the_mark(contacts: Contacts):
    contacts.load(people("1"))
    load, part = contacts.open(), people("2", at="2026-01-09T00:00:00Z")
    contacts.merge(load, part)
    contacts.commit(load, contacts.summary(part, candidate=None, partial=True))
    assert contacts.mark == Mark("at", "timestamp", "2026-01-01T00:00:00Z")


def test_versions_of_files_are_kept_with_the_commit(contacts: Contacts):
    for version in ("etag 1", "etag 2"):
        load = contacts.open()
        contacts.merge(load, people("1"))
        assert contacts.state.files != {"a.csv": version}
        contacts.commit(load, contacts.summary(people("1"), files={"a.csv": version}, fields=["id", "at"]))
        state = contacts.state
        assert (state.files, state.fields, state.row_count) == ({"a.csv": version}, ("id", "at"), 1)


# -- What fails ---------------------------------------------------------------------------------


def test_a_failure_closes_the_load_and_gives_the_lease_back(contacts: Contacts):
    load = contacts.open("first")
    with pytest.raises(ContractBroken), ledger.closing(contacts.url, load), lease.hold(contacts.url, load):
        raise ContractBroken("what was wrong")
    assert status(contacts, load.load_id) == ("failed", "contract_broken")
    contacts.open("second", wait=0)


@pytest.mark.parametrize(("error", "code"), [(KeyError("s3cret"), "unexpected"), (KeyboardInterrupt(), "cancelled")])
def test_also_one_that_nobody_foresaw_and_without_its_text(contacts: Contacts, error: BaseException, code: str):
    load = contacts.open("first")
    with pytest.raises(type(error)), ledger.closing(contacts.url, load):
        raise error
    [row] = contacts.query("select error_code, error from identity.loads where load_id = %s", load.load_id)
    assert row["error_code"] == code
    assert "s3cret" not in row["error"]


def test_a_load_that_will_be_tried_again_stays_open(contacts: Contacts):
    load = contacts.open("first")
    with pytest.raises(TargetUnavailable), ledger.closing(contacts.url, load, retried=True):
        raise TargetUnavailable("later")
    assert status(contacts, load.load_id) == ("running", None)


def test_a_failed_load_that_is_taken_up_by_another_run_belongs_to_that_run(contacts: Contacts):
    load = contacts.open("first")
    ledger.fail(contacts.url, load, "x", "x")
    ledger.resume(contacts.url, replace(load, run_id="again"))
    assert status(contacts, load.load_id) == ("running", None)
    assert [row["run_id"] for row in leases(contacts)] == ["again"]
    assert "again" in lease.running_runs(contacts.url, within=60)


def test_a_committed_load_is_not_opened_again(contacts: Contacts):
    load = contacts.open("first")
    contacts.commit(load, contacts.summary())
    ledger.resume(contacts.url, load)
    assert status(contacts, load.load_id) == ("committed", None)
    assert leases(contacts) == []


# -- Full refresh -------------------------------------------------------------------------------


def test_a_full_refresh_marks_what_it_did_not_see(contacts: Contacts):
    ids = [str(n) for n in range(10)]
    contacts.load(people(*ids))
    row = contacts.load(people(*ids[:8]), full_refresh=True)
    assert (row["deleted"], row["warnings"]) == (2, [])
    assert {i for i, row in contacts.rows().items() if row["deleted_at"]} == {"8", "9"}
    assert contacts.load(people(*ids[:8]), full_refresh=True)["deleted"] == 0


def test_one_that_would_delete_too_much_deletes_nothing_and_says_so(contacts: Contacts):
    ids = [str(n) for n in range(10)]
    contacts.load(people(*ids))
    row = contacts.load(people(*ids[:7]), full_refresh=True)
    assert row["deleted"] == 0
    assert "did not see 3 of 10 rows, more than max_deleted_share 0.2 allows" in row["warnings"][0]
    assert contacts.load(people(*ids[:7]), full_refresh=True, max_deleted_share=0.3)["deleted"] == 3


@pytest.mark.parametrize("share", [0.2, 1.0])
def test_one_that_saw_nothing_deletes_nothing(contacts: Contacts, share: float):
    contacts.load(people("1"))
    row = contacts.load(full_refresh=True, max_deleted_share=share)
    assert row["deleted"] == 0
    assert "did not see 1 of 1 rows" in row["warnings"][0]


def test_what_vanished_and_came_back_is_alive_again(contacts: Contacts):
    ids = [str(n) for n in range(10)]
    contacts.load(people(*ids))
    contacts.load(people(*ids[1:]), full_refresh=True)
    assert contacts.rows()["0"]["deleted_at"] is not None
    assert balance(contacts.load(people("0"))) == {"updated": 1}
    assert contacts.rows()["0"]["deleted_at"] is None


def test_what_was_seen_but_quarantined_is_not_deleted(contacts: Contacts):
    ids = [str(n) for n in range(10)]
    contacts.load(people(*ids))
    bad = people("0")[0] | {"bio": "x" * 1_100_000}
    assert contacts.load([bad, *people(*ids[1:])], full_refresh=True)["deleted"] == 0


# -- The database -------------------------------------------------------------------------------


def test_an_unreachable_database_is_worth_another_try(unused_port: int):
    with pytest.raises(TargetUnavailable, match="open a load: the identity database did not answer"):
        ledger.open_load(f"postgresql://u:s3cret@127.0.0.1:{unused_port}/x", "crm", "csv_url", "run")


@pytest.mark.parametrize("wrong", [{"dbname": "nobody_made_it"}, {"password": "s3cret"}, {"user": "nobody_knows"}])
def test_a_refusal_names_the_setting_and_not_the_password(contacts: Contacts, wrong: dict[str, str]):
    with pytest.raises(ConfigurationError, match="check user, password, database and grants in IDENTITY_DATABASE_URL") as refused:
        ledger.state(make_conninfo(contacts.url, **wrong), "crm")
    assert "s3cret" not in str(refused.value)


def test_a_full_database_says_that_it_is_full():
    with pytest.raises(TargetUnavailable, match="merge: the identity database's disk is full"), failures("merge"):
        raise psycopg.errors.DiskFull


def test_a_database_without_the_schema_names_the_command(postgres_url: str):
    with pytest.raises(ConfigurationError, match="run `identity-pipeline db migrate`"):
        ledger.state(postgres_url, "crm")


def test_a_text_that_no_statement_can_take_is_not_worth_another_try(contacts: Contacts):
    with pytest.raises(PipelineError, match="refused a statement") as refused:
        ledger.committed(contacts.url, contacts.name, 1, Mark("a", "text", "\x00"))
    assert not refused.value.retryable


def test_sessions_have_limits(contacts: Contacts):
    with connect(contacts.url) as connection:
        shown = {name: connection.execute(f"show {name}").fetchone() for name in ("statement_timeout", "lock_timeout")}
        assert shown == {"statement_timeout": ("15min",), "lock_timeout": ("2min",)}
        assert connection.execute("show idle_in_transaction_session_timeout").fetchone() == ("10min",)


@pytest.fixture
def unused_port() -> int:

    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]
