"""Failed runs are posted to a webhook."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partialmethod
from http.server import BaseHTTPRequestHandler, HTTPServer

import dagster as dg
import pytest

from identity_pipeline.core.errors import PipelineError
from identity_pipeline.core.window import ReadContext
from identity_pipeline.dagster_internals import WILL_RETRY_TAG
from identity_pipeline.orchestration import assets
from identity_pipeline.orchestration.webhook import failed_runs
from identity_pipeline_tests.orchestration.world import World

CANARY = "canary-in-the-address"


@dataclass
class Hook:
    """A server that takes notices, with the ``answers`` that it gives, in turn; then 200."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    taken: list[dict] = field(default_factory=list)
    asked: int = 0


@pytest.fixture
def hook(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    """One on this machine, to which this pipeline is pointed; waits take no time."""
    hook = Hook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            hook.asked += 1
            status = hook.answers.pop(0) if hook.answers else 200
            if status == 200:
                hook.taken.append(body)
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    hook.url = f"http://127.0.0.1:{server.server_port}/{CANARY}"
    monkeypatch.setattr(ReadContext, "__init__", partialmethod(ReadContext.__init__, sleep=lambda _: None))
    yield hook
    server.shutdown()
    server.server_close()
    thread.join()


def tell(world: World, hook: Hook, run_id: str, **tags: str) -> object:
    """What the sensor does when it hears of the run."""
    with world.entered() as instance, pytest.MonkeyPatch.context() as patch:
        patch.setenv("IDENTITY_FAILURE_WEBHOOK", hook.url)
        assert failed_runs.name in {sensor.name for sensor in assets.definitions().sensors or ()}
        instance.add_run_tags(run_id, tags)
        run = instance.get_run_by_id(run_id)
        assert run is not None
        event = next(e.dagster_event for e in instance.all_logs(run_id) if e.dagster_event and e.dagster_event.is_run_failure)
        context = dg.build_run_status_sensor_context("failed_runs", event, instance, run)
        return failed_runs(context.for_run_failure())


def failed_run(world: World) -> str:
    """A run that failed since its table is gone."""
    world.change("alter table people rename to people_gone")
    return world.load().run_id


def test_a_run_that_failed_is_posted_with_its_code_and_what_to_do(world: World, hook: Hook):
    run_id = failed_run(world)
    assert tell(world, hook, run_id) is None
    [body] = hook.taken
    assert (body["source_name"], body["run_id"], body["error_code"], body["a_retry_helps"]) == ("people", run_id, "source_rejected", False)
    assert body["text"] == f"people: run {run_id} failed: {body['message']}"
    assert "people_gone" in body["message"]


def test_what_is_started_again_or_is_not_ours_is_not_posted(world: World, hook: Hook):
    assert isinstance(tell(world, hook, failed_run(world), **{WILL_RETRY_TAG: "true"}), dg.SkipReason)
    with world.entered() as instance:
        other = dg.job(name="another")(lambda: None).execute_in_process(instance=instance)
        instance.report_run_failed(other.dagster_run)
    assert isinstance(tell(world, hook, other.run_id), dg.SkipReason)
    assert hook.asked == 0


def test_a_run_whose_process_died_is_posted_too(world: World, hook: Hook):
    world.load_and_die("landed")
    tell(world, hook, world.close_runs(), **{WILL_RETRY_TAG: "false"})
    assert hook.taken[0]["message"] == "its process ended without saying why"


@pytest.mark.parametrize(("answers", "asked"), [([503, 503], 3), ([503] * 9, 3), ([404], 1)])
def test_a_hook_that_is_down_is_asked_three_times_and_its_address_not_shown(world: World, hook: Hook, answers: list[int], asked: int):
    hook.answers = answers
    run_id = failed_run(world)
    if len(answers) == 2:
        tell(world, hook, run_id)
    else:
        with pytest.raises(
            PipelineError, match=r"IDENTITY_FAILURE_WEBHOOK did not take the notice of run .* \((source_unavailable|status 404)\)"
        ) as caught:
            tell(world, hook, run_id)
        assert CANARY not in str(caught.value)
    assert hook.asked == asked


def test_without_the_setting_there_is_no_such_sensor(world: World):
    with world.entered():
        assert failed_runs.name not in {sensor.name for sensor in assets.definitions().sensors or ()}
