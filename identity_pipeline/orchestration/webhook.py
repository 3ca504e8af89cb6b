"""Runs that failed for good, posted to a webhook: a chat, a pager, an incident tool."""

import json
from collections.abc import Sequence

import dagster as dg

from identity_pipeline.core import settings
from identity_pipeline.core.errors import PipelineError, SourceRejected, SourceUnavailable
from identity_pipeline.core.window import ReadContext
from identity_pipeline.dagster_internals import WILL_RETRY_TAG
from identity_pipeline.orchestration.health import is_ours
from identity_pipeline.readers.http.exchange import Call, exchange
from identity_pipeline.readers.http.retry import Retry
from identity_pipeline.readers.http.session import session

RETRY_BUDGET, ATTEMPTS, DEADLINE = 20.0, 3, 10.0
"""Seconds and calls in all, seconds of one call: Dagster's daemon waits for a sensor for a minute."""


@dg.run_failure_sensor(
    name="failed_runs",
    default_status=dg.DefaultSensorStatus.RUNNING,
    monitor_all_code_locations=True,  # a run that the command line executes by itself names no location
    description="Posts each run that failed, and is not started again, to the webhook of IDENTITY_FAILURE_WEBHOOK.",
)
def failed_runs(context: dg.RunFailureSensorContext) -> dg.SkipReason | None:
    """Posts the failure in the words of its message, which hold no secret and nothing of a person."""
    run = context.dagster_run
    if not is_ours(run):
        return dg.SkipReason("not a run of this project")
    if run.tags.get(WILL_RETRY_TAG) == "true":
        return dg.SkipReason(f"run {run.run_id} is started again")
    _post(notice(run, context.get_step_failure_events()))
    return None


def notice(run: dg.DagsterRun, failures: Sequence[dg.DagsterEvent]) -> dict[str, object]:
    """What is posted. ``text`` is the key that chats show.

    Only what our own errors say is quoted: Dagster's and other libraries' may hold anything.
    """
    said = next((f.step_failure_data.user_failure_data for f in failures if f.step_failure_data.user_failure_data), None)
    metadata = said.metadata if said else {}
    source = run.tags.get("identity/source", "")
    message = said.description if said else "its process ended without saying why"
    return {
        "text": f"{source or run.job_name}: run {run.run_id} failed: {message}",
        "source_name": source,
        "run_id": run.run_id,
        "error_code": metadata["error_code"].value if "error_code" in metadata else None,
        "a_retry_helps": bool(metadata["a_retry_helps"].value) if "a_retry_helps" in metadata else None,
        "message": message,
    }


def _post(body: dict[str, object]) -> None:
    """Deliver it.

    Raises:
        PipelineError: it was not taken; the address, which is a secret with most services, is not shown.
    """
    url, context = settings.failure_webhook(), ReadContext()
    call = Call("POST", url, {"Content-Type": "application/json"}, json.dumps(body).encode(), setting="IDENTITY_FAILURE_WEBHOOK")

    def once() -> None:
        with session() as client, exchange(client, call, context, DEADLINE) as response:
            if response.status_code >= 300:
                kind = SourceRejected if response.status_code < 500 else SourceUnavailable
                raise kind(f"status {response.status_code}")

    try:
        Retry(context, RETRY_BUDGET, ATTEMPTS)(once)
    except PipelineError as error:
        status = str(error) if isinstance(error, SourceRejected) else error.code
        raise PipelineError(f"IDENTITY_FAILURE_WEBHOOK did not take the notice of run {body['run_id']} ({status})") from None
