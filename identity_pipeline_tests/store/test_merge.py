"""What the merge of landed parts makes of records, whatever they look like."""

import random
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Self

import pyarrow as pa
import pytest

from identity_pipeline.core.cursor import Cursor, Order
from identity_pipeline.core.errors import PipelineError, SchemaChanged, Superseded, WriteConflict
from identity_pipeline.core.fieldmap import GONE, REJECTED
from identity_pipeline.core.text import SANITISED, table_of
from identity_pipeline.store import batch as merged_batch
from identity_pipeline.store import lease, ledger, merge, rejection
from identity_pipeline.store.landing import Part
from identity_pipeline.store.load import Load
from identity_pipeline_tests.store.contacts import Contacts, Record, balance, wait_until


def day(number: int) -> str:
    return f"2026-01-{number:02d}T00:00:00Z"


def contact(external_id: str, name: str = "Ann Lee", on: int = 1, **more: str | None) -> Record:
    return {"id": external_id, "name": name, "at": day(on), **more}


def test_what_is_the_same_is_not_written_again(contacts: Contacts):
    people = [contact(str(n)) for n in range(50)]
    assert balance(contacts.load(people)) == {"inserted": 50}
    before = contacts.rows()
    assert balance(contacts.load(people)) == {"unchanged": 50}
    assert contacts.rows() == before


def test_a_record_is_stored_whole_with_its_canonical_fields(contacts: Contacts):
    contacts.load([contact("7", "Zoë Müller", email=" Zoe@ACME.eu ", phone="+49 30 901820", odd='"quo\\te",\n', gone=None)])
    [row] = contacts.rows().values()
    assert (row["email"], row["emails"], row["phone"], row["phones"]) == (
        "zoe@acme.eu", ["zoe@acme.eu"], "+4930901820", ["+4930901820"],
    )  # fmt: skip
    assert row["raw"] == {
        "id": "7", "name": "Zoë Müller", "at": day(1), "email": " Zoe@ACME.eu ", "phone": "+49 30 901820", "odd": '"quo\\te",\n',
        "gone": None,
    }  # fmt: skip


@pytest.mark.parametrize("text", ["\\N", "NULL", "", '""', "\\.", "a,b", "a\r\nb", "\t", "{}", '{"a":1}', "\\", "'", "€\U0001f600"])
def test_a_text_comes_back_as_it_was(contacts: Contacts, text: str):
    contacts.load([contact("1", value=text), contact("2", value=None)])
    assert {i: r["raw"]["value"] for i, r in contacts.rows().items()} == {"1": text, "2": None}


def test_lists_come_back_as_they_were(contacts: Contacts):
    contacts.load([contact("1", email="a@acme.eu; b@acme.eu"), contact("2"), contact("3", email="c@acme.eu")])
    assert [r["emails"] for _, r in sorted(contacts.rows().items())] == [["a@acme.eu", "b@acme.eu"], [], ["c@acme.eu"]]


def test_of_duplicates_inside_a_batch_the_newest_by_cursor_stays(contacts: Contacts):
    row = contacts.load([contact("1", "New", 3), contact("1", "Old", 2), contact("2", "Two")])
    assert (balance(row), contacts.names()) == ({"inserted": 2, "duplicates": 1}, {"1": "New", "2": "Two"})


def test_of_equally_new_duplicates_the_last_stays(contacts: Contacts):
    contacts.load([contact("1", "First", 3), contact("1", "Last", 3), contact("1", "Older", 2)])
    assert contacts.names() == {"1": "Last"}


def test_a_record_without_a_cursor_value_yields_to_one_with(contacts: Contacts):
    contacts.load([contact("1", "With"), {**contact("1", "Without"), "at": None}])
    assert contacts.names() == {"1": "With"}


def test_without_a_cursor_the_last_stays(contacts: Contacts):
    contacts.without_cursor().load([contact("1", "First", 3), contact("1", "Last", 2)])
    assert contacts.names() == {"1": "Last"}


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1), (2, 3, 1)])
def test_across_batches_and_parts_the_newest_stays(contacts: Contacts, order: tuple[int, ...]):
    versions = [[contact("1", f"Version {on}", on)] for on in order]
    load = contacts.open()
    contacts.merge(load, versions[0], versions[1], part=0)
    contacts.merge(load, versions[2], part=1)
    row = contacts.commit(load, contacts.summary([*versions[0], *versions[1]], versions[2]))
    assert (contacts.names(), row["records_read"]) == ({"1": "Version 3"}, 3)


