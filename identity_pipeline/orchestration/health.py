"""Runs whose process died without Dagster noticing: they would hold their source's pool for ever."""

import time
from datetime import UTC, datetime, timedelta

import dagster as dg

from identity_pipeline.embedded.location import database_url
from identity_pipeline.store import lease

GRACE = timedelta(seconds=45)
"""A run may be without a living lease for so long: before its first op, while it waits for another run's, after its last.

Between two ops the lease beats on.
"""


_SIGN_OF_LIFE_SECONDS = 75.0
"""Dagster's daemon gives a sign of life every 30 seconds: two in a row may be late."""


def daemon_alive(instance: dg.DagsterInstance) -> bool:
    """True if a daemon that starts queued runs gave a sign of life not long ago."""
    heartbeat = instance.get_daemon_heartbeats().get("QUEUED_RUN_COORDINATOR")
    return heartbeat is not None and time.time() - heartbeat.timestamp < _SIGN_OF_LIFE_SECONDS


def close_dead_runs(instance: dg.DagsterInstance, now: datetime | None = None) -> list[str]:
    """Report started runs of the job without a living lease as failed. Returns their ids.

    After a reboot of the host nobody else does: the run worker and the code server that watched
    it are gone together, and the run stays STARTED.
    """
    now = now or datetime.now(UTC)
    closed = []
    records = instance.get_run_records(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED], updated_before=now - GRACE))
    if not records:
        return closed
    alive = lease.running_runs(database_url(), within=GRACE.total_seconds())
    for record in records:
        run = record.dagster_run
        if is_ours(run) and run.run_id not in alive:
            instance.report_run_failed(
                run, f"no sign of life for {GRACE.seconds} s: the process of this run is gone; the next run repeats its work"
            )
            closed.append(run.run_id)
    return closed


def is_ours(run: dg.DagsterRun) -> bool:
    """True for a run that loads sources."""
    return "identity/source" in run.tags or run.job_name == "ingest" or run.job_name.startswith("__ASSET_JOB")


@dg.sensor(
    name="dead_runs",
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Closes runs whose process died without Dagster noticing, as after a reboot, so that their sources are free again.",
)
def dead_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Frees sources whose run died together with its host."""
    closed = close_dead_runs(context.instance)
    return dg.SkipReason(f"closed {len(closed)} dead runs: {', '.join(closed)}" if closed else "every started run is alive")
