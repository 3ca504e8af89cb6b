"""What is read: everything once, from the mark on, whatever lies at the mark; and what is written of it."""

from datetime import timedelta

import pyarrow as pa
import pytest

from identity_pipeline.core import cursor
from identity_pipeline.core.text import SANITISED
from identity_pipeline_tests.conformance.harness import Contact, contacts, minute
from identity_pipeline_tests.conformance.loader import Loader

FIVE = contacts(5)
IDS = {"1", "2", "3", "4", "5"}


def mark_at(loader: Loader, number: float) -> str:
    return cursor.canonical(loader.harness.cursor_type, loader.harness.cursor_text(minute(number)))


def test_five_records_over_two_pages_are_read_once_each(loader: Loader) -> None:
    loader.harness.shrink_pages()
    loader.show(*FIVE)
    row = loader.load()
    assert (row["records_read"], row["inserted"], row["duplicates"]) == (5, 5, 0)
    assert loader.live() == IDS
    assert max(row["pages"], len(loader.batches())) >= 2, "shrink_pages() has to spread five contacts over two pages or batches"


@pytest.mark.needs("cursor")
def test_five_changes_over_two_pages_are_read_once_each(loader: Loader) -> None:
    loader.harness.shrink_pages()
    loader.show(*FIVE)
    loader.load()
    loader.add(*(Contact(str(n), minute(n + 100)) for n in range(1, 6)), Contact("6", minute(106)))
    row = loader.load()
    older = 5 if loader.harness.by_events else 0  # within the overlap
    assert (row["inserted"], row["updated"], row["duplicates"]) == (1, 5, older)
    assert loader.mark == mark_at(loader, 106)


def test_batches_are_bounded_and_hold_nothing_but_text(loader: Loader) -> None:
    number = loader.harness.second_batch_at
    loader.show(*contacts(number))
    batches = loader.batches()
    assert len(batches) >= 2, "so many records have to come in several batches"
    assert max(map(len, batches)) <= 50_000
    assert sum(map(len, batches)) == number
    assert {kind for batch in batches for kind in pa.table(batch).schema.types} == {pa.string()}


@pytest.mark.needs("cursor")
@pytest.mark.parametrize("microseconds", [0, 123_456, 999_999])
def test_a_tie_at_the_mark_is_read_again(loader: Loader, microseconds: int) -> None:
    tie = minute(5) + timedelta(microseconds=microseconds)
    loader.declared["cursor_overlap"] = 0
    loader.show(*FIVE[:4], Contact("5", tie))
    loader.load()
    loader.add(Contact("6", tie))
    loader.load()
    assert loader.live() == {*IDS, "6"}


@pytest.mark.needs("cursor")
def test_a_changed_value_under_the_same_cursor_value_is_loaded(loader: Loader) -> None:
    loader.show(*FIVE)
    loader.load()
    loader.add(FIVE[4].but(note="changed"))
    assert loader.load()["updated"] == 1
    assert loader.rows()["5"]["raw"][loader.harness.note] == "changed"


@pytest.mark.needs("cursor")
def test_a_record_that_comes_late_is_found_within_the_overlap(loader: Loader) -> None:
    known = loader.harness.connector().cursor_columns
    own = (known.get(loader.harness.cursor_column or "") or known["*"]).overlap
    if not own:
        loader.declared["cursor_overlap"] = own = 600
    loader.show(*FIVE, Contact("6", minute(1_000)))
    loader.load()
    late = 1_000 - own / 60 / 2
    loader.add(Contact("7", minute(late)))
    loader.load()
    assert "7" in loader.live()
    assert loader.mark == mark_at(loader, 1_000)


