"""Runs without the queue: real runs of the job, in processes forked from this one."""

import dagster as dg
import pytest
import yaml

from identity_pipeline_tests.orchestration.world import PEOPLE, World


def run_of(world: World, run_id: str) -> dg.DagsterRun:
    with world.entered() as instance:
        run = instance.get_run_by_id(run_id)
    assert run is not None
    return run


def test_it_is_a_run_of_the_job_as_the_ui_knows_it(world: World):
    world.people("Ada", "Grace")
    said: list[str] = []
    [done] = world.ingest(say=lambda _name, message: said.append(message))
    run = run_of(world, done.run_id)
    assert (run.status, run.job_name, run.asset_selection) == (dg.DagsterRunStatus.SUCCESS, "ingest", {dg.AssetKey(["people"])})
    assert run.remote_job_origin is not None
    assert run.remote_job_origin.location_name == "identity_pipeline"
    assert run.tags["identity/source"] == "people"
    assert any("2 records read and landed" in message for message in said)
    assert (world.names(), world.published()) == ({"1": "Ada", "2": "Grace"}, world.mark())


def test_no_daemon_starts_a_failed_one_again(world: World):
    world.declare(PEOPLE | {"config": PEOPLE["config"] | {"table": "nowhere"}})
    [failed] = world.ingest()
    assert "nowhere" in (failed.error or "")
    run = run_of(world, failed.run_id)
    assert (run.status, run.tags["dagster/max_retries"]) == (dg.DagsterRunStatus.FAILURE, "0")


def test_options_of_the_run_reach_the_read(world: World):
    world.people("Ada", "Grace", "Edsger")
    world.ingest(limit=2)
    assert (len(world.names()), world.mark()) == (2, None)


def test_one_that_fails_leaves_the_others_alone(world: World):
    world.people("Ada")
    world.declare(PEOPLE, PEOPLE | {"name": "gone", "config": PEOPLE["config"] | {"table": "gone"}})
    good, bad = world.ingest("people", "gone")
    assert (good.error, bad.error is None) == (None, False)
    assert world.names() == {"1": "Ada"}


def test_no_more_run_at_once_than_the_instance_allows(world: World):
    world.people("Ada")
    path = world.home / "dagster" / "dagster.yaml"
    instance = yaml.safe_load(path.read_text())
    instance["concurrency"]["runs"]["max_concurrent_runs"] = 2
    path.write_text(yaml.safe_dump(instance))
    names = [f"people_{n}" for n in range(5)]
    world.declare(*(PEOPLE | {"name": name} for name in names))
    done = world.ingest(*names)
    assert [one.error for one in done] == [None] * 5
    times = world.query("select extract(epoch from started_at) as began, extract(epoch from finished_at) as ended from identity.loads")
    at_once = [sum(other["began"] <= one["began"] < other["ended"] for other in times) for one in times]
    assert max(at_once) <= 2


def test_an_interrupt_cancels_the_run_and_frees_the_source(world: World):
    def ctrl_c(_name: str, said: str) -> None:
        if "reads updated_at" in said or "first load" in said:
            raise KeyboardInterrupt

    with world.locked(), pytest.raises(KeyboardInterrupt):
        world.ingest(say=ctrl_c)
    with world.entered() as instance:
        [run] = instance.get_runs()
    assert run.status == dg.DagsterRunStatus.CANCELED
    assert [load["status"] for load in world.loads()] == ["failed"]
    assert world.query("select * from identity.leases") == []


def test_the_uis_terminate_ends_it_too_and_no_op_is_tried_again(world: World):
    def terminate(_name: str, said: str) -> None:
        if "first load" in said:
            with world.entered() as instance:
                [run] = instance.get_runs()
                assert instance.run_launcher.terminate(run.run_id)

    with world.locked():
        [ended] = world.ingest(say=terminate)
    assert ended.status == "CANCELED"
    with world.entered() as instance:
        kinds = [entry.dagster_event.event_type_value for entry in instance.all_logs(ended.run_id) if entry.dagster_event]
    assert ("STEP_UP_FOR_RETRY" in kinds, kinds[-1]) == (False, "PIPELINE_CANCELED")
