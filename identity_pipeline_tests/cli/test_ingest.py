"""`identity-pipeline ingest`, and the daemon that it needs."""

import json
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
from dagster._daemon.types import DaemonHeartbeat

from identity_pipeline.cli import services
from identity_pipeline.orchestration import worker
from identity_pipeline_tests.cli.workplace import declare, run, table


@pytest.fixture
def instance(sources: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """Dagster's storage in a fresh identity database, as the project's dagster.yaml says."""
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.setenv("DAGSTER_HOME", str(services.project()))
    with dg.DagsterInstance.get() as instance:
        yield instance


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """The daemons that were started: processes that do nothing and count as up."""
    processes = []

    def start(_folder: Path) -> subprocess.Popen[bytes]:
        processes.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True))
        return processes[-1]

    monkeypatch.setattr(services, "_start", start)
    monkeypatch.setattr(services, "_await", lambda _process: None)
    monkeypatch.setattr(services, "_LOOK_EVERY", 0.0)
    monkeypatch.setattr(services, "end_on_sigterm", lambda: None)
    return processes


def _nothing() -> None:
    """A job without ops."""


def _sign_of_life(instance: dg.DagsterInstance, age: float = 0) -> None:
    instance.add_daemon_heartbeat(DaemonHeartbeat(time.time() - age, "QUEUED_RUN_COORDINATOR", str(uuid.uuid4())))


def test_a_daemon_that_is_there_is_used(instance: dg.DagsterInstance, started: list[subprocess.Popen[bytes]]) -> None:
    _sign_of_life(instance, age=40)
    with services.daemon() as keep:
        keep()
    assert not started
    assert services.daemon_alive()


def test_a_daemon_that_ends_while_we_wait_is_replaced(instance: dg.DagsterInstance, started: list[subprocess.Popen[bytes]]) -> None:
    _sign_of_life(instance)
    with services.daemon() as keep:
        keep()
        assert not started
        _sign_of_life(instance, age=90)
        keep()
        keep()
        assert len(started) == 1
    assert started[0].poll() is not None


def test_the_signs_of_life_of_our_own_daemon_end_with_it(instance: dg.DagsterInstance, started: list[subprocess.Popen[bytes]]) -> None:
    with services.daemon():
        _sign_of_life(instance)
        assert services.daemon_alive()
    assert started[0].poll() is not None
    assert not services.daemon_alive()


