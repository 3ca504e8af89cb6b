"""Sources as declared: what is wrong is told with file, line, field and mend, and secrets show up nowhere."""

import logging
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
import yaml
from dagster_shared.serdes import serialize_value
from psycopg.conninfo import conninfo_to_dict

from identity_pipeline.connectors.postgres_identity import PostgresIdentity
from identity_pipeline.core.errors import ConfigurationError, ContractBroken
from identity_pipeline.core.settings import PACKAGE
from identity_pipeline.orchestration import assets
from identity_pipeline.orchestration.boundary import redact
from identity_pipeline.orchestration.sources import Source, json_schema, load
from identity_pipeline_tests.orchestration.world import PEOPLE, World

GOOD = """\
sources:
  - name: crm
    source_type: postgres_identity
    config:
      connection_string: {env: CRM_DSN}
      table: people
"""
FILE = """\
sources:
  - name: first
    source_type: postgres_identity
    config:
      connection_string: {env: CRM_DSN}
      table: people
  - name: second
    source_type: postgres_identity
    config:
      connection_string: {env: CRM_DSN}
      table: people
    cursor_column: updated_at
    cursor_type: timestamp
"""


def problems(folder: Path, text: str) -> list[str]:
    (folder / "broken.yaml").write_text(text, "utf-8")
    return [str(problem) for problem in load(folder).problems]