def test_cursors_compare_as_their_type_says(contacts: Contacts):
    numbers = replace(contacts, cursor=Cursor("version", "int"))
    numbers.load([{"id": "1", "name": "Ten", "version": "10"}, {"id": "1", "name": "Nine", "version": "9"}])
    assert contacts.names() == {"1": "Ten"}


def test_numbers_beyond_64_bit_compare_with_smaller_ones(contacts: Contacts):
    numbers = replace(contacts, cursor=Cursor("version", "int"))
    for version in ("9", "99999999999999999999999", "10"):
        numbers.load([{"id": "1", "name": version, "version": version}])
    assert contacts.names() == {"1": "99999999999999999999999"}


@pytest.mark.parametrize("seed", range(3))
def test_a_load_ends_alike_however_its_records_are_cut_into_batches(contacts: Contacts, seed: int):
    chance = random.Random(seed)
    people = [contact(str(chance.randrange(20)), f"Name {n}", chance.randrange(1, 28)) for n in range(80)]
    newest = {p["id"]: p["name"] for p in sorted(people, key=lambda p: p["at"])}
    load, cuts = contacts.open(), sorted(chance.sample(range(1, 80), 5))
    counts = contacts.merge(load, *(people[a:b] for a, b in zip([0, *cuts], [*cuts, 80], strict=True)))
    assert contacts.names() == newest
    assert counts.records == 80 == sum(balance(counts).values())


VERSIONS = (contact("1", "Old", 1), contact("1", "New", 9))
"""A source that lists every version of a record, as an append-only export does."""


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("full_refresh", [False, True])
def test_a_history_that_is_read_again_writes_nothing(contacts: Contacts, order: int, full_refresh: bool):
    parts = [[version] for version in VERSIONS][::order]
    contacts.load(*parts)
    before = contacts.rows()
    assert balance(contacts.load(*parts, full_refresh=full_refresh)) == {"unchanged": 1, "duplicates": 1}
    assert contacts.rows() == before


def test_an_older_version_alone_replaces_nothing(contacts: Contacts):
    contacts.load([VERSIONS[1]])
    assert balance(contacts.load([VERSIONS[0]])) == {"duplicates": 1}
    assert contacts.names() == {"1": "New"}


def test_a_full_refresh_takes_a_record_back_to_what_the_source_has_now(contacts: Contacts):
    contacts.load([VERSIONS[1]])
    contacts.load([VERSIONS[0]], full_refresh=True)
    assert contacts.names() == {"1": "Old"}


EQUAL = [contact("1", "First", 3), contact("1", "Second", 3), contact("1", "Third", 3)]
"""Three versions that the cursor cannot tell apart, in the order of the stream."""


def tied(contacts: Contacts, order: Order, kind: str) -> Contacts:
    """A source whose versions only the order of its stream tells apart."""
    cursors = {"equal": contacts.cursor, "none": None, "request only": Cursor("sync", "timestamp", in_records=False)}
    return replace(contacts, order=order, cursor=cursors[kind])


KINDS = pytest.mark.parametrize("kind", ["equal", "none", "request only"])
ORDERS = pytest.mark.parametrize(("order", "stays"), [("oldest_first", "Third"), ("newest_first", "First")])


@KINDS
@ORDERS
def test_a_tie_inside_a_batch_goes_by_the_order_of_the_stream(contacts: Contacts, order: Order, kind: str, stays: str):
    row = tied(contacts, order, kind).load(EQUAL)
    assert (contacts.names(), balance(row)) == ({"1": stays}, {"inserted": 1, "duplicates": 2})


@KINDS
@ORDERS
def test_a_tie_across_batches_does_so_too(contacts: Contacts, order: Order, kind: str, stays: str):
    source = tied(contacts, order, kind)
    source.merge(source.open(), *([version] for version in EQUAL))
    assert contacts.names() == {"1": stays}


