"""Sensors on drops under Dagster's real daemon: files arrive, runs are launched, rows appear; whatever fails, ends or grows meanwhile.

Time passes by its traces being set back: a minute between two looks, five after a load that failed.
"""

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg
import pytest

from identity_pipeline.cli import services
from identity_pipeline_tests.orchestration.world import World
from identity_pipeline_tests.servers import seaweedfs, sftp

KEY, SECRET = seaweedfs.ADMINISTRATOR
PASSWORD = "password-of-the-reader"
LONG = 180.0
"""Seconds for anything to happen, on a busy machine."""


@pytest.fixture
def inbox(tmp_path: Path) -> Iterator[sftp.Server]:
    folder = tmp_path / "inbox"
    folder.mkdir()
    with sftp.Server(folder, password=PASSWORD) as server:
        yield server


@pytest.fixture
def prefix(world: World, inbox: sftp.Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A prefix of a bucket that one source reads, beside one that reads the inbox; both with a sensor."""
    prefix = f"{uuid4().hex}/"
    monkeypatch.setenv("BUCKET_SECRET", SECRET)
    monkeypatch.setenv("INBOX_PASSWORD", PASSWORD)
    bucket: dict[str, Any] = {
        "bucket": seaweedfs.BUCKET, "prefix": prefix, "endpoint_url": seaweedfs.server().url, "access_key_id": KEY,
        "secret_access_key": {"env": "BUCKET_SECRET"},
    }  # fmt: skip
    server: dict[str, Any] = {
        "host": "127.0.0.1", "port": inbox.port, "user": inbox.user, "password": {"env": "INBOX_PASSWORD"},
        "public_host_key": inbox.host_key,
    }  # fmt: skip
    world.declare(
        {"name": "exports", "source_type": "s3_csv", "config": bucket, "sensor": True},
        {"name": "inbox", "source_type": "sftp_csv", "config": server, "sensor": True},
    )
    return prefix


@contextmanager
def daemon(world: World) -> Iterator[subprocess.Popen[bytes]]:
    """Dagster's daemon, killed at the end with all that it started."""
    process = services._start(world.home / "dagster")
    try:
        yield process
    finally:
        services.stop(process)


def until(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + LONG
    while not true():
        assert time.monotonic() < deadline, f"{what}: not within {LONG:g} s:\n{services._log().read_text()[-4000:]}"
        time.sleep(0.2)


def look_again(instance: dg.DagsterInstance, name: str) -> None:
    """Have the sensor look once more, as it would a minute later; until that look is over."""

    def state() -> Any:
        [found] = [one for one in instance.all_instigator_state() if one.instigator_name == f"{name}_drops"]
        return found

    def newest() -> float:
        ticks = instance.get_ticks(state().instigator_origin_id, state().selector_id, limit=5)
        return max((tick.timestamp for tick in ticks if tick.status.value != "STARTED"), default=0.0)

    until(lambda: any(one.instigator_name == f"{name}_drops" for one in instance.all_instigator_state()), f"the sensor of {name}")
    before = newest()

    def over() -> bool:
        if newest() > before:
            return True
        long_ago = {"last_tick_timestamp": 1.0, "last_tick_start_timestamp": 1.0, "last_tick_success_timestamp": 1.0}
        instance.update_instigator_state(state().with_data(state().instigator_data._replace(**long_ago)))  # type: ignore[union-attr]
        return False

    until(over, f"a look at {name}")


def names(world: World) -> set[str]:
    return {row["external_id"] for row in world.query("select external_id from identity.records")}


def five_minutes_later(world: World) -> None:
    world.query("update identity.loads set finished_at = finished_at - interval '6 minutes' where status = 'failed'")


def put(name: str, *ids: str) -> None:
    seaweedfs.server().put(name, "".join(f"{line}\n" for line in ("id", *ids)).encode())


@pytest.mark.timeout(900)
def test_files_that_arrive_are_loaded_once_each_whatever_fails_ends_or_grows(world: World, prefix: str, inbox: sftp.Server):
    def loads(status: str) -> int:
        return sum(load["status"] == status for load in world.loads())

    with world.entered() as instance:
        put(f"{prefix}a.csv", "1")
        with daemon(world) as process:
            until(lambda: names(world) == {"1"}, "the first file")
            until(lambda: loads("committed") == 1, "its commit")
            process.kill()
        put(f"{prefix}b.csv", "2", "3")  # nobody is there
        growing, path = threading.Event(), inbox.folder / "growing.csv"
        growing.set()
        path.write_text("id\n")

        def grow() -> None:
            for number in range(100, 1_000):
                with path.open("a") as file:
                    file.write(f"{number}\n")
                if not growing.wait(0) or number == 999:
                    return
                time.sleep(0.3)

        writer = threading.Thread(target=grow, daemon=True)
        writer.start()
        with daemon(world):
            # the daemon that was killed has left its marks: a minute has passed since
            look_again(instance, "exports")
            until(lambda: names(world) == {"1", "2", "3"}, "the file that was put meanwhile")
            look_again(instance, "inbox")
            assert names(world) == {"1", "2", "3"}, "what grows waits"
            growing.clear()
            writer.join()
            look_again(instance, "inbox")
            until(lambda: loads("committed") == 3, "the file that has stopped to grow")
            assert len(names(world)) == 3 + len(path.read_text().split()) - 1

            known = names(world)
            seaweedfs.server().put(f"{prefix}c.csv", b"<!doctype html><title>sign in</title>")
            look_again(instance, "exports")
            until(lambda: loads("failed") == 1, "a load that fails")
            look_again(instance, "exports")
            assert (loads("failed"), loads("running")) == (1, 0), "its files are left alone for five minutes"
            five_minutes_later(world)
            look_again(instance, "exports")
            until(lambda: loads("failed") == 2, "the same files once more")
    assert names(world) == known, "what fails adds nothing"
    committed = [load for load in world.loads() if load["status"] == "committed" and load["source_name"] == "exports"]
    assert [(load["records_read"], load["inserted"], load["unchanged"]) for load in committed] == [(1, 1, 0), (2, 2, 0)]
