"""Secrets stand nowhere: not in Dagster's tables, not in ours, not in a file, whether a load succeeds or fails."""

import shutil
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from identity_pipeline.connectors.postgres_identity import PostgresIdentity
from identity_pipeline.core import settings
from identity_pipeline.core.errors import ContractBroken
from identity_pipeline.demo import hubspot_api
from identity_pipeline.demo.hubspot_contacts import demo_contacts
from identity_pipeline_tests.orchestration.world import PEOPLE, World
from identity_pipeline_tests.servers.files import FileServer

CANARY = "s3cret-canary-7f1"


def everything_stored(world: World) -> dict[str, str]:
    """All text that a pipeline wrote: every row of every table of ours and Dagster's, every file."""
    found = {}
    with psycopg.connect(world.url) as connection:
        tables = connection.execute("select schemaname, tablename from pg_tables where schemaname in ('dagster', 'identity')").fetchall()
        assert {"event_logs", "runs", "snapshots"} <= {table for _, table in tables}
        for schema, table in tables:
            rows = connection.execute(f'select t.* from {schema}."{table}" t'.encode()).fetchall()
            values = [unpacked(value) for row in rows for value in row]
            found[f"{schema}.{table}"] = "\n".join(values)
    for path in world.home.rglob("*"):
        if path.is_file():
            found[str(path)] = path.read_bytes().decode("latin-1")
    return found


def unpacked(value: Any) -> str:
    """The text of a value; Dagster compresses its snapshots."""
    if isinstance(value, bytes | memoryview):
        raw = bytes(value)
        try:
            return zlib.decompress(raw).decode()
        except zlib.error:
            return raw.decode("latin-1")
    return str(value)


def test_a_secret_is_stored_nowhere_whether_a_load_succeeds_or_fails(world: World, monkeypatch: pytest.MonkeyPatch):
    with psycopg.connect(world.customer, autocommit=True) as connection:
        connection.execute(f"create role canary login password '{CANARY}'".encode())
        connection.execute("grant select on people to canary")
    try:
        user = world.customer.replace("://", "://canary:").partition("@")[2]
        world.customer_dsn = f"postgresql://canary:{CANARY}@{user}?sslmode=disable"
        world.people("Ann")
        assert world.load().success
        world.change("alter table people rename to people_gone")
        failed = world.load()
        assert not failed.success
        assert "people" in failed.failure
    finally:
        with psycopg.connect(world.customer, autocommit=True) as connection:
            connection.execute("drop owned by canary; drop role canary")
    stored = everything_stored(world)
    assert "CUSTOMER_DSN" in stored["dagster.snapshots"]
    assert any("people_gone" not in text and "STEP_FAILURE" in text for text in stored.values())
    assert {place for place, text in stored.items() if CANARY in text} == set()


def test_a_text_with_a_secret_in_it_is_redacted_wherever_it_goes(world: World, monkeypatch: pytest.MonkeyPatch):
    """As if a reader quoted it in a failure, a warning, a log line, or an error that nobody foresaw."""
    read = PostgresIdentity.read
    errors: list[type[Exception]] = [ContractBroken, ContractBroken, KeyError]  # a broken contract is read once more
    secret, password = world.customer_dsn, conninfo_to_dict(world.customer_dsn)["password"]

    def talkative(self: PostgresIdentity, window: Any) -> Any:
        window.context.warn(f"warned of {secret}")
        window.context.log(f"logged {secret} and {password}")
        yield from read(self, window)
        if errors:
            raise errors.pop(0)(f"failed with {secret} and {password}")

    monkeypatch.setattr(PostgresIdentity, "read", talkative)
    world.people("Ann")
    assert [world.load().success for _ in range(3)] == [False, False, True]
    stored = everything_stored(world)
    assert {place for place, text in stored.items() if secret in text or str(password) in text} == set()
    assert any("warned of ***" in text for text in stored.values())


@pytest.fixture
def refused(world: World) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    """Sources that each fail by their secret: the environment of the pipeline, and for each source a word of its error."""
    project = world.home / "dagster"
    shutil.copy(settings.PACKAGE.parent / "workspace.yaml", project)
    server = world.customer.rpartition("@")[2]
    with hubspot_api.serve(demo_contacts(1), "another token") as portal, FileServer(None) as files:
        kept = {
            "WRONG_PASSWORD": f"postgresql://identity:{CANARY}@{server}?sslmode=disable",
            "BROKEN_DSN": f"postgresql://identity:{CANARY}@[{server}",
            "REFUSED_TOKEN": CANARY,
            "SIGNED_URL": f"{files.url}/gone.csv?sig={CANARY}&user={CANARY}",
            "BROKEN_URL": f"htp://{CANARY}@127.0.0.1/people.csv?sig={CANARY}",
        }
        world.declare(
            PEOPLE | {"name": "wrong_password", "config": {"connection_string": {"env": "WRONG_PASSWORD"}, "table": "people"}},
            PEOPLE | {"name": "broken_dsn", "config": {"connection_string": {"env": "BROKEN_DSN"}, "table": "people"}},
            {
                "name": "refused_token",
                "source_type": "hubspot_contacts",
                "config": {"access_token": {"env": "REFUSED_TOKEN"}, "base_url": portal.url},
            },
            {"name": "signed_url", "source_type": "csv_url", "config": {"url": {"env": "SIGNED_URL"}}},
            {"name": "broken_url", "source_type": "csv_url", "config": {"url": {"env": "BROKEN_URL"}}},
        )
        words = {"wrong_password": "password", "broken_dsn": "", "refused_token": "401", "signed_url": "404", "broken_url": ""}
        yield world.environment | kept, words


def test_no_error_shows_a_secret_by_the_command_line_or_by_the_daemon(world: World, refused: tuple[dict[str, str], dict[str, str]]):
    environment, words = refused
    program = Path(sys.executable).with_name("identity-pipeline")

    def said(*arguments: str) -> str:
        done = subprocess.run(
            [program, *arguments], env=environment, cwd=world.home, capture_output=True, text=True, check=False, timeout=200
        )
        assert done.returncode in {1, 3}, done.stderr
        return done.stdout + done.stderr

    shown = {f"check {name}": said("sources", "check", name) for name in words}
    shown |= {
        how: said("--log-level", "debug", "ingest", "--all", *options)
        for how, options in {"here": [], "by the daemon": ["--queue"]}.items()
    }
    for name, word in words.items():
        assert word in shown[f"check {name}"]
        assert f"{name}: " in shown["here"]
        assert f"{name}: " in shown["by the daemon"]
    failed = world.query("select count(distinct run_id) as runs from dagster.event_logs where dagster_event_type = 'STEP_FAILURE'")
    assert failed == [{"runs": 2 * len(words)}]
    assert {place for place, text in (shown | everything_stored(world)).items() if CANARY in text} == set()


def test_nothing_is_pickled_and_the_storage_holds_only_logs(world: World):
    world.people("Ann")
    assert world.load().success
    files = [path.relative_to(world.home) for path in world.home.rglob("*") if path.is_file()]
    storage = [path for path in files if path.parts[:2] == ("dagster", "storage")]
    assert storage
    assert {path.suffix for path in storage} <= {".out", ".err", ".complete"}
    handed_on = [path for path in files if ".runs" in path.parts]
    assert handed_on
    assert {path.suffix for path in handed_on} == {".json"}
    assert not [path for path in files if (world.home / path).read_bytes().startswith(b"\x80")]
