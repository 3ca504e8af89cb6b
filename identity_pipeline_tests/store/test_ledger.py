"""The ledger: loads that are whole or not at all, a mark that never leads the data, and the state beside it."""

import socket
from dataclasses import replace
from datetime import UTC, datetime

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from identity_pipeline.core.cursor import Cursor, Mark
from identity_pipeline.core.errors import ConfigurationError, ContractBroken, PipelineError, Superseded, TargetUnavailable
from identity_pipeline.core.file_version import FileVersion
from identity_pipeline.store import lease, ledger
from identity_pipeline.store.database import connect, failures
from identity_pipeline_tests.store.contacts import Contacts, balance, leases, people, status

# -- A load is whole or not at all --------------------------------------------------------------


def test_a_commit_closes_the_load_and_publishes_its_balance_and_mark(contacts: Contacts):
    row = contacts.load(people("1", "2"), people("3", "", at="2026-01-05T00:00:00Z"))
    assert balance(row) == {"inserted": 3, "quarantined": 1}
    assert {n: row[n] for n in ("status", "parts", "records_read", "row_count", "cursor_before", "cursor_after")} == {
        "status": "committed", "parts": 2, "records_read": 4, "row_count": 3, "cursor_before": None,
        "cursor_after": "2026-01-05T00:00:00Z",
    }  # fmt: skip
    assert contacts.mark == Mark("at", "timestamp", "2026-01-05T00:00:00Z")
    assert leases(contacts) == []


def test_a_commit_may_be_repeated(contacts: Contacts):
    load, part = contacts.open(), people("1", "2")
    contacts.merge(load, part)
    row = contacts.commit(load, contacts.summary(part))
    assert contacts.commit(load, contacts.summary(part)) == row
    assert row["row_count"] == 2


@pytest.mark.parametrize("merged", [(), (0,), (0, 2), (1, 2)])
def test_a_load_with_a_part_missing_is_not_committed(contacts: Contacts, merged: tuple[int, ...]):
    load, parts = contacts.open(), [people("1"), people("2"), people("3")]
    for number in merged:
        contacts.merge(load, parts[number], part=number)
    with pytest.raises(ContractBroken, match=f"{len(merged)} of 3 parts are merged, so the mark stays"):
        contacts.commit(load, contacts.summary(*parts))
    assert contacts.mark is None


@pytest.mark.parametrize(("read", "filtered"), [(3, 0), (1, 0), (2, 1), (0, 0)])
def test_a_load_whose_counts_do_not_add_up_is_not_committed(contacts: Contacts, read: int, filtered: int):
    load, part = contacts.open(), people("1", "2")
    contacts.merge(load, part)
    with pytest.raises(ContractBroken, match="the counts do not balance"):
        contacts.commit(load, contacts.summary(part, records_read=read, filtered=filtered))
    assert contacts.mark is None


def test_a_commit_is_refused_if_the_mark_moved_meanwhile(contacts: Contacts):
    contacts.load(people("1"))
    load, part = contacts.open(), people("2", at="2026-01-03T00:00:00Z")
    contacts.merge(load, part)
    contacts.query("update identity.sources set cursor_after = '2026-01-02T00:00:00Z' where source_name = %s returning 1", contacts.name)
    with pytest.raises(Superseded, match="the mark moved"):
        contacts.commit(load, contacts.summary(part))


def test_the_mark_never_goes_back(contacts: Contacts):
    contacts.load(people("1", at="2026-01-05T00:00:00Z"))
    contacts.load(people("2", at="2026-01-02T00:00:00Z"))
    contacts.load()
    assert contacts.mark == Mark("at", "timestamp", "2026-01-05T00:00:00Z")


def test_marks_compare_by_their_type(contacts: Contacts):
    numbers = replace(contacts, cursor=Cursor("version", "int"))
    numbers.load([{"id": "1", "version": "9"}])
    numbers.load([{"id": "2", "version": "10"}])
    assert contacts.mark == Mark("version", "int", "10")


def test_a_new_cursor_column_starts_a_mark_of_its_own(contacts: Contacts):
    contacts.load(people("1"))
    replace(contacts, cursor=Cursor("version", "int")).load([{"id": "1", "version": "3"}])
    assert contacts.mark == Mark("version", "int", "3")


