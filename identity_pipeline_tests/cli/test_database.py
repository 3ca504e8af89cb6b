"""`identity-pipeline db`: the parts that need no server of their own."""

from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from identity_pipeline.embedded import server as embedded
from identity_pipeline_tests.cli.workplace import rows, run


def test_the_url_is_printed_plain(identity_env: Path, database_url: str):
    assert run("db", "url").stdout == f"{database_url}\n"


def test_programs_of_postgres_are_run_against_it(identity_env: Path, database_url: str, capfd: pytest.CaptureFixture[str]):
    assert run("db", "run", "psql", "-At", "-c", "select current_database()").exit_code == 0
    assert capfd.readouterr().out.strip() == conninfo_to_dict(database_url)["dbname"]
    assert run("db", "run", "psql", "-c", "select nonsense").exit_code == 1
    assert "no program of PostgreSQL is called 'psqll'" in run("db", "run", "psqll").stderr


def test_a_database_that_is_migrated_has_status_0(identity_env: Path):
    assert run("db", "status").exit_code == 0
    (line,) = rows("db", "status")
    assert line["reachable"]
    assert line["schema"] == line["needed"]


def test_a_database_without_schema_is_reported_and_migrated(identity_env: Path, database_url: str):
    with psycopg.connect(database_url) as connection:
        connection.execute("drop schema identity cascade")
    before = run("db", "status")
    assert (before.exit_code, "db migrate" in before.stderr) == (1, True)
    assert run("loads").exit_code == 1
    assert run("db", "migrate").exit_code == 0
    assert run("db", "migrate").exit_code == 0
    assert run("db", "status").exit_code == 0


def test_a_database_that_does_not_answer_is_try_again_later(identity_env: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("IDENTITY_DATABASE_URL", "postgresql://identity:canary-password@127.0.0.1:1/identity")
    done = run("db", "status")
    assert done.exit_code == 3
    assert "canary-password" not in done.output


def test_start_migrates_and_shows_no_password(identity_env: Path, database_url: str, monkeypatch: pytest.MonkeyPatch):
    with psycopg.connect(database_url) as connection:
        connection.execute("drop schema identity cascade")
    monkeypatch.setattr(embedded, "start", lambda **_: database_url)
    done = run("db", "start")
    assert done.exit_code == 0
    assert conninfo_to_dict(database_url)["password"] not in done.output
    assert run("db", "status").exit_code == 0


def test_stop_without_a_server_does_nothing(identity_env: Path):
    assert run("db", "stop").exit_code == 0
