"""Names of sources and schedules in the code location: none keeps another from loading."""

from pathlib import Path

import dagster as dg
import pytest

from identity_pipeline.declarations.folder import load
from identity_pipeline.orchestration import assets

ENTRY = "  - name: {}\n    source_type: csv_url\n    config: {{url: 'https://example.com/contacts.csv'}}\n"


def _declare(folder: Path, *names: str, more: str = "") -> None:
    (folder / "all.yaml").write_text("sources:\n" + "".join(ENTRY.format(name) + more for name in names))


@pytest.mark.parametrize("name", ["input", "context", "class", "ingest", "io_manager", "normalise_records", "crm__read", "crm__commit"])
def test_a_name_that_is_taken_is_refused_and_the_others_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.setenv("IDENTITY_SOURCES", str(tmp_path))
    _declare(tmp_path, name, "crm")
    [problem] = load(tmp_path).problems
    assert str(problem).startswith(f"all.yaml:2: {name}: name: ")
    assert "choose another name" in problem.message
    dg.Definitions.validate_loadable(assets.definitions())


@pytest.mark.parametrize("name", ["dead_runs", "read", "commit", "records", "load", "x" * 63])
def test_every_other_name_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.setenv("IDENTITY_SOURCES", str(tmp_path))
    _declare(tmp_path, name, "crm")
    assert load(tmp_path).problems == []
    dg.Definitions.validate_loadable(assets.definitions())


def test_a_second_list_of_sources_in_a_file_is_refused(tmp_path: Path):
    _declare(tmp_path, "first", "second")
    with (tmp_path / "all.yaml").open("a") as file:
        file.write("sources:\n" + ENTRY.format("third"))
    assert [str(problem) for problem in load(tmp_path).problems] == [
        "all.yaml:8: sources: stands twice: put all sources below the first one"
    ]


@pytest.mark.parametrize("given", ["", "null", "3", "'TWO WORDS'", "A=B", "[A]"])
def test_a_variable_that_cannot_be_one_is_refused(tmp_path: Path, given: str):
    (tmp_path / "all.yaml").write_text(f"sources:\n  - name: a\n    source_type: csv_url\n    config: {{url: {{env: {given}}}}}\n")
    [problem] = load(tmp_path).problems
    assert problem.message.startswith("config.url: {env: NAME} takes the name of an environment variable")


def test_a_schedule_keeps_its_name_when_others_come_and_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("IDENTITY_SOURCES", str(tmp_path))

    def names() -> dict[str, str]:
        return {schedule.cron_schedule: schedule.name for schedule in assets.definitions().schedules or ()}  # type: ignore[union-attr, misc]

    _declare(tmp_path, "crm", more="    schedule: '*/30 8-18 * * 1,5'\n    full_refresh_schedule: '0 3 * * 0'\n")
    before = names()
    assert before == {"*/30 8-18 * * 1,5": "load_at_xby30_8to18_x_x_1and5", "0 3 * * 0": "full_refresh_at_0_3_x_x_0"}
    _declare(tmp_path, "crm", "shop", more="    schedule: '*/30 8-18 * * 1,5'\n    full_refresh_schedule: '0 3 * * 0'\n")
    with (tmp_path / "all.yaml").open("a") as file:
        file.write(ENTRY.format("early") + "    schedule: '*/10 * * * *'\n")
    assert names().items() >= before.items()


def test_one_cron_written_in_two_ways_is_one_schedule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("IDENTITY_SOURCES", str(tmp_path))
    _declare(tmp_path, "crm", more="    schedule: '0 3 * * *'\n")
    with (tmp_path / "all.yaml").open("a") as file:
        file.write(ENTRY.format("shop") + "    schedule: ' 0  3 * * * '\n")
    definitions = assets.definitions()
    dg.Definitions.validate_loadable(definitions)
    assert len(definitions.schedules or ()) == 1
