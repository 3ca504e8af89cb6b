"""The lease: one writer per source, and a successor for one that died, whatever it died of."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from identity_pipeline.core.errors import AlreadyRunning, Superseded
from identity_pipeline.store import lease, ledger
from identity_pipeline.store.database import connect
from identity_pipeline_tests.store.contacts import Contacts, leases, people, status, wait_until

_HOLDER = """
import json, sys, time
from identity_pipeline.store import lease, ledger
from identity_pipeline.store.database import connect
from identity_pipeline.store.landing import Landing, Part
from identity_pipeline.store.merge import merge_part
from identity_pipeline.core.text import table_of
from identity_pipeline.store.database import connect
from identity_pipeline_tests.store.contacts import Contacts, people
url, source, seconds, place = sys.argv[1:]
lease.LEASE_SECONDS = float(seconds)
contacts = Contacts(url, Landing("nowhere"), source)
load = contacts.open("held")

def batches():
    yield table_of(people("1", name="Zombie"))
    print("locked", flush=True)
    time.sleep(600)

with lease.hold(url, load):
    print(json.dumps(vars(load)), flush=True)
    if place == "merge":
        merge_part(url, load, Part(0, 0), batches(), contacts.rules)
    if place == "commit":
        with connect(url) as connection:
            lease.fenced(connection, load, lock="share")
            print("locked", flush=True)
            time.sleep(600)
    if place != "end":
        time.sleep(600)
"""
"""A process that opens a load and stays at a place of it: between two ops, in a merge, in the moment before its commit."""


@contextmanager
def another_process(contacts: Contacts, seconds: float, place: str = "lease") -> Iterator[tuple[subprocess.Popen, ledger.Load]]:
    """A process that holds the source, and its load."""
    command = [sys.executable, "-c", _HOLDER, contacts.url, contacts.name, str(seconds), place]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            load = ledger.Load(**json.loads(process.stdout.readline()))
            if place in {"merge", "commit"}:
                assert process.stdout.readline() == "locked\n"
            yield process, load
        finally:
            process.kill()


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


@pytest.mark.parametrize("place", ["lease", "merge", "commit"])
def test_a_killed_load_is_taken_over_at_once(contacts: Contacts, place: str):
    with another_process(contacts, 30, place) as (process, dead):
        wait_until(lambda: leases(contacts)[0]["backend_pid"] is not None)
        process.kill()
        process.wait()
        started = time.monotonic()
        contacts.open("next")
    assert time.monotonic() - started < 10
    assert status(contacts, dead.load_id) == ("failed", "died")


@pytest.mark.parametrize("place", ["lease", "merge", "commit"])
def test_a_frozen_load_is_taken_over_when_its_lease_has_run_out(contacts: Contacts, monkeypatch: pytest.MonkeyPatch, place: str):
    """Also when it froze inside a transaction, whose locks nobody else would free."""
    monkeypatch.setattr(lease, "LEASE_SECONDS", 2.0)
    with another_process(contacts, 2.0, place) as (process, frozen):
        wait_until(lambda: leases(contacts)[0]["backend_pid"] is not None)
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(AlreadyRunning):
            contacts.open("too early", wait=0)
        new = contacts.open("next", wait=20)
        started = time.monotonic()
        contacts.merge(new, people("1", name="New"))
        assert time.monotonic() - started < 10, "the merge waited for a frozen one"
        process.send_signal(signal.SIGCONT)
        with pytest.raises(Superseded):
            contacts.merge(frozen, people("1", name="Zombie", at="2026-01-09T00:00:00Z"))
        contacts.commit(new, contacts.summary(people("1", name="New")))
    assert contacts.names() == {"1": "New"}
    assert status(contacts, frozen.load_id) == ("failed", "died")


def test_between_a_loads_last_check_and_its_commit_nobody_takes_it_over(contacts: Contacts):
    load = contacts.open("run")
    with connect(contacts.url) as connection, connect(contacts.url) as beside:
        lease.fenced(connection, load, lock="share")
        lease.fenced(beside, load, lock="share")
        with pytest.raises(AlreadyRunning):
            contacts.open("run", wait=0)
    assert contacts.open("run", wait=0).token == load.token + 1


def beats_of(contacts: Contacts) -> int:
    return sum(thread.name == f"lease {contacts.name}" for thread in threading.enumerate())


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases of a second."""
    monkeypatch.setattr(lease, "LEASE_SECONDS", 1.0)


@pytest.mark.usefixtures("short")
def test_a_lease_beats_between_ops_too(contacts: Contacts):
    load = contacts.open("long")
    with lease.hold(contacts.url, load):
        first = leases(contacts)[0]["heartbeat_at"]
        assert leases(contacts)[0]["backend_pid"]
    wait_until(lambda: (leases(contacts)[0]["heartbeat_at"] - first).total_seconds() > 1.5)
    with pytest.raises(AlreadyRunning):
        contacts.open("other", wait=0)


@pytest.mark.usefixtures("short")
def test_a_load_has_one_heartbeat_however_often_it_is_held(contacts: Contacts):
    load = contacts.open("long")
    threads = [threading.Thread(target=lambda: lease.hold(contacts.url, load).__enter__()) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert beats_of(contacts) == 1


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("end", ["commit", "fail", "take-over"])
def test_a_heartbeat_ends_with_its_load(contacts: Contacts, end: str):
    load = contacts.open("run")
    with lease.hold(contacts.url, load):
        assert beats_of(contacts) == 1
    if end == "commit":
        contacts.commit(load, contacts.summary())
    elif end == "fail":
        ledger.fail(contacts.url, load, "x", "x")
    else:
        contacts.open("run")
    wait_until(lambda: beats_of(contacts) == 0)
    assert [row["load_id"] for row in leases(contacts)] == ([load.load_id + 1] if end == "take-over" else [])


@pytest.mark.usefixtures("short")
def test_a_load_that_is_taken_up_again_beats_again(contacts: Contacts):
    load = contacts.open("first")
    for _ in range(5):
        with lease.hold(contacts.url, load):
            ledger.fail(contacts.url, load, "x", "x")
            ledger.resume(contacts.url, load)
    with lease.hold(contacts.url, load):
        first = leases(contacts)[0]["heartbeat_at"]
    wait_until(lambda: (leases(contacts)[0]["heartbeat_at"] - first).total_seconds() > 1.5)
    assert beats_of(contacts) == 1


def test_a_process_that_ends_in_order_leaves_the_lease_to_the_next_one_of_its_run(contacts: Contacts):
    """As the process of one op does; one that is killed is taken over at once."""
    with another_process(contacts, 30, "end") as (process, load):
        assert process.wait(30) == 0
    [row] = leases(contacts)
    assert (row["load_id"], row["backend_pid"]) == (load.load_id, None)
    with pytest.raises(AlreadyRunning):
        contacts.open("other", wait=0)


def test_a_lease_survives_the_loss_of_its_connection(contacts: Contacts, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lease, "LEASE_SECONDS", 1.0)
    load = contacts.open("long")
    with lease.hold(contacts.url, load):
        lost = leases(contacts)[0]["backend_pid"]
        contacts.query("select pg_terminate_backend(%s)", lost)
        wait_until(lambda: leases(contacts)[0]["backend_pid"] not in {lost, None})
