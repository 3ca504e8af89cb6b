"""Files of a store that lists them with versions: only what changed is opened, and each is read once."""

import gzip
from typing import Any

import pytest

from identity_pipeline.core.errors import ConfigurationError, CredentialError, LimitExceeded, SourceUnavailable, TruncatedBody
from identity_pipeline.core.file_version import FileVersion
from identity_pipeline.core.window import ReadContext, Window
from identity_pipeline.readers import files
from identity_pipeline.readers.files import Dialect, Reading
from identity_pipeline_tests.servers.shelf import Shelf


def window(states: dict[str, FileVersion] | None = None, objects: tuple[str, ...] = (), **options: Any) -> Window:
    return Window(files=states or {}, objects=objects, context=ReadContext(sleep=lambda _: None, log=lambda _: None), **options)


def ids(shelf: Shelf, asked: Window, **how: Any) -> list[str]:
    return [i for table in files.read_files(shelf, Reading(Dialect(), **how), asked) for i in table["id"].to_pylist()]


@pytest.fixture
def shelf() -> Shelf:
    return Shelf(a=("1", b"id,name\n1,Ann\n"), b=("1", gzip.compress(b"id,name\n2,Bob\n")), c=("", b"id,name\n3,Cid\n"))


def test_every_file_is_read_once_in_the_stores_order(shelf: Shelf) -> None:
    first = window()
    assert ids(shelf, first) == ["1", "2", "3"]
    assert list(first.context.files) == ["a", "b", "c"]


def test_only_what_changed_is_opened_and_handed_on(shelf: Shelf) -> None:
    first = window()
    ids(shelf, first)
    shelf.opened.clear()
    shelf.held["b"] = ("2", b"id,name\n4,Dee\n")
    second = window(first.context.files)
    assert ids(shelf, second) == ["4"]
    assert shelf.opened == [("b", "1"), ("c", "")], "what has no version is compared by its content"
    assert list(second.context.files) == ["b"], "only what changed is handed on"
    assert second.context.files_unchanged == 2


def test_a_file_that_is_written_again_with_the_same_content_is_the_last_one_now(shelf: Shelf) -> None:
    first = window()
    ids(shelf, first)
    shelf.held["a"] = ("2", shelf.held["a"][1])
    assert ids(shelf, window(first.context.files)) == ["1"], "its rows have to win over those of the files before it"


def test_other_rules_or_another_dialect_read_the_same_files_again(shelf: Shelf) -> None:
    first = window()
    ids(shelf, first)
    assert ids(shelf, window(first.context.files), rules="other") == ["1", "2", "3"]
    [table] = files.read_files(shelf, Reading(Dialect(delimiter=",")), window(first.context.files))
    assert table.num_rows == 3


def test_named_objects_are_read_in_any_case_and_no_others(shelf: Shelf) -> None:
    first = window()
    ids(shelf, first)
    second = window(first.context.files, objects=("b",))
    assert ids(shelf, second) == ["2"]
    assert list(second.context.files) == ["b"]
    with pytest.raises(ConfigurationError, match="objects"):
        ids(shelf, window(objects=("z",)))


def test_a_file_that_was_not_read_to_the_end_has_no_state(shelf: Shelf) -> None:
    asked = window(limit=2)
    tables = files.read_files(shelf, Reading(Dialect()), asked)
    next(tables)
    next(tables)
    assert list(asked.context.files) == ["a"]


def test_the_rows_of_small_files_come_together_as_long_as_their_columns_are_the_same() -> None:
    held = {f"{n:03}": ("1", b"id,name\n%d,Ann\n" % n) for n in range(30)}
    shelf = Shelf(
        **held | {"010": ("1", b"id,name,city\n10,Ann,Ulm\n"), "020": ("1", b"id,name\n20,Ann,extra\n"), "029": ("1", b"id,name\n")}
    )
    tables = list(files.read_files(shelf, Reading(Dialect()), window()))
    assert [table.num_rows for table in tables] == [10, 1, 9, 1, 8]
    assert [i for table in tables for i in table["id"].to_pylist()] == [str(n) for n in range(29)]
    assert all(column.num_chunks == 1 for table in tables for column in table.columns)


def test_what_breaks_off_while_it_is_taken_is_taken_again(shelf: Shelf) -> None:
    shelf.faults = [TruncatedBody("cut"), SourceUnavailable("lost")]
    assert ids(shelf, window()) == ["1", "2", "3"]
    assert [name for name, _ in shelf.opened] == ["a", "a", "a", "b", "c"]
    shelf.faults = [TruncatedBody("cut")] * 5
    with pytest.raises(TruncatedBody, match=r"a: cut.*asked 5 times"):
        ids(shelf, window())


def test_what_a_person_must_fix_is_not_tried_again(shelf: Shelf) -> None:
    shelf.faults = [CredentialError("no")]
    with pytest.raises(CredentialError):
        ids(shelf, window())
    assert len(shelf.opened) == 1


def test_a_file_above_the_limit_is_refused_by_its_size_or_by_what_it_unpacks_to() -> None:
    with pytest.raises(LimitExceeded, match=r"a: it holds 14 bytes.*raise max_bytes"):
        ids(Shelf(a=("1", b"id,name\n1,Ann\n")), window(), max_bytes=13)
    with pytest.raises(LimitExceeded, match="raise max_bytes"):
        ids(Shelf(a=("1", gzip.compress(b"id,name\n" + b"1,Ann\n" * 1000))), window(), max_bytes=1000)


def test_a_connection_test_reads_the_first_rows_and_names_the_step_that_failed(shelf: Shelf) -> None:
    def steps() -> list[tuple[str, bool]]:
        return [(step.name, step.ok) for step in files.check(lambda: files.read_files(shelf, Reading(Dialect()), window()))]

    assert steps() == [(name, True) for name in ("reach", "authenticate", "permission", "sample")]
    shelf.faults = [CredentialError("no")]
    assert steps() == [("reach", True), ("authenticate", False)]
