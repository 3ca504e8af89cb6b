"""A pipeline with everything it stands on: an identity database, Dagster's instance, a customer's table.

Runs happen in this process, or in one of their own that may be told to die at a labelled point.
"""

import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
import yaml
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row

from identity_pipeline.core import settings
from identity_pipeline.core.cursor import Mark
from identity_pipeline.dagster_internals import LaunchRunContext, ModuleCodePointer, job_origin
from identity_pipeline.declarations import folder
from identity_pipeline.orchestration import assets, direct, marks, worker
from identity_pipeline.orchestration.follow import Followed
from identity_pipeline.readers.sql.postgres import stream
from identity_pipeline.store import landing, lease, ledger

PEOPLE: dict[str, Any] = {
    "name": "people",
    "source_type": "postgres_identity",
    "config": {"connection_string": {"env": "CUSTOMER_DSN"}, "table": "people"},
    "cursor_column": "updated_at",
    "cursor_type": "timestamp",
    "cursor_overlap": 0,
}
"""A table of the customer's database. Without overlap, so that nothing but the mark keeps a record from being lost."""

_TABLE = "create table public.people (id text, email text, name text, updated_at timestamptz, deleted_at timestamptz)"
_BEFORE = {"dagster/", "DAGSTER_", "IDENTITY_", "CUSTOMER_"}
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload([__name__])


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    run_id: str
    success: bool
    failures: list[str]
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def failure(self) -> str:
        """The one reason why it failed."""
        [reason] = self.failures
        return reason


