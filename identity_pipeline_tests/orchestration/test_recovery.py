"""Whatever dies, and when: the next ordinary run leaves what an undisturbed run leaves, and nothing else."""

import json
import os
import resource
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest

from identity_pipeline.core import settings
from identity_pipeline.core.cursor import Mark
from identity_pipeline.core.errors import TargetUnavailable
from identity_pipeline.core.load_spec import LoadSpec
from identity_pipeline.dagster_internals import WorkerStatus
from identity_pipeline.declarations.folder import load
from identity_pipeline.declarations.opened import opened
from identity_pipeline.embedded import server as embedded
from identity_pipeline.loading import read as reading
from identity_pipeline.loading.read import Read
from identity_pipeline.loading.spec import Reader, Target
from identity_pipeline.orchestration.health import close_dead_runs
from identity_pipeline.store import lease
from identity_pipeline.store.landing import Landing
from identity_pipeline.store.migrate import migrate
from identity_pipeline_tests import clusters
from identity_pipeline_tests.orchestration.conftest import MakeWorld
from identity_pipeline_tests.orchestration.world import World

POINTS = ("read", "landed", "staged", "staged:3", "merged", "merged:2", "committed", "event")
"""Where a run dies: the first time it passes there, or the n-th."""

FIRST = """
    insert into people select n::text, 'p' || n || '@acme.eu', 'Name ' || n, '2026-01-01'::timestamptz + n * interval '1 minute'
    from generate_series(1, 40) n
"""
CHANGES = (
    "update people set name = 'Changed ' || id, updated_at = '2026-01-02'::timestamptz + id::int * interval '1 minute' where id::int <= 12",
    "update people set deleted_at = '2026-01-02 06:00+00', updated_at = '2026-01-02 06:00+00' where id::int between 13 and 17",
    "insert into people select '', 'bad' || n || '@acme.eu', 'Bad ' || n, '2026-01-03'::timestamptz from generate_series(1, 3) n",
    """
    insert into people select n::text, 'p' || n || '@acme.eu', 'Name ' || n, '2026-01-03'::timestamptz + n * interval '1 minute'
    from generate_series(41, 75) n
    """,
)
"""In some 57 records, landed in parts of 20: inserts, updates, deletions, and what belongs into quarantine."""


@pytest.fixture(scope="module")
def loaded(make_world: MakeWorld) -> World:
    """A pipeline after its first load."""
    world = make_world()
    world.change(FIRST)
    assert world.load().metadata["inserted"] == 40
    return world


@pytest.fixture(scope="module")
def undisturbed(make_world: MakeWorld, loaded: World) -> dict:
    """What is there when nothing goes wrong."""
    twin = make_world(loaded)
    twin.change(*CHANGES)
    metadata = twin.load().metadata
    assert {name: metadata[name] for name in ("inserted", "updated", "quarantined", "deleted")} == {
        "inserted": 35, "updated": 17, "quarantined": 3, "deleted": 5,
    }  # fmt: skip
    state = twin.state()
    assert (len(state["records"]), len(state["quarantine"]), state["landed"], state["open"]) == (75, 3, [], [])
    assert state["mark"] == state["published"] == Mark("updated_at", "timestamp", "2026-01-03T01:15:00Z")
    return state


