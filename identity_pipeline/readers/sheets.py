"""One sheet of a Google spreadsheet, kept and compared as a file is: read whole, in one version, and left out while that stays.

A cell is asked for with its value and its number format in one answer. The values alone (``values.batchGet``) do not tell a date from a
number, nor an error from the text ``#N/A``, and say everything only in two answers of two moments.

https://developers.google.com/workspace/sheets/api/reference/rest/v4/spreadsheets/cells
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, tzinfo
from decimal import Decimal
from itertools import islice
from typing import Any, BinaryIO, ClassVar
from urllib.parse import quote
from zoneinfo import ZoneInfo

from identity_pipeline.core.errors import ConfigurationError, ContractBroken, LimitExceeded, SourceRejected, SourceUnavailable
from identity_pipeline.core.window import Window
from identity_pipeline.readers.files.csv import MAX_COLUMNS, Dialect, field_names
from identity_pipeline.readers.files.read import Reading, changed_files
from identity_pipeline.readers.files.store import Content, Entry, Page, Replaced
from identity_pipeline.readers.rest.client import Client
from identity_pipeline.readers.rest.message import Request
from identity_pipeline.readers.rest.record import Pages

CELLS = 40_000
"""Cells of one request: some 2 MB, as Google recommends."""
_ROWS = 1_000
_GROWTH = 4
_ABOUT = "properties(timeZone),sheets(properties(sheetId,title,sheetType,hidden,gridProperties(rowCount,columnCount)))"
_CELL = "effectiveValue,effectiveFormat(numberFormat(type,pattern))"
_VALUES = f"sheets(properties(sheetId,title),data(rowData(values({_CELL}))))"
_SPREADSHEET = "application/vnd.google-apps.spreadsheet"
_ADDRESS = re.compile(r"https://docs\.google\.com/(?:a/[\w.-]+/)?spreadsheets/(?:u/\d+/)?d/(?!e/)([\w-]+)(?:[/?#].*)?")
_RANGE = re.compile(r"([A-Z]{1,3})([0-9]{0,8}):([A-Z]{1,3})([0-9]{0,8})")
_FIRST_DAY = datetime(1899, 12, 30)  # noqa: DTZ001 - wall clock, in the spreadsheet's own zone
_DAY = 86_400_000
_EXPONENT = 400
"""More zeros than a double has."""
_TIMES = frozenset({"DATE", "DATE_TIME", "TIME"})


@dataclass(frozen=True)
class Place:
    """Where the rows stand. ``spreadsheet`` is an id, or an address of the browser.

    ``sheet`` is the name of the sheet; empty: the one that the address shows (``gid``), else the first that
    is not hidden. ``cells`` are its columns and rows (``A3:F``); empty: all. Row ``header_row`` holds the names of
    the columns; 0: the first row that is not empty. Without ``header`` the columns are ``column_1`` and so on.

    Raises:
        ConfigurationError: there can be no such place.
    """

    spreadsheet: str
    sheet: str = ""
    cells: str = ""
    header_row: int = 0
    header: bool = True

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w-]{20,100}", self.id):
            raise ConfigurationError(
                "spreadsheet: expected the id of a spreadsheet, or its address as the browser shows it (https://docs.google.com/"
                "spreadsheets/d/…); what is published (/d/e/…) is read by csv_url"
            )
        if self.cells and not _RANGE.fullmatch(self.cells.upper()):
            raise ConfigurationError("range: expected columns, with rows or without, such as A:F, A3:F or B2:H500; sheet names the sheet")

    @property
    def id(self) -> str:
        """The id of the spreadsheet."""
        found = _ADDRESS.fullmatch(self.spreadsheet.strip())
        return found[1] if found else self.spreadsheet.strip()

    @property
    def gid(self) -> str:
        """The id of the sheet that the address shows, empty if it shows none."""
        found = re.search(r"[?&#]gid=(\d+)", self.spreadsheet)
        return found[1] if found else ""


@dataclass(frozen=True)
class _Grid:
    """The part of a sheet that is read: 1 is the first row."""

    id: str
    title: str
    first_column: int
    last_column: int
    first_row: int
    last_row: int
    zone: tzinfo

    def rows(self, first: int, last: int) -> str:
        """These rows in A1 notation."""
        title = self.title.replace("'", "''")
        return f"'{title}'!{_letters(self.first_column)}{first}:{_letters(self.last_column)}{last}"


def pages(client: Client, drive: str, place: Place, reading: Reading, window: Window, *, always: bool = False) -> Pages:
    """The records of the sheet, if the spreadsheet is not in the version that a load has read; with ``always`` if its content is not.

    ``client`` asks the Sheets API; ``drive`` is where the Drive API is, which tells the version. ``reading`` has the
    bounds, and under ``rules`` what else decides how the cells are read.

    Raises:
        SourceRejected: the sheet is empty, or is no spreadsheet of Google's.
        SourceUnavailable: it is edited all the time that it is read, or its formulas are not calculated.
        LimitExceeded: it has more than 2,000 columns with content, or more than ``max_bytes`` bytes.
        PipelineError: as the client raises it.
    """
    store = _Store(client, replace(client, base_url=drive), place, always, window.limit)
    window.context.asked_below = window.by_mark
    for found in changed_files(store, replace(reading, rules=repr((place, reading.rules)), retry_budget=client.retry_budget), window):
        yield from _records(found.file, place, window)


def reading(max_bytes: int) -> Reading:
    """How a sheet is read: whole, and at most so many bytes of it."""
    return Reading(Dialect(), max_bytes=max_bytes)


@dataclass(frozen=True)
class _Store:
    """The sheet as a store of one file: a JSON list of texts for each row that is not empty."""

    at_once: ClassVar[int] = 1
    client: Client
    drive: Client
    place: Place
    always: bool
    limit: int | None
    _errors: Counter[str] = field(default_factory=Counter)

    def page(self, token: str) -> Page:  # noqa: ARG002 - there is one
        version = self._version()
        return Page([Entry(self.place.id, "" if self.always else version)])

    def stat(self, name: str) -> Entry | None:
        return next((entry for entry in self.page("").entries if entry.name == name), None)

    @contextmanager
    def open(self, entry: Entry, known: str) -> Iterator[Content | None]:  # noqa: ARG002 - the list has shown it
        yield Content(self._lines(entry.version or self._version()))

    def close(self) -> None:
        """Nothing: the connections are the clients'."""

    def _version(self) -> str:
        """The version that Drive has of the spreadsheet: another one after every change."""
        # https://developers.google.com/workspace/drive/api/reference/rest/v3/files
        asked = {"fields": "mimeType,trashed,version", "supportsAllDrives": True}
        found = self.drive.send(Request(f"/drive/v3/files/{quote(self.place.id)}", asked, interval=0))
        version = str(found.number("version"))
        if found.at("trashed") is True:
            raise SourceRejected(f"{self.place.id} lies in the bin: restore it, or name another spreadsheet")
        if found.at("mimeType") != _SPREADSHEET:
            raise SourceRejected(
                f"{self.place.id} is no Google spreadsheet, but a file of another kind: open it there and choose File, Save as Google "
                "Sheets; then name that one"
            )
        return version

    def _lines(self, version: str) -> Iterator[bytes]:
        """The rows that are not empty.

        Raises:
            Replaced: the spreadsheet is in another version after the last row than before the first one.
        """
        grid, read = self._grid(), -int(self.place.header)
        self._errors.clear()
        for rows in self._windows(grid):
            for row in rows:
                # what a column of ticks that nobody has set leaves in each row is no record
                if not {*row} <= {None, "false"}:
                    read += 1
                    yield json.dumps(row).encode() + b"\n"
            if self.limit is not None and read >= self.limit:
                break
        if self._version() != version:
            raise Replaced(f"{self.place.id} was edited while it was read: try again later")
        if self._errors:
            kinds = ", ".join(sorted(self._errors))
            self.client.context.warn(
                f"{self._errors.total():,} cells hold the error of a formula ({kinds}) and are read as empty: correct the formulas"
            )

    def _grid(self) -> _Grid:
        """The part of the sheet that is meant, by what the spreadsheet is like now."""
        found = self.client.send(Request(f"/v4/spreadsheets/{quote(self.place.id)}", {"fields": _ABOUT}))
        grids = [
            each["properties"]
            for each in found.records("sheets")
            if isinstance(each.get("properties"), dict) and each["properties"].get("sheetType") in {None, "GRID"}
        ]
        place = self.place
        if place.sheet:
            named = [each for each in grids if each.get("title") == place.sheet]
        elif place.gid:
            named = [each for each in grids if str(each.get("sheetId", 0)) == place.gid]
        else:
            named = [each for each in grids if each.get("hidden") is not True]
        if not named:
            raise ConfigurationError("the spreadsheet has no such sheet with cells: set sheet to the name on its tab, letter for letter")
        about = named[0]
        size = about.get("gridProperties")
        if not isinstance(size, dict) or not isinstance(about.get("title"), str):
            raise found.broken("the title and size of each sheet")
        columns, rows = int(size.get("columnCount", 0)), int(size.get("rowCount", 0))
        first, top, last, bottom = (_RANGE.fullmatch(place.cells.upper()) or _RANGE.fullmatch("A:ZZZ")).groups()  # type: ignore[union-attr]
        grid = _Grid(
            str(about.get("sheetId", 0)),
            about["title"],
            _number(first),
            min(_number(last), columns),
            max(int(top or 1), place.header_row, 1),
            min(int(bottom or rows), rows),
            _zone(found.at("properties.timeZone")),
        )
        if grid.first_column > grid.last_column or grid.first_row > grid.last_row:
            raise ConfigurationError(
                f"the sheet has {columns:,} columns and {rows:,} rows, and the range and the header row lie outside: correct them"
            )
        return grid

    def _windows(self, grid: _Grid) -> Iterator[list[list[str | None]]]:
        """The rows of the grid, some at a time: more where there is nothing, fewer where an answer would be too large."""
        usual = rows = max(1, CELLS // (grid.last_column - grid.first_column + 1))
        row = grid.first_row
        while row <= grid.last_row:
            last = min(row + rows - 1, grid.last_row)
            try:
                found = self._window(grid, row, last)
            except LimitExceeded:
                if row == last:
                    raise
                usual = rows = (last - row + 1) // 2
                continue
            yield found
            self.client.context.pages += 1
            row, rows = last + 1, usual if any(map(any, found)) else rows * _GROWTH

    def _window(self, grid: _Grid, first: int, last: int) -> list[list[str | None]]:
        found = self.client.send(Request(f"/v4/spreadsheets/{quote(self.place.id)}", {"ranges": grid.rows(first, last), "fields": _VALUES}))
        sheet = found.at("sheets.0.properties")
        if not isinstance(sheet, dict) or str(sheet.get("sheetId", 0)) != grid.id:
            raise found.broken("the sheet that was asked for")
        held = found.at("sheets.0.data.0.rowData") or []
        try:
            return [_trimmed([self._text(cell, grid.zone) for cell in row.get("values", ())]) for row in held]
        except (AttributeError, TypeError, ArithmeticError):
            raise found.broken("rows of cells") from None

    def _text(self, cell: Mapping[str, Any], zone: tzinfo) -> str | None:
        """What a cell holds; None for nothing, and for the error of a formula."""
        value = cell.get("effectiveValue") or {}
        if "stringValue" in value:
            return str(value["stringValue"]) or None
        if "numberValue" in value:
            shown = (cell.get("effectiveFormat") or {}).get("numberFormat") or {}
            return _number_text(Decimal(value["numberValue"]), shown.get("type", ""), shown.get("pattern", ""), zone)
        if "boolValue" in value:
            return "true" if value["boolValue"] else "false"
        if "errorValue" in value:
            kind = str(value["errorValue"].get("type", "ERROR"))
            if kind == "LOADING":
                raise SourceUnavailable("formulas of the sheet are still being calculated: try again later, or look what they wait for")
            self._errors[kind if kind.replace("_", "").isalpha() else "ERROR"] += 1
        return None


def _records(file: BinaryIO, place: Place, window: Window) -> Pages:
    """The rows below the header by its names. A row that is longer than the header has more columns, without a name."""
    width = max((len(json.loads(line)) for line in file), default=0)
    if not width:
        raise SourceRejected(f"{place.id}: the sheet is empty there, without even a header: check sheet, range and header_row")
    if width > MAX_COLUMNS:
        raise LimitExceeded(f"{place.id}: {width:,} columns hold something, the limit is {MAX_COLUMNS:,}: set range to those of the table")
    file.seek(0)
    rows = (_wide(json.loads(line), width) for line in file)
    names = field_names(cell or "" for cell in (next(rows) if place.header else [None] * width))
    window.context.fields = tuple(names)
    while page := [dict(zip(names, row, strict=True)) for row in islice(rows, _ROWS)]:
        yield page


def _wide(row: list[str | None], width: int) -> list[str | None]:
    return [*row, *[None] * (width - len(row))]


def _trimmed(row: list[str | None]) -> list[str | None]:
    while row and row[-1] is None:
        row.pop()
    return row


def _number_text(number: Decimal, kind: str, pattern: str, zone: tzinfo) -> str:
    """A number with all of its digits, and with the zeros before it that its format (``00000``) shows; a date or time in ISO 8601."""
    if kind in _TIMES:
        try:
            return _moment(round(number * _DAY), kind, zone)
        except OverflowError:  # beyond the year 9999
            pass
    if abs(number.adjusted()) > _EXPONENT:
        return str(number)
    text = format(number, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return text.zfill(len(pattern)) if re.fullmatch("0{2,}", pattern) and text.isdecimal() else text


def _moment(milliseconds: int, kind: str, zone: tzinfo) -> str:
    """What so many milliseconds since the first day of a spreadsheet are: a date, a date with time in its zone, or a duration."""
    rest = milliseconds % _DAY
    exactly = "milliseconds" if rest % 1000 else "seconds"
    if kind == "TIME":
        passed = abs(milliseconds)
        hours, below = divmod(passed, 3_600_000)
        clock = (_FIRST_DAY + timedelta(milliseconds=below)).isoformat(timespec=exactly).partition(":")[2]
        return f"{'-' if milliseconds < 0 else ''}{hours:02}:{clock}"
    day = _FIRST_DAY + timedelta(milliseconds=milliseconds)
    if kind == "DATE" and not rest:
        return day.date().isoformat()
    return day.replace(tzinfo=zone).isoformat(timespec=exactly)


def _zone(name: Any) -> tzinfo:
    """The zone of a spreadsheet: a name of the IANA's, or ``GMT-07:00``.

    Raises:
        ContractBroken: it is neither.
    """
    try:
        return ZoneInfo(str(name))
    except (KeyError, ValueError, OSError):
        pass
    try:
        offset = datetime.strptime(str(name).removeprefix("GMT") or "Z", "%z").tzinfo
    except ValueError:
        offset = None
    if offset is None:
        raise ContractBroken("the time zone of the spreadsheet is none that we know: choose another one there under File, Settings")
    return offset


def _letters(number: int) -> str:
    """Column 28 → ``AB``."""
    number, last = divmod(number - 1, 26)
    return (_letters(number) if number else "") + chr(ord("A") + last)


def _number(letters: str) -> int:
    """Column ``AB`` → 28."""
    number = 0
    for letter in letters:
        number = number * 26 + ord(letter) - ord("A") + 1
    return number
