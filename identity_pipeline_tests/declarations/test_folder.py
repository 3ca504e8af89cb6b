"""Sources as declared: what is wrong is reported with file, line, field and fix, and secrets show up nowhere."""

import json
import os
import re
import time
from pathlib import Path

import pytest

from identity_pipeline.connectors import connectors
from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.core.settings import PACKAGE
from identity_pipeline.declarations.folder import load
from identity_pipeline.declarations.schema import json_schema
from identity_pipeline.declarations.source import Source

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
    ("line", "instead", "said"),
    [
        ("  - name: second", "  - name: Second", "broken.yaml:7: Second: name: use lower-case letters, digits and _, first a letter"),
        ("  - name: second", "  - title: second", "broken.yaml:7: name: is missing"),
        ("  - name: second", "  - x: 1", "broken.yaml:7: name: is missing"),
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
        ("    cursor_type: timestamp", "    sensor: true\n    cursor_type: int", "broken.yaml:13: second: sensor: only file sources"),
        ("    cursor_type: timestamp", "    default_region: Germany\n    cursor_type: int", "broken.yaml:13: second: default_region: "),
        ("    cursor_type: timestamp", "    default_region: XX\n    cursor_type: int", "broken.yaml:13: second: default_region: XX is no"),
        (
            "    cursor_type: timestamp",
            "    default_region: NO\n    cursor_type: int",
            "broken.yaml:13: second: default_region: YAML reads this as false: write the country in quotes",
        ),
        ("    cursor_type: timestamp", "    cursor_column: id", "broken.yaml:13: second: cursor_column: stands twice in one mapping"),
        ("      table: people", "      table: a\n      table: b", "broken.yaml:12: second: table: stands twice in one mapping"),
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
def test_an_error_names_its_place_and_the_other_source_loads(tmp_path: Path, line: str, instead: str, said: str):
    head, found, tail = FILE.rpartition(f"{line}\n")
    assert found
    (tmp_path / "good.yml").write_text(GOOD)
    [problem] = problems(tmp_path, head + instead + "\n" + tail)
    assert problem.startswith(said), problem
    assert "s3cret" not in problem
    assert list(load(tmp_path).sources) == ["first", "crm"]


@pytest.mark.parametrize(
    ("text", "said"),
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
def test_a_file_that_cannot_be_read_is_reported_and_the_others_load(tmp_path: Path, text: str, said: str):
    (tmp_path / "good.yml").write_text(GOOD)
    found = problems(tmp_path, text)
    assert len(found) == 1
    assert found[0].startswith(said), found[0]
    assert list(load(tmp_path).sources) == ["crm"]


def test_a_file_that_is_not_text_is_reported(tmp_path: Path):
    (tmp_path / "broken.yaml").write_bytes(b"sources: \xff\xfe")
    assert str(load(tmp_path).problems[0]).startswith("broken.yaml:1: cannot be read (UnicodeDecodeError)")


def test_a_name_in_two_files_is_reported_for_both_with_the_others_place_and_neither_loads(tmp_path: Path):
    (tmp_path / "good.yml").write_text(GOOD)
    (tmp_path / "copy.yaml").write_text(FILE + GOOD.partition("\n")[2])
    found = load(tmp_path)
    assert list(found.sources) == ["first", "second"]
    assert sorted(map(str, found.problems)) == [
        "copy.yaml:14: crm: name: stands in good.yml:2 too: rename or remove one of them",
        "good.yml:2: crm: name: stands in copy.yaml:14 too: rename or remove one of them",
    ]


def test_a_merged_key_may_be_written_over(tmp_path: Path):
    base = "x: &base {source_type: postgres_identity, config: {connection_string: {env: D}, table: a}, description: x}\nsources:\n"
    assert problems(tmp_path, base + "  - {name: one, <<: *base, description: y}\n  - {name: two, <<: *base}\n") == []
    assert {source.name: source.description for source in load(tmp_path).sources.values()} == {"one": "y", "two": "x"}


def test_who_asks_for_a_source_that_is_not_there_hears_of_files_that_cannot_be_read_and_of_near_names(tmp_path: Path):
    (tmp_path / "good.yml").write_text(GOOD)
    problems(tmp_path, "sources:\n  - name: [")
    with pytest.raises(
        ConfigurationError, match=r"no source is called 'crn'.*did you mean 'crm'\?; it may be in broken.yaml:3: is not YAML"
    ):
        load(tmp_path).source("crn")


def test_an_empty_file_an_empty_folder_and_none_are_no_problem(tmp_path: Path):
    assert problems(tmp_path, "# nothing yet\n") == []
    assert (load(tmp_path / "nowhere").sources, load(tmp_path / "nowhere").problems) == ({}, [])


def test_asking_for_a_broken_source_reports_its_problem(tmp_path: Path):
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


def test_the_schema_for_editors_knows_each_source_type_and_its_settings():
    schema = json_schema()
    items = schema["properties"]["sources"]["items"]
    assert items["properties"]["source_type"]["enum"] == list(connectors())
    of = {each["if"]["properties"]["source_type"]["const"]: each["then"] for each in items["allOf"]}
    assert set(of) == set(connectors())
    for source_type, cls in connectors().items():
        config = of[source_type]["properties"]["config"]
        assert set(config["properties"]) == {each.name for each in cls.settings()}
        assert set(config["required"]) == {each.name for each in cls.settings() if each.required}
        assert config["additionalProperties"] is False
        for each in cls.settings():
            assert (config["properties"][each.name].get("$ref") == "#/$defs/Reference") is each.secret
    assert all(name in schema["$defs"] for name in re.findall(r'"#/\$defs/(\w+)"', json.dumps(schema)))


def test_a_file_that_is_changed_is_read_again_whatever_its_age(tmp_path: Path):
    path = tmp_path / "a.yaml"
    for name, age in (("one", 60), ("two", 50), ("six", 0), ("ten", 0)):
        path.write_text(f"sources: [{{name: {name}, source_type: csv_url, config: {{url: https://x.example/a.csv}}}}]")
        os.utime(path, (time.time() - age,) * 2)
        assert list(load(tmp_path).sources) == list(load(tmp_path).sources) == [name]
