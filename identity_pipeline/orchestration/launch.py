"""Launching runs through the queue, and following them to their end."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
from dagster.version import __version__ as dagster_version

from identity_pipeline.dagster_internals import (
    PARENT_RUN_ID_TAG,
    WILL_RETRY_TAG,
    WorkspaceOpts,
    create_run,
    get_code_location_from_workspace,
    get_remote_job_from_remote_repo,
    get_remote_repository_from_code_location,
    get_workspace_from_cli_opts,
)
from identity_pipeline.orchestration.assets import JOB, run_config


def launch(instance: dg.DagsterInstance, workspace: Path, names: list[str], choices: Mapping[str, object]) -> dict[str, str]:
    """Enqueue one run of the job for each source. ``choices`` are fields of the read op's config.

    `dagster job launch` prints no run id and loads the code location again for every run: this is what it is made of.

    Returns:
        Source name → run id.
    """
    options = WorkspaceOpts(workspace=(str(workspace),))
    with get_workspace_from_cli_opts(instance, dagster_version, options, log_level="ERROR") as context:
        location = get_code_location_from_workspace(context, None)
        repository = get_remote_repository_from_code_location(location, None)
        job = get_remote_job_from_remote_repo(repository, JOB)
        runs = {}
        for name in names:
            run = create_run(
                instance=instance,
                code_location=location,
                remote_repo=repository,
                remote_job=job,
                run_config=run_config(name, **choices),
                tags={"identity/source": name},
                op_selection=[name],
                run_id=None,
            )
            instance.submit_run(run.run_id, context)
            runs[name] = run.run_id
        return runs


@dataclass
class Followed:
    """One run as it goes: ``status`` as Dagster calls it, the newest message, the failure if there is one."""

    source_name: str
    run_id: str
    status: str = "QUEUED"
    message: str = "waiting in the queue"
    error: str | None = None
    retryable: bool = False
    done: bool = False
    _cursor: str | None = field(default=None, repr=False)

    def update(self, instance: dg.DagsterInstance, say: Callable[[str, str], None]) -> None:
        """Look once. ``say(source, message)`` is given each new message of the run."""
        run = instance.get_run_by_id(self.run_id)
        if run is None:
            self.status, self.error, self.done = "DELETED", "the run was deleted", True
            return
        self.status = run.status.value
        page = instance.get_records_for_run(self.run_id, cursor=self._cursor)
        self._cursor = page.cursor
        for record in page.records:
            self._hear(record.event_log_entry, say)
        if run.is_finished and not page.has_more:
            self._end(instance, run, say)

    def _hear(self, entry: dg.EventLogEntry, say: Callable[[str, str], None]) -> None:
        event = entry.dagster_event
        if event is None:
            self.message = entry.user_message
            say(self.source_name, entry.user_message)
        elif event.is_step_failure and event.step_failure_data.user_failure_data is not None:
            reported = event.step_failure_data.user_failure_data
            self.error = reported.description
            helps = reported.metadata.get("a_retry_helps")
            self.retryable = bool(helps is not None and helps.value)

    def _end(self, instance: dg.DagsterInstance, run: dg.DagsterRun, say: Callable[[str, str], None]) -> None:
        if run.status != dg.DagsterRunStatus.SUCCESS and run.tags.get(WILL_RETRY_TAG) == "true":
            again = instance.get_runs(dg.RunsFilter(tags={PARENT_RUN_ID_TAG: self.run_id}), limit=1)
            if again:
                ended = f"failed ({self.error})" if self.error else "died"
                say(self.source_name, f"run {self.run_id} {ended}; Dagster started it again as {again[0].run_id}")
                self.run_id, self._cursor, self.error = again[0].run_id, None, None
            return
        self.done = True
        if run.status == dg.DagsterRunStatus.SUCCESS:
            self.error = None
        elif self.error is None:
            self.error = f"the run ended as {run.status.value} without saying why: look at run {self.run_id} in the UI"


def follow(
    instance: dg.DagsterInstance,
    runs: Mapping[str, str],
    *,
    say: Callable[[str, str], None],
    every: Callable[[list[Followed]], None] = lambda _: None,
    interval: float = 0.5,
) -> list[Followed]:
    """Follow runs (source name → run id) until all have ended; ``every`` is called after each look."""
    followed = [Followed(name, run_id) for name, run_id in runs.items()]
    while True:
        for one in followed:
            if not one.done:
                one.update(instance, say)
        every(followed)
        if all(one.done for one in followed):
            return followed
        time.sleep(interval)
