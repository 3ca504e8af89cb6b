"""What a page is told of a run that does not start."""

import asyncio
import time
from collections.abc import Iterator
from types import SimpleNamespace

import dagster as dg
import pytest
from dagster._daemon.types import DaemonHeartbeat

from identity_pipeline.core.settings import PACKAGE
from identity_pipeline.dagster_internals import job_origin
from identity_pipeline.web.access import Access
from identity_pipeline.web.site import Reloading, Site


@dg.op
def nothing() -> None:
    """A step."""


@dg.job
def idle() -> None:
    """A job of one step."""
    nothing()


@pytest.fixture
def site() -> Iterator[Site]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Site(SimpleNamespace(instance=instance), Access(lambda: "", "k" * 43), "http://127.0.0.1:3000", Reloading(lambda: None))


def test_a_run_that_no_daemon_takes_up_says_so_and_goes_on_when_one_does(site: Site):
    origin = job_origin(PACKAGE.parent / "workspace.yaml", "ingest")
    told = {"tags": {"identity/source": "crm"}, "status": dg.DagsterRunStatus.QUEUED, "remote_job_origin": origin}
    run = site.instance.create_run_for_job(idle, **told)
    assert "no daemon takes queued runs up: start the server with" in site.outcome("crm", run.run_id).message

    async def heard() -> list[tuple[str, str]]:
        said = []
        async for kind, text in site.followed("crm", run.run_id):
            said.append((kind, text))
            if len(said) == 3:
                beat = DaemonHeartbeat(time.time(), "QUEUED_RUN_COORDINATOR", "one", [])
                site.instance.add_daemon_heartbeat(beat)
            if text == "waiting in the queue":
                site.instance.report_run_canceled(run)
        return said

    said = asyncio.run(asyncio.wait_for(heard(), 30))
    assert said[0][1].startswith("no daemon takes queued runs up")
    assert [text for kind, text in said if kind == "message"][1] == "waiting in the queue", "each reason is said once"
    assert said[-1] == ("end", "CANCELED")
