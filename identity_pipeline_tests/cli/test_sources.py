"""`identity-pipeline sources`: list, types, check, preview, schema."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest

from identity_pipeline import connectors
from identity_pipeline.connectors.hubspot_contacts import HubSpotContacts
from identity_pipeline.credentials import vault
from identity_pipeline.demo.hubspot_api import HubSpotAPI
from identity_pipeline.store import lease, ledger, listing
from identity_pipeline_tests.cli.conftest import TOKEN
from identity_pipeline_tests.cli.workplace import declare, load, rows, run, table


def _contents(url: str) -> list[tuple]:
    """How many rows every table of the identity schema has."""
    with psycopg.connect(url) as connection:
        names = connection.execute("select tablename from pg_tables where schemaname = 'identity' order by 1").fetchall()
        return [(name, connection.execute(f"select count(*) from identity.{name}".encode()).fetchone()) for (name,) in names]


def test_a_source_is_listed_with_its_last_load_and_its_mark(sources: Path, database_url: str):
    crm = table(cursor_column="updated_at", cursor_type="timestamp", schedule="*/30 * * * *")
    declare(sources, crm, table("shop"))
    at = "2026-04-01T00:00:00Z"
    load(database_url, crm, {"id": 1, "updated_at": at}, {"id": 2, "updated_at": at}, mark=at)
    loaded, fresh = rows("sources", "list")
    assert (loaded["source_name"], loaded["source_type"], loaded["declared"]) == ("crm", "postgres_identity", "ok")
    assert (loaded["last_status"], loaded["inserted"], loaded["updated"], loaded["cursor_after"]) == ("committed", 2, 0, at)
    assert loaded["schedule"] == "*/30 * * * *"
    assert loaded["last_load"]
    assert (fresh["source_name"], fresh["last_load"], fresh["cursor_after"]) == ("shop", None, None)


def test_a_broken_declaration_is_listed_as_broken_beside_the_others(sources: Path):
    declare(sources, table(), {"name": "broken", "source_type": "no_such_type"})
    listed = {row["source_name"]: row for row in rows("sources", "list")}
    assert listed["crm"]["declared"] == "ok"
    assert listed["broken"]["declared"] == "broken"
    assert listed["broken"]["error"].startswith("all.yaml:")
    assert "no_such_type" in listed["broken"]["error"]
    assert "all.yaml:" in run("sources", "list").stdout


def test_a_file_that_is_not_yaml_is_listed_as_broken(sources: Path):
    (sources / "a.yaml").write_text("sources: [")
    assert [(row["source_name"], row["declared"]) for row in rows("sources", "list")] == [(None, "broken")]


def test_sources_are_listed_without_a_database_too(sources: Path, monkeypatch: pytest.MonkeyPatch):
    declare(sources, table())
    monkeypatch.delenv("IDENTITY_DATABASE_URL")
    done = run("sources", "list", "--json")
    assert done.exit_code == 0
    assert [row["source_name"] for row in json.loads(done.stdout)] == ["crm"]
    assert "without last loads" in done.stderr
    monkeypatch.setenv("IDENTITY_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    done = run("sources", "list", "--json")
    assert (done.exit_code, len(json.loads(done.stdout)), "IDENTITY_DATABASE_URL leads to" in done.stderr) == (3, 1, True)


def test_all_source_types_are_listed_with_settings_and_cursors(sources: Path):
    listed = {row["source_type"]: row for row in rows("sources", "types")}
    assert set(connectors.SOURCE_TYPES) <= set(listed)
    assert {name for name, row in listed.items() if row["available"]} == set(connectors.modules())
    hubspot = listed["hubspot_contacts"]
    assert [setting["name"] for setting in hubspot["settings"] if setting["secret"]] == ["access_token"]
    assert "lastmodifieddate" in [column["cursor_column"] for column in hubspot["cursor_columns"]]
    assert "access_token" in run("sources", "types", "hubspot_contacts").stdout
    assert run("sources", "types", "no_such_type").exit_code == 2


def test_a_connection_that_works_is_shown_step_by_step(hubspot: HubSpotAPI):
    done = run("sources", "check", "portal")
    assert done.exit_code == 0, done.output
    assert all(line.startswith("ok ") for line in done.stdout.splitlines())
    assert [step["outcome"] for step in rows("sources", "check", "portal")] == ["ok"] * len(done.stdout.splitlines())


def test_an_api_version_that_ends_soon_is_a_warning_and_no_failure(hubspot: HubSpotAPI, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(HubSpotContacts, "api_versions", {"2026-03": str(datetime.now(UTC).date() + timedelta(days=30))})
    assert run("sources", "check", "portal").exit_code == 0
    steps = rows("sources", "check", "portal")
    assert [step["outcome"] for step in steps] == ["ok"] * (len(steps) - 1) + ["warning"]
    assert "set api_version to a later one" in steps[-1]["message"]


def test_a_failed_step_is_exit_status_1_with_advice(hubspot: HubSpotAPI, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HUB_TOKEN", f"{TOKEN}-wrong")
    done = run("sources", "check", "portal")
    assert done.exit_code == 1
    assert "failed" in done.output


def test_a_variable_that_is_not_set_is_named_with_its_setting(hubspot: HubSpotAPI, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("HUB_TOKEN")
    for action in ("check", "preview"):
        done = run("sources", action, "portal")
        assert done.exit_code == 1
        assert "HUB_TOKEN" in done.stderr
        assert "config.access_token" in done.stderr


def test_a_source_that_is_not_declared_is_reported(sources: Path):
    assert run("sources", "check", "nobody").exit_code == 1


def test_who_asks_for_a_source_of_a_file_that_is_not_yaml_hears_what_is_wrong_with_it(sources: Path):
    (sources / "a.yaml").write_text("sources:\n  - name: crm\n   source_type: csv_url\n")
    done = run("sources", "check", "crm")
    assert (done.exit_code, "it may be in a.yaml:3: is not YAML" in done.stderr) == (1, True)


@pytest.mark.parametrize("command", [("sources", "list"), ("sources", "check", "crm"), ("ingest", "--all")])
def test_a_sources_folder_that_is_not_there_is_exit_status_1(sources: Path, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("IDENTITY_SOURCES", str(sources / "nowhere"))
    done = run(*command)
    assert (done.exit_code, "nowhere is no folder" in done.stderr) == (1, True)


def test_a_stored_credential_opens_the_source(hubspot: HubSpotAPI, sources: Path, database_url: str):
    text = (sources / "portal.yaml").read_text()
    (sources / "portal.yaml").write_text(text.replace("{env: HUB_TOKEN}", "{credential: hub}"))
    missing = run("sources", "check", "portal")
    assert (missing.exit_code, "credentials set hub" in missing.stderr) == (1, True)
    vault.store(database_url, "hub", "token", TOKEN)
    assert run("sources", "check", "portal").exit_code == 0


def test_preview_shows_raw_beside_canonical_with_verdicts_and_rejects(sources: Path, crm: psycopg.Connection):
    declare(sources, table(mapping={"full_name": "name"}, cursor_column="updated_at", cursor_type="timestamp"))
    shown = {record["external_id"]: record for record in rows("sources", "preview", "crm")}
    assert shown["1"]["raw"]["email"] == "Ada@Kestrel-Demo.com "
    ada = shown["1"]["canonical"]
    assert (ada["email"], ada["email_verdict"], ada["phone"], ada["first_name"]) == (
        "ada@kestrel-demo.com",
        "valid",
        "+442079460018",
        "Ada",
    )
    assert shown["2"]["canonical"]["email_verdict"] == "role"
    assert (shown[None]["rejected"], shown[None]["canonical"]) == ("missing_id: id is empty", None)
    text = run("sources", "preview", "crm").stdout
    line = next(line for line in text.splitlines() if "+442079460018" in line)
    assert line.split("  ")[0] == "1"
    assert "+44 20 7946 0018" in line
    assert any("nick" in line and "ada" in line for line in text.splitlines())


def test_preview_reads_no_more_than_it_shows(sources: Path, crm: psycopg.Connection):
    crm.execute("insert into public.crm select g::text from generate_series(10, 5000) g")
    declare(sources, table())
    assert len(rows("sources", "preview", "crm")) == 20
    assert len(rows("sources", "preview", "crm", "-n", "3")) == 3


def test_preview_shows_no_more_even_if_the_source_gives_more(hubspot: HubSpotAPI):
    assert len(rows("sources", "preview", "portal", "-n", "3")) == 3


def test_preview_writes_nothing_anywhere(sources: Path, crm: psycopg.Connection, database_url: str, identity_env: Path):
    declare(sources, table(cursor_column="updated_at", cursor_type="timestamp"))
    before = _contents(database_url)
    assert run("sources", "preview", "crm").exit_code == 0
    assert _contents(database_url) == before
    assert not identity_env.exists()


def test_preview_of_a_cursor_that_is_no_field_says_so(sources: Path, crm: psycopg.Connection):
    declare(sources, table(cursor_column="changed", cursor_type="timestamp"))
    done = run("sources", "preview", "crm")
    assert done.exit_code == 1
    assert "changed" in done.stderr


def test_no_command_shows_a_secret(hubspot: HubSpotAPI, sources: Path, monkeypatch: pytest.MonkeyPatch):
    """The token of a source and the password of a connection string, through success and failure."""
    monkeypatch.setenv("CRM_DSN", f"postgresql://reader:{TOKEN}@127.0.0.1:1/none?sslmode=disable")
    declare(sources, table())
    commands = [
        ("sources", "list"), ("sources", "check", "portal"), ("sources", "preview", "portal"), ("sources", "check", "crm"),
        ("sources", "preview", "crm"), ("sources", "types"), ("quarantine", "list"), ("loads",),
    ]  # fmt: skip
    shown = [run(*command, *more) for command in commands for more in ((), ("--json",))]
    monkeypatch.setenv("HUB_TOKEN", f"{TOKEN}\x1b\n")
    shown += [run("sources", "check", "portal"), run("sources", "preview", "portal")]
    assert {done.exit_code for done in shown} <= {0, 1, 3}
    assert all(done.output for done in shown)
    assert not any(TOKEN in done.output for done in shown)


def test_a_message_that_quotes_a_secret_is_redacted(hubspot: HubSpotAPI, monkeypatch: pytest.MonkeyPatch):
    def quotes(self) -> list:
        return [SimpleNamespace(name="reach", ok=False, message=f"refused {self.access_token.token()}\x1b[2J")]

    monkeypatch.setattr(connectors.connector("hubspot_contacts"), "check", quotes)
    done = run("sources", "check", "portal")
    assert "refused ***" in done.stdout
    assert TOKEN not in done.output
    assert "\x1b" not in done.output


def test_the_schema_for_editors_is_a_json_schema_of_a_sources_file(sources: Path):
    schema = json.loads(run("sources", "schema").stdout)
    assert {"name", "source_type", "cursor_column"} <= set(schema["properties"]["sources"]["items"]["properties"])


def test_a_source_whose_last_load_is_too_old_is_listed_as_stale(sources: Path, database_url: str):
    """Without Dagster's daemon, which alone evaluates the policy of the asset."""
    declare(sources, table(max_age_hours=1), table("erp", max_age_hours=1), table("shop"))
    for declared in (table(), table("erp"), table("shop")):
        load(database_url, declared, {"id": "1"}, run_id=declared["name"])
    with psycopg.connect(database_url) as connection:
        connection.execute("update identity.loads set finished_at = now() - interval '61 minutes' where source_name <> 'erp'")
    assert {row["source_name"]: row["stale"] for row in rows("sources", "list")} == {"crm": True, "erp": False, "shop": None}


