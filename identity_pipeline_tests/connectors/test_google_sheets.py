"""What is odd about Google Sheets: cells that are numbers, dates or errors, and a sheet that is edited while it is read."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from google.auth.credentials import AnonymousCredentials
from googleapiclient.discovery import build
from googleapiclient.errors import HttpError

from identity_pipeline.connectors.google_sheets import GoogleSheets
from identity_pipeline.core.errors import (
    ConfigurationError,
    LimitExceeded,
    PermissionDenied,
    RateLimited,
    SourceRejected,
    SourceUnavailable,
)
from identity_pipeline.core.window import Window
from identity_pipeline.demo.vendor_api import serve
from identity_pipeline.readers import sheets
from identity_pipeline_tests.connectors import reading
from identity_pipeline_tests.connectors.reading import secret
from identity_pipeline_tests.servers import discovery
from identity_pipeline_tests.servers.google_sheets_api import ID, GoogleSheetsAPI, Tab, failed, formatted

pytestmark = pytest.mark.usefixtures("loopback")
TOKEN = "ya29.a0AfB_byC"
ROW = {"id": "1", "name": "Ada"}


@pytest.fixture
def api() -> Iterator[GoogleSheetsAPI]:
    """A spreadsheet with one row."""
    with serve(GoogleSheetsAPI(token=TOKEN)) as server:
        server.write([("id", "name"), ("1", "Ada")])
        yield server


def read(api: GoogleSheetsAPI, window: Window | None = None, **settings: Any) -> list[dict[str, Any]]:
    """The records, without cells that hold nothing."""
    given = {"spreadsheet": ID, "base_url": api.url, "drive_url": api.url, **settings}
    connector = GoogleSheets(access_token=secret(TOKEN), **given)
    found, _ = reading.read(connector, window or reading.window(connector))
    return [{name: value for name, value in row.items() if isinstance(value, str)} for row in found.to_dict("records")]


def window(**options: Any) -> Window:
    return reading.window(GoogleSheets(access_token=secret(TOKEN), spreadsheet=ID), **options)


def test_googles_own_client_and_description_accept_this_server(api: GoogleSheetsAPI):
    api.tabs.append(Tab("Ada's 'odd' tab", [("id", "at", "ok"), (1, formatted(45992.5, "DATE_TIME"), True), (2, failed("N_A"))], id=7))
    api.tabs.append(Tab("Chart", kind="OBJECT", id=8))
    api.authenticate = lambda asked, dead: None  # type: ignore[method-assign]
    options = {"api_endpoint": api.url}
    with build("sheets", "v4", credentials=AnonymousCredentials(), static_discovery=True, client_options=options) as service:
        about = service.spreadsheets().get(spreadsheetId=ID, fields=sheets._ABOUT).execute()
        assert discovery.faults("sheets.v4", "Spreadsheet", about) == []
        assert [each["properties"]["title"] for each in about["sheets"]] == ["Sheet1", "Ada's 'odd' tab", "Chart"]
        asked = service.spreadsheets().get(spreadsheetId=ID, ranges=["'Ada''s ''odd'' tab'!A1:C10"], fields=sheets._VALUES)
        held = asked.execute()
        assert discovery.faults("sheets.v4", "Spreadsheet", held) == []
        assert [len(row["values"]) for row in held["sheets"][0]["data"][0]["rowData"]] == [3, 3, 2]
        whole = service.spreadsheets().get(spreadsheetId=ID, ranges=["'Ada''s ''odd'' tab'!A1:C10"], includeGridData=True).execute()
        assert discovery.faults("sheets.v4", "Spreadsheet", whole) == []
        for wrong in ("Sheet2!A1:B2", "'Sheet1'!A1:B1001"):
            with pytest.raises(HttpError):
                service.spreadsheets().get(spreadsheetId=ID, ranges=[wrong]).execute()
    options = {"api_endpoint": f"{api.url}/drive/v3/"}
    with build("drive", "v3", credentials=AnonymousCredentials(), static_discovery=True, client_options=options) as service:
        file = service.files().get(fileId=ID, fields="mimeType,trashed,version", supportsAllDrives=True).execute()
        assert discovery.faults("drive.v3", "File", file) == []
        with pytest.raises(HttpError):
            service.files().get(fileId=ID + "x").execute()
    assert discovery.faults("sheets.v4", "CellData", {"effectiveValue": {"numberValue": "1"}}) != []


# cells

CELLS: dict[str, tuple[Any, str | None]] = {
    "a text": ("007", "007"),
    "a whole number": (4930555019, "4930555019"),
    "a fraction": (0.1 + 0.2, "0.30000000000000004"),
    "a number that JSON writes short": (1e21, "1000000000000000000000"),
    "a small number": (1.5e-7, "0.00000015"),
    "zeros by format": (formatted(1067, "NUMBER", "00000"), "01067"),
    "a format of another kind": (formatted(1067, "NUMBER", "#,##0.00"), "1067"),
    "a share": (formatted(0.5, "PERCENT", "0%"), "0.5"),
    "true": (True, "true"),
    "false": (False, "false"),
    "a date": (formatted(45992, "DATE"), "2025-12-01"),
    "a date before 1900": (formatted(-1, "DATE"), "1899-12-29"),
    "a date that hides its time": (formatted(45992.25, "DATE"), "2025-12-01T06:00:00-05:00"),
    "a time in winter": (formatted(45992.5, "DATE_TIME"), "2025-12-01T12:00:00-05:00"),
    "a time in summer": (formatted(45839.75, "DATE_TIME"), "2025-07-01T18:00:00-04:00"),
    "a time that no double holds exactly": (formatted(45992 + 1 / 3, "DATE_TIME"), "2025-12-01T08:00:00-05:00"),
    "milliseconds": (formatted(45992 + 0.001 / 86400, "DATE_TIME"), "2025-12-01T00:00:00.001-05:00"),
    "a time of day": (formatted(0.75, "TIME"), "18:00:00"),
    "a duration": (formatted(1.5, "TIME", "[h]:mm:ss"), "36:00:00"),
    "a negative duration": (formatted(-0.0625, "TIME"), "-01:30:00"),
    "a day that no calendar has": (formatted(1e9, "DATE"), "1000000000"),
    "an error": (failed("N_A"), None),
    "the text of an error": ("#N/A", "#N/A"),
    "a formula that gives nothing": ("", None),
    "a cell with a format only": ({"effectiveFormat": {"numberFormat": {"type": "DATE"}}}, None),
}


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_arrives_with_all_that_it_holds(api: GoogleSheetsAPI, name: str):
    cell, text = CELLS[name]
    api.zone = "America/New_York"
    api.write([("id", "cell"), ("1", cell)])
    assert read(api) == [{"id": "1", **({} if text is None else {"cell": text})}]


@pytest.mark.parametrize(("zone", "offset"), [("GMT-07:30", "-07:30"), ("GMT", "+00:00"), ("Europe/Berlin", "+01:00")])
def test_times_are_in_the_zone_of_the_spreadsheet(api: GoogleSheetsAPI, zone: str, offset: str):
    api.zone = zone
    api.write([("id", "at"), (1, formatted(45992.5, "DATE_TIME"))])
    assert read(api) == [{"id": "1", "at": f"2025-12-01T12:00:00{offset}"}]


def test_errors_of_formulas_are_counted_without_what_they_say(api: GoogleSheetsAPI):
    api.write([("id", "a", "b"), (1, failed("N_A"), failed("REF")), (2, failed("N_A"))])
    asked = window()
    assert read(api, asked) == [{"id": "1"}, {"id": "2"}]
    assert asked.context.warnings == ["3 cells hold the error of a formula (N_A, REF) and are read as empty: correct the formulas"]


def test_formulas_that_are_being_calculated_are_waited_for_and_never_read_as_empty(api: GoogleSheetsAPI):
    api.loading = 2
    assert read(api) == [ROW]
    api.loading = 100
    with pytest.raises(SourceUnavailable, match="still being calculated"):
        read(api)


# rows


def test_headers_that_are_blank_repeated_or_missing_get_names_and_ragged_rows_keep_all_cells(api: GoogleSheetsAPI):
    api.write([(), ("id", " name ", None, "name"), ("1", "Ada", "x"), (), ("2",), ("3", None, None, "Lee", "beyond"), ("", None), ()])
    asked = window()
    assert read(api, asked) == [
        {"id": "1", "name": "Ada", "column_3": "x"},
        {"id": "2"},
        {"id": "3", "name_2": "Lee", "column_5": "beyond"},
    ]
    assert asked.context.fields == ("id", "name", "column_3", "name_2", "column_5")
    assert read(api, header=False)[0] == {"column_1": "id", "column_2": " name ", "column_4": "name"}


def test_a_column_of_ticks_that_nobody_has_set_makes_no_records(api: GoogleSheetsAPI):
    api.write([("id", "vip"), ("1", False), (None, False), (None, False), ("2", True), (None, True)])
    assert read(api) == [{"id": "1", "vip": "false"}, {"id": "2", "vip": "true"}, {"vip": "true"}]


TABS = [
    Tab("Hidden", [("id",), ("hidden",)], id=1, hidden=True),
    Tab("Chart", id=2, kind="OBJECT"),
    Tab(
        "Q4", [("Contacts of the fourth quarter",), (), ("x", "id", "name"), ("x", "1", "Ada"), ("x", "2", "Lee")], id=3, columns=3, grid=5
    ),
    Tab("Ada's", [("id",), ("odd",)], id=4),
]
PLACES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "the first that is not hidden": ({"header_row": 3}, ["1", "2"]),
    "a name": ({"sheet": "Ada's"}, ["odd"]),
    "a hidden one by its name": ({"sheet": "Hidden"}, ["hidden"]),
    "an address": ({"spreadsheet": f"https://docs.google.com/spreadsheets/d/{ID}/edit?gid=4#gid=4"}, ["odd"]),
    "an address of an account": ({"spreadsheet": f"https://docs.google.com/spreadsheets/u/1/d/{ID}/edit", "header_row": 3}, ["1", "2"]),
    "columns": ({"range": "b:c", "header_row": 3}, ["1", "2"]),
    "columns from a row on": ({"range": "B3:ZZ"}, ["1", "2"]),
    "a part of the rows": ({"range": "B3:C4"}, ["1"]),
    "more than there is": ({"range": "A3:C500"}, ["1", "2"]),
}


@pytest.mark.parametrize("name", PLACES)
def test_a_sheet_is_chosen_by_name_address_or_place_and_a_part_of_it_by_range(api: GoogleSheetsAPI, name: str):
    settings, ids = PLACES[name]
    api.tabs = list(TABS)
    assert [row["id"] for row in read(api, **settings)] == ids


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "sheet": ({"sheet": "ada's"}, "no such sheet with cells"),
    "chart": ({"sheet": "Chart"}, "no such sheet with cells"),
    "gid": ({"spreadsheet": f"https://docs.google.com/spreadsheets/d/{ID}/edit#gid=99"}, "no such sheet with cells"),
    "published": ({"spreadsheet": "https://docs.google.com/spreadsheets/d/e/2PACX-1vQabcdefghijklmnop/pubhtml"}, "is read by csv_url"),
    "another site": ({"spreadsheet": f"https://example.com/spreadsheets/d/{ID}/edit"}, "expected the id of a spreadsheet"),
    "range": ({"range": "Sheet1!A1:B2"}, "range: expected columns"),
    "range outside": ({"range": "D1:F"}, "3 columns and 5 rows"),
    "header outside": ({"header_row": 6}, "3 columns and 5 rows"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_place_that_is_none_is_the_operators_to_correct(api: GoogleSheetsAPI, name: str):
    settings, message = WRONG[name]
    api.tabs = list(TABS)
    with pytest.raises(ConfigurationError, match=message):
        read(api, **settings)


def test_a_sheet_without_even_a_header_is_no_source_without_records(api: GoogleSheetsAPI):
    api.write([(), (None, "")])
    with pytest.raises(SourceRejected, match="without even a header"):
        read(api)


def test_too_many_columns_are_refused(api: GoogleSheetsAPI):
    api.tabs = [Tab("Wide", [["x"] * 2_001], columns=18_278)]
    with pytest.raises(LimitExceeded, match="2,001 columns"):
        read(api)


# windows and versions


def test_rows_are_asked_for_in_windows_that_grow_where_nothing_is(api: GoogleSheetsAPI, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sheets, "CELLS", 26 * 4)
    rows = [("id",), *((str(n),) for n in range(6)), *[()] * 400, ("last",)]
    api.tabs = [Tab("Long", rows, grid=5_000)]
    assert [row["id"] for row in read(api)] == [*map(str, range(6)), "last"]
    assert api.ranges[:5] == ["'Long'!A1:Z4", "'Long'!A5:Z8", "'Long'!A9:Z12", "'Long'!A13:Z28", "'Long'!A29:Z92"]
    assert len(api.ranges) < 20


def test_a_window_that_is_too_large_is_asked_for_in_halves(api: GoogleSheetsAPI, monkeypatch: pytest.MonkeyPatch):
    api.tabs = [Tab("Fat", [("id", "note"), *((str(n), "x" * 50_000) for n in range(6))], columns=2, grid=7)]
    client = sheets.Client.__init__
    monkeypatch.setattr(sheets.Client, "__init__", lambda *args, **more: client(*args, **{**more, "max_bytes": 170_000}))
    assert [row["id"] for row in read(api)] == list(map(str, range(6)))
    assert len(api.ranges) > 3


def interfering(api: GoogleSheetsAPI, times: int, then: Callable[[], None]) -> None:
    """Do ``then`` after each of the next ``times`` answers with cells."""
    answer, left = api.answer, [times]

    def answering(asked: Any) -> Any:
        told = answer(asked)
        if "ranges" in asked.query and left[0] > 0:
            left[0] -= 1
            then()
        return told

    api.answer = answering  # type: ignore[method-assign]


def test_a_sheet_that_is_edited_while_it_is_read_is_read_again(api: GoogleSheetsAPI, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sheets, "CELLS", 26 * 2)
    rows = [("id",), *((str(n),) for n in range(1, 7))]
    api.tabs[0].grid = 8
    api.write(rows)
    interfering(api, 1, lambda: api.write([rows[0], *rows[2:]]))  # a row above the next window goes: all below move up
    asked = window()
    assert [row["id"] for row in read(api, asked)] == ["2", "3", "4", "5", "6"]
    assert asked.context.files[ID].version == str(api.version)


def test_a_sheet_that_is_edited_all_the_time_ends_the_load(api: GoogleSheetsAPI):
    interfering(api, 100, lambda: api.write([("id",), ("1",)]))
    with pytest.raises(SourceUnavailable, match="was edited while it was read"):
        read(api)
    assert len(api.ranges) == 5


def test_a_spreadsheet_in_the_version_of_the_last_load_is_not_read(api: GoogleSheetsAPI):
    first = window()
    assert read(api, first) == [ROW]
    again = window(files=first.context.files)
    api.asked.clear()
    assert read(api, again) == []
    assert (len(api.asked), again.context.files_unchanged) == (1, 1), "only Drive was asked"
    assert read(api, window(files=first.context.files, full_refresh=True)) == [ROW]
    assert read(api, window(files=first.context.files), sheet="Sheet1") == [ROW], "another place of it was not read yet"
    api.version += 1
    assert read(api, window(files=first.context.files)) == [ROW]


def test_what_changes_without_a_version_is_found_where_that_is_asked_for(api: GoogleSheetsAPI):
    first = window()
    assert read(api, first, skip_unchanged=False) == [ROW]
    again = window(files=first.context.files)
    assert read(api, again, skip_unchanged=False) == []
    assert again.context.files_unchanged == 1
    api.tabs[0].rows = [("id", "name"), ("1", "Changed")]
    assert read(api, window(files=first.context.files), skip_unchanged=False) == [{"id": "1", "name": "Changed"}]


def test_no_row_of_a_changed_sheet_is_left_out_for_lying_below_the_mark(api: GoogleSheetsAPI):
    connector = GoogleSheets(access_token=secret(TOKEN), spreadsheet=ID)
    api.write([("id", "updated_at"), ("1", formatted(45000, "DATE")), ("2", formatted(45992, "DATE"))])
    asked = reading.window(connector, "updated_at", "2025-11-01T00:00:00Z", by_mark=True)
    assert len(read(api, asked)) == 2


def test_a_limit_reads_the_first_window_only(api: GoogleSheetsAPI, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sheets, "CELLS", 26 * 4)
    api.write([("id",), *((str(n),) for n in range(100))])
    assert len(read(api, window(limit=1))) == 3
    assert len(api.ranges) == 1


# who has to act

REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "not shared": ({"shared": False}, PermissionDenied, "share it with the address that credentials list shows"),
    "an API that is off": ({"enabled": False}, PermissionDenied, "enable the Google Sheets API and the Google Drive API"),
    "a box that was left empty": ({"narrow": True}, PermissionDenied, "connect it again, and leave every box ticked"),
    "the bin": ({"trashed": True}, SourceRejected, "lies in the bin"),
    "a file of Excel": (
        {"mime": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"}, SourceRejected, "Save as Google Sheets",
    ),
    "the quota of a minute": ({"storm": 100}, RateLimited, "slow down"),
}  # fmt: skip


@pytest.mark.parametrize("late", [False, True], ids=["by Drive", "by Sheets"])
@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_says_who_does_what(api: GoogleSheetsAPI, name: str, late: bool):
    state, error, message = REFUSED[name]
    if late and name in {"the bin", "a file of Excel"}:
        late = False  # Drive alone tells
    answer = api.answer

    def change() -> None:
        for attribute, value in state.items():
            setattr(api, attribute, value)

    def answering(asked: Any) -> Any:
        told = answer(asked)
        change()
        return told

    if late:
        api.answer = answering  # type: ignore[method-assign]
    else:
        change()
    with pytest.raises(error, match=message):
        read(api)


def test_a_storm_of_a_minute_is_waited_out(api: GoogleSheetsAPI):
    naps: list[float] = []
    api.storm = 2
    asked = window()
    asked.context.sleep = naps.append
    assert read(api, asked) == [ROW]
    assert max(naps) >= 60
