"""The databases by `dagster job launch`: all of them in one run, each with 50,000 ties at the mark, and what happens to them there.

Beside each source stands a bare one of the same table, from which is taken what finds rows that were committed late: the overlap, and
PostgreSQL's state. If a late row arrived there too, the test would prove nothing of them.
"""

import gc
import json
import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import dagster as dg
import psycopg
import pytest
import yaml
from click.testing import CliRunner
from dagster._cli.job import job_launch_command

from identity_pipeline.core import settings
from identity_pipeline.orchestration.assets import JOB, run_config
from identity_pipeline_tests.conformance.harness import Contact, Harness, Tools, harness_classes, minute
from identity_pipeline_tests.conformance.harnesses.postgres_identity import PostgresIdentityHarness

TIES = 50_000
HARNESSES = [cls for cls in harness_classes().values() if cls.connector().group == "sql"]

Rows = dict[str, tuple[str | None, bool]]
"""External id → note, whether it is marked deleted."""


@dataclass
class Databases:
    """A project folder with a source for each database, and the run launcher that it names."""

    harnesses: dict[str, Harness]
    folder: Path
    instance: dg.DagsterInstance
    database: psycopg.Connection

    def launch(self, *names: str, **choices: Any) -> None:
        """One run of these sources, until it has ended."""
        run_id = str(uuid4())
        config = {"ops": {name: run_config(name, **choices)["ops"][name] for name in names}} if choices else {}  # type: ignore[index]
        options = {
            "-w": self.folder / "workspace.yaml",
            "-j": JOB,
            "-o": ",".join(names),
            "--run-id": run_id,
            "--config-json": json.dumps(config),
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # Dagster ends its code server, and does not wait for it
            done = CliRunner().invoke(job_launch_command, [str(part) for option in options.items() for part in option])
            gc.collect()
        assert done.exit_code == 0, f"{done.output} {done.exception}"
        deadline = time.monotonic() + 240
        while (run := self.instance.get_run_by_id(run_id)) and not run.is_finished and time.monotonic() < deadline:
            time.sleep(0.1)
        failed = [str(entry) for entry in self.instance.all_logs(run_id) if entry.dagster_event and entry.dagster_event.is_failure]
        assert run, "there is no such run"
        assert run.is_success, failed

    def rows(self, bare: bool = False) -> dict[str, Rows]:
        """What the identity table has of each source."""
        found: dict[str, Rows] = {}
        for name, harness in self.harnesses.items():
            rows = self.database.execute(
                "select external_id, raw ->> %s, deleted_at is not null from identity.records where source_name = %s",
                (harness.note, f"{name}_bare" if bare else name),
            )
            found[name] = {external_id: (note, deleted) for external_id, note, deleted in rows}
        return found


@pytest.fixture
def databases(tools: Tools, identity_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Databases]:
    for name in settings.PROJECT_FILES:
        shutil.copy(settings.PACKAGE.parent / name, tmp_path)
    # without the queue, whose daemon would take as long as the test
    chosen = yaml.safe_load((tmp_path / "dagster.yaml").read_text())
    chosen["run_coordinator"] = {"module": "dagster._core.run_coordinator", "class": "DefaultRunCoordinator"}
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(chosen))
    for variable, value in {
        "IDENTITY_DATABASE_URL": identity_database, "IDENTITY_HOME": tmp_path, "IDENTITY_SOURCES": tmp_path / "sources",
        "DAGSTER_HOME": tmp_path,
    }.items():  # fmt: skip
        monkeypatch.setenv(variable, str(value))
    harnesses = {f"launched_{cls.source_type()}": cls(tools) for cls in HARNESSES}
    declared = []
    for name, harness in harnesses.items():
        source = {"name": name, "source_type": harness.source_type(), "config": harness.config,
                  "cursor_column": harness.cursor_column, "cursor_type": harness.cursor_type}  # fmt: skip
        declared += [source, source | {"name": f"{name}_bare", "cursor_overlap": 0}]
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources" / "all.yaml").write_text(yaml.safe_dump({"sources": declared}, default_style='"'))
    with ExitStack() as stack:
        instance = stack.enter_context(dg.DagsterInstance.get())
        database = stack.enter_context(psycopg.connect(identity_database, autocommit=True))
        yield Databases(harnesses, tmp_path, instance, database)


def _late(harness: Harness) -> float:
    """The minute of a row that only what the source goes by finds: PostgreSQL's state at any time, an overlap in its last minute."""
    if isinstance(harness, PostgresIdentityHarness):
        return 100
    return 601 - harness.connector().cursor_columns["*"].overlap / 60


def _insert(name: str, at: float, note: str) -> str:
    return f"INSERT INTO contacts (id, note, updated_at) VALUES ('{name}', '{note}', '{minute(at).replace(tzinfo=None)}')"


@pytest.mark.timeout(600)
def test_the_tables_are_what_the_databases_have(databases: Databases) -> None:
    sources, bare = [*databases.harnesses], [f"{name}_bare" for name in databases.harnesses]
    ties = [Contact(str(n), minute(600), note=f"note {n}") for n in range(1, TIES + 1)]
    for harness in databases.harnesses.values():
        harness.show(ties)
    databases.launch(*sources, *bare)
    truth: Rows = {c.id: (c.note, False) for c in ties}
    assert databases.rows() == dict.fromkeys(databases.harnesses, truth), "after the first load, in which all rows carry the mark"

    databases.database.execute("update identity.sources set state = null where source_name like '%%_bare'")
    for harness in databases.harnesses.values():
        cast("Any", harness).run(
            "UPDATE contacts SET note = 'changed' WHERE id = '7'", _insert("tie", 600, "a tie more"),
            _insert("late", _late(harness), "committed late"), "DELETE FROM contacts WHERE id = '13'",
        )  # fmt: skip
    databases.launch(*sources, *bare)
    truth |= {"7": ("changed", False), "tie": ("a tie more", False)}
    assert databases.rows(bare=True) == dict.fromkeys(databases.harnesses, truth), (
        "the late row arrives by what was taken away, and by nothing else"
    )
    truth |= {"late": ("committed late", False)}
    assert databases.rows() == dict.fromkeys(databases.harnesses, truth), "after a change and a row at the mark, and a late one below it"

    databases.launch(*sources, full_refresh=True)
    truth["13"] = ("note 13", True)
    assert databases.rows() == dict.fromkeys(databases.harnesses, truth), (
        "after a full refresh, which does not see the one that was deleted"
    )
