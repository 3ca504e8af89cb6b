"""`identity-pipeline doctor`: what is wrong is found, and nothing else."""

import re
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import psycopg
import pytest

from identity_pipeline.connectors.hubspot_contacts import HubSpotContacts
from identity_pipeline.core.settings import PACKAGE
from identity_pipeline.credentials import keyring, vault
from identity_pipeline.store import ledger
from identity_pipeline_tests.cli.workplace import declare, load, rows, run, table

CHECKS = (
    "python", "database", "dagster_home", "dagster_storage", "daemon", "landing", "sources", "api_versions", "environment",
    "encryption_key", "credentials", "code_location", "marks", "dead_loads", "dead_runs",
)  # fmt: skip


@pytest.fixture
def home(sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Dagster's home with the project's dagster.yaml, and one source that is in order."""
    folder = tmp_path / "dagster_home"
    folder.mkdir()
    (folder / "dagster.yaml").write_bytes((Path(__file__).parents[2] / "dagster.yaml").read_bytes())
    monkeypatch.setenv("DAGSTER_HOME", str(folder))
    monkeypatch.setenv("CRM_DSN", "postgresql://nobody@localhost/none")
    declare(sources, table())
    return folder


def _found(check: str) -> list[tuple[str, str]]:
    return [(row["outcome"], row["message"]) for row in rows("doctor") if row["check"] == check]


def _failed(check: str) -> str:
    """The messages of that check's failures; no other check fails."""
    found = rows("doctor")
    assert {row["check"] for row in found if row["outcome"] == "failed"} == {check}
    return " ".join(row["message"] for row in found if row["outcome"] == "failed")


def test_in_order_every_check_is_named_and_the_exit_status_is_0(home: Path):
    done = run("doctor")
    assert done.exit_code == 0, done.output
    assert list(dict.fromkeys(line.split()[0] for line in done.stdout.splitlines()[1:])) == list(CHECKS)


def test_a_daemon_that_is_silent_fails_only_where_a_source_waits_for_it(home: Path, sources: Path):
    assert [outcome for outcome, _ in _found("daemon")] == ["warning"]
    declare(sources, table(schedule="0 * * * *"))
    assert "no sign of life" in _failed("daemon")


@pytest.mark.parametrize(
    ("days", "outcome", "words"),
    [
        (91, "ok", "none|no source"),
        (90, "warning", "ends"),
        (1, "warning", "ends"),
        (0, "warning", "ended"),
        (-400, "warning", "ended"),
    ],
)
def test_an_api_version_is_a_warning_from_90_days_before_its_end(
    home: Path, sources: Path, days: int, outcome: str, words: str, monkeypatch: pytest.MonkeyPatch
):
    end = datetime.now(UTC).date() + timedelta(days=days)
    monkeypatch.setattr(HubSpotContacts, "api_versions", {"2026-03": str(end)})
    declare(sources, {"name": "portal", "source_type": "hubspot_contacts", "config": {"access_token": {"env": "CRM_DSN"}}})
    [(found, message)] = _found("api_versions")
    assert found == outcome
    assert re.search(words, message)
    assert outcome == "ok" or message == f"portal: hubspot {words} version 2026-03 of its API on {end}: set api_version to a later one"
    assert run("doctor").exit_code == 0


def test_a_database_that_does_not_answer_fails_once(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("IDENTITY_DATABASE_URL", "postgresql://identity:canary-password@127.0.0.1:1/identity")
    done = run("doctor")
    assert done.exit_code == 3
    assert "canary-password" not in done.output
    assert "IDENTITY_DATABASE_URL leads to 127.0.0.1:1/identity" in _failed("database")
    assert [outcome for outcome, _ in _found("dagster_storage")] == ["skipped"]


def test_a_schema_that_is_old_fails(home: Path, database_url: str):
    with psycopg.connect(database_url) as connection:
        connection.execute("update identity.alembic_version set version_num = '0000'")
    assert "db migrate" in _failed("database")


def test_a_broken_declaration_a_missing_variable_and_a_missing_credential_are_each_named(
    home: Path, sources: Path, monkeypatch: pytest.MonkeyPatch
):
    stored = table("shop") | {"config": {"connection_string": {"credential": "shop_dsn"}, "table": "shop"}}
    declare(sources, table(), stored, {"name": "broken", "source_type": "no_such_type"})
    monkeypatch.delenv("CRM_DSN")
    failed = {row["check"]: row["message"] for row in rows("doctor") if row["outcome"] == "failed"}
    assert set(failed) == {"sources", "environment", "credentials"}
    assert "all.yaml:" in failed["sources"]
    assert "CRM_DSN" in failed["environment"]
    assert "credentials set shop_dsn" in failed["credentials"]


def test_a_credential_whose_key_is_gone_fails(home: Path, identity_env: Path, database_url: str):
    vault.store(database_url, "hub", "token", "canary-secret")
    keyring.key_file().unlink()
    assert "'hub'" in _failed("credentials")


def test_a_wrong_key_a_landing_in_the_way_and_an_unknown_executor_are_each_named(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("IDENTITY_LANDING_URL", str(tmp_path / "file"))
    monkeypatch.setenv("IDENTITY_EXECUTOR", "abacus")
    monkeypatch.setenv(keyring.VARIABLE, "canary-key")
    found = rows("doctor")
    failed = {row["check"]: row["message"] for row in found if row["outcome"] == "failed"}
    assert set(failed) == {"landing", "code_location", "encryption_key", "credentials"}
    assert "IDENTITY_LANDING_URL" in failed["landing"]
    assert "abacus" in failed["code_location"]
    assert "canary-key" not in str(found)


def test_a_dagster_home_without_its_file_fails(home: Path):
    (home / "dagster.yaml").unlink()
    assert "dagster.yaml" in _failed("dagster_home")


def test_a_load_without_a_sign_of_life_is_a_warning(home: Path, database_url: str):
    load = ledger.open_load(database_url, "crm", "postgres_identity", f"run-{uuid.uuid4()}")
    assert _found("dead_loads") == [("ok", "none")]
    with psycopg.connect(database_url) as connection:
        connection.execute("update identity.loads set started_at = now() - interval '5 min'")
        connection.execute("update identity.leases set heartbeat_at = now() - interval '5 min'")
    ((outcome, message),) = _found("dead_loads")
    assert (outcome, f"load {load.load_id}" in message) == ("warning", True)


def test_runs_that_wait_without_a_daemon_fail(home: Path, monkeypatch: pytest.MonkeyPatch):
    def queued(_self: dg.DagsterInstance, filters: dg.RunsFilter) -> int:
        return 2 * (filters.statuses == [dg.DagsterRunStatus.QUEUED])

    monkeypatch.setattr(dg.DagsterInstance, "get_runs_count", queued)
    assert "2 runs wait in the queue" in _failed("daemon")


def test_the_demos_own_variables_are_no_failure(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("IDENTITY_SOURCES", str(PACKAGE / "sources"))
    assert {outcome for outcome, _ in _found("environment")} == {"warning"}
    assert run("doctor").exit_code == 0


def test_a_mark_in_the_future_is_named(home: Path, sources: Path, database_url: str):
    crm = table(cursor_column="updated_at", cursor_type="timestamp")
    declare(sources, crm)
    load(database_url, crm, {"id": 1, "updated_at": "2999-01-01T00:00:00Z"}, mark="2999-01-01T00:00:00Z")
    assert "crm: its mark 2999-01-01" in _failed("marks")
