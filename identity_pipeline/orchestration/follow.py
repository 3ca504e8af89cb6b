"""A run as it goes: what it says, how it ended, and following it to its end."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import dagster as dg

from identity_pipeline.dagster_internals import PARENT_RUN_ID_TAG, WILL_RETRY_TAG


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
            if message := self.hear(record.event_log_entry):
                say(self.source_name, message)
        if run.is_finished and not page.has_more:
            self._look_for_retry(instance, run, say)

    def hear(self, entry: dg.EventLogEntry) -> str | None:
        """Take in one event of the run. The message, if it is one."""
        event = entry.dagster_event
        if event is None:
            self.message = entry.user_message
            return entry.user_message
        if event.is_step_failure and event.step_failure_data.user_failure_data is not None:
            reported = event.step_failure_data.user_failure_data
            self.error = reported.description
            helps = reported.metadata.get("a_retry_helps")
            self.retryable = bool(helps is not None and helps.value)
        elif event.is_failure and self.error is None:  # a run that died, as whoever found it reports it
            self.error = event.message or entry.user_message or None
            self.retryable = True
        return None

    def end(self, status: dg.DagsterRunStatus) -> None:
        """The run has ended for good."""
        self.status, self.done = status.value, True
        if status == dg.DagsterRunStatus.SUCCESS:
            self.error = None
        elif self.error is None:
            self.error = f"the run ended as {status.value} without saying why: look at run {self.run_id} in the UI"

    def _look_for_retry(self, instance: dg.DagsterInstance, run: dg.DagsterRun, say: Callable[[str, str], None]) -> None:
        if run.status != dg.DagsterRunStatus.SUCCESS and run.tags.get(WILL_RETRY_TAG) == "true":
            again = instance.get_runs(dg.RunsFilter(tags={PARENT_RUN_ID_TAG: self.run_id}), limit=1)
            if again:
                ended = f"failed ({self.error})" if self.error else "died"
                say(self.source_name, f"run {self.run_id} {ended}; Dagster started it again as {again[0].run_id}")
                self.run_id, self._cursor, self.error = again[0].run_id, None, None
            return
        self.end(run.status)


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
