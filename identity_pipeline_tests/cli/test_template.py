"""`identity-pipeline sources new`: for every source type a file that loads as it is."""

import re
from pathlib import Path

import pytest
import yaml

from identity_pipeline import connectors
from identity_pipeline.cli.template import FILL_IN
from identity_pipeline.declarations.folder import load
from identity_pipeline_tests.cli.workplace import run


@pytest.mark.parametrize("source_type", connectors.modules())
def test_the_file_loads_without_problems(sources: Path, source_type: str):
    done = run("sources", "new", source_type, "crm_eu")
    assert done.exit_code == 0, done.output
    declared = load(sources)
    assert declared.problems == []
    assert declared.source("crm_eu").source_type == source_type


@pytest.mark.parametrize("source_type", connectors.modules())
def test_the_file_has_every_setting_and_no_secret_but_as_a_name(sources: Path, source_type: str):
    run("sources", "new", source_type, "crm_eu")
    text = (sources / "crm_eu.yaml").read_text()
    config = yaml.safe_load(text)["sources"][0].get("config") or {}
    for setting in connectors.connector(source_type).settings():
        assert re.search(rf"^ +(# )?{setting.name}: ", text, re.MULTILINE), setting.name
        if setting.secret and setting.name in config:
            assert config[setting.name] == {"env": f"CRM_EU_{setting.name.upper()}"}


@pytest.mark.parametrize("source_type", connectors.modules())
def test_the_lines_that_are_commented_out_are_yaml_too(sources: Path, source_type: str):
    run("sources", "new", source_type, "crm_eu")
    text = (sources / "crm_eu.yaml").read_text()
    for line in re.findall(r"^ +# ([a-z_]+: .*)$", text, re.MULTILINE):
        assert isinstance(yaml.safe_load(line), dict), line


def test_a_sensor_is_offered_where_a_store_lists_its_files(sources: Path):
    for source_type, offered in (("s3_csv", True), ("csv_url", False), ("hubspot_contacts", False)):
        run("sources", "new", source_type, f"my_{source_type}")
        assert ("# sensor: true" in (sources / f"my_{source_type}.yaml").read_text()) == offered, source_type


def test_it_says_what_to_do_next(sources: Path):
    done = run("sources", "new", "postgres_identity", "crm_eu")
    assert done.stdout.strip() == str(sources / "crm_eu.yaml")
    assert all(word in done.stderr for word in ("CRM_EU_CONNECTION_STRING", FILL_IN, "sources check crm_eu"))


def test_a_file_that_is_there_is_not_overwritten(sources: Path):
    (sources / "crm_eu.yaml").write_text("# mine\n")
    assert run("sources", "new", "postgres_identity", "crm_eu").exit_code == 1
    assert (sources / "crm_eu.yaml").read_text() == "# mine\n"


def test_a_name_that_is_declared_already_is_refused(sources: Path, tmp_path: Path):
    assert run("sources", "new", "postgres_identity", "crm_eu").exit_code == 0
    other = tmp_path / "other.yaml"
    assert run("sources", "new", "postgres_identity", "crm_eu", "--file", str(other)).exit_code == 1
    assert not other.exists()


def test_another_file_may_be_named(sources: Path, tmp_path: Path):
    other = tmp_path / "new" / "other.yaml"
    assert run("sources", "new", "postgres_identity", "crm_eu", "--file", str(other)).exit_code == 0
    assert load(other.parent).problems == []


@pytest.mark.parametrize(("source_type", "name"), [("no_such_type", "crm"), ("postgres_identity", "Crm"), ("postgres_identity", "../crm")])
def test_wrong_names_are_wrong_usage(sources: Path, source_type: str, name: str):
    assert run("sources", "new", source_type, name).exit_code == 2
    assert list(sources.iterdir()) == []


def test_arguments_in_the_wrong_order_are_recognised(sources: Path):
    done = run("sources", "new", "my_contacts", "csv_url")
    assert (done.exit_code, "identity-pipeline sources new csv_url my_contacts" in done.stderr) == (2, True)
