"""Which files are read, and in which order."""

from datetime import UTC, datetime

from identity_pipeline.core.cursor import Cursor
from identity_pipeline.core.window import ReadContext, Window
from identity_pipeline.readers import files
from identity_pipeline.readers.files import Dialect, Reading
from identity_pipeline_tests.servers.shelf import Shelf


def day(number: int) -> datetime:
    return datetime(2026, 4, number, tzinfo=UTC)


def read(shelf: Shelf, asked: Window) -> list[str]:
    return [name for table in files.read_files(shelf, Reading(Dialect()), asked) for name in table["name"].to_pylist()]


def window(**options) -> Window:
    return Window(context=ReadContext(sleep=lambda _: None, log=lambda _: None), **options)


def test_the_file_modified_last_has_the_last_word_across_loads_too():
    shelf = Shelf(b=("1", b"id,name\n1,today\n"), c=("1", b"id,name\n2,other\n"))
    shelf.modified = {"b": day(9), "c": day(3)}
    first = window()
    assert read(shelf, first) == ["other", "today"]
    shelf.held["a"], shelf.modified["a"] = ("1", b"id,name\n1,yesterday\n"), day(8)
    late = window(files=first.context.files)
    assert read(shelf, late) == ["yesterday", "today"]
    assert read(shelf, window(files=first.context.files | late.context.files)) == []


def test_with_a_cursor_too_since_it_may_tie_and_only_files_modified_after_the_late_one_are_read_once_more():
    shelf = Shelf(b=("1", b"id,name,at\n1,today,2026-04-09\n"), c=("1", b"id,name,at\n2,before,2026-04-01\n"))
    shelf.modified = {"b": day(9), "c": day(1)}
    cursor = Cursor("at", "timestamp")
    first = window(cursor=cursor)
    assert read(shelf, first) == ["before", "today"]
    shelf.held["a"], shelf.modified["a"] = ("1", b"id,name,at\n1,yesterday,2026-04-09\n"), day(8)
    assert read(shelf, window(cursor=cursor, files=first.context.files, by_mark=True)) == ["yesterday", "today"]


def test_a_newer_file_that_is_gone_meanwhile_is_no_fault():
    shelf = Shelf(b=("1", b"id,name\n1,today\n"))
    shelf.modified = {"b": day(9)}
    first = window()
    read(shelf, first)
    del shelf.held["b"]
    shelf.held["a"], shelf.modified["a"] = ("1", b"id,name\n2,late\n"), day(8)
    assert read(shelf, window(files=first.context.files)) == ["late"]