def test_validate_needs_no_database_no_secret_and_no_source(sources: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("IDENTITY_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    monkeypatch.delenv("CRM_DSN", raising=False)
    declare(sources, table())
    assert run("sources", "validate").exit_code == 0
    declare(sources, table(), {"name": "broken", "source_type": "no_such_type"})
    assert run("sources", "validate").exit_code == 1
    good, bad = rows("sources", "validate")
    assert (good["source_name"], good["declared"]) == ("crm", "ok")
    assert (bad["source_name"], bad["declared"], bad["file"]) == ("broken", "broken", "all.yaml")
    assert "no_such_type" in bad["message"]
    assert bad["line"] > 1


@pytest.mark.parametrize(
    ("setting", "value", "fault"),
    [
        ("url", "FILL_IN", "config.url: is still FILL_IN"),
        ("delimiter", "ab", "single characters"),
        ("encoding", "utf-99", "encoding 'utf-99' is unknown"),
        ("cursor_timezone", "Europe/Berln", "is not an IANA time zone"),
        ("cursor_format", "%Q", "cursor_format '%Q' cannot be read"),
    ],
)
def test_validate_finds_a_setting_that_cannot_be(sources: Path, setting: str, value: str, fault: str):
    config = {"url": "https://example.com/contacts.csv"} | {setting: value}
    declare(sources, {"name": "people", "source_type": "csv_url", "config": config})
    [row] = rows("sources", "validate")
    assert fault in row["message"]


def test_a_source_is_deleted_with_its_records_only_if_that_is_said(sources: Path, database_url: str):
    declare(sources, table(), table("shop"))
    for name in ("crm", "shop"):
        load(database_url, table(name), {"id": "1"}, {"id": None})
    assert run("sources", "delete", "crm").exit_code == 0
    assert [row["source_name"] for row in rows("sources", "list")] == ["shop"]
    assert set(listing.latest(database_url)) == {"crm", "shop"}
    assert run("sources", "delete", "crm", "--with-records", given="n\n").exit_code == 1
    assert set(listing.latest(database_url)) == {"crm", "shop"}
    assert "deleted 1 records of crm" in run("sources", "delete", "crm", "--with-records", "--yes").stderr
    with psycopg.connect(database_url) as connection:
        for name in ("records", "quarantine", "loads", "sources", "leases"):
            left = connection.execute(f"select source_name from identity.{name}".encode()).fetchall()
            assert {source for (source,) in left} <= {"shop"}, name
    assert run("sources", "delete", "crm", "--with-records").exit_code == 1
    assert [row["source_name"] for row in rows("sources", "list")] == ["shop"]


def test_a_source_that_is_being_loaded_is_not_forgotten(sources: Path, database_url: str):
    declare(sources, table())
    load(database_url, table(), {"id": "1"})
    running = ledger.open_load(database_url, "crm", "postgres_identity", "run-2", wait=0)
    with lease.hold(database_url, running):
        done = run("sources", "delete", "crm", "--with-records", "--yes")
    assert (done.exit_code, "is still at work" in done.stderr) == (3, True)
    assert listing.latest(database_url)["crm"]["row_count"] == 1
    assert "crm" in (sources / "all.yaml").read_text(), "nothing half done"


def test_what_a_source_handed_out_is_listed_by_its_fingerprint_and_age(sources: Path, database_url: str):
    declare(sources, table())
    load(database_url, table(), {"id": "1"})
    with psycopg.connect(database_url) as connection:
        connection.execute("update identity.sources set state = 'delta-token', state_stored_at = now()")
    [row] = rows("sources", "list")
    assert re.fullmatch("[0-9a-f]{12}", row["state_fingerprint"])
    assert row["state_stored_at"]
    assert "delta-token" not in run("sources", "list").output
