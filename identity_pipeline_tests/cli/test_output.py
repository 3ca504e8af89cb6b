"""How listings are printed."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from identity_pipeline.cli import output

ROW = {"name": "a\x1b[2J\u202eb\x9bc", "n": 3, "at": datetime(2026, 4, 13, 12, tzinfo=timezone(timedelta(hours=2))), "no": None, "other": 1}


def _shown(
    capsys: pytest.CaptureFixture[str], *rows: dict, as_json: bool = False, columns: tuple[str, ...] = ("name", "n", "at", "no")
) -> str:
    output.show(rows, columns, as_json=as_json)
    return capsys.readouterr().out


def test_a_value_cannot_reach_the_terminal_with_control_characters(capsys: pytest.CaptureFixture[str]):
    for as_json in (False, True):
        assert all(c.isprintable() or c == "\n" for c in _shown(capsys, ROW, as_json=as_json))


def test_json_gives_back_every_character_under_the_column_names(capsys: pytest.CaptureFixture[str]):
    assert json.loads(_shown(capsys, ROW, as_json=True)) == [{"name": ROW["name"], "n": 3, "at": "2026-04-13T10:00:00Z", "no": None}]


def test_off_a_terminal_each_row_is_one_aligned_line(capsys: pytest.CaptureFixture[str]):
    lines = _shown(capsys, {"a": "x", "b": 1}, {"a": "longer\nthan", "b": None}, columns=("a", "b")).splitlines()
    assert lines == ["a             b", "x             1", "longer\\nthan  -"]


def test_no_rows_are_an_empty_list_in_json(capsys: pytest.CaptureFixture[str]):
    assert _shown(capsys, as_json=True) == "[]\n"


@pytest.mark.parametrize(("columns", "wide"), [(200, True), (30, False)])
def test_a_row_that_does_not_fit_a_terminal_becomes_a_block(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int, *, wide: bool
):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    names = ("source_name", "load_id", "status", "inserted", "updated")
    shown = _shown(capsys, dict.fromkeys(names, "[bold]x[/bold]"), columns=names)
    assert max(line.count("[bold]x[/bold]") for line in shown.splitlines()) == (5 if wide else 1)


def test_a_narrow_terminal_does_without_what_is_expendable(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "30")
    output.show([{"kept": "k" * 10, "second": "s" * 10, "first": "f" * 20}], ("kept", "second", "first"), expendable=("first", "second"))
    shown, said = capsys.readouterr()
    assert "too narrow for first:" in said
    assert ("k" * 10 in shown, "s" * 10 in shown, "f" in shown.replace("first", "")) == (True, True, False)
    assert "first" not in shown


def test_nothing_and_times_are_told_apart():
    assert [output.cell(value) for value in (None, "", 0, False, True, [], ["a", "b"])] == ["-", "-", "0", "no", "yes", "-", "a, b"]
    assert output.cell(datetime(2026, 4, 13, tzinfo=UTC)) == "2026-04-13 00:00:00Z"