@pytest.fixture
def disturbed(make_world: MakeWorld, loaded: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A pipeline whose source changed since its first load. A lease between two ops is soon over."""
    monkeypatch.setattr(lease, "LEASE_SECONDS", 1.5)
    world = make_world(loaded)
    world.change(*CHANGES)
    return world


@pytest.mark.parametrize("point", POINTS)
def test_after_a_kill_the_next_run_leaves_what_an_undisturbed_one_leaves(disturbed: World, undisturbed: dict, point: str):
    assert disturbed.load_and_die(point) == -signal.SIGKILL
    assert disturbed.load().success
    assert disturbed.state() == undisturbed
    dead = disturbed.loads()[1]
    assert (dead["status"], dead["error_code"]) == (("committed", None) if point in {"committed", "event"} else ("failed", "died"))


@pytest.mark.parametrize("point", ["read", "landed", "staged:2", "merged", "committed", "event"])
def test_after_a_kill_of_ingest_too(disturbed: World, undisturbed: dict, point: str):
    [died] = disturbed.ingest(failpoint=point)
    assert (died.status, "ended by signal 9" in (died.error or ""), died.retryable) == ("FAILURE", True, True)
    with disturbed.entered() as instance:
        run = instance.get_run_by_id(died.run_id)
        assert run is not None
        assert run.status == dg.DagsterRunStatus.FAILURE
    [again] = disturbed.ingest()
    assert (again.error, disturbed.state()) == (None, undisturbed)


@pytest.mark.parametrize("point", ["landed", "staged:2", "merged", "committed"])
def test_after_a_kill_of_a_run_that_was_launched_too(disturbed: World, undisturbed: dict, point: str):
    died = disturbed.launch(failpoint=point)
    with disturbed.entered() as instance:
        assert instance.run_launcher.check_run_worker_health(died).status == WorkerStatus.FAILED
        instance.report_run_failed(died)
    assert disturbed.launch().is_success
    assert disturbed.state() == undisturbed


def test_killed_again_and_again_it_still_ends_alike(disturbed: World, undisturbed: dict):
    for point in ("landed", "merged:3", "committed"):
        assert disturbed.load_and_die(point) == -signal.SIGKILL
    assert disturbed.load().success
    assert disturbed.state() == undisturbed


def advance_the_mark_before_the_data() -> None:
    """The bug that this module must find: mark and metadata say done when the read is."""
    read = reading.read

    def early(spec: LoadSpec, reader: Reader, target: Target, run_id: str, **options: Any) -> Read:
        found = read(spec, reader, target, run_id, **options)
        load, summary = found.load, found.summary
        values = {n: getattr(summary, n) for n in ("cursor_column", "cursor_type")} | {"cursor_after": summary.candidate}
        with psycopg.connect(target.url) as connection:
            for table, column, key in (("sources", "source_name", load.source_name), ("loads", "load_id", load.load_id)):
                connection.execute(
                    f"update identity.{table} set cursor_column = %s, cursor_type = %s, cursor_after = %s where {column} = %s".encode(),
                    (*values.values(), key),
                )
            connection.execute("update identity.loads set status = 'committed' where load_id = %s", (load.load_id,))
            state = "update identity.sources set state = %s, state_settings = %s where source_name = %s"
            connection.execute(state.encode(), (summary.state, summary.settings, load.source_name))
        dg.OpExecutionContext.get().log_event(dg.AssetMaterialization(load.source_name, metadata=values | {"load_id": load.load_id}))
        return found

    reading.read = early


@pytest.mark.parametrize("point", ["staged", "staged:2"])
def test_the_kills_would_show_a_mark_that_leads_the_data(disturbed: World, undisturbed: dict, point: str):
    assert disturbed.load_and_die(point, plant=advance_the_mark_before_the_data) == -signal.SIGKILL
    disturbed.load()
    assert disturbed.state() != undisturbed
    assert len(disturbed.state()["records"]) < 75


def test_a_run_executed_again_from_its_failure_is_refused_if_parts_are_missing(disturbed: World, undisturbed: dict):
    """Dagster drops the mapped steps that had not begun, and would call the run a success."""
    assert disturbed.load_and_die("merged:2") == -signal.SIGKILL
    died = disturbed.close_runs()
    again = disturbed.retry(died)
    assert "2 of 3 parts are merged, so the mark stays where it was: materialize again" in again.failure
    assert disturbed.mark() == disturbed.published() == Mark("updated_at", "timestamp", "2026-01-01T00:40:00Z")
    assert disturbed.load().success
    assert disturbed.state() == undisturbed


def test_an_old_failed_run_executed_again_after_a_newer_one_changes_nothing(disturbed: World, undisturbed: dict):
    assert disturbed.load_and_die("merged:2") == -signal.SIGKILL
    died = disturbed.close_runs()
    assert disturbed.load().success
    again = disturbed.retry(died)
    assert not again.success
    assert "was superseded by load" in again.failures[0]
    assert disturbed.state() == undisturbed


def test_a_dead_run_is_closed_when_its_lease_has_been_silent_and_no_living_one_is(disturbed: World):
    assert disturbed.load_and_die("merged") == -signal.SIGKILL
    later = datetime.now(UTC) + timedelta(hours=1)
    with disturbed.entered() as instance:
        assert close_dead_runs(instance, later) == []
        disturbed.query("update identity.leases set heartbeat_at = heartbeat_at - interval '3 minutes'")
        assert close_dead_runs(instance) == []
        [dead] = close_dead_runs(instance, later)
        run = instance.get_run_by_id(dead)
    assert run is not None
    assert (run.status, dead) == (dg.DagsterRunStatus.FAILURE, disturbed.loads()[1]["run_id"])


# -- PostgreSQL dies ----------------------------------------------------------------------------


@pytest.fixture
def private(
    make_world: MakeWorld, loaded: World, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[World, Path]]:
    """A pipeline like the others, whose identity database has a server of its own; and that server's home."""
    monkeypatch.setattr(lease, "LEASE_SECONDS", 1.5)
    source = make_world(loaded)
    folder = clusters.place("recovery-")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = embedded.start(folder / "home", port=port, timeout=120)
    migrate(url)
    world = World(url, tmp_path_factory.mktemp("world"), source.customer)
    with psycopg.connect(source.url) as there, psycopg.connect(url) as here:
        for table in ("sources", "loads", "records"):
            copy_rows(there, here, f"identity.{table}")
        here.execute("select setval(pg_get_serial_sequence('identity.loads', 'load_id'), max(load_id)) from identity.loads")
    source.change(*CHANGES)
    yield world, folder / "home"
    clusters.remove(folder / "home")
    shutil.rmtree(folder)


def copy_rows(there: psycopg.Connection, here: psycopg.Connection, table: str) -> None:
    with there.cursor().copy(f"copy {table} to stdout".encode()) as rows, here.cursor().copy(f"copy {table} from stdin".encode()) as copy:
        for row in rows:
            copy.write(row)


class KillTheServer:
    """Planted into a run: in the n-th COPY, half of it sent, the server is told to die. Later the run may die too."""

    def __init__(self, home: Path, number: int, how: signal.Signals, then: int = 0) -> None:
        data = home / json.loads((home / "postgres.json").read_text())["folder"] / "data"
        self.postmaster = int((data / "postmaster.pid").read_text().split()[0])
        self.number, self.how, self.then = number, how, then

    def __call__(self) -> None:
        """Plant it."""
        write, seen = psycopg.Copy.write, [0]

        def half(copy: psycopg.Copy, buffer: bytes) -> None:
            if len(buffer) < 64:  # the head or the end of a COPY
                write(copy, buffer)
                return
            seen[0] += 1
            middle = len(buffer) // 2
            write(copy, bytes(buffer[:middle]))
            if seen[0] == self.number:
                os.kill(self.postmaster, self.how)
                if self.then:
                    os.kill(os.getpid(), self.then)
                time.sleep(0.5)
            write(copy, bytes(buffer[middle:]))

        psycopg.Copy.write = half  # type: ignore[assignment,method-assign]


def test_a_server_that_dies_in_the_middle_of_a_copy_leaves_nothing_half_done(private: tuple[World, Path], undisturbed: dict):
    """Nor does the run, when both die at once, as with their host."""
    world, home = private
    assert world.load_and_die(plant=KillTheServer(home, 6, signal.SIGKILL, then=signal.SIGKILL)) == -signal.SIGKILL
    assert embedded.start(home, timeout=120) == world.url
    parts = world.query("select * from identity.load_parts where load_id > 1")
    assert 0 < sum(part["records"] for part in parts) < 78
    assert len(world.names()) == 40 + sum(part["inserted"] for part in parts)
    assert world.load().success
    assert world.state() == undisturbed


def test_a_run_outlives_a_restart_of_the_server_in_the_middle_of_a_copy(private: tuple[World, Path], undisturbed: dict):
    world, home = private
    with world.running(plant=KillTheServer(home, 6, signal.SIGQUIT)) as run:  # as `pg_ctl -m immediate` does
        while embedded.running(home):
            time.sleep(0.05)
        assert embedded.start(home, timeout=120) == world.url
    assert run.exitcode == 0
    assert len(world.loads()) == 2
    assert world.state() == undisturbed


# -- Space --------------------------------------------------------------------------------------


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """As on a full disk: what is written beyond ``size`` fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_fails_the_read_with_what_to_do_and_the_next_run_repeats_it(disturbed: World, undisturbed: dict):
    with disturbed.entered():
        people = opened(load(disturbed.home / "sources").source("people"), lambda: disturbed.url)
        target = Target(disturbed.url, Landing(settings.landing_url()))
        with no_file_larger_than(500), pytest.raises(TargetUnavailable, match="free space or make it writable"):
            reading.read(people.spec, people.connector, target, "run", published=disturbed.published(), log=[].append)
    assert disturbed.landed() == []
    assert (disturbed.loads()[1]["status"], disturbed.loads()[1]["error_code"]) == ("failed", "target_unavailable")
    assert disturbed.load().success
    assert disturbed.state() == undisturbed
