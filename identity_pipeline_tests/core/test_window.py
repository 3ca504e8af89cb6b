"""The lower bound as vendors take it: never after the mark, and one step before it where they leave out what equals it."""

from datetime import datetime, timedelta

import pytest

from identity_pipeline.core.cursor import Cursor
from identity_pipeline.core.window import ReadContext, Window

MARK = "2026-04-13T08:00:00.123999Z"


@pytest.mark.parametrize(
    ("form", "exclusive", "bound"),
    [
        ("iso", False, MARK),
        ("iso", True, "2026-04-13T07:59:59.123999Z"),
        ("iso_s", False, "2026-04-13T08:00:00Z"),
        ("iso_s", True, "2026-04-13T07:59:59Z"),
        ("s", False, "1776067200"),
        ("s", True, "1776067199"),
        ("ms", False, "1776067200123"),
        ("ms", True, "1776067200122"),
    ],
)
def test_an_instant_is_rounded_down_and_steps_back_for_an_exclusive_filter(form, exclusive: bool, bound: str):
    assert Window(Cursor("at", "timestamp"), MARK).lower_bound(form, exclusive=exclusive) == bound


def test_a_number_steps_back_by_one_and_a_text_not_at_all():
    assert Window(Cursor("id", "int"), "42").lower_bound("ms") == "42"
    assert Window(Cursor("id", "int"), "42").lower_bound("ms", exclusive=True) == "41"
    assert Window(Cursor("id", "text"), "b").lower_bound(exclusive=True) == "b"


@pytest.mark.parametrize("window", [Window(), Window(Cursor("at", "timestamp"))])
def test_a_window_without_a_bound_has_none_to_give(window: Window):
    with pytest.raises(ValueError, match="no lower bound"):
        window.lower_bound()


@pytest.mark.parametrize(("days", "within"), [(28.9, True), (29, True), (29.1, False)])
def test_a_bound_older_than_the_source_tells_of_changes_is_warned_of_by_the_sources_own_time(days: float, within: bool):
    context = ReadContext(log=lambda _: None)
    context.clock(datetime.fromisoformat(MARK) + timedelta(days=days))
    assert Window(Cursor("at", "timestamp"), MARK, context=context).within(timedelta(days=29)) is within
    assert len(context.warnings) == (not within)


@pytest.mark.parametrize(
    ("kind", "lower", "text", "asked"),
    [
        ("timestamp", MARK, "2026-04-13T08:00:00.123999Z", True),
        ("timestamp", MARK, "2026-04-13T08:00:00.123Z", False),
        ("timestamp", MARK, None, True),
        ("timestamp", MARK, "soon", True),
        ("int", "42", "42", True),
        ("int", "42", "41", False),
        ("int", "42", "9" * 30, True),
        ("text", "b", "a", False),
    ],
)
def test_a_value_is_asked_for_from_the_bound_on_and_where_there_is_none_to_read(kind, lower: str, text: str | None, asked: bool):
    assert Window(Cursor("at", kind), lower).asks_for(text) is asked
    assert Window(Cursor("at", kind)).asks_for(text) is True