def test_a_partial_load_leaves_the_mark(contacts: Contacts):
    contacts.load(people("1"))
    load, part = contacts.open(), people("2", at="2026-01-09T00:00:00Z")
    contacts.merge(load, part)
    contacts.commit(load, contacts.summary(part, candidate=None, partial=True))
    assert contacts.mark == Mark("at", "timestamp", "2026-01-01T00:00:00Z")


def test_versions_of_files_are_kept_with_the_commit(contacts: Contacts):
    for version in (FileVersion("etag 1"), FileVersion("etag 2", 7, datetime(2026, 1, 1, tzinfo=UTC), "hash", "rules", "at", "2026-01-01")):
        load = contacts.open()
        contacts.merge(load, people("1"))
        assert contacts.state.files != {"a.csv": version}
        contacts.commit(load, contacts.summary(people("1"), files={"a.csv": version}, fields=["id", "at"]))
        state = contacts.state
        files = {"a.csv": replace(version, load_id=load.load_id)}
        assert (state.files, state.fields, state.row_count) == (files, ("id", "at"), 1)


def test_what_the_read_settled_counts_in_the_balance(contacts: Contacts):
    row = contacts.load(people("1", "2"), summary={"records_read": 9, "unchanged": 4, "duplicates": 1, "filtered": 2, "source_count": 12})
    assert balance(row) == {"inserted": 2, "unchanged": 4, "duplicates": 1, "filtered": 2}
    assert (row["records_read"], row["source_count"]) == (9, 12)


# -- The mark may fall, and the state beside it -------------------------------------------------


def test_a_mark_falls_where_it_may(contacts: Contacts):
    contacts.load(people("1", at="2999-01-01T00:00:00Z"))
    row = contacts.load(people("1", at="2026-01-02T00:00:00Z"), full_refresh=True, summary={"mark_may_fall": True})
    assert contacts.mark == Mark("at", "timestamp", "2026-01-02T00:00:00Z")
    assert row["cursor_after"] == "2026-01-02T00:00:00Z"


def test_one_that_may_fall_and_saw_nothing_is_none(contacts: Contacts):
    contacts.load(people("1"))
    contacts.load(summary={"mark_may_fall": True})
    assert contacts.mark is None


def test_a_mark_that_nobody_can_read_yields_to_what_was_seen(contacts: Contacts):
    contacts.load(people("1"))
    contacts.query("update identity.sources set cursor_after = 'garbage' where source_name = %s returning 1", contacts.name)
    contacts.load(people("2"))
    assert contacts.mark == Mark("at", "timestamp", "2026-01-01T00:00:00Z")


STATE = {"state": "s3cret-delta-link", "settings": "what is read"}


def test_a_state_is_stored_with_the_mark(contacts: Contacts):
    contacts.load(people("1"), summary=STATE)
    state = contacts.state
    assert (state.state, state.settings, state.mark and state.mark.after) == (
        "s3cret-delta-link", "what is read", "2026-01-01T00:00:00Z",
    )  # fmt: skip
    [row] = contacts.query("select state_stored_at from identity.sources where source_name = %s", contacts.name)
    assert row["state_stored_at"] is not None


def test_a_state_is_not_shown(contacts: Contacts):
    summary = contacts.summary(people("1"), **STATE)
    row = contacts.load(people("1"), summary=STATE)
    assert not [text for text in (repr(summary), repr(contacts.state), repr(row)) if "s3cret" in text]


@pytest.mark.parametrize("summary", [{}, {"mark_may_fall": True}])
def test_a_load_without_a_state_drops_the_stored_one(contacts: Contacts, summary: dict[str, bool]):
    contacts.load(people("1"), summary=STATE)
    contacts.load(people("2"), summary=summary)
    assert contacts.state.state is None


def test_a_partial_load_leaves_mark_and_state(contacts: Contacts):
    contacts.load(people("1"), summary=STATE | {"fields": ["id", "at"]})
    before = contacts.state
    partial = {"partial": True, "state": "another", "settings": "of a part", "mapping": "another", "fields": ["id"], "mark_may_fall": True}
    row = contacts.load(people("2", at="2026-01-09T00:00:00Z"), summary=partial)
    assert contacts.state == replace(before, row_count=2)
    assert row["cursor_after"] == "2026-01-01T00:00:00Z"


def test_a_load_that_fails_leaves_mark_and_state(contacts: Contacts):
    contacts.load(people("1"), summary=STATE)
    before, load = contacts.state, contacts.open()
    with pytest.raises(ContractBroken):
        contacts.commit(load, contacts.summary(people("2"), state="another", settings="x"))
    assert contacts.state == before


