"""Runs without the queue: in processes that are forked from this one, which has imported everything.

They are runs of the job as any other: through Dagster's executor, under the source's lease, with events,
logs and metadata where the UI shows them while they go. Dagster captures output and signals for a
process as a whole, so a process has one run at a time. No daemon starts a failed one again: the
person who asked for it is told.
"""

import gc
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

from identity_pipeline.connectors import do_without_frames
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
class _Worker:
    """A process that executes one run after the other, and the run that it is at."""

    process: BaseProcess
    channel: Connection
    followed: Followed | None = None

    def give(self, followed: Followed) -> None:
        """Have it execute a run."""
        followed.message = "starting"
        self.followed = followed
        with suppress(OSError):  # a worker that died meanwhile is found when it is listened to
            self.channel.send((followed.source_name, followed.run_id))


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
    most = queue.max_concurrent_runs if queue and queue.max_concurrent_runs > 0 else len(sources)
    everyone = [Followed(source.name, str(uuid.uuid4()), "NOT_STARTED", "waiting for its turn") for source in sources]
    waiting = deque(everyone)
    workers: list[_Worker] = []
    gc.collect()
    gc.freeze()  # a collection in a fork would copy every page
    try:
        while waiting or workers:
            while waiting and len(workers) < most:
                workers.append(_start(sources, how, [worker.channel for worker in workers]))
                workers[-1].give(waiting.popleft())
            every(everyone)
            for channel in wait([worker.channel for worker in workers]):
                worker = next(each for each in workers if each.channel is channel)
                _listen(worker, say)
                if worker.followed is None and waiting and worker.process.is_alive():
                    worker.give(waiting.popleft())
                elif worker.followed is None:
                    worker.channel.close()
                    worker.process.join()
                    workers.remove(worker)
        every(everyone)
    except BaseException:
        _cancel(workers)
        raise
    finally:
        gc.unfreeze()
    return everyone


def _start(sources: list[Source], how: How, others: list[Connection]) -> _Worker:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_work, args=(sources, how, theirs, [*others, ours]), daemon=True)
    sys.stdout.flush()
    sys.stderr.flush()
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _listen(worker: _Worker, say: Callable[[str, str], None]) -> None:
    """Take in what a worker says next of its run. It is at none when that has ended."""
    followed = worker.followed
    assert followed is not None  # noqa: S101 - one that is at no run says nothing
    try:
        message, heard = worker.channel.recv()
    except (EOFError, OSError):
        worker.process.join()
        followed.error, followed.retryable = _died(worker.process.exitcode or 0, followed.run_id), True
        followed.end(dg.DagsterRunStatus.FAILURE)
    else:
        vars(followed).update(vars(heard))
        if message:
            say(followed.source_name, message)
    if followed.done:
        worker.followed = None


def _died(code: int, run_id: str) -> str:
    how = f"by signal {-code}" if code < 0 else f"with status {code}"
    message = f"the process of run {run_id} ended {how} before its load did: nothing half done stays; run it again"
    with suppress(Exception), dg.DagsterInstance.get() as instance:  # without the database nobody can be told but the caller
        run = instance.get_run_by_id(run_id)
        if run is not None and not run.is_finished:
            instance.report_run_failed(run, message)
    return message


def _cancel(workers: list[_Worker]) -> None:
    """End the runs as the UI's Terminate does. Their loads are closed as failed, the marks stay."""
    if not workers:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one must not leave some of them behind
    with dg.DagsterInstance.get() as instance:
        runs = [worker.followed and instance.get_run_by_id(worker.followed.run_id) for worker in workers]
        for worker, run in zip(workers, runs, strict=True):
            if run and not run.is_finished:
                instance.report_run_canceling(run)
            with suppress(ProcessLookupError):
                os.kill(worker.process.pid or 0, signal.SIGINT)
        for worker, run in zip(workers, runs, strict=True):
            worker.channel.close()
            worker.process.join(_END_SECONDS)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
                if run:
                    instance.report_run_canceled(run)
    signal.signal(signal.SIGINT, signal.default_int_handler)


# -- In the forked process ------------------------------------------------------------------------


def _work(sources: list[Source], how: How, channel: Connection, parents: list[Connection]) -> None:
    """Execute the runs that are asked for, until nobody asks any more."""
    for each in parents:  # an end that is open here too would never be seen to close
        each.close()
    os.setpgrp()  # a terminal's Ctrl-C is the parent's to tell: it marks the run as canceled first
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _redirect(how.log)
    do_without_frames()
    declared = {source.name: source for source in sources}
    with suppress(KeyboardInterrupt), dg.DagsterInstance.get() as instance:
        keep_connections(instance)
        while True:
            try:
                name, run_id = channel.recv()
            except (EOFError, OSError):
                return
            _run(instance, declared[name], Followed(name, run_id), how, channel)


def _run(instance: dg.DagsterInstance, source: Source, followed: Followed, how: How, channel: Connection) -> None:
    def tell(message: str | None = None) -> None:
        with suppress(OSError):  # nobody listens any more; the load goes on
            channel.send((message, followed))

    with capture_interrupts():
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
    # The parent's may be wrapped by what draws on a terminal, whose locks another thread held at the fork.
    sys.stdout, sys.stderr = (os.fdopen(os.dup(number), "w", buffering=1) for number in (1, 2))