@pytest.mark.needs("cursor", "null_cursor")
def test_records_without_a_cursor_value_are_loaded_and_counted_and_later_ones_found_or_reported(loader: Loader) -> None:
    loader.show(*FIVE, Contact("6", None), Contact("7", None))
    row = loader.load()
    assert (row["inserted"], row["null_cursor"]) == (7, 2)
    assert any("2 records" in warning for warning in row["warnings"])
    loader.add(Contact("8", None))
    later = loader.load()
    assert "8" in loader.live() or any("full refresh" in warning for warning in later["warnings"]), "it is never seen, and nobody says so"
    assert loader.load(full_refresh=True)["null_cursor"] == 3
    assert loader.live() == {*IDS, "6", "7", "8"}


@pytest.mark.needs("cursor", "future_cursor")
def test_a_record_from_the_future_is_loaded_and_blinds_no_later_load(loader: Loader) -> None:
    ahead = minute(60 * 24 * 365 * 900)
    loader.show(*FIVE, Contact("6", ahead))
    loader.load()
    assert loader.live() == {*IDS, "6"}
    assert loader.mark == mark_at(loader, 5)
    loader.add(Contact("7", minute(7)), Contact("6", ahead, note="changed"))
    loader.load()
    assert "7" in loader.live()
    assert loader.rows()["6"]["raw"][loader.harness.note] == "changed"
    assert loader.mark == mark_at(loader, 7)


@pytest.mark.needs("cursor")
def test_the_mark_never_goes_back_by_itself(loader: Loader) -> None:
    loader.show(*FIVE)
    loader.load()
    loader.show(Contact("1", minute(1), note="changed"))
    loader.load()
    assert loader.mark == mark_at(loader, 5)
    loader.show()
    loader.load()
    assert loader.mark == mark_at(loader, 5)


@pytest.mark.needs("cursor")
def test_a_mark_that_leads_too_far_can_be_taken_back(loader: Loader) -> None:
    loader.show(*FIVE)
    loader.load()
    loader.show(*FIVE[:3])
    loader.load(cursor_after=mark_at(loader, 0))
    assert loader.mark == mark_at(loader, 3), "a lower cursor_after sets the mark to what was seen"
    loader.show(*FIVE[:2])
    loader.load(full_refresh=True)
    assert loader.mark == mark_at(loader, 2), "so does a full refresh"
    loader.wipe()
    loader.show(FIVE[0])
    loader.load()
    assert loader.mark == mark_at(loader, 1), "so does a wiped asset"


@pytest.mark.parametrize("full_refresh", [False, True])
def test_a_second_load_of_the_same_writes_nothing(loader: Loader, full_refresh: bool) -> None:
    loader.show(*FIVE)
    loader.load()
    before = loader.rows()
    row = loader.load(full_refresh=full_refresh)
    assert (row["inserted"], row["updated"], row["deleted"]) == (0, 0, 0)
    assert loader.rows() == before, "rows were rewritten"


@pytest.mark.needs("cursor")
def test_the_first_load_starts_at_cursor_after(loader: Loader) -> None:
    loader.declared["cursor_after"] = mark_at(loader, 3)
    loader.show(*FIVE)
    loader.load()
    assert loader.live() == {"3", "4", "5"}


@pytest.mark.needs("cursor")
def test_a_run_may_start_at_another_cursor_value(loader: Loader) -> None:
    loader.declared["cursor_overlap"] = 0
    loader.show(*FIVE)
    loader.load()
    loader.show(*(c.but(note="changed") for c in FIVE))
    loader.load(cursor_after=mark_at(loader, 3))
    assert {name for name, row in loader.rows().items() if row["raw"].get(loader.harness.note) == "changed"} == {"3", "4", "5"}


def test_a_limit_is_kept_and_leaves_the_mark(loader: Loader) -> None:
    loader.harness.shrink_pages()
    loader.show(*FIVE)
    assert loader.load(limit=2)["records_read"] == 2
    assert loader.mark is None
    assert len(loader.live()) == 2
    loader.load()
    assert loader.live() == IDS