@KINDS
@ORDERS
@pytest.mark.parametrize("merged", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_a_tie_across_parts_does_in_whichever_order_they_are_merged(
    contacts: Contacts, order: Order, kind: str, stays: str, merged: tuple[int, ...]
):
    tied(contacts, order, kind).load(*([version] for version in EQUAL), merged=merged)
    assert contacts.names() == {"1": stays}


@KINDS
@ORDERS
@pytest.mark.parametrize("merged", [(0, 1, 2), (2, 1, 0)])
def test_a_tie_that_is_read_again_ends_alike(contacts: Contacts, order: Order, kind: str, stays: str, merged: tuple[int, ...]):
    source, parts = tied(contacts, order, kind), [[version] for version in EQUAL]
    source.load(*parts)
    row = source.load(*parts, merged=merged)
    assert contacts.names() == {"1": stays}
    if order == "newest_first" or merged != (0, 1, 2):
        assert balance(row) == {"unchanged": 1, "duplicates": 2}


@KINDS
@ORDERS
def test_of_a_tie_across_loads_the_later_load_is_newer(contacts: Contacts, order: Order, kind: str, stays: str):
    source = tied(contacts, order, kind)
    source.load([EQUAL[0]])
    source.load([EQUAL[1]])
    assert contacts.names() == {"1": "Second"}


LIVE, ARCHIVED = contact("1", "Live", 2), contact("1", "Archived", 9, archived="true")
"""A record whose archived version has the moment of archiving as its cursor; restored, it has its old one."""


@pytest.mark.parametrize("full_refresh", [False, True])
def test_a_deleted_record_that_is_alive_in_a_later_load_revives(contacts: Contacts, full_refresh: bool):
    contacts.load([LIVE])
    contacts.load([ARCHIVED])
    assert contacts.rows()["1"]["deleted_at"] is not None
    assert balance(contacts.load([LIVE], full_refresh=full_refresh)) == {"updated": 1}
    assert (contacts.names(), contacts.rows()["1"]["deleted_at"]) == ({"1": "Live"}, None)


@pytest.mark.parametrize("order", [1, -1])
def test_one_that_the_same_load_shows_alive_and_deleted_is_what_is_newer(contacts: Contacts, order: int):
    parts = [[LIVE], [ARCHIVED]][::order]
    contacts.load(*parts)
    assert balance(contacts.load(*parts)) == {"unchanged": 1, "duplicates": 1}
    assert contacts.rows()["1"]["deleted_at"] is not None


def test_an_older_deleted_version_revives_nothing(contacts: Contacts):
    contacts.load([ARCHIVED])
    assert balance(contacts.load([contact("1", "Older", 2, archived="true")])) == {"duplicates": 1}


def test_a_date_in_the_future_does_not_lock_a_record(contacts: Contacts):
    ahead = (datetime.now(UTC) + timedelta(days=900)).isoformat()
    contacts.load([{"id": "1", "name": "Poison", "at": ahead}])
    contacts.load([contact("1", "Real")])
    assert contacts.names() == {"1": "Real"}


GOOD = contact("good")


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (contact("", "No id"), "missing_id"),
        (contact(" \t", "Blank id"), "missing_id"),
        ({"id": None, "name": "Null id", "at": day(1)}, "missing_id"),
        ({"id": None}, "missing_id"),
        (contact("x" * 1_025), "id_too_long"),
        (contact("é" * 513), "id_too_long"),
        (contact("1", bio="x" * (rejection.MAX_FIELD_BYTES + 1)), "field_too_long"),
        (contact("1", **{f"f{n}": "x" for n in range(rejection.MAX_FIELDS)}), "too_many_fields"),
        (contact("1", **{REJECTED: "ragged_row: line 7 has 3 cells, the header 4"}), "ragged_row"),
    ],
)
def test_a_bad_record_is_kept_with_its_reason_and_fails_no_other(contacts: Contacts, bad: Record, reason: str):
    row = contacts.load([bad, GOOD])
    assert balance(row) == {"inserted": 1, "quarantined": 1}
    assert set(contacts.rows()) == {"good"}
    [kept] = contacts.quarantined()
    assert (kept["reason"], kept["load_id"], kept["status"]) == (reason, row["load_id"], "open")
    assert kept["raw"] == {name: bad.get(name) for name in {**bad, **GOOD} if name != REJECTED}


