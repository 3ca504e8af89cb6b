"""`identity-pipeline init`, and how commands find the project's folder."""

import tomllib
from pathlib import Path

import pytest

from identity_pipeline.cli import services
from identity_pipeline.core import settings
from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.declarations.folder import load
from identity_pipeline_tests.cli.workplace import run

CLONE = settings.PACKAGE.parent


@pytest.fixture
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable names a folder."""
    for name in ("IDENTITY_HOME", "IDENTITY_SOURCES", "DAGSTER_HOME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def project(nothing_set: None, tmp_path: Path) -> Path:
    """A new project's folder."""
    folder = tmp_path / "contacts"
    done = run("init", str(folder))
    assert done.exit_code == 0, done.output
    return folder


def test_the_folder_has_dagsters_files_an_example_and_a_gitignore(project: Path):
    for name in settings.PROJECT_FILES:
        assert (project / name).read_bytes() == (CLONE / name).read_bytes()
    assert ".identity/" in (project / ".gitignore").read_text().splitlines()
    assert (load(project / "sources").sources, load(project / "sources").problems) == ({}, [])


def test_the_example_is_right_once_its_comment_signs_are_gone(project: Path):
    example = project / "sources" / "example.yaml"
    lines = example.read_text().splitlines()
    example.write_text("\n".join(line[2:] for line in lines[lines.index("#") + 1 :]))
    assert (list(load(example.parent).sources), load(example.parent).problems) == (["my_contacts"], [])


def test_commands_find_the_folder_from_below(project: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DAGSTER_HOME", "to be restored")
    monkeypatch.delenv("DAGSTER_HOME")
    monkeypatch.chdir(project / "sources")
    assert settings.home() == project / ".identity"
    assert settings.sources_folder() == project / "sources"
    assert services.project() == project
    done = run("sources", "new", "csv_url", "my_contacts")
    assert done.stdout.strip() == str(project / "sources" / "my_contacts.yaml")


def test_elsewhere_it_is_dagsters_home_then_the_clone_then_an_error(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert (settings.project(), settings.sources_folder()) == (CLONE, settings.PACKAGE / "sources")
    monkeypatch.setenv("DAGSTER_HOME", str(project))
    assert settings.project() == project
    monkeypatch.delenv("DAGSTER_HOME")
    monkeypatch.setattr(settings, "PACKAGE", tmp_path / "site-packages" / "identity_pipeline")
    with pytest.raises(ConfigurationError, match="identity-pipeline init FOLDER"):
        settings.project()


def test_a_second_init_overwrites_nothing(project: Path):
    (project / "dagster.yaml").write_text("# mine\n")
    done = run("init", str(project))
    assert (done.exit_code, done.stdout) == (0, "")
    assert (project / "dagster.yaml").read_text() == "# mine\n"


def test_the_wheel_has_what_it_needs_from_the_top_of_the_clone():
    wheel = tomllib.loads((CLONE / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"] == {name: f"identity_pipeline/project/{name}" for name in (*settings.PROJECT_FILES, "docs/sources")}
