"""The code location: what declared sources become in Dagster."""

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster_shared.serdes import serialize_value

from identity_pipeline.orchestration import assets
from identity_pipeline_tests.declarations.test_folder import FILE, problems
from identity_pipeline_tests.orchestration.world import PEOPLE, World


def test_a_broken_source_is_logged_and_the_location_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("IDENTITY_SOURCES", str(tmp_path))
    problems(tmp_path, FILE.replace("cursor_type: timestamp", "cursor_type: date"))
    with caplog.at_level(logging.ERROR, "identity_pipeline.sources"):
        definitions = assets.definitions()
    assert [record.getMessage().partition(": ")[2].partition(": ")[0] for record in caplog.records] == ["broken.yaml:13"]
    assert {key.to_user_string() for key in definitions.resolve_asset_graph().get_all_asset_keys()} == {"first", "identity/records"}


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


def test_an_asset_shows_where_it_is_read_from_and_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("IDENTITY_SOURCES", str(tmp_path))
    file = {"name": "file", "source_type": "csv_url", "config": {"url": "https://example.com/contacts.csv?page=canary"}}
    (tmp_path / "all.yaml").write_text(yaml.safe_dump({"sources": [PEOPLE, file]}))
    graph = assets.definitions().resolve_asset_graph()
    shown = {
        name: [(k, v.value) for k, v in graph.get(dg.AssetKey(name)).metadata.items() if k.startswith("config/")]
        for name in ("people", "file")
    }
    assert shown["people"] == [("config/connection_string", "{env: CUSTOMER_DSN}"), ("config/table", "people")]
    assert shown["file"] == [("config/url", "https://example.com/contacts.csv")]


@pytest.mark.parametrize(
    ("cron", "words"),
    [
        ("*/30 * * * *", "Every 30 minutes"),
        ("0 3 * * 0", "At 03:00, only on Sunday"),
        ("*/30 8-18 * * 1,5", "Every 30 minutes, between 08:00 and 18:59, only on Monday and Friday"),
        ("@daily", "@daily"),
    ],
)
def test_a_schedule_says_in_words_when_it_loads_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cron: str, words: str):
    monkeypatch.setenv("IDENTITY_SOURCES", str(tmp_path))
    (tmp_path / "all.yaml").write_text(yaml.safe_dump({"sources": [PEOPLE | {"schedule": cron}]}))
    [schedule] = assets.definitions().schedules or ()
    assert schedule.description == f"{words}: load of people"  # type: ignore[union-attr]


def test_the_mark_and_the_balance_come_first_in_what_a_load_shows(world: World):
    world.people("Ann", "Bob")
    shown = world.load().metadata
    assert list(shown)[:2] == ["balance", "cursor_after"]
    assert shown["balance"] == "2 read = 2 inserted"
    assert world.load().metadata["balance"] == "2 read = 2 unchanged"


def test_a_field_that_went_is_accepted_by_a_person_and_by_no_schedule(world: World):
    world.people("Ann")
    assert world.load().metadata["inserted"] == 1
    world.change("alter table people rename column name to called")
    nightly = world.load(full_refresh=True, tags={"dagster/schedule_name": "full_refresh"})
    assert "the mapped field 'name' is not in the source any more" in str(nightly.failure)
    assert world.load(full_refresh=True).success


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
        assert len(list(definitions.resolve_asset_graph().get_all_asset_keys())) == number + 1  # and the table
        assert len(repository.get_all_jobs()) == 9
        sizes[number] = len(serialize_value(repository.get_job(assets.JOB).get_job_snapshot()))
    assert sizes[500] < 5_000_000
    assert sizes[500] < 11 * sizes[50]


def test_a_source_goes_stale_without_a_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As Dagster's daemon sees it: a source that stopped runs no check any more."""
    monkeypatch.setenv("IDENTITY_SOURCES", str(tmp_path))
    assert problems(tmp_path, f"{FILE}    schedule: '0 3 * * *'\n") == []
    graph = assets.definitions().resolve_asset_graph()
    policies = {name: graph.get(dg.AssetKey(name)).freshness_policy for name in ("first", "second")}
    assert policies == {"first": None, "second": dg.FreshnessPolicy.time_window(fail_window=timedelta(days=2))}


def test_the_identity_table_stands_downstream_of_every_source_and_outside_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("IDENTITY_SOURCES", str(tmp_path))
    assert problems(tmp_path, FILE) == []
    definitions = assets.definitions()
    node = definitions.resolve_asset_graph().get(assets.RECORDS)
    assert node.parent_keys == {dg.AssetKey("first"), dg.AssetKey("second")}
    assert not node.is_materializable
    assert assets.RECORDS not in definitions.resolve_job_def(assets.JOB).asset_layer.executable_asset_keys
