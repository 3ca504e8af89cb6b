"""`identity-pipeline loads`."""

from pathlib import Path

import psycopg

from identity_pipeline.store import ledger
from identity_pipeline_tests.cli.workplace import declare, load, rows, run, table

BALANCE = ("inserted", "updated", "unchanged", "duplicates", "quarantined", "filtered")


def test_loads_are_listed_newest_first_with_a_balance_that_adds_up(identity_env: Path, database_url: str):
    crm = table(cursor_column="updated_at", cursor_type="timestamp")
    load(database_url, crm, {"id": 1, "updated_at": "2026-04-01T00:00:00Z"}, {"id": None}, run_id="run-1", mark="2026-04-01T00:00:00Z")
    load(database_url, crm, {"id": 1, "updated_at": "2026-04-02T00:00:00Z"}, run_id="run-2", mark="2026-04-02T00:00:00Z")
    newest, first = rows("loads")
    assert [newest["run_id"], first["run_id"]] == ["run-2", "run-1"]
    assert (first["records_read"], first["inserted"], first["quarantined"]) == (2, 1, 1)
    assert (newest["updated"], newest["status"], newest["cursor_before"], newest["cursor_after"]) == (
        1, "committed", "2026-04-01T00:00:00Z", "2026-04-02T00:00:00Z",
    )  # fmt: skip
    assert all(line["records_read"] == sum(line[name] for name in BALANCE) for line in (newest, first))
    assert {"source_name", "load_id", "started_at", "finished_at", "deleted"} <= set(first)


def test_the_json_has_the_columns_of_the_table_and_long_texts(identity_env: Path, database_url: str):
    load(database_url, table(), {"id": 1})
    assert [*run("loads").stdout.splitlines()[0].split(), "full_refresh", "error", "warnings"] == list(rows("loads")[0])


def test_a_name_and_a_number_choose(identity_env: Path, database_url: str):
    for name in ("crm", "shop", "crm"):
        load(database_url, table(name), {"id": 1}, run_id=f"run of {name}")
    assert [line["source_name"] for line in rows("loads", "crm")] == ["crm", "crm"]
    assert len(rows("loads", "-n", "1")) == 1


def test_why_a_load_failed_is_printed_on_standard_error(identity_env: Path, database_url: str):
    failed = ledger.open_load(database_url, "crm", "postgres_identity", "run-1")
    ledger.fail(database_url, failed, "credential", "crm: the password was refused")
    assert rows("loads")[0]["error_code"] == "credential"
    assert "the password was refused" in run("loads").stderr


def test_the_warnings_of_a_sources_newest_load_are_said_and_all_are_in_the_json(identity_env: Path, database_url: str):
    for number in (1, 2):
        load(database_url, table(), {"id": number})
        with psycopg.connect(database_url) as connection:
            connection.execute("update identity.loads set warnings = array[%s] where load_id = %s", (f"did not see {number} of 9", number))
    assert "crm: load 2: warning: did not see 2 of 9" in run("loads").stderr
    assert "did not see 1 of 9" not in run("loads").stderr
    assert [(row["warnings"], row["full_refresh"], row["error"]) for row in rows("loads")] == [
        (["did not see 2 of 9"], False, None), (["did not see 1 of 9"], False, None),
    ]  # fmt: skip


def test_no_loads_are_an_empty_list(sources: Path):
    declare(sources, table())
    assert rows("loads") == rows("loads", "crm") == []
    assert run("loads", "crm").exit_code == 0


def test_a_name_that_nobody_knows_is_exit_status_1_with_the_nearest(sources: Path, database_url: str):
    declare(sources, table())
    load(database_url, table("shop"), {"id": 1})
    for wrong, meant in (("cm", "crm"), ("shpo", "shop")):
        done = run("loads", wrong)
        assert (done.exit_code, f"did you mean {meant!r}?" in done.stderr) == (1, True)
