"""`identity-pipeline quarantine`: list, show, replay, discard."""

from pathlib import Path

import psycopg
import pytest

from identity_pipeline.store import ledger
from identity_pipeline_tests.cli.workplace import declare, load, rows, run, table

CURSOR = {"cursor_column": "updated_at", "cursor_type": "timestamp"}
BY_EMAIL = {"mapping": {"external_id": "email"}}


def _identity(url: str) -> dict[str, tuple]:
    with psycopg.connect(url) as connection:
        found = connection.execute("select external_id, first_name, raw ->> 'nick' from identity.records")
        return {external_id: (first_name, nick) for external_id, first_name, nick in found}


def _open(*names: str) -> list[int]:
    return [row["quarantine_id"] for row in rows("quarantine", "list", *names)]


def _refused(reason: str, **fields: str | None) -> dict[str, str | None]:
    return {"id": "7", **fields, "@identity.rejected": reason}


@pytest.fixture
def url(sources: Path, database_url: str) -> str:
    """The database, with two sources declared."""
    declare(sources, table(), table("shop"))
    return database_url


def test_records_are_listed_with_their_reason_and_without_their_raw_fields(url: str):
    load(url, table(), {"id": None, "email": "a@example.org"}, {"id": "x" * 2000})
    found = {row["reason"]: row for row in rows("quarantine", "list")}
    assert set(found) == {"missing_id", "id_too_long"}
    assert (found["missing_id"]["status"], found["missing_id"]["detail"]) == ("open", "id is empty")
    assert "a@example.org" not in run("quarantine", "list").output


def test_a_list_is_chosen_by_source_reason_and_status(url: str):
    load(url, table(), {"id": None, "email": "a@example.org"}, {"id": "x" * 2000})
    load(url, table("shop"), {"id": None, "email": "b@example.org"})
    assert len(_open()) == 3
    assert len(_open("shop")) == 1
    assert len(_open("--reason", "id_too_long")) == 1
    assert len(_open("--status", "discarded")) == 0
    assert len(_open("-n", "2")) == 2


def test_show_has_every_raw_field_with_control_characters_escaped(url: str):
    load(url, table(), {"id": None, "email": "a@example.org", "note": "x\x1b[2Jy", "empty": None})
    (number,) = _open()
    shown = run("quarantine", "show", str(number)).stdout
    assert "a@example.org" in shown
    assert "x\\x1b[2Jy" in shown
    assert rows("quarantine", "show", str(number))[0]["raw"] == {
        "id": None, "email": "a@example.org", "note": "x\x1b[2Jy", "empty": None,
    }  # fmt: skip


def test_a_number_that_is_not_there_is_reported(url: str):
    for action in ("show", "discard", "replay"):
        done = run("quarantine", action, "4711")
        assert done.exit_code == 1
        assert "no record 4711" in done.stderr


def test_discarded_records_stay_so_when_they_are_seen_again(url: str):
    bad = {"id": None, "email": "a@example.org"}
    load(url, table(), bad)
    assert run("quarantine", "discard", *map(str, _open())).exit_code == 0
    load(url, table(), bad)
    assert [(row["status"], row["seen"]) for row in rows("quarantine", "list", "--status", "all")] == [("discarded", 2)]


def test_all_open_records_of_a_source_are_discarded_or_those_with_one_reason(url: str):
    load(url, table(), {"id": None, "email": "a@example.org"}, {"id": None, "email": "b@example.org"}, {"id": "x" * 2000})
    load(url, table("shop"), {"id": None, "email": "c@example.org"})
    assert "discarded 2" in run("quarantine", "discard", "--all", "crm", "--reason", "missing_id").stderr
    assert "discarded 1" in run("quarantine", "discard", "--all", "crm").stderr
    assert (len(_open("crm")), len(_open("shop"))) == (0, 1)


