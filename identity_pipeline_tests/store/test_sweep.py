"""The sweep: what a full refresh did not see is marked deleted, and nothing else is."""

import time

import pytest

from identity_pipeline.store.database import connect
from identity_pipeline_tests.store.contacts import Contacts, balance, people


def test_a_full_refresh_marks_what_it_did_not_see(contacts: Contacts):
    ids = [str(n) for n in range(10)]
    contacts.load(people(*ids))
    row = contacts.load(people(*ids[:8]), full_refresh=True)
    assert (row["deleted"], row["warnings"]) == (2, [])
    assert {i for i, row in contacts.rows().items() if row["deleted_at"]} == {"8", "9"}
    assert contacts.load(people(*ids[:8]), full_refresh=True)["deleted"] == 0


def test_one_that_would_delete_too_much_deletes_nothing_and_says_so(contacts: Contacts):
    ids = [str(n) for n in range(10)]
    contacts.load(people(*ids))
    row = contacts.load(people(*ids[:7]), full_refresh=True)
    assert row["deleted"] == 0
    assert "did not see 3 of 10 rows, more than max_deleted_share 0.2 allows" in row["warnings"][0]
    assert contacts.load(people(*ids[:7]), full_refresh=True, max_deleted_share=0.3)["deleted"] == 3


@pytest.mark.parametrize("share", [0.2, 1.0])
def test_one_that_saw_nothing_deletes_nothing(contacts: Contacts, share: float):
    contacts.load(people("1"))
    row = contacts.load(full_refresh=True, max_deleted_share=share)
    assert row["deleted"] == 0
    assert "did not see 1 of 1 rows" in row["warnings"][0]


def test_what_vanished_and_came_back_is_alive_again(contacts: Contacts):
    ids = [str(n) for n in range(10)]
    contacts.load(people(*ids))
    contacts.load(people(*ids[1:]), full_refresh=True)
    assert contacts.rows()["0"]["deleted_at"] is not None
    assert balance(contacts.load(people("0"))) == {"updated": 1}
    assert contacts.rows()["0"]["deleted_at"] is None


def test_what_was_seen_but_quarantined_is_not_deleted(contacts: Contacts):
    ids = [str(n) for n in range(10)]
    contacts.load(people(*ids))
    bad = people("0")[0] | {"bio": "x" * 1_100_000}
    assert contacts.load([bad, *people(*ids[1:])], full_refresh=True)["deleted"] == 0


IDS = [str(n) for n in range(10)]


def absent(contacts: Contacts) -> dict[str, int]:
    return {i: row["absent_since_load"] for i, row in contacts.rows().items() if row["absent_since_load"]}


def deleted(contacts: Contacts) -> set[str]:
    return {i for i, row in contacts.rows().items() if row["deleted_at"]}


def refresh(contacts: Contacts, *ids: str, whole: bool = False) -> dict:
    return contacts.load(people(*ids), full_refresh=True, whole=whole)


def test_if_the_read_may_not_have_been_whole_a_row_has_to_be_absent_twice(contacts: Contacts):
    contacts.load(people(*IDS))
    before = contacts.rows()
    row = refresh(contacts, *IDS[1:])
    assert (row["deleted"], absent(contacts)) == (0, {"0": row["load_id"]})
    assert "did not see 1 rows for the first time" in row["warnings"][0]
    assert contacts.rows()["0"]["changed_at"] == before["0"]["changed_at"]
    again = refresh(contacts, *IDS[2:])
    assert (again["deleted"], deleted(contacts), absent(contacts)["1"]) == (1, {"0"}, again["load_id"])


def test_if_it_was_whole_one_absence_is_enough(contacts: Contacts):
    contacts.load(people(*IDS))
    assert refresh(contacts, *IDS[1:], whole=True)["deleted"] == 1


def test_a_row_that_a_full_refresh_sees_unchanged_is_no_longer_absent(contacts: Contacts):
    contacts.load(people(*IDS))
    refresh(contacts, *IDS[1:])
    assert balance(refresh(contacts, *IDS)) == {"unchanged": 10}
    assert absent(contacts) == {}
    assert refresh(contacts, *IDS[1:])["deleted"] == 0


def test_a_row_that_any_load_merges_is_no_longer_absent(contacts: Contacts):
    contacts.load(people(*IDS))
    refresh(contacts, *IDS[1:])
    contacts.load(people("0", name="Changed"))
    assert absent(contacts) == {}


def test_one_that_misses_too_much_notes_no_absence(contacts: Contacts):
    contacts.load(people(*IDS))
    assert "more than max_deleted_share" in refresh(contacts, *IDS[5:])["warnings"][0]
    assert absent(contacts) == {}


def test_a_sweep_needs_no_statistics(contacts: Contacts):
    """A nested loop over these rows would take minutes on the oldest server that we promise."""
    with connect(contacts.url) as connection:
        connection.execute("alter table identity.records set (autovacuum_enabled = off)")
    load = contacts.open(full_refresh=True)
    contacts.query(
        """
        insert into identity.records (source_name, external_id, source_type, email_verdict, phone_verdict, emails, phones, raw, load_id)
        select %s, n::text, 'csv_url', 'missing', 'missing', '{}', '{}', '{}', 0 from generate_series(1, 20000) n returning 1
        """,
        contacts.name,
    )
    started = time.monotonic()
    row = contacts.commit(load, contacts.summary(), seen=iter([[str(n) for n in range(1, 20_001) if n % 10]]))
    assert row["deleted"] == 2_000
    assert time.monotonic() - started < 40
