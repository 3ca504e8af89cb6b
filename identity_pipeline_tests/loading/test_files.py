"""Loads of files: which are read, what a file is, and what dies when."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest

from identity_pipeline.core.cursor import Cursor
from identity_pipeline.core.errors import SourceUnavailable
from identity_pipeline.core.fieldmap import FieldMap
from identity_pipeline.core.load_spec import LoadSpec
from identity_pipeline.core.window import Window
from identity_pipeline.loading import part
from identity_pipeline.loading.load import load
from identity_pipeline.loading.read import read
from identity_pipeline.loading.spec import RunOptions, Target
from identity_pipeline.readers.files import Contents, Dialect, Reading, read_files
from identity_pipeline.store import ledger
from identity_pipeline.store.landing import Landing
from identity_pipeline_tests.servers.shelf import Shelf

SPEC = LoadSpec("drops", "a_type", FieldMap(full_name=("name",)), Cursor("at", "timestamp"), max_deleted_share=0.5)


@dataclass
class Place:
    """A place of files, and the loads of it."""

    target: Target
    spec: LoadSpec = SPEC
    contents: Contents = "changes"
    shelf: Shelf = field(default_factory=Shelf)
    version: int = 0

    def put(self, name: str, *rows: tuple[str, str, str], day: int = 1) -> None:
        """Write a file of (id, name, day of the month, empty for none)."""
        self.version += 1
        body = "".join(f"{i},{n},{at and f'2026-04-{int(at):02}'}\n" for i, n, at in rows)
        self.shelf.held[name] = str(self.version), f"id,name,at\n{body}".encode()
        self.shelf.modified[name] = datetime(2026, 4, day, tzinfo=UTC)

    def read(self, window: Window) -> Iterator[pa.Table]:
        """As a connector does."""
        window.context.clock(datetime(2026, 5, 1, tzinfo=UTC))
        window.context.sleep = lambda _: None
        return read_files(self.shelf, Reading(Dialect(), contents=self.contents), window)

    def load(self, **options: Any) -> dict[str, Any]:
        """One load."""
        published = ledger.state(self.target.url, "drops").mark
        return load(self.spec, self, self.target, "run", options=RunOptions(**options), published=published, log=lambda _: None)

    @property
    def files(self) -> dict[str, str]:
        """The version of each file that a load has read."""
        return {name: found.version for name, found in ledger.state(self.target.url, "drops").files.items()}

    @property
    def people(self) -> dict[str, str]:
        """Names by external id, of those that are not deleted."""
        with psycopg.connect(self.target.url) as connection:
            found = connection.execute("select external_id, full_name from identity.records where deleted_at is null order by 1")
            return dict(found.fetchall())


@pytest.fixture
def place(database_url: str, tmp_path: Path) -> Place:
    return Place(Target(database_url, Landing(str(tmp_path))))


def test_a_file_that_comes_late_is_read_whole_however_old_its_date_and_its_rows_are(place: Place) -> None:
    place.put("b.csv", ("1", "Ann", "20"), ("2", "Bob", "21"), day=20)
    place.load()
    place.put("a.csv", ("3", "Cid", "2"), ("4", "Dee", "3"), day=2)
    row = place.load()
    assert (row["inserted"], row["filtered"]) == (2, 0)
    assert place.people == {"1": "Ann", "2": "Bob", "3": "Cid", "4": "Dee"}
    assert row["cursor_after"] == "2026-04-21T00:00:00Z", "the mark never goes back"


def test_only_a_version_that_no_load_has_read_is_read(place: Place) -> None:
    for name in "abc":
        place.put(f"{name}.csv", (name, "Ann", "1"))
    place.load()
    place.put("b.csv", ("b", "Bob", "2"), day=2)
    place.shelf.opened.clear()
    row = place.load()
    assert [name for name, _ in place.shelf.opened] == ["b.csv"]
    assert (row["records_read"], row["updated"]) == (1, 1)
    assert place.files == {"a.csv": "1", "b.csv": "4", "c.csv": "3"}


def test_other_settings_read_every_file_again(place: Place) -> None:
    place.put("a.csv", ("1", "Ann", "1"))
    place.load()
    place.spec = replace(place.spec, settings="another encoding")
    assert place.load()["records_read"] == 1
    assert place.load()["records_read"] == 0


def test_a_person_may_ask_for_newer_rows_only(place: Place) -> None:
    place.put("a.csv", ("1", "Ann", "1"), ("2", "Bob", "9"))
    row = place.load(cursor_after="2026-04-05T00:00:00Z")
    assert (row["inserted"], row["filtered"]) == (1, 1)
    assert place.load(cursor_after="2026-04-05T00:00:00Z")["unchanged"] == 1, "of a file that was read before, too"


def test_a_file_counts_as_read_only_once_its_load_is_committed(place: Place) -> None:
    place.put("a.csv", ("1", "Ann", "1"))
    place.put("b.csv", ("2", "Bob", "1"))
    found = read(place.spec, place, place.target, "run", log=lambda _: None)
    for task in part.tasks(place.spec, found):
        part.merge(task, place.target)
    assert place.files == {}, "all is merged, and the run dies before its commit"
    place.shelf.faults = [SourceUnavailable("lost", exhausted=True)]
    with pytest.raises(SourceUnavailable):
        place.load()
    assert place.files == {}
    assert place.load()["records_read"] == 2
    assert place.files == {"a.csv": "1", "b.csv": "2"}


def test_without_a_cursor_the_row_of_the_file_modified_last_wins_then_that_of_the_later_name(place: Place) -> None:
    place.spec = replace(SPEC, cursor=None)
    place.put("a.csv", ("1", "newest", "1"), day=9)
    place.put("b.csv", ("1", "older", "1"), ("2", "older", "1"), day=2)
    place.put("c.csv", ("2", "later name", "1"), day=2)
    place.load()
    assert place.people == {"1": "newest", "2": "later name"}


def test_without_a_cursor_an_older_file_that_comes_late_wins_over_none_that_was_modified_after_it(place: Place) -> None:
    place.spec = replace(SPEC, cursor=None)
    place.put("b.csv", ("1", "first", "1"), day=5)
    place.load()
    place.put("c.csv", ("1", "first", "1"), ("2", "newest", "1"), day=9)
    place.load()
    place.put("a.csv", ("1", "late", "1"), ("2", "late", "1"), ("3", "late", "1"), day=7)
    place.shelf.opened.clear()
    row = place.load()
    assert place.people == {"1": "first", "2": "newest", "3": "late"}, "c.csv has the last word, although it changed nothing of 1"
    assert [name for name, _ in place.shelf.opened] == ["a.csv", "c.csv"]
    assert row["inserted"] == 1


@pytest.mark.parametrize("at", ["5", ""])
def test_a_late_older_file_wins_no_tie_of_the_cursor(place: Place, at: str) -> None:
    place.put("z.csv", ("9", "Zoe", "5"), day=1)
    place.put("b.csv", ("1", "new", at), ("2", "new", at), day=9)
    place.load()
    place.put("a.csv", ("1", "OLD", at), ("2", "corrected", "6"), day=2)
    place.shelf.opened.clear()
    row = place.load()
    assert place.people == {"1": "new", "2": "corrected", "9": "Zoe"}, "a later value of the cursor is newer, whatever the file"
    assert [name for name, _ in place.shelf.opened] == ["a.csv", "b.csv"]
    assert row["filtered"] == 0
    place.shelf.opened.clear()
    place.load()
    assert place.shelf.opened == []


def test_an_id_is_the_same_in_every_file_and_two_forms_of_it_in_one_show_in_the_balance(place: Place) -> None:
    place.put("a.csv", ("1.0", "Ann", "1"), ("2.0", "Bob", "1"), day=1)
    assert place.load()["inserted"] == 2
    place.put("b.csv", ("1.0", "Ann", "1"), ("2.0", "Bob", "1"), ("TOTAL", "2", "1"), day=2)
    assert place.load()["inserted"] == 1
    place.put("c.csv", ("1.0", "one", "2"), ("1", "other", "2"), day=3)
    row = place.load()
    assert (row["records_read"], row["updated"], row["duplicates"]) == (2, 1, 1)
    assert any("as 7 and as 7.0" in warning for warning in row["warnings"])
    assert place.people == {"1": "other", "2": "Bob", "TOTAL": "2"}


@pytest.mark.parametrize("full_refresh", [False, True])
def test_a_file_of_changes_deletes_nobody_by_leaving_him_out(place: Place, full_refresh: bool) -> None:
    place.put("a.csv", ("1", "Ann", "1"), ("2", "Bob", "1"))
    place.load()
    del place.shelf.held["a.csv"]
    place.put("b.csv", ("3", "Cid", "2"), day=2)
    assert place.load(full_refresh=full_refresh)["deleted"] == 0
    assert place.people == {"1": "Ann", "2": "Bob", "3": "Cid"}


def test_a_file_that_is_the_whole_truth_deletes_whom_it_leaves_out_and_older_ones_are_not_read(place: Place) -> None:
    place.contents, place.spec = "everything", replace(SPEC, snapshot=True)
    place.put("b.csv", ("1", "Ann", "1"), ("2", "Bob", "1"), ("3", "Cid", "1"), day=2)
    place.load()
    place.put("a.csv", ("9", "too late", "1"), day=1)
    assert (place.load()["records_read"], place.load()["deleted"]) == (0, 0)
    place.put("c.csv", ("1", "Ann", "1"), ("2", "corrected", "1"), day=3)
    assert place.load()["deleted"] == 1
    assert place.people == {"1": "Ann", "2": "corrected"}
    assert place.load(full_refresh=True)["deleted"] == 0


@pytest.fixture
def truth(place: Place) -> Place:
    """A place where b.csv has replaced a.csv as the whole truth."""
    place.contents, place.spec = "everything", replace(SPEC, snapshot=True)
    place.put("a.csv", ("1", "right", "1"), ("2", "right", "1"), ("3", "right", "1"), day=1)
    place.load()
    place.put("b.csv", ("1", "wrong", "2"), ("2", "wrong", "2"), day=2)
    place.load()
    assert place.people == {"1": "wrong", "2": "wrong"}
    return place


def _removed(place: Place) -> None:
    del place.shelf.held["b.csv"]


def _written_again(place: Place) -> None:
    place.shelf.modified["a.csv"] = datetime(2026, 4, 3, tzinfo=UTC)


@pytest.mark.parametrize("back", [_removed, _written_again])
def test_a_former_file_that_is_the_newest_again_is_the_whole_truth_again(truth: Place, back: Callable[[Place], None]) -> None:
    back(truth)
    assert truth.load()["updated"] == 3
    assert truth.people == {"1": "right", "2": "right", "3": "right"}
    assert truth.load()["records_read"] == 0


def test_a_file_named_by_a_person_is_not_the_whole_truth(truth: Place) -> None:
    assert truth.load(objects=("a.csv",))["deleted"] == 0
    truth.load()
    assert truth.people == {"1": "wrong", "2": "wrong"}, "the newest file has the last word"
    truth.put("c.csv", ("1", "newest", "3"), ("2", "newest", "3"), ("4", "newest", "3"), day=3)
    truth.load(objects=("c.csv",))
    truth.put("d.csv", ("1", "newest", "3"), ("2", "newest", "3"), day=4)
    truth.load(objects=("d.csv",))
    truth.load()
    assert truth.people == {"1": "newest", "2": "newest"}


def test_who_stands_below_what_a_person_asked_for_is_not_gone(truth: Place) -> None:
    truth.put("c.csv", ("1", "as before", "1"), ("2", "newest", "9"), day=3)
    row = truth.load(cursor_after="2026-04-02T00:00:00Z")
    assert (row["filtered"], row["deleted"]) == (1, 0)
    assert truth.people == {"1": "wrong", "2": "newest"}


def test_a_file_that_becomes_the_whole_truth_is_read_again(place: Place) -> None:
    place.put("a.csv", ("1", "Ann", "1"), ("2", "Bob", "1"), day=1)
    place.put("b.csv", ("1", "Ann", "1"), day=2)
    place.load()
    place.contents, place.spec = "everything", replace(SPEC, snapshot=True)
    assert place.load()["deleted"] == 1
    assert place.people == {"1": "Ann"}


@pytest.mark.parametrize("contents", ["changes", "everything"])
def test_an_empty_list_where_files_were_is_said_and_deletes_nobody(place: Place, contents: Contents) -> None:
    place.contents = contents
    place.put("a.csv", ("1", "Ann", "1"))
    place.load()
    place.shelf.held.clear()
    row = place.load()
    assert any("no file is listed" in warning for warning in row["warnings"])
    assert (row["deleted"], place.load(full_refresh=True)["deleted"]) == (0, 0)
    assert place.people == {"1": "Ann"}


def test_many_files_are_kept_apart_and_cost_nothing_once_they_are_read(place: Place) -> None:
    for n in range(1_200):
        place.shelf.held[f"{n:05}.csv"] = ("1", b"id,name,at\n%d,Ann,2026-04-01\n" % n)
    assert place.load()["inserted"] == 1_200
    place.shelf.opened.clear()
    assert place.load()["records_read"] == 0
    assert place.shelf.opened == []
    assert len(place.files) == 1_200