@pytest.mark.parametrize("wrong", [(), ("1", "--all", "crm"), ("1", "--reason", "missing_id")])
def test_discard_wants_ids_or_a_source(url: str, wrong: tuple[str, ...]):
    assert run("quarantine", "discard", *wrong).exit_code == 2


def test_a_source_that_nobody_knows_has_no_list(url: str):
    for command in (("list", "cmr"), ("discard", "--all", "cmr")):
        done = run("quarantine", *command)
        assert (done.exit_code, "did you mean 'crm'?" in done.stderr) == (1, True)


def test_discard_settles_all_or_none(url: str):
    load(url, table(), {"id": None, "email": "a@example.org"})
    (number,) = _open()
    assert run("quarantine", "discard", str(number), "4711").exit_code == 1
    assert _open() == [number]


def test_a_record_is_replayed_by_the_present_mapping_as_a_load_that_balances(url: str, sources: Path):
    load(url, table(), {"id": None, "email": "a@example.org", "first_name": "Ada"}, {"id": "2", "email": "b@example.org"})
    (number,) = _open()
    declare(sources, table(**BY_EMAIL))
    (done,) = rows("quarantine", "replay", str(number))
    assert (done["replayed"], done["still_open"], done["older"]) == (1, 0, 0)
    assert _identity(url) == {"a@example.org": ("Ada", None), "2": (None, None)}
    assert _open() == []
    assert rows("quarantine", "list", "--status", "replayed")[0]["quarantine_id"] == number
    line = rows("loads")[0]
    assert line["run_id"].startswith("replay-")
    assert (line["status"], line["records_read"], line["inserted"], line["quarantined"]) == ("committed", 1, 1, 0)


def test_all_replays_every_open_record_of_one_source(url: str, sources: Path):
    load(url, table(), *({"id": None, "email": f"{n}@example.org"} for n in range(20)))
    load(url, table("shop"), {"id": None, "email": "other@example.org"})
    declare(sources, table(**BY_EMAIL), table("shop", **BY_EMAIL))
    assert run("quarantine", "replay", "--all", "crm").exit_code == 0
    assert set(_identity(url)) == {f"{n}@example.org" for n in range(20)}
    assert len(_open()) == 1


def test_what_fails_again_stays_open_with_its_new_reason_and_its_history(url: str, sources: Path):
    load(url, table(), {"id": None, "email": "a@example.org"}, {"id": None, "email": "x" * 2000})
    before = {row["detail"]: row for row in rows("quarantine", "list")}
    assert set(before) == {"id is empty"}
    declare(sources, table(**BY_EMAIL))
    done = run("quarantine", "replay", "--all", "crm")
    assert done.exit_code == 1
    (left,) = rows("quarantine", "list")
    assert (left["reason"], left["seen"], left["load_id"]) == ("id_too_long", 1, before["id is empty"]["load_id"])
    line = rows("loads")[0]
    assert (line["records_read"], line["inserted"], line["quarantined"]) == (2, 1, 1)


def test_a_mapping_without_its_field_in_the_record_leaves_it_open(url: str, sources: Path):
    load(url, table(), {"id": None, "email": "a@example.org"})
    declare(sources, table(mapping={"external_id": "number"}))
    assert run("quarantine", "replay", *map(str, _open())).exit_code == 1
    assert [row["detail"] for row in rows("quarantine", "list")] == ["number is empty"]


def test_a_record_that_its_reader_refused_is_not_merged(url: str):
    """What is stored of a torn row is not whole: only the source can mend it."""
    load(url, table(), _refused("extra_cells: line 3 has 4 cells, the header has 3", nick="torn"))
    assert run("quarantine", "replay", "--all", "crm").exit_code == 1
    assert _identity(url) == {}
    assert [row["reason"] for row in rows("quarantine", "list")] == ["extra_cells"]