def test_the_largest_that_is_allowed_is_merged(contacts: Contacts):
    large = contact("i" * 1_024, bio="x" * rejection.MAX_FIELD_BYTES)
    many = contact("many", **{f"f{n}": "x" for n in range(rejection.MAX_FIELDS - 3)})
    contacts.load([large])
    contacts.load([many])
    assert {i: r["raw"] for i, r in contacts.rows().items()} == {"i" * 1_024: large, "many": many}


def test_two_thousand_columns_that_no_record_fills_are_merged(contacts: Contacts):
    people = [contact(str(n), **{f"only_{n}_{k}": "x" for k in range(700)}) for n in range(3)]
    assert balance(contacts.load(people)) == {"inserted": 3}


def test_a_bad_record_that_is_seen_again_is_counted_and_not_kept_twice(contacts: Contacts):
    bad = contact("", "No id")
    contacts.load([bad, bad, contact("", "Another")])
    contacts.load([GOOD, bad])
    assert [(q["raw"]["name"], q["seen"]) for q in contacts.quarantined()] == [("No id", 3), ("Another", 1)]


def test_a_reason_quotes_no_value(contacts: Contacts):
    contacts.load([contact("s3cret" * 200), contact("1", bio="s3cret" * 200_000)])
    assert not [q for q in contacts.quarantined() if "s3cret" in q["detail"] or "s3cret" in q["reason"]]


def test_a_source_without_an_id_field_is_refused_with_what_to_do(contacts: Contacts):
    with pytest.raises(SchemaChanged, match=r"looked for id; the source has name, at: set `mapping: \{external_id: …\}`"):
        contacts.merge(contacts.open(), [{"name": "Ann", "at": day(1)}])


def test_ids_that_differ_only_by_case_space_or_zeros_are_different(contacts: Contacts):
    ids = ["a1", "A1", " a1", "a1 ", "01", "1", "1.0", "é", "e\u0301"]
    assert balance(contacts.load([contact(i, f"Name {n}") for n, i in enumerate(ids)])) == {"inserted": len(ids)}
    assert set(contacts.rows()) == set(ids)


def test_nul_and_lone_surrogates_become_visible_and_the_record_says_where(contacts: Contacts):
    contacts.load([contact("a\x00b", "N\x00ul"), contact("2", "Half \ud83d pair"), contact("3", "Whole \U0001f600")])
    rows = contacts.rows()
    assert {i: (r["raw"]["name"], r["raw"].get(SANITISED)) for i, r in rows.items()} == {
        "a\\u0000b": ("N\\u0000ul", "id,name"),
        "2": ("Half \\ud83d pair", "name"),
        "3": ("Whole \U0001f600", None),
    }


def test_escaped_records_are_unchanged_when_read_again(contacts: Contacts):
    people = [contact("a\x00b", "N\x00ul"), contact("2", "Half \ud83d pair"), contact("3")]
    contacts.load(people)
    assert balance(contacts.load(people[1:], people[:1])) == {"unchanged": 3}


def test_a_record_that_was_merged_away_points_at_its_survivor(contacts: Contacts):
    contacts.load([contact("1"), contact("2")])
    contacts.load([contact("1", on=2, merged_into="2")])
    assert {i: r["merged_into"] for i, r in contacts.rows().items()} == {"1": "2", "2": None}


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("cut", [1, 2])
def test_what_a_survivor_absorbed_points_at_it(contacts: Contacts, known: bool, cut: int):
    """Also when loser and survivor come changed in one load, because the merge happened between two pages."""
    if known:
        contacts.load([contact("1"), contact("2"), contact("3")])
    people = [contact("1", "Loser", 2), contact("2", "Winner", 3, absorbed="1"), contact("3")]
    contacts.load(people[:cut], people[cut:])
    assert {i: r["merged_into"] for i, r in contacts.rows().items()} == {"1": "2", "2": None, "3": None}


@pytest.mark.parametrize("known", [True, False])
def test_a_survivor_that_comes_in_an_earlier_part_than_its_loser_still_absorbs_it(contacts: Contacts, known: bool):
    if known:
        contacts.load([contact("1"), contact("2")])
    contacts.load([contact("2", "Winner", 3, absorbed='["1", "9"]')], [contact("1", "Loser", 2)])
    assert {i: r["merged_into"] for i, r in contacts.rows().items()} == {"1": "2", "2": None}