@pytest.mark.needs("cursor", "repeated_id")
def test_of_two_rows_with_one_id_the_newer_stays(loader: Loader) -> None:
    loader.show(Contact("1", minute(2), note="newer"), Contact("1", minute(1), note="older"), Contact("2", minute(1)))
    row = loader.load()
    assert (row["inserted"], row["duplicates"]) == (2, 1)
    assert loader.rows()["1"]["raw"][loader.harness.note] == "newer"


# deletions and merges


@pytest.mark.needs("deletion")
def test_a_deletion_that_the_source_tells_is_noted(loader: Loader) -> None:
    loader.show(*FIVE)
    loader.load()
    loader.add(Contact("2", minute(10), deleted=True))
    assert loader.load()["deleted"] == 1
    assert loader.live() == IDS - {"2"}
    assert "2" in loader.rows()


@pytest.mark.needs("deletion", "restoring")
def test_a_record_that_comes_back_is_live_again(loader: Loader) -> None:
    loader.show(*FIVE[:4], Contact("5", minute(5), deleted=True))
    loader.load()
    assert loader.live() == IDS - {"5"}
    loader.add(Contact("5", minute(10)))
    loader.load()
    assert loader.live() == IDS


@pytest.mark.needs("merging")
def test_a_merge_in_the_source_points_the_loser_at_the_survivor(loader: Loader) -> None:
    loader.show(*FIVE)
    loader.load()
    loader.show(*FIVE[2:], Contact("6", minute(10), absorbed=(loader.harness.external_id("1"), loader.harness.external_id("2"))))
    loader.load()
    into = {name: row["merged_into"] for name, row in loader.rows().items()}
    six = loader.harness.external_id("6")
    assert into == {"1": six, "2": six, "3": None, "4": None, "5": None, "6": None}


def test_a_full_refresh_notes_what_vanished(loader: Loader) -> None:
    loader.harness.shrink_pages()
    loader.show(*FIVE)
    loader.load()
    loader.show(*FIVE[:4])
    if not loader.connector().reads_whole:
        assert loader.load(full_refresh=True)["deleted"] == 0, "one absence proves nothing where a read may end early"
        assert loader.live() == IDS
    assert loader.load(full_refresh=True)["deleted"] == 1
    assert loader.live() == IDS - {"5"}


def test_what_a_full_refresh_missed_once_and_saw_again_stays(loader: Loader) -> None:
    loader.show(*FIVE)
    loader.load()
    for held in (FIVE[:4], FIVE, FIVE[:4]) if not loader.connector().reads_whole else (FIVE, FIVE):
        loader.show(*held)
        assert loader.load(full_refresh=True)["deleted"] == 0
    assert loader.live() == IDS


@pytest.mark.parametrize("left", [0, 1])
def test_a_full_refresh_of_a_source_that_lost_much_deletes_nothing(loader: Loader, left: int) -> None:
    loader.show(*FIVE)
    loader.load()
    loader.show(*FIVE[:left])
    row = loader.load(full_refresh=True)
    assert row["deleted"] == 0
    assert any("max_deleted_share" in warning for warning in row["warnings"])
    assert len(loader.live()) == 5


# values

ODD = {
    "quotes": "say \"hi\", it's ''fine''",
    "backslash": "C:\\new\\table\\",
    "emoji": "👩\u200d👩\u200d👧 ✓ é e\u0301",
    "tab": "a\tb",
    "null": "NULL",
    "end": "\\N",
    "dot": "\\.",
    "zeros": "007",
    "number": "1e5",
    "large": "9007199254740993",
    "boolean": "True",
    "json": '{"a": ["b", null]}',
    "formula": "=1+1;a|b,c",
    "sql": "'); DROP TABLE records; --",
    "format": "%s {0} $1",
    "spaces": " a  b ",
    "bidi": "\u202eabc\u2066",
    "controls": "a\x01\x1e\x1f\x1bb",
}
LINES = {"unix": "a\nb\n", "windows": "a\r\nb", "mac": "a\rb", "quoted": 'a"\n"b'}