def test_our_daemon_stays_until_the_other_runs_have_ended(
    instance: dg.DagsterInstance, started: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    with services.daemon(said.append):
        other = instance.create_run_for_job(dg.job(_nothing), status=dg.DagsterRunStatus.STARTED)

        def wait(_seconds: float) -> None:
            assert started[0].poll() is None
            instance.report_run_failed(other)

        monkeypatch.setattr(services.time, "sleep", wait)
    assert "other runs" in said[-1]
    assert started[0].poll() is not None


def test_all_of_no_sources_is_not_done(sources: Path, instance: dg.DagsterInstance, started: list[subprocess.Popen[bytes]]) -> None:
    """A typing error in IDENTITY_SOURCES must not look like a load."""
    done = run("ingest", "--all")
    assert done.exit_code == 1
    assert str(sources) in done.stderr
    assert not started


def test_a_variable_that_is_not_set_is_reported_before_a_run_is_started(
    sources: Path, instance: dg.DagsterInstance, started: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CRM_DSN", raising=False)
    declare(sources, table())
    for choice in ("crm", "--all"):
        done = run("ingest", choice)
        assert (done.exit_code, "CRM_DSN, which is not set" in done.stderr) == (1, True)
    assert not started
    assert instance.get_runs_count() == 0


PROGRAM = Path(sys.executable).with_name("identity-pipeline")


def test_ctrl_c_says_that_nothing_is_lost(crm: psycopg.Connection, sources: Path, instance: dg.DagsterInstance) -> None:
    declare(sources, table())
    with crm.transaction():
        crm.execute("lock table public.crm")
        process = subprocess.Popen([PROGRAM, "ingest", "crm"], stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        told = ""
        while "reads everything" not in told:
            line = process.stderr.readline()
            assert line, told
            told += line
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=60)
    assert (process.returncode, "nothing is lost" in rest) == (130, True)
    [run] = instance.get_runs()
    assert run.status == dg.DagsterRunStatus.CANCELED


def _ingested(name: str, *options: str) -> dict[str, Any]:
    """The load of one `ingest` in a process of its own."""
    done = subprocess.run([PROGRAM, "ingest", name, "--json", *options], capture_output=True, text=True, timeout=140, check=False)
    assert done.returncode == 0, done.stderr
    [load] = json.loads(done.stdout)
    return load


def test_a_load_needs_no_daemon(crm: psycopg.Connection, sources: Path, instance: dg.DagsterInstance) -> None:
    declare(sources, table(cursor_column="updated_at", cursor_type="timestamp"))
    first, second = _ingested("crm"), _ingested("crm")
    assert (first["inserted"], first["quarantined"], second["inserted"]) == (2, 1, 0)
    assert instance.get_daemon_heartbeats() == {}


def test_a_load_that_fails_says_why_in_the_json_too(crm: psycopg.Connection, sources: Path, instance: dg.DagsterInstance) -> None:
    declare(sources, table(mapping={"company": "firm"}, max_quarantined_share=0.5))
    for options, status in (((), "failed"), (("--dry-run",), None)):
        done = subprocess.run([PROGRAM, "ingest", "crm", "--json", *options], capture_output=True, text=True, timeout=140, check=False)
        [line] = json.loads(done.stdout)
        assert (done.returncode, line["error_code"], line.get("status")) == (1, "configuration", status)
        assert "the mapped field 'firm' is not in the source" in line["error"]
        assert "crm: crm:" not in done.stderr


def test_more_in_quarantine_than_its_source_allows_is_said(crm: psycopg.Connection, sources: Path, instance: dg.DagsterInstance) -> None:
    declare(sources, table(max_quarantined_share=0.1))
    done = subprocess.run([PROGRAM, "ingest", "crm"], capture_output=True, text=True, timeout=140, check=False)
    assert "1 of 3 records are in quarantine, more than max_quarantined_share (10%)" in done.stderr


def test_one_load_through_the_queue_right_after_another_is_run_too(
    crm: psycopg.Connection, sources: Path, instance: dg.DagsterInstance
) -> None:
    declare(sources, table(cursor_column="updated_at", cursor_type="timestamp"))
    first, second = _ingested("crm", "--queue"), _ingested("crm", "--queue")
    assert (first["inserted"], second["inserted"]) == (2, 0)
    runs = instance.get_runs()
    assert all(worker.TAG in run.tags for run in runs), "the launcher forked none"


def test_two_commands_at_one_moment_start_one_daemon(instance: dg.DagsterInstance, started: list[subprocess.Popen[bytes]]) -> None:
    def start() -> None:
        with services.daemon():
            _sign_of_life(instance)
            both.wait(20)

    both = threading.Barrier(2)
    threads = [threading.Thread(target=start) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(started) == 1


def test_a_dry_run_shows_what_a_load_would_do_and_no_value(crm: psycopg.Connection, sources: Path, instance: dg.DagsterInstance) -> None:
    declare(sources, table())
    done = run("ingest", "crm", "--dry-run")
    assert (done.exit_code, instance.get_runs_count()) == (0, 0)
    assert ("missing_id 1" in done.stderr, "nothing was written" in done.stderr) == (True, True)
    [line] = json.loads(run("ingest", "crm", "--dry-run", "--json").stdout)
    assert (line["records_read"], line["inserted"], line["quarantined"]) == (3, 2, 1)
    assert "kestrel" not in done.output.lower()
