"""The entry point: start-up, exit statuses, and what of an error is shown."""

import inspect
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import psycopg
import pytest
from sqlalchemy.exc import OperationalError

from identity_pipeline import __version__
from identity_pipeline.cli import command
from identity_pipeline.core import errors
from identity_pipeline.core.errors import ConfigurationError, PipelineError, RateLimited, TargetUnavailable
from identity_pipeline.store import listing
from identity_pipeline.store.database import connect
from identity_pipeline_tests.cli.workplace import declare, run, table

_HEAVY = "print([m for m in ('dagster', 'pandas', 'polars', 'pyarrow') if m in sys.modules])"


@pytest.mark.parametrize("arguments", [["--help"], ["loads", "--json"], ["quarantine", "list"], ["credentials", "list"], ["db", "url"]])
def test_a_look_costs_neither_dagster_nor_pandas(arguments: list[str], identity_env: Path):
    script = f"import sys; sys.argv = ['identity-pipeline', *{arguments}]\nfrom identity_pipeline.cli import main\n"
    script += f"try: main()\nexcept SystemExit as end: assert not end.code\n{_HEAVY}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stderr


def test_the_version_is_printed():
    assert __version__ in run("--version").stdout


def test_the_help_names_every_command_without_importing_it():
    shown = run("--help").stdout
    assert all(f"  {name} " in shown for name in ("ingest", "sources", "credentials", "loads", "quarantine", "db", "doctor"))


def _raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(listing, "loads", fails)


@pytest.mark.parametrize(
    ("error", "status"), [(ConfigurationError("x"), 1), (RateLimited("x"), 3), (PipelineError("x"), 1), (KeyboardInterrupt(), 130)]
)
def test_the_exit_status_says_who_acts_next(identity_env: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int):
    _raising(monkeypatch, error)
    assert run("loads").exit_code == status


def test_wrong_usage_is_2():
    assert run("loads", "--no-such-option").exit_code == 2
    assert run("no-such-command").exit_code == 2


def test_a_command_that_is_nearly_right_is_suggested():
    done = run("ingset")
    assert (done.exit_code, "did you mean 'ingest'" in done.stderr) == (2, True)
    assert "did you mean 'list'?" in run("quarantine", "lsit").stderr


def test_a_message_is_one_paragraph_on_standard_error_without_control_characters(identity_env: Path, monkeypatch: pytest.MonkeyPatch):
    _raising(monkeypatch, ConfigurationError("crm:\n  first \x1b[31mred\x07"))
    done = run("loads")
    assert (done.stdout, done.stderr) == ("", "crm: first \\x1b[31mred\\x07\n")


def test_an_unexpected_error_shows_its_type_and_place_but_not_its_text(identity_env: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("IDENTITY_DEBUG", raising=False)
    _raising(monkeypatch, ValueError("canary@example.org"))
    done = run("loads")
    assert done.exit_code == 1
    assert "ValueError" in done.stderr
    assert "test_main.py" in done.stderr
    assert "canary" not in done.output


def test_debug_shows_all_of_an_unexpected_error(identity_env: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("IDENTITY_DEBUG", "1")
    _raising(monkeypatch, ValueError("canary"))
    with pytest.raises(ValueError, match="canary"):
        command(["loads"], standalone_mode=False)


def test_without_a_database_the_message_says_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("IDENTITY_DATABASE_URL", raising=False)
    monkeypatch.setenv("IDENTITY_HOME", str(tmp_path))
    done = run("loads")
    assert done.exit_code == 1
    assert "identity-pipeline db start" in done.stderr


def test_every_command_has_help():
    """A command whose module does not import, or that nobody described, is found here."""

    def below(group: click.Group, context: click.Context) -> None:
        for name in group.list_commands(context):
            found = group.get_command(context, name)
            assert found is not None
            assert found.help, name
            if isinstance(found, click.Group):
                below(found, click.Context(found))

    assert isinstance(command, click.Group)
    below(command, click.Context(command))


def test_a_database_that_does_not_answer_is_named_without_its_password(identity_env: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("IDENTITY_DATABASE_URL", "postgresql://identity:canary@127.0.0.1:1/contacts?password=canary")
    done = run("loads")
    assert done.exit_code == 3
    assert "IDENTITY_DATABASE_URL leads to 127.0.0.1:1/contacts: check" in done.stderr
    assert "canary" not in done.output


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:canary@localhost:port/db",
        "postgresql://u:can/ary@localhost/db",
        "postgresql://u:12?canary=x@localhost/db",
        "mysql://u:canary@h/db",
    ],
)
def test_a_database_url_that_cannot_be_read_is_for_the_operator(identity_env: Path, monkeypatch: pytest.MonkeyPatch, url: str):
    monkeypatch.setenv("IDENTITY_DATABASE_URL", url)
    done = run("loads")
    assert done.exit_code == 1
    assert "expected postgresql://user:password@host:port/database" in done.stderr
    assert "can" not in done.stderr.replace("cannot", "")


@pytest.mark.parametrize(
    ("parameter", "said"),
    [
        ("sslmode=bogus", "sslmode is disable, allow, prefer, require, verify-ca or verify-full"),
        ("foo=bar", "'foo' is no parameter of a PostgreSQL address"),
        ("sslmod=require", "did you mean 'sslmode'"),
        ("connect_timeout=soon", "connect_timeout is a whole number"),
    ],
)
def test_a_parameter_of_the_database_url_that_cannot_be_is_for_the_operator(
    identity_env: Path, monkeypatch: pytest.MonkeyPatch, parameter: str, said: str
):
    monkeypatch.setenv("IDENTITY_DATABASE_URL", f"postgresql://u:canary@127.0.0.1:1/db?{parameter}")
    done = run("loads")
    assert (done.exit_code, said in done.stderr, "canary" in done.output) == (1, True, False)


def test_every_error_code_stands_in_the_catalogue_with_its_exit_status():
    text = (Path(__file__).parents[2] / "docs/errors.md").read_text()
    listed = {code: int(status) for code, status in re.findall(r"^\| `(\w+)` \| (\d+) \|", text, re.MULTILINE)}
    known = {cls.code: cls.exit_status for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, PipelineError)}
    assert listed == known | {"unexpected": 1, "interrupted": 130}


