"""The launcher: forks where a fork is the same, Dagster's own way elsewhere; ends runs, and knows the dead ones."""

import json
import os
import signal
import time

import dagster as dg
import pytest

from identity_pipeline.dagster_internals import DefaultRunLauncher, LaunchRunContext, WorkerStatus
from identity_pipeline.orchestration import assets, launcher, worker
from identity_pipeline_tests.orchestration.world import PEOPLE, World


def test_a_run_is_forked_and_leaves_what_any_run_leaves(world: World):
    world.people("Ada", "Grace")
    done = world.launch()
    assert done.is_success
    assert (world.names(), world.published()) == ({"1": "Ada", "2": "Grace"}, world.mark())


def test_of_many_sources_a_run_builds_its_own_only(world: World, monkeypatch: pytest.MonkeyPatch):
    world.people("Ada")
    names = [f"people_{n}" for n in range(3)]
    world.declare(PEOPLE, *(PEOPLE | {"name": name} for name in names))
    with world.entered() as instance:
        run = world.enqueued(instance)
        assert launcher._sources(run) == {"people"}
        monkeypatch.setattr(assets, "narrowed", {"people"})
        repository = assets.definitions().get_repository_def()
        assert set(repository.assets_defs_by_key) == {dg.AssetKey(["people"]), dg.AssetKey(["identity", "records"])}


def test_it_sees_the_declarations_as_they_are_now(world: World):
    world.people("Ada")
    world.launch()
    world.declare(PEOPLE | {"mapping": {"full_name": "email"}})
    world.change("update people set name = 'x', updated_at = now()")
    world.launch()
    assert world.names() == {"1": "p1@acme.eu"}


@pytest.mark.parametrize("why", ["another code location", "code that changed"])
def test_where_a_fork_would_not_be_the_same_dagsters_own_launcher_takes_over(world: World, monkeypatch: pytest.MonkeyPatch, why: str):
    taken: list[str] = []
    monkeypatch.setattr(DefaultRunLauncher, "launch_run", lambda _self, context: taken.append(context.dagster_run.run_id))
    if why == "code that changed":
        monkeypatch.setattr(launcher, "_imported", lambda: 1)
    with world.entered() as instance:
        run = world.enqueued(instance, module="theirs.definitions" if why == "another code location" else "identity_pipeline.definitions")
        instance.run_launcher.launch_run(LaunchRunContext(run, None))
    assert taken == [run.run_id]


def test_a_run_is_terminated_by_whoever_is_asked(world: World, monkeypatch: pytest.MonkeyPatch):
    world.people("Ada")
    with world.entered() as instance:
        instance.get_ref()
        with world.locked():
            run = world.enqueued(instance)
            instance.run_launcher.launch_run(LaunchRunContext(run, None))
            deadline = time.monotonic() + 60
            while not world.loads() and time.monotonic() < deadline:
                time.sleep(0.1)
            assert instance.run_launcher.terminate(run.run_id)
            ended = world.ended(instance, run.run_id)
    assert ended.status == dg.DagsterRunStatus.CANCELED
    assert world.query("select * from identity.leases") == []


def test_a_process_that_is_gone_is_known_to_be_and_one_that_nobody_here_can_see_is_not():
    me = worker.worker_tags()
    assert worker.is_alive(me) is True
    assert worker.is_alive({}) is None
    named = json.loads(me[worker.TAG])
    assert worker.is_alive({worker.TAG: json.dumps(named | {"began": "1"})}) is False
    assert worker.is_alive({worker.TAG: json.dumps(named | {"host": "elsewhere"})}) is None
    child = os.fork()
    if not child:
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    tags = worker.worker_tags(child)
    assert worker.is_alive(tags) is True
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert worker.is_alive(tags) is False
    assert not worker.interrupt(tags)


def test_only_what_is_known_to_be_dead_is_reported_dead(world: World):
    with world.entered() as instance:
        run = world.enqueued(instance)
        assert instance.run_launcher.supports_check_run_worker_health
        assert instance.run_launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING
