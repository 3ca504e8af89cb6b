"""The run launcher: a run's process is forked from one that has imported everything.

Dagster's own launcher has the code server start a new interpreter for each run, which imports
Dagster and all of ours before it does anything: four CPU seconds. A fork has that behind it. Where a
fork would not be the same (a run of another code location, code that was changed since the imports),
Dagster's own launcher takes over.
"""

import multiprocessing
import os
from functools import cache
from pathlib import Path
from typing import Any

from identity_pipeline.core import settings
from identity_pipeline.dagster_internals import (
    CheckRunHealthResult,
    DagsterRun,
    DefaultRunLauncher,
    InstanceRef,
    LaunchRunContext,
    ModuleCodePointer,
    WorkerStatus,
)
from identity_pipeline.orchestration.worker import interrupt, is_alive, worker_tags

_MODULE = "identity_pipeline.definitions"


class ForkingRunLauncher(DefaultRunLauncher):
    """Forks the processes of our runs. It takes no settings."""

    def launch_run(self, context: LaunchRunContext) -> None:
        """Start a run's process."""
        run = context.dagster_run
        if not _is_ours(run) or _code() != _imported():
            super().launch_run(context)
            return
        process = _forkserver().Process(
            target=_execute, args=(run.run_id, self._instance.get_ref(), dict(os.environ), _sources(run)), name=f"run {run.run_id}"
        )
        process.start()
        self._run_ids.add(run.run_id)

    def terminate(self, run_id: str) -> bool:
        """Interrupt a run's process. False if it is not there."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished or is_alive(run.tags) is None:
            return super().terminate(run_id)
        self._instance.report_run_canceling(run)
        return interrupt(run.tags)

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Run monitoring asks whether the process of a started run is alive."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Dead only if it is known to be: another machine's runs show it by their lease."""
        if is_alive(run.tags) is False:
            return CheckRunHealthResult(WorkerStatus.FAILED, "the process of this run is gone; the next run repeats its work")
        return CheckRunHealthResult(WorkerStatus.RUNNING)


@cache
def _forkserver() -> Any:
    """The process that runs are forked from, which is started with the first of them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["identity_pipeline.orchestration.preload"])
    return context


def _is_ours(run: DagsterRun) -> bool:
    origin = run.job_code_origin
    pointer = origin and origin.repository_origin.code_pointer
    return isinstance(pointer, ModuleCodePointer) and pointer.module == _MODULE


def _code() -> int:
    """When the newest module of ours was written, in nanoseconds."""
    return max(path.stat().st_mtime_ns for path in Path(settings.PACKAGE).rglob("*.py"))


@cache
def _imported() -> int:
    """The same, when the runs' parent was started."""
    return _code()


def _sources(run: DagsterRun) -> frozenset[str] | None:
    """The sources that a run loads; None: all of them."""
    if run.asset_selection:
        return frozenset(key.path[-1] for key in run.asset_selection)
    return frozenset(name.partition(".")[0] for name in run.resolved_op_selection) if run.resolved_op_selection else None


def _execute(run_id: str, instance: InstanceRef, environment: dict[str, str], sources: frozenset[str] | None) -> None:
    """What a run's process does."""
    os.environ.clear()  # what it was forked from has that of its own start
    os.environ.update(environment)
    from identity_pipeline.dagster_internals import execute_run_of  # noqa: PLC0415 - the launcher itself lives in the daemon and the UI
    from identity_pipeline.orchestration import assets  # noqa: PLC0415

    assets.narrowed = sources
    execute_run_of(run_id, instance, worker_tags())