@dataclass
class World:
    """One pipeline. ``url`` is its identity database, ``customer`` the database that it reads."""

    url: str
    home: Path
    customer: str
    sources: list[dict[str, Any]] = field(default_factory=lambda: [PEOPLE])
    customer_dsn: str = ""

    def __post_init__(self) -> None:
        """Lay out the folders and the customer's table."""
        for name in ("sources", "dagster"):
            (self.home / name).mkdir(parents=True, exist_ok=True)
        for name in settings.PROJECT_FILES:
            shutil.copy(settings.PACKAGE.parent / name, self.home / "dagster")
        self.declare(*self.sources)
        self.customer_dsn = self.customer_dsn or make_conninfo(self.customer, sslmode="disable")

    def declare(self, *sources: dict[str, Any]) -> None:
        """Write ``sources`` as the only declarations."""
        (self.home / "sources" / "all.yaml").write_text(yaml.safe_dump({"sources": list(sources)}))

    @property
    def environment(self) -> dict[str, str]:
        """What a process of this pipeline has in its environment."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(tuple(_BEFORE))}
        return kept | {
            "IDENTITY_DATABASE_URL": self.url,
            "IDENTITY_HOME": str(self.home),
            "IDENTITY_SOURCES": str(self.home / "sources"),
            "IDENTITY_ALLOW_PRIVATE_HOSTS": "127.0.0.1",
            "DAGSTER_HOME": str(self.home / "dagster"),
            "CUSTOMER_DSN": self.customer_dsn,
        }

    @contextmanager
    def entered(self) -> Iterator[dg.DagsterInstance]:
        """Be a process of this pipeline; its instance."""
        with pytest.MonkeyPatch.context() as patch:
            for name in [name for name in os.environ if name.startswith(tuple(_BEFORE))]:
                patch.delenv(name)
            for name, value in self.environment.items():
                patch.setenv(name, value)
            with dg.DagsterInstance.get() as instance:
                yield instance

    # -- Runs ---------------------------------------------------------------------------------------

    def load(self, name: str = "people", *, tags: dict[str, str] | None = None, **choices: Any) -> Outcome:
        """One ordinary run in this process."""
        with self.entered() as instance:
            return _execute(instance, name, choices, tags)

    @contextmanager
    def running(self, failpoint: str = "", plant: Callable[[], None] | None = None, **choices: Any) -> Iterator[BaseProcess]:
        """A run in a process of its own, in small parts, that may die at a point or has something planted into it."""
        environment = self.environment | ({"IDENTITY_FAILPOINT": failpoint} if failpoint else {})
        process = _FORKS.Process(target=_run, args=(environment, plant, choices))
        process.start()
        try:
            yield process
        finally:
            process.join(120)
            process.kill()

    def load_and_die(self, failpoint: str = "", plant: Callable[[], None] | None = None, **choices: Any) -> int:
        """A run in a process of its own; how that process ended (negative: its signal)."""
        with self.running(failpoint, plant, **choices) as process:
            process.join(120)
        assert process.exitcode is not None
        return process.exitcode

    def ingest(self, *names: str, failpoint: str = "", say: Callable[[str, str], None] = lambda *_: None, **choices: Any) -> list[Followed]:
        """The command `ingest`: runs in processes forked from this one, in small parts."""
        with self.entered(), pytest.MonkeyPatch.context() as patch:
            patch.setenv("IDENTITY_FAILPOINT", failpoint)
            patch.setattr(stream, "BATCH_ROWS", 10)
            patch.setattr(landing, "PART_ROWS", 20)
            declared = folder.load(self.home / "sources")
            wanted = [declared.source(name) for name in names or ("people",)]
            how = direct.How(self.home / "dagster" / "workspace.yaml", choices, self.home / "logs" / "ingest.log")
            return direct.run_all(wanted, how, say=say)

    def enqueued(self, instance: dg.DagsterInstance, name: str = "people", module: str = "identity_pipeline.definitions") -> dg.DagsterRun:
        """A run as the queue hands it to the launcher."""
        repository = RepositoryPythonOrigin(sys.executable, ModuleCodePointer(module, "defs"), entry_point=["dagster"])
        return instance.create_run_for_job(
            ingest(), status=dg.DagsterRunStatus.STARTING, asset_selection={dg.AssetKey([name])},
            job_code_origin=JobPythonOrigin(assets.JOB, repository),
            remote_job_origin=job_origin(self.home / "dagster" / "workspace.yaml", assets.JOB),
        )  # fmt: skip

    def launch(self, failpoint: str = "") -> dg.DagsterRun:
        """A run by the launcher, until its process has ended."""
        with self.entered() as instance, pytest.MonkeyPatch.context() as patch:
            patch.setenv("IDENTITY_FAILPOINT", failpoint)
            run = self.enqueued(instance)
            instance.run_launcher.launch_run(LaunchRunContext(run, None))
            return self.ended(instance, run.run_id)

    @staticmethod
    def ended(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRun:
        """The run, once its process has ended."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            run = instance.get_run_by_id(run_id)
            assert run is not None
            if worker.is_alive(run.tags) is False:
                found = instance.get_run_by_id(run_id)
                assert found is not None
                return found
            time.sleep(0.1)
        raise AssertionError(f"run {run_id} did not end")

    def retry(self, run_id: str) -> Outcome:
        """Execute a run again from its failure, as the button in the UI does."""
        with self.entered() as instance:
            options = dg.ReexecutionOptions.from_failure(run_id, instance)
            with dg.execute_job(dg.reconstructable(ingest), instance, reexecution_options=options) as result:
                return _outcome(instance, result.run_id, "people")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody reads the customer's table meanwhile."""
        with psycopg.connect(self.customer) as connection:
            connection.execute("lock table people")
            yield

    def close_runs(self) -> str:
        """Report the run that died as failed, as Dagster's run monitoring does; its id."""
        with self.entered() as instance:
            [record] = instance.get_run_records(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
            instance.report_run_failed(record.dagster_run)
            return record.dagster_run.run_id

    # -- What there is ------------------------------------------------------------------------------

    def query(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        """What the identity database answers."""
        with psycopg.connect(self.url, row_factory=dict_row) as connection:
            cursor = connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def change(self, *statements: str) -> None:
        """Change the customer's database."""
        with psycopg.connect(self.customer) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def people(self, *names: str, at: str = "2026-01-01", start: int = 1) -> None:
        """More people in the customer's table, numbered on from ``start``."""
        for number, name in enumerate(names, start):
            self.change(f"insert into people values ('{number}', 'p{number}@acme.eu', '{name}', '{at}')")

    def names(self) -> dict[str, str]:
        """Names in the identity table by external id."""
        return {row["external_id"]: row["full_name"] for row in self.query("select external_id, full_name from identity.records")}

    def loads(self) -> list[dict[str, Any]]:
        """The ledger, oldest first."""
        return self.query("select * from identity.loads order by load_id")

    def mark(self) -> Mark | None:
        """The mark in the ledger."""
        return ledger.state(self.url, "people").mark

    def published(self) -> Mark | None:
        """The mark in Dagster's metadata, as a load finds it."""
        with self.entered() as instance:
            return marks.published(instance, self.url, "people")

    def report(self, run_id: str = "", **metadata: Any) -> None:
        """Report a materialization by hand, as anybody can who reaches the web server."""
        with self.entered() as instance:
            event = dg.AssetMaterialization("people", metadata=metadata)
            instance.report_runless_asset_event(event)

    def landed(self) -> list[Path]:
        """Files of records in the landing."""
        return sorted((self.home / "landing").rglob("*.arrow"))

    def state(self) -> dict[str, Any]:
        """All that two pipelines which read the same source must agree on."""
        return {
            "records": self.query(
                "select to_jsonb(r) - 'load_id' - 'first_seen_at' - 'changed_at' as r from identity.records r order by external_id"
            ),
            "quarantine": self.query("select external_id, reason, detail, raw, status from identity.quarantine order by raw::text"),
            "rows": self.query("select row_count from identity.sources"),
            "mark": self.mark(),
            "published": self.published(),
            "landed": self.landed(),
            "open": [load["load_id"] for load in self.loads() if load["status"] == "running"],
            "leases": self.query("select * from identity.leases"),
        }


def make_table(url: str) -> None:
    """The customer's table, empty."""
    with psycopg.connect(url) as connection:
        connection.execute(_TABLE.encode())


def ingest() -> dg.JobDefinition:
    """The job, rebuilt in the process that runs it."""
    return assets.definitions().resolve_job_def(assets.JOB)


def _execute(instance: dg.DagsterInstance, name: str, choices: dict[str, Any], tags: dict[str, str] | None = None) -> Outcome:
    result = ingest().execute_in_process(
        instance=instance, run_config=assets.run_config(name, **choices), asset_selection=[dg.AssetKey([name])], raise_on_error=False,
        tags=tags,
    )  # fmt: skip
    return _outcome(instance, result.run_id, name)


def _outcome(instance: dg.DagsterInstance, run_id: str, name: str) -> Outcome:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    failures, metadata = [], {}
    for entry in instance.all_logs(run_id):
        event = entry.dagster_event
        if event is None:
            continue
        if event.is_step_failure:
            data = event.step_failure_data
            told = data.user_failure_data
            failures.append(told.description if told else str(data.error))
        if event.is_step_materialization:
            metadata = {key: value.value for key, value in event.step_materialization_data.materialization.metadata.items()}
    return Outcome(run_id, run.is_success, failures, metadata)


def _run(environment: dict[str, str], plant: Callable[[], None] | None, choices: dict[str, Any]) -> None:
    """The body of a run's own process."""
    os.environ.clear()
    os.environ.update(environment)
    stream.BATCH_ROWS = 10
    landing.PART_ROWS = 20
    lease.LEASE_SECONDS = 1.5
    if plant is not None:
        plant()
    with dg.DagsterInstance.get() as instance:
        os._exit(0 if _execute(instance, "people", choices).success else 1)
