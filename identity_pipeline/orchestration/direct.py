"""Runs without the queue: each in a process that is forked from this one, which has imported everything.

They are runs of the job as any other: through Dagster's executor, under the source's lease, with events,
logs and metadata where the UI shows them while they go. Dagster captures output and signals for a
process as a whole, so each run has one of its own. No daemon starts a failed one again: the
person who asked for it is told.
"""

import multiprocessing
import os
import signal
import sys
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import dagster as dg

from identity_pipeline.dagster_internals import InMemoryJob, capture_interrupts, execute_run_iterator, job_origin, keep_connections
from identity_pipeline.declarations.source import Source
from identity_pipeline.orchestration.assets import JOB, definitions_of, run_config
from identity_pipeline.orchestration.follow import Followed
from identity_pipeline.orchestration.worker import worker_tags

_END_SECONDS = 20.0
"""How long a run that is interrupted may take to close its load."""


@dataclass(frozen=True)
class How:
    """What the runs have in common. ``choices`` are fields of the read op's config; their processes print into ``log``."""

    workspace: Path
    choices: Mapping[str, object]
    log: Path


@dataclass
class _Running:
    followed: Followed
    process: BaseProcess
    messages: Connection


def run_all(
    sources: list[Source],
    how: How,
    *,
    say: Callable[[str, str], None],
    every: Callable[[list[Followed]], None] = lambda _: None,
) -> list[Followed]:
    """Load the sources, as many at once as the instance's run queue would.

    ``say(source, message)`` is given each message, ``every`` is called whenever something changed. An
    interrupt of this process cancels the runs.
    """
    with dg.DagsterInstance.get() as instance:  # makes Dagster's tables where there are none
        queue = instance.get_concurrency_config().run_queue_config
    at_once = queue.max_concurrent_runs if queue else 1
    waiting = deque((source, Followed(source.name, str(uuid.uuid4()), "NOT_STARTED", "waiting for its turn")) for source in sources)
    everyone = [followed for _, followed in waiting]
    running: list[_Running] = []
    try:
        while waiting or running:
            while waiting and (at_once < 1 or len(running) < at_once):
                source, followed = waiting.popleft()
                followed.message = "starting"
                running.append(_start(source, followed, how))
            every(everyone)
            for messages in wait([one.messages for one in running]):
                one = next(each for each in running if each.messages is messages)
                if not _listen(one, say):
                    running.remove(one)
        every(everyone)
    except BaseException:
        _cancel(running)
        raise
    return everyone


def _start(source: Source, followed: Followed, how: How) -> _Running:
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(
        target=_run, args=(source, followed, how, theirs), name=f"load {source.name}", daemon=False
    )
    sys.stdout.flush()
    sys.stderr.flush()
    process.start()
    theirs.close()
    return _Running(followed, process, ours)


def _listen(one: _Running, say: Callable[[str, str], None]) -> bool:
    """Take in what a run's process says next. False when it has ended."""
    with suppress(EOFError):
        message, heard = one.messages.recv()
        vars(one.followed).update(vars(heard))
        if message:
            say(one.followed.source_name, message)
        return True
    one.messages.close()
    one.process.join()
    if not one.followed.done:
        one.followed.error = _died(one)
        one.followed.retryable = True
        one.followed.end(dg.DagsterRunStatus.FAILURE)
    return False


def _died(one: _Running) -> str:
    code = one.process.exitcode or 0
    how = f"by signal {-code}" if code < 0 else f"with status {code}"
    message = f"the process of run {one.followed.run_id} ended {how} before its load did: nothing half done stays; run it again"
    with dg.DagsterInstance.get() as instance:
        run = instance.get_run_by_id(one.followed.run_id)
        if run is not None and not run.is_finished:
            instance.report_run_failed(run, message)
    return message


def _cancel(running: list[_Running]) -> None:
    """End the runs as the UI's Terminate does. Their loads are closed as failed, the marks stay."""
    if not running:
        return
    with dg.DagsterInstance.get() as instance:
        for one in running:
            run = instance.get_run_by_id(one.followed.run_id)
            if run is not None and not run.is_finished:
                instance.report_run_canceling(run)
            with suppress(ProcessLookupError):
                os.kill(one.process.pid or 0, signal.SIGINT)
    for one in running:
        one.process.join(_END_SECONDS)
        if one.process.is_alive():
            one.process.kill()
            one.process.join()


# -- In the forked process ------------------------------------------------------------------------


def _run(source: Source, followed: Followed, how: How, messages: Connection) -> None:
    os.setpgrp()  # a terminal's Ctrl-C is the parent's to tell: it marks the run as canceled first
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _redirect(how.log)

    def tell(message: str | None = None) -> None:
        with suppress(OSError):  # nobody listens any more; the load goes on
            messages.send((message, followed))

    with capture_interrupts(), dg.DagsterInstance.get() as instance:
        keep_connections(instance)
        instance.add_event_listener(followed.run_id, lambda entry: tell(followed.hear(entry)))
        job = definitions_of([source], dg.in_process_executor).get_repository_def().get_job(JOB)
        run = instance.create_run_for_job(
            job_def=job,
            run_id=followed.run_id,
            run_config=run_config(source.name, **how.choices),
            tags={**job.tags, "identity/source": source.name, "dagster/max_retries": "0", **worker_tags()},
            asset_selection={dg.AssetKey([source.name])},
            remote_job_origin=job_origin(how.workspace, JOB),
        )
        followed.status = "STARTED"
        try:
            for _ in execute_run_iterator(InMemoryJob(job), run, instance):
                pass
        finally:
            ended = instance.get_run_by_id(followed.run_id)
            followed.end(ended.status if ended and ended.is_finished else dg.DagsterRunStatus.FAILURE)
            tell()


def _redirect(log: Path) -> None:
    """Let what Dagster and libraries print go to a file: the terminal is the parent's."""
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for number in (1, 2):
        os.dup2(file, number)
    os.close(file)