@pytest.mark.parametrize("group", ["ingest", "sources", "credentials", "quarantine"])
def test_help_has_examples_each_on_its_line(group: str):
    assert re.search(rf"Examples:\n    identity-pipeline {group} ", run(group, "--help").stdout)


def test_the_log_level_is_that_of_our_own_log_only(monkeypatch: pytest.MonkeyPatch):
    ours = logging.getLogger("identity_pipeline")
    monkeypatch.setattr(ours, "level", ours.level)
    before = logging.getLogger("urllib3").getEffectiveLevel()
    assert run("--log-level", "debug", "sources", "types").exit_code == 0
    assert (ours.level, logging.getLogger("urllib3").getEffectiveLevel()) == (logging.DEBUG, before)
    ours.setLevel(logging.NOTSET)


def test_a_database_that_goes_away_under_dagster_is_exit_status_3_with_what_starts_it(
    tmp_path: Path, identity_env: Path, monkeypatch: pytest.MonkeyPatch
):
    _raising(monkeypatch, OperationalError("select canary", {}, Exception("canary")))
    done = run("loads")
    assert (done.exit_code, "nothing is lost" in done.stderr, "IDENTITY_DATABASE_URL leads to" in done.stderr) == (3, True, True)
    assert "canary" not in done.output


def test_a_connection_that_is_lost_in_a_transaction_shows_no_warning_of_the_driver(
    identity_env: Path, database_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def fails(url: str, *_: object, **__: object) -> None:
        with connect(url, doing="list loads") as connection, psycopg.connect(database_url) as other:
            connection.execute("select 1")
            other.execute("select pg_terminate_backend(%s, 5000)", (connection.info.backend_pid,))
            raise TargetUnavailable("gone")

    monkeypatch.setattr(logging.getLogger("psycopg"), "level", logging.NOTSET)
    monkeypatch.setattr(listing, "loads", fails)
    assert run("loads").exit_code == 3
    assert caplog.messages == []


def test_the_shell_completes_names_of_sources_without_the_connectors(sources: Path):
    declare(sources, table("crm_eu"), table("crm_us"), table("shop"))
    (sources / "broken.yaml").write_text("sources: [{name: crm_new}, {")
    script = f"import sys\nfrom identity_pipeline.cli import main\ntry: main()\nexcept SystemExit: {_HEAVY}"

    def completed(*words: str) -> list[str]:
        asked = {"_IDENTITY_PIPELINE_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
        done = subprocess.run([sys.executable, "-c", script], env=os.environ | asked, capture_output=True, text=True, check=True)
        *found, heavy = done.stdout.splitlines()
        assert heavy == "[]"
        return [line.partition(",")[2] for line in found]

    assert completed("identity-pipeline", "ingest", "crm") == ["crm_eu", "crm_us"]
    assert completed("identity-pipeline", "loads", "s") == ["shop"]
    assert completed("identity-pipeline", "quar") == ["quarantine"]