def test_a_replay_leaves_the_mark_where_it_is(url: str, sources: Path):
    crm = table(**CURSOR)
    at = "2026-04-05T00:00:00Z"
    load(url, crm, {"id": None, "email": "a@example.org", "updated_at": "2026-04-09T00:00:00Z"}, {"id": "1", "updated_at": at}, mark=at)
    declare(sources, crm | BY_EMAIL)
    assert run("quarantine", "replay", "--all", "crm").exit_code == 0
    assert ledger.state(url, "crm").mark == ledger.Mark("updated_at", "timestamp", at)
    declare(sources, table(**BY_EMAIL))  # a source whose declared cursor has changed since
    load(url, table(), {"id": None, "email": "b@example.org"}, run_id="replayless")
    assert ledger.state(url, "crm").mark is None
    assert run("quarantine", "replay", "--all", "crm").exit_code == 0
    assert ledger.state(url, "crm").mark is None


def test_a_declaration_that_lost_its_cursor_does_not_lose_the_mark_by_a_replay(url: str, sources: Path):
    at = "2026-04-05T00:00:00Z"
    load(url, table(**CURSOR), {"id": None, "email": "a@example.org", "updated_at": at}, mark=at)
    declare(sources, table(**BY_EMAIL))
    assert run("quarantine", "replay", "--all", "crm").exit_code == 0
    assert ledger.state(url, "crm").mark == ledger.Mark("updated_at", "timestamp", at)


@pytest.mark.parametrize("cursor", [{}, CURSOR])
def test_a_newer_version_that_was_loaded_meanwhile_is_not_overwritten(url: str, sources: Path, cursor: dict):
    crm = table(**cursor)
    old, new = {"updated_at": "2026-04-01T00:00:00Z"}, {"updated_at": "2026-04-02T00:00:00Z"}
    load(url, crm, {"id": None, "email": "a@example.org", "nick": "old", **old})
    load(url, crm | BY_EMAIL, {"id": None, "email": "a@example.org", "nick": "new", **new}, run_id="run-2")
    declare(sources, crm | BY_EMAIL)
    (done,) = rows("quarantine", "replay", "--all", "crm")
    assert (done["replayed"], done["older"]) == (0, 1)
    assert _identity(url) == {"a@example.org": (None, "new")}
    assert _open() == []


def test_a_replay_repeated_changes_nothing(url: str, sources: Path):
    load(url, table(), {"id": None, "email": "a@example.org"})
    (number,) = _open()
    declare(sources, table(**BY_EMAIL))
    run("quarantine", "replay", str(number))
    again = run("quarantine", "replay", str(number))
    assert (again.exit_code, "replayed already" in again.stderr) == (1, True)
    with psycopg.connect(url) as connection:
        connection.execute("update identity.quarantine set status = 'open'")  # as after a kill between merge and settling
    assert run("quarantine", "replay", str(number)).exit_code == 0
    assert (len(_identity(url)), _open()) == (1, [])


def test_the_newest_of_several_versions_wins(url: str, sources: Path):
    for nick in ("first", "second", "third"):
        load(url, table(), {"id": None, "email": "a@example.org", "nick": nick}, run_id=nick)
    declare(sources, table(**BY_EMAIL))
    assert run("quarantine", "replay", "--all", "crm").exit_code == 0
    assert _identity(url) == {"a@example.org": (None, "third")}


def test_a_source_that_is_no_longer_declared_is_named(url: str, sources: Path):
    load(url, table(), {"id": None, "email": "a@example.org"})
    declare(sources)
    done = run("quarantine", "replay", *map(str, _open()))
    assert done.exit_code == 1
    assert "'crm'" in done.stderr


def test_a_replay_needs_no_secret(url: str, sources: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CRM_DSN", raising=False)
    load(url, table(), {"id": None, "email": "a@example.org"})
    declare(sources, table(**BY_EMAIL))
    assert run("quarantine", "replay", "--all", "crm").exit_code == 0


def test_ids_or_all_but_not_both_nor_none(url: str):
    assert run("quarantine", "replay").exit_code == 2
    assert run("quarantine", "replay", "1", "--all", "crm").exit_code == 2