def notes(loader: Loader) -> dict[str, str]:
    return {name: row["raw"][loader.harness.note] for name, row in loader.rows().items()}


def numbered(values: dict[str, str]) -> dict[str, str]:
    """The values by the id of a contact that is to carry them."""
    return {str(n): value for n, value in enumerate(values.values(), 1)}


@pytest.mark.parametrize("values", [pytest.param(ODD, id="odd"), pytest.param(LINES, id="lines", marks=pytest.mark.needs("line_breaks"))])
def test_odd_values_arrive_exactly(loader: Loader, values: dict[str, str]) -> None:
    told = numbered(values)
    loader.show(*(Contact(n, minute(1), note=value) for n, value in told.items()))
    loader.load()
    assert notes(loader) == told


@pytest.mark.needs("nul")
def test_a_nul_becomes_a_visible_escape_and_the_record_is_marked(loader: Loader) -> None:
    loader.show(Contact("1", minute(1), note="a\x00b"), Contact("2", minute(1), note="ab"))
    loader.load()
    assert notes(loader) == {"1": "a\\u0000b", "2": "ab"}
    assert loader.harness.note in loader.rows()["1"]["raw"][SANITISED].split(",")


@pytest.mark.needs("surrogate")
def test_a_lone_surrogate_becomes_a_visible_escape_and_the_record_is_marked(loader: Loader) -> None:
    loader.show(Contact("1", minute(1), note="a\ud83db"), Contact("2", minute(1), note="ab"))
    loader.load()
    assert notes(loader) == {"1": "a\\ud83db", "2": "ab"}
    assert loader.harness.note in loader.rows()["1"]["raw"][SANITISED].split(",")


@pytest.mark.needs("megabyte")
def test_a_million_characters_arrive_and_more_are_quarantined_alone(loader: Loader) -> None:
    loader.show(Contact("1", minute(1), note="x" * 1_000_000), Contact("2", minute(1), note="x" * 1_048_577), Contact("3", minute(1)))
    row = loader.load()
    assert (row["inserted"], row["quarantined"]) == (2, 1)
    assert notes(loader)["1"] == "x" * 1_000_000
    assert loader.live() == {"1", "3"}


@pytest.mark.needs("text_ids")
def test_ids_are_told_apart_by_every_character(loader: Loader) -> None:
    ids = ["a", "A", "ä", "a\u0308", " a", "a ", "1", "01", "1.0", "k" * 1024]
    loader.show(*(Contact(name, minute(1)) for name in ids))
    row, same = loader.load(), loader.harness.same_ids
    assert sorted(loader.rows()) == sorted({*ids} - same.keys())
    assert row["duplicates"] == len(same), "what becomes one shows in the balance"


@pytest.mark.needs("text_ids")
def test_an_id_that_is_too_long_or_empty_is_quarantined_alone(loader: Loader) -> None:
    loader.show(Contact("k" * 1025, minute(1)), Contact(" ", minute(1)), Contact("1", minute(1)))
    row = loader.load()
    assert (row["inserted"], row["quarantined"]) == (1, 2)
    assert {row["reason"] for row in loader.quarantined()} == {"id_too_long", "missing_id"}


@pytest.mark.needs("repeated_id")
def test_rows_of_one_id_that_differ_are_counted_apart_from_true_duplicates(loader: Loader) -> None:
    loader.show(FIVE[0], FIVE[0], FIVE[1], FIVE[1].but(note="other"), FIVE[2].but(at=minute(3)), FIVE[2].but(at=minute(4), note="newer"))
    row = loader.load()
    assert (row["records_read"], row["inserted"], row["duplicates"]) == (6, 3, 3)
    [warning] = [warning for warning in row["warnings"] if "id of another" in warning]
    assert warning.startswith("1 records"), "neither the true duplicate nor the older version counts"