def test_what_a_load_that_failed_found_to_be_merged_is_applied_by_the_next_one(contacts: Contacts):
    """Its survivor is unchanged then, and says nothing any more."""
    parts = [[contact("2", "Winner", 3, absorbed="1")], [contact("1", "Loser", 2)]]
    load = contacts.open()
    for number, part in enumerate(parts):
        contacts.merge(load, part, part=number)
    assert balance(contacts.load(*parts)) == {"unchanged": 2}
    assert {i: r["merged_into"] for i, r in contacts.rows().items()} == {"1": "2", "2": None}


def test_a_record_never_points_at_itself(contacts: Contacts):
    contacts.load([contact("1", absorbed="1;2"), contact("2")])
    assert {i: r["merged_into"] for i, r in contacts.rows().items()} == {"1": None, "2": "1"}


def test_of_two_that_absorbed_one_the_last_of_the_stream_has_it(contacts: Contacts):
    contacts.load(
        [
            contact("1"),
            contact("9", absorbed="1"),
            contact("2", absorbed="1"),
            contact("5", absorbed="4"),
            contact("6", absorbed="4"),
            contact("4"),
        ]
    )
    assert {i: r["merged_into"] for i, r in contacts.rows().items() if r["merged_into"]} == {"1": "2", "4": "6"}


def test_a_deletion_is_kept_with_its_time(contacts: Contacts):
    contacts.load([contact("1"), contact("2"), contact("3")])
    row = contacts.load([contact("1", on=2, deleted_at="2026-01-02T03:04:05Z"), contact("2", on=2, archived="True")])
    rows = contacts.rows()
    assert row["deleted"] == 2
    assert rows["1"]["deleted_at"] == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert abs(rows["2"]["deleted_at"] - datetime.now(UTC)) < timedelta(minutes=5)
    assert rows["3"]["deleted_at"] is None


def test_a_deleted_record_that_returns_is_alive_again(contacts: Contacts):
    contacts.load([contact("1", archived="true")])
    contacts.load([contact("1", on=2)])
    assert contacts.rows()["1"]["deleted_at"] is None


def test_a_part_that_is_merged_is_not_merged_again(contacts: Contacts):
    load = contacts.open()
    first = contacts.merge(load, [contact("1", "One")])
    assert contacts.merge(load, [contact("1", "Else", 5), contact("2")]) == first
    assert contacts.names() == {"1": "One"}


def test_a_part_that_fails_leaves_nothing(contacts: Contacts, monkeypatch: pytest.MonkeyPatch):
    load = contacts.open()
    with monkeypatch.context() as patch:
        patch.setattr(
            merged_batch, "raw_json", lambda records: pa.array(["{}" if records.num_rows == 1 else "{not json"] * records.num_rows)
        )
        with pytest.raises(PipelineError, match="refused a statement"):
            contacts.merge(load, [contact("", "Bad")], [contact("1"), contact("2")])
    assert (contacts.rows(), contacts.quarantined()) == ({}, [])
    assert contacts.merge(load, [contact("1")]).inserted == 1


