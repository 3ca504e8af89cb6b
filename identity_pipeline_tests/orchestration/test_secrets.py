"""Secrets stand nowhere: not in Dagster's tables, not in ours, not in a file, whether a load succeeds or fails."""

import zlib
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from identity_pipeline.connectors.postgres_identity import PostgresIdentity
from identity_pipeline.core.errors import ContractBroken
from identity_pipeline_tests.orchestration.world import World

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
