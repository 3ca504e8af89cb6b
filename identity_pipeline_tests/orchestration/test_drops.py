"""Sensors on drops: files that arrive begin a load, once, and again if it failed."""

from typing import Any
from uuid import uuid4

import dagster as dg
import pytest

from identity_pipeline.orchestration import assets, drops
from identity_pipeline.store import ledger
from identity_pipeline_tests.orchestration.world import World
from identity_pipeline_tests.servers import seaweedfs

KEY, SECRET = seaweedfs.ADMINISTRATOR


@pytest.fixture
def prefix(world: World, monkeypatch: pytest.MonkeyPatch) -> str:
    """A prefix of a bucket, which the one source of the pipeline reads."""
    prefix = f"{uuid4().hex}/"
    monkeypatch.setenv("BUCKET_SECRET", SECRET)
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "127.0.0.1")
    config: dict[str, Any] = {
        "bucket": seaweedfs.BUCKET, "prefix": prefix, "endpoint_url": seaweedfs.server().url, "access_key_id": KEY,
        "secret_access_key": {"env": "BUCKET_SECRET"},
    }  # fmt: skip
    world.declare({"name": "exports", "source_type": "s3_csv", "config": config, "sensor": True})
    return prefix


def put(name: str, *ids: str) -> None:
    seaweedfs.server().put(name, "".join(f"{line}\n" for line in ("id", *ids)).encode())


def tick(world: World) -> dg.RunRequest | str:
    """What a tick asks for, or why it asks for nothing."""
    with world.entered() as instance:
        definitions = assets.definitions()
        sensor = definitions.resolve_sensor_def("exports_drops")
        with dg.build_sensor_context(instance=instance, definitions=definitions) as context:
            found = sensor.evaluate_tick(context)
    [*requests] = found.run_requests or ()
    return requests[0] if requests else str(found.skip_message)


def test_a_drop_begins_one_load_and_nothing_new_begins_none(world: World, prefix: str) -> None:
    assert "no file is new" in str(tick(world))
    put(f"{prefix}a.csv", "1")
    first, again = tick(world), tick(world)
    assert isinstance(first, dg.RunRequest)
    assert isinstance(again, dg.RunRequest)
    assert first.run_key == again.run_key, "a tick that is repeated starts nothing twice"
    assert not first.run_config, "no list of names travels: the run lists again itself"
    assert world.load("exports").success
    assert "no file is new" in str(tick(world))
    put(f"{prefix}a.csv", "1", "2")
    written = tick(world)
    assert isinstance(written, dg.RunRequest)
    assert written.run_key != first.run_key


def test_what_a_failed_load_has_not_read_comes_again(world: World, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put(f"{prefix}a.csv", "1")
    first = tick(world)
    load = ledger.open_load(world.url, "exports", "s3_csv", "run")
    assert "is at work" in str(tick(world))
    ledger.fail(world.url, load, "unexpected", "it failed")
    assert "failed a moment ago" in str(tick(world))
    monkeypatch.setattr(drops, "AFTER_FAILURE", drops.AFTER_FAILURE * 0)
    again = tick(world)
    assert isinstance(first, dg.RunRequest)
    assert isinstance(again, dg.RunRequest)
    assert first.run_key != again.run_key


def test_a_look_that_fails_or_lasts_says_why_and_ends_in_time(world: World, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drops, "PATIENCE", 0.0)
    assert "takes longer than" in str(tick(world))
    monkeypatch.undo()
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "127.0.0.1")
    monkeypatch.setenv("BUCKET_SECRET", "a-wrong-secret")
    said = str(tick(world))
    assert "does not belong to the key" in said
    assert "a-wrong-secret" not in said