@pytest.mark.parametrize(
    ("line", "instead", "told"),
    [
        ("  - name: second", "  - name: Second", "broken.yaml:7: Second: name: use lower-case letters, digits and _, first a letter"),
        ("  - name: second", "  - title: second", "broken.yaml:7: name: is missing"),
        ("  - name: second", "  - x: 1", "broken.yaml:7: name: is missing"),
        ("  - name: second", "  - name: first", "broken.yaml:7: first: name: another source has it already: choose another name"),
        (
            "    source_type: postgres_identity",
            "    source_type: postgress",
            "broken.yaml:8: second: source_type 'postgress' is unknown; known are ",
        ),
        ("    cursor_column: updated_at", "    cursor_colum: updated_at", "broken.yaml:12: second: cursor_colum: is not a setting"),
        ("    cursor_type: timestamp", "    cursor_type: date", "broken.yaml:13: second: cursor_type: "),
        ("    cursor_type: timestamp", "    owners: [me]", "broken.yaml:13: second: owners: an owner is team:NAME or an e-mail address"),
        ("    cursor_type: timestamp", "    schedule: hourly", "broken.yaml:13: second: schedule: is not a cron expression such as"),
        ("    cursor_type: timestamp", "    cursor_type:", "broken.yaml:13: second: cursor_type: is missing: int, timestamp or text"),
        (
            "    cursor_type: timestamp",
            "    cursor_type: int\n    mapping: {mail: email}",
            "broken.yaml:14: second: mapping: 'mail' is not a canonical field",
        ),
        ("    cursor_type: timestamp", "    sensor: true\n    cursor_type: int", "broken.yaml:13: second: sensor: only storage sources"),
        ("    cursor_type: timestamp", "    default_region: Germany\n    cursor_type: int", "broken.yaml:13: second: default_region: "),
        ("    cursor_column: updated_at", "    description: x", "broken.yaml:7: second: cursor_column: is missing; cursor_type"),
        (
            "    cursor_type: timestamp",
            "    cursor_type: timestamp\n    cursor_after: yesterday",
            "broken.yaml:14: second: cursor_after: cursor value is not a timestamp: expected ISO 8601",
        ),
        ("      table: people", "      table:\n        - 7", "broken.yaml:11: second: config.table: "),
        (
            "      table: people",
            "      tabel: people",
            "broken.yaml:11: second: config.tabel: is not a setting of postgres_identity; known",
        ),
        ("      table: people", "      columns: [a]", "broken.yaml:9: second: config.table: is missing"),
        (
            "      connection_string: {env: CRM_DSN}",
            "      connection_string: postgresql://u:s3cret@h/d",
            "broken.yaml:10: second: config.connection_string: is a secret and must not stand here: write {env: NAME}",
        ),
        (
            "      connection_string: {env: CRM_DSN}",
            "      connection_string: {env: CRM_DSN, or: s3cret}",
            "broken.yaml:10: second: config.connection_string: is a secret and must not stand here",
        ),
        (
            "      connection_string: {env: CRM_DSN}",
            "      connection_string: [s3cret]",
            "broken.yaml:10: second: config.connection_string: is a secret and must not stand here",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_place_and_the_other_source_loads(tmp_path: Path, line: str, instead: str, told: str):
    head, found, tail = FILE.rpartition(f"{line}\n")
    assert found
    (tmp_path / "good.yml").write_text(GOOD)
    [problem] = problems(tmp_path, head + instead + "\n" + tail)
    assert problem.startswith(told), problem
    assert "s3cret" not in problem
    assert list(load(tmp_path).sources) == ["first", "crm"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("sources:\n  - name: [", "broken.yaml:3: is not YAML: "),
        ("sources:\n\t- name: x", "broken.yaml:2: is not YAML: "),
        ("sources: !!python/object/apply:os.system [id]", "broken.yaml:1: is not YAML: could not determine a constructor"),
        ("- name: x", "broken.yaml:1: sources: is missing: a file holds `sources:` and below it a list"),
        ("sources: crm", "broken.yaml:1: sources: is missing"),
        ("source:\n  - name: x", "broken.yaml:1: sources: is missing"),
        ("just text", "broken.yaml:1: sources: is missing"),
        ("sources:\n  - crm", "broken.yaml:2: a source is a mapping with name, source_type and config"),
        ("sources:\n  - name: crm", "broken.yaml:2: crm: source_type: is missing"),
        ("sources:\n  - {name: x, source_type: csv_url, when: 0000-00-00}", "broken.yaml:1: cannot be read (ValueError)"),
        ("sources: " + "[" * 5_000, "broken.yaml:"),
        ("sources:\n  - {7: 8}", "broken.yaml:2: "),
        ("sources:\n  - {? [a] : b}", "broken.yaml:"),
        ("sources: [*x]", "broken.yaml:1: is not YAML: found undefined alias"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_and_the_others_load(tmp_path: Path, text: str, told: str):
    (tmp_path / "good.yml").write_text(GOOD)
    found = problems(tmp_path, text)
    assert len(found) == 1
    assert found[0].startswith(told), found[0]
    assert list(load(tmp_path).sources) == ["crm"]


def test_a_file_that_is_not_text_is_told(tmp_path: Path):
    (tmp_path / "broken.yaml").write_bytes(b"sources: \xff\xfe")
    assert str(load(tmp_path).problems[0]).startswith("broken.yaml:1: cannot be read (UnicodeDecodeError)")


def test_an_empty_file_an_empty_folder_and_none_are_no_problem(tmp_path: Path):
    assert problems(tmp_path, "# nothing yet\n") == []
    assert (load(tmp_path / "nowhere").sources, load(tmp_path / "nowhere").problems) == ({}, [])


def test_a_problem_is_told_to_who_asks_for_its_source(tmp_path: Path):
    problems(tmp_path, GOOD.replace("table: people", "table: []"))
    with pytest.raises(ConfigurationError, match=r"broken.yaml:6: crm: config.table: "):
        load(tmp_path).source("crm")
    with pytest.raises(ConfigurationError, match="no source is called 'erp'; declared are none"):
        load(tmp_path).source("erp")


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("2026-04-13T00:00:00Z", "2026-04-13T00:00:00Z"),
        ('"2026-04-13T00:00:00Z"', "2026-04-13T00:00:00Z"),
        ("2026-04-13", "2026-04-13"),
        ("2026-04-13 02:00:00 +02:00", "2026-04-13T00:00:00Z"),
    ],
)
def test_a_cursor_value_may_be_written_with_or_without_quotes(tmp_path: Path, written: str, text: str):
    assert problems(tmp_path, f"{FILE}    cursor_after: {written}\n") == []
    assert load(tmp_path).source("second").cursor_after == text


def test_numbers_that_look_like_something_else_stay_what_was_written(tmp_path: Path):
    text = FILE.replace("cursor_type: timestamp", "cursor_type: text") + "    cursor_after: '0010'\n"
    assert problems(tmp_path, text) == []
    assert load(tmp_path).source("second").cursor_after == "0010"


def test_the_projects_own_sources_are_right(monkeypatch: pytest.MonkeyPatch):
    found = load(PACKAGE / "sources")
    assert found.problems == []
    assert found.sources


def test_the_schema_for_editors_knows_every_field_and_no_other():
    items = json_schema()["properties"]["sources"]["items"]
    assert set(items["properties"]) == set(Source.model_fields)
    assert items["required"] == ["name", "source_type"]
    assert items["additionalProperties"] is False
    assert all(body.get("description") or name == "description" for name, body in items["properties"].items())


# -- The code location --------------------------------------------------------------------------


def test_a_broken_source_is_logged_and_the_location_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("IDENTITY_SOURCES", str(tmp_path))
    problems(tmp_path, FILE.replace("cursor_type: timestamp", "cursor_type: date"))
    with caplog.at_level(logging.ERROR, "identity_pipeline.sources"):
        definitions = assets.definitions()
    assert [record.getMessage().partition(": ")[2].partition(": ")[0] for record in caplog.records] == ["broken.yaml:13"]
    assert {key.to_user_string() for key in definitions.resolve_asset_graph().get_all_asset_keys()} == {"first"}


def test_an_asset_says_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("IDENTITY_SOURCES", str(tmp_path))
    assert (
        problems(tmp_path, f"{FILE}    owners: ['team:crm']\n    schedule: '*/30 * * * *'\n    full_refresh_schedule: '0 3 * * 0'\n") == []
    )
    definitions = assets.definitions()
    node = definitions.resolve_asset_graph().get(dg.AssetKey("second"))
    assert (node.group_name, node.kinds, node.owners) == ("sql", {"postgres"}, ["team:crm"])
    assert node.tags["identity/source_type"] == "postgres_identity"
    assert node.description
    schedules = {s.name: s for s in definitions.schedules or ()}
    assert sorted(s.cron_schedule for s in schedules.values()) == ["*/30 * * * *", "0 3 * * 0"]


def test_schedules_ask_for_one_run_of_each_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("IDENTITY_SOURCES", str(tmp_path))
    hourly = "    schedule: '0 * * * *'\n    full_refresh_schedule: '0 3 * * 0'\n"
    head, _, tail = FILE.partition("  - name: second")
    assert problems(tmp_path, f"{head}{hourly}  - name: second{tail}{hourly}") == []
    definitions = assets.definitions()
    requests = {}
    for schedule in definitions.schedules or ():
        assert isinstance(schedule, dg.ScheduleDefinition)
        with dg.build_schedule_context(scheduled_execution_time=datetime(2026, 1, 4, 3, tzinfo=UTC)) as context:
            requests[schedule.cron_schedule] = schedule.evaluate_tick(context).run_requests
    assert [r.asset_selection for r in requests["0 * * * *"]] == [[dg.AssetKey("first")], [dg.AssetKey("second")]]
    assert [r.run_config for r in requests["0 3 * * 0"]] == [
        assets.run_config("first", full_refresh=True), assets.run_config("second", full_refresh=True),
    ]  # fmt: skip
    assert [len({r.run_key for r in found}) for found in requests.values()] == [2, 2]


def test_five_hundred_sources_make_a_small_location(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It would grow with the square of their number if each source had a job, or a schedule with one."""
    monkeypatch.setenv("IDENTITY_SOURCES", str(tmp_path))
    sizes = {}
    for number in (50, 500):
        declared = [PEOPLE | {"name": f"source_{n}", "schedule": f"{n % 7} * * * *"} for n in range(number)]
        (tmp_path / "all.yaml").write_text(yaml.safe_dump({"sources": declared}))
        definitions = assets.definitions()
        repository = definitions.get_repository_def()
        assert len(list(definitions.resolve_asset_graph().get_all_asset_keys())) == number
        assert len(repository.get_all_jobs()) == 9
        sizes[number] = len(serialize_value(repository.get_job(assets.JOB).get_job_snapshot()))
    assert sizes[500] < 5_000_000
    assert sizes[500] < 11 * sizes[50]


# -- Secrets ------------------------------------------------------------------------------------

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
    errors: list[type[Exception]] = [ContractBroken, KeyError]
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


@pytest.mark.parametrize(
    "secret",
    [
        "postgresql://user:p%40ss-word@host/db",
        "host=h password=p@ss-word user=u",
        "host=h user=u password = 'p@ss-word'",
        "Server=h;PASSWORD=p@ss-word;Uid=u",
        "p@ss-word",
    ],
)
def test_the_password_inside_a_connection_string_is_redacted_too(secret: str):
    shown = redact(f"cannot reach {secret} with p@ss-word or p%40ss-word\x1b[2J", (secret,))
    assert "p@ss-word" not in shown
    assert "\x1b" not in shown