def test_nothing_is_kept_of_a_source_that_was_never_loaded(contacts: Contacts):
    assert contacts.state == ledger.SourceState()


# -- What fails ---------------------------------------------------------------------------------


def test_a_failure_closes_the_load_and_gives_the_lease_back(contacts: Contacts):
    load = contacts.open("first")
    with pytest.raises(ContractBroken), ledger.closing(contacts.url, load), lease.hold(contacts.url, load):
        raise ContractBroken("what was wrong")
    assert status(contacts, load.load_id) == ("failed", "contract_broken")
    contacts.open("second", wait=0)


@pytest.mark.parametrize(("error", "code"), [(KeyError("s3cret"), "unexpected"), (KeyboardInterrupt(), "interrupted")])
def test_also_one_that_nobody_foresaw_and_without_its_text(contacts: Contacts, error: BaseException, code: str):
    load = contacts.open("first")
    with pytest.raises(type(error)), ledger.closing(contacts.url, load):
        raise error
    [row] = contacts.query("select error_code, error from identity.loads where load_id = %s", load.load_id)
    assert row["error_code"] == code
    assert "s3cret" not in row["error"]


def test_a_load_that_will_be_tried_again_stays_open(contacts: Contacts):
    load = contacts.open("first")
    with pytest.raises(TargetUnavailable), ledger.closing(contacts.url, load, retried=True):
        raise TargetUnavailable("later")
    assert status(contacts, load.load_id) == ("running", None)


def test_a_failed_load_that_is_taken_up_by_another_run_belongs_to_that_run(contacts: Contacts):
    load = contacts.open("first")
    ledger.fail(contacts.url, load, "x", "x")
    ledger.resume(contacts.url, replace(load, run_id="again"))
    assert status(contacts, load.load_id) == ("running", None)
    assert [row["run_id"] for row in leases(contacts)] == ["again"]
    assert "again" in lease.running_runs(contacts.url, within=60)


def test_a_committed_load_is_not_opened_again(contacts: Contacts):
    load = contacts.open("first")
    contacts.commit(load, contacts.summary())
    ledger.resume(contacts.url, load)
    assert status(contacts, load.load_id) == ("committed", None)
    assert leases(contacts) == []


# -- The database -------------------------------------------------------------------------------


def test_an_unreachable_database_is_worth_another_try(unused_port: int):
    with pytest.raises(TargetUnavailable, match="open a load: the identity database did not answer"):
        ledger.open_load(f"postgresql://u:s3cret@127.0.0.1:{unused_port}/x", "crm", "csv_url", "run")


@pytest.mark.parametrize("wrong", [{"dbname": "nobody_made_it"}, {"password": "s3cret"}, {"user": "nobody_knows"}])
def test_a_refusal_names_the_setting_and_not_the_password(contacts: Contacts, wrong: dict[str, str]):
    with pytest.raises(ConfigurationError, match="check user, password, database and grants in IDENTITY_DATABASE_URL") as refused:
        ledger.state(make_conninfo(contacts.url, **wrong), "crm")
    assert "s3cret" not in str(refused.value)


def test_a_full_database_says_that_it_is_full():
    with pytest.raises(TargetUnavailable, match="merge: the identity database's disk is full"), failures("merge"):
        raise psycopg.errors.DiskFull


def test_a_database_without_the_schema_names_the_command(postgres_url: str):
    with pytest.raises(ConfigurationError, match="run `identity-pipeline db migrate`"):
        ledger.state(postgres_url, "crm")


def test_a_text_that_no_statement_can_take_is_not_worth_another_try(contacts: Contacts):
    with pytest.raises(PipelineError, match="refused a statement") as refused:
        ledger.committed(contacts.url, contacts.name, 1, Mark("a", "text", "\x00"))
    assert not refused.value.retryable


def test_sessions_have_limits(contacts: Contacts):
    with connect(contacts.url) as connection:
        shown = {name: connection.execute(f"show {name}").fetchone() for name in ("statement_timeout", "lock_timeout")}
        assert shown == {"statement_timeout": ("15min",), "lock_timeout": ("2min",)}
        assert connection.execute("show idle_in_transaction_session_timeout").fetchone() == ("10min",)


@pytest.fixture
def unused_port() -> int:

    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]