def test_a_failure_quotes_no_record(contacts: Contacts, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(merged_batch, "raw_json", lambda _: pa.array(['{"s3cret']))
    with pytest.raises(PipelineError) as failure:
        contacts.merge(contacts.open(), [contact("s3cret")])
    assert "s3cret" not in repr(failure.value)
    assert failure.value.__cause__ is None


def test_sources_do_not_touch_each_other(contacts: Contacts):
    other = replace(contacts, name=f"{contacts.name}_other")
    contacts.load([contact("1", "Ours")])
    other.load([contact("1", "Theirs")])
    assert (contacts.names(), other.names()) == ({"1": "Ours"}, {"1": "Theirs"})


def test_another_mapping_normalises_what_did_not_change(contacts: Contacts):
    people = [contact("1", mail="a@acme.eu")]
    contacts.load(people)
    mapped = replace(contacts, fields=contacts.fields.override({"email": "mail"}))
    assert balance(mapped.load(people)) == {"updated": 1}
    assert contacts.rows()["1"]["email"] == "a@acme.eu"


# -- Parts side by side -------------------------------------------------------------------------


class Beside:
    """A merge of one part that has written its first batch and waits, in a thread of its own."""

    def __init__(self, contacts: Contacts, load: Load, part: int, *batches: list[Record]) -> None:
        self.contacts, self.load, self.part, self.batches = contacts, load, part, batches
        self.written, self.go, self.error = threading.Event(), threading.Event(), None
        self.thread = threading.Thread(target=self._merge)

    def _waiting(self) -> Iterator[pa.Table]:
        for batch in self.batches:
            yield table_of(batch)
        self.written.set()
        assert self.go.wait(30)

    def _merge(self) -> None:
        try:
            merge.merge_part(self.contacts.url, self.load, Part(0, self.part), self._waiting(), self.contacts.rules)
        except Exception as error:  # noqa: BLE001 - the test's own thread asks for it
            self.error = error

    def __enter__(self) -> Self:
        self.thread.start()
        assert self.written.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self.go.set()
        self.thread.join(30)


def is_waiting(contacts: Contacts) -> bool:
    """True if a merge waits for another one's lock."""
    return bool(
        contacts.query(
            "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' and state = 'active'"
        )
    )


def test_parts_of_one_load_are_merged_side_by_side(contacts: Contacts):
    contacts.load([contact("1"), contact("2"), contact("3")])
    parts = [[contact("1", "One", 2), contact("4")], [contact("2", "Two", 2), contact("5")]]
    load = contacts.open()
    with Beside(contacts, load, 0, parts[0]) as first:
        contacts.merge(load, parts[1], part=1)
        assert contacts.names()["2"] == "Two"
    assert first.error is None
    row = contacts.commit(load, contacts.summary(*parts))
    assert (balance(row), row["row_count"]) == ({"inserted": 2, "updated": 2}, 5)
    assert contacts.names() == {"1": "One", "2": "Two", "3": "Ann Lee", "4": "Ann Lee", "5": "Ann Lee"}


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(("days", "stays"), [((2, 3), "B"), ((3, 2), "A")])
def test_parts_that_meet_in_a_record_are_merged_one_after_the_other(contacts: Contacts, known: bool, days: tuple[int, int], stays: str):
    """The later one rolls back, and its next try finds what the other wrote; in a first load it looks at once."""
    if known:
        contacts.load([contact("1")])
    parts = [[contact("1", "A", days[0])], [contact("1", "B", days[1]), contact("2")]]
    load = contacts.open()
    with Beside(contacts, load, 0, parts[0]) as first:
        second = Beside(contacts, load, 1, parts[1])
        second.go.set()
        second.thread.start()
        wait_until(lambda: is_waiting(contacts))
    second.thread.join(30)
    assert first.error is None
    if known:
        assert isinstance(second.error, WriteConflict)
        assert second.error.retryable
        assert set(contacts.names()) == {"1"}
        contacts.merge(load, parts[1], part=1, whole={Part(0, n): part for n, part in enumerate(parts)})
    assert known or second.error is None
    contacts.commit(load, contacts.summary(*parts))
    assert contacts.names() == {"1": stays, "2": "Ann Lee"}


def test_a_first_load_looks_at_nothing_until_a_record_is_there_already(contacts: Contacts, monkeypatch: pytest.MonkeyPatch):
    probed: list[int] = []
    probe = merge._Merger._probe
    monkeypatch.setattr(merge._Merger, "_probe", lambda self, ids, hashes: probed.append(len(ids)) or probe(self, ids, hashes))
    load = contacts.open()
    counts = contacts.merge(load, [contact("1")], [contact("2"), contact("3")], [contact("1", "B", 2), contact("4")], [contact("5")])
    assert (counts.inserted, counts.updated, probed) == (5, 1, [2, 1])
    assert contacts.names()["1"] == "B"
    contacts.commit(load, contacts.summary([contact(str(n)) for n in range(6)]))
    probed.clear()
    contacts.load([contact("6")])
    assert probed == [1]


def test_what_a_load_that_failed_has_written_is_looked_at(contacts: Contacts):
    failed = contacts.open("first")
    contacts.merge(failed, [contact("1")])
    ledger.fail(contacts.url, failed, "test", "it failed")
    row = contacts.load([contact("1"), contact("2")])
    assert (row["inserted"], row["unchanged"]) == (1, 1)


def test_a_part_that_is_merged_twice_at_once_counts_once(contacts: Contacts):
    load, part = contacts.open(), [contact("1")]
    with Beside(contacts, load, 0, part) as first:
        again = Beside(contacts, load, 0, part)
        again.go.set()
        again.thread.start()
        wait_until(lambda: is_waiting(contacts))
    again.thread.join(30)
    assert (first.error, type(again.error)) == (None, WriteConflict)
    assert contacts.merge(load, part).inserted == 1
    assert contacts.commit(load, contacts.summary(part))["row_count"] == 1


def test_a_merge_that_was_at_work_when_its_load_was_taken_over_leaves_nothing(contacts: Contacts):
    """And does not keep the successor waiting."""
    old = contacts.open("old")
    with Beside(contacts, old, 0, [contact("1", "Zombie", 9)]) as zombie:
        new = contacts.open("old")
        contacts.merge(new, [contact("1", "New")])
    assert zombie.error is not None
    assert contacts.names() == {"1": "New"}


def test_a_merge_that_the_take_over_could_not_end_leaves_nothing_either(contacts: Contacts, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lease, "_end_sessions", lambda *_: None)
    with Beside(contacts, contacts.open("old"), 0, [contact("1", "Zombie", 9)]) as zombie:
        contacts.open("old")
    assert isinstance(zombie.error, Superseded)
    assert contacts.rows() == {}


def test_a_merge_that_ends_after_its_loads_commit_leaves_nothing(contacts: Contacts):
    load = contacts.open()
    with Beside(contacts, load, 1, [contact("2")]) as late:
        contacts.merge(load, [contact("1")])
        contacts.commit(load, contacts.summary([contact("1")]))
    assert isinstance(late.error, Superseded)
    assert (set(contacts.rows()), contacts.state.row_count) == ({"1"}, 1)


def test_the_rows_of_a_source_count_what_failed_loads_merged(contacts: Contacts):
    contacts.load([contact("1")])
    for number in (2, 3):
        contacts.merge(contacts.open(), [contact(str(number))])
    assert contacts.state.row_count == 1
    assert contacts.load([contact("3"), contact("4")])["row_count"] == 4


# what is only told of as gone


def gone(external_id: str, on: int, **more: str | None) -> Record:
    return {"id": external_id, "at": day(on), GONE: "true", **({"archived": "true"} | more)}


def test_what_is_only_told_of_as_gone_keeps_what_is_known_of_it(contacts: Contacts):
    contacts.load([contact("1", email="a@acme.eu"), contact("2"), contact("3")])
    row = contacts.load([gone("1", 5, deleted_at=day(4)), gone("2", 5, archived=None, merged_into="3"), contact("3", "Changed", 5)])
    assert balance(row) == {"updated": 3, "deleted": 1}
    one, two = contacts.rows()["1"], contacts.rows()["2"]
    assert (one["email"], one["deleted_at"].isoformat(), GONE in one["raw"]) == ("a@acme.eu", "2026-01-04T00:00:00+00:00", False)
    assert (two["full_name"], two["merged_into"], two["deleted_at"]) == ("Ann Lee", "3", None)


def test_what_was_never_stored_is_not_stored_when_it_goes(contacts: Contacts):
    contacts.load([contact("1")])
    assert balance(contacts.load([gone("2", 5), gone("1", 5), gone("1", 5)])) == {"unchanged": 2, "updated": 1, "deleted": 1}
    assert list(contacts.rows()) == ["1"]
    assert balance(contacts.load([gone("1", 6)])) == {"unchanged": 1}


def test_what_changed_after_it_went_is_there_and_what_comes_back_is_written(contacts: Contacts):
    contacts.load([contact("1", on=5)])
    assert balance(contacts.load([gone("1", 4)])) == {"unchanged": 1}
    assert balance(contacts.load([gone("1", 5)])) == {"updated": 1, "deleted": 1}
    assert contacts.rows()["1"]["deleted_at"]
    assert balance(contacts.load([contact("1", on=5)])) == {"updated": 1}
    assert contacts.rows()["1"]["deleted_at"] is None


def test_a_record_that_goes_in_the_batch_that_shows_it_is_gone_without_a_cursor_too(contacts: Contacts):
    source = contacts.without_cursor()
    assert balance(source.load([contact("1"), gone("1", 1)])) == {"inserted": 1, "updated": 1, "deleted": 1}
    assert source.rows()["1"]["deleted_at"]
