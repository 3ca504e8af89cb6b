"""A Sheets-shaped API on this machine, with the part of Drive that tells a file's version: one spreadsheet of one Google account.

Written from Google's published contract (https://developers.google.com/workspace/sheets/api/reference/rest/v4/spreadsheets/get and
https://developers.google.com/workspace/drive/api/reference/rest/v3/files/get).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from identity_pipeline.demo.vendor_api import Asked, Refusal, VendorAPI

ID = "1BxiMVs0XRA5nFMdKvBdBZjgmUUqptlbs74OgvE2upms"
MIME = "application/vnd.google-apps.spreadsheet"
_RANGE = re.compile(r"'((?:[^']|'')*)'!([A-Z]+)(\d+):([A-Z]+)(\d+)")


def formatted(number: float, kind: str, pattern: str = "") -> dict[str, Any]:
    """A cell that shows a number as a date, or in a pattern."""
    shown = {"type": kind, **({"pattern": pattern} if pattern else {})}
    return {"effectiveValue": {"numberValue": number}, "effectiveFormat": {"numberFormat": shown}}


def failed(kind: str) -> dict[str, Any]:
    """A cell whose formula ends in an error."""
    return {"effectiveValue": {"errorValue": {"type": kind, "message": "about canary.person@nordwind-demo.com"}}, "formattedValue": "#N/A"}


@dataclass
class Tab:
    """One sheet: rows of texts, numbers and booleans, of None, and of cells as they are."""

    title: str
    rows: Sequence[Sequence[Any]] = ()
    id: int = 0
    hidden: bool = False
    columns: int = 26
    grid: int = 1000
    kind: str = "GRID"

    @property
    def height(self) -> int:
        """Rows of the grid."""
        return max(self.grid, len(self.rows))

    def about(self) -> dict[str, Any]:
        """Its properties."""
        size = {"gridProperties": {"rowCount": self.height, "columnCount": self.columns}} if self.kind == "GRID" else {}
        return {
            "sheetId": self.id,
            "title": self.title,
            "index": 0,
            "sheetType": self.kind,
            **size,
            **({"hidden": True} if self.hidden else {}),
        }

    def data(self, first: int, last: int, left: int, right: int) -> dict[str, Any]:
        """The cells of a range, without empty ones at the end of a row and empty rows at the end."""
        rows = [{"values": cells} if (cells := _cells(row[left - 1 : right])) else {} for row in self.rows[first - 1 : last]]
        while rows and not rows[-1]:
            rows.pop()
        return {**({"rowData": rows} if rows else {}), **({"startRow": first - 1} if first > 1 else {})}


def _cells(row: Sequence[Any]) -> list[dict[str, Any]]:
    cells = [_cell(value) for value in row]
    while cells and not cells[-1]:
        cells.pop()
    return cells


def _cell(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    if value is None:
        return {}
    kind = "boolValue" if isinstance(value, bool) else "stringValue" if isinstance(value, str) else "numberValue"
    return {"userEnteredValue": {kind: value}, "effectiveValue": {kind: value}, "formattedValue": str(value)}


def number(letters: str) -> int:
    """Column ``AB`` → 28."""
    found = 0
    for letter in letters:
        found = found * 26 + "ABCDEFGHIJKLMNOPQRSTUVWXYZ".index(letter) + 1
    return found


def mask(text: str) -> dict[str, Any]:
    """``a(b,c),d`` as nested fields."""
    made: dict[str, Any] = {}
    stack, name = [made], ""
    for sign in [*re.findall(r"[(),]|[^(),]+", text), ","]:
        if sign == "(":
            stack.append(stack[-1].setdefault(name, {}))
            name = ""
        elif sign in ",)":
            if name:
                stack[-1].setdefault(name, {})
            name = ""
            if sign == ")":
                stack.pop()
        else:
            name = sign
    return made


def masked(value: Any, fields: dict[str, Any]) -> Any:
    """What of ``value`` the fields name; all below a field that names no more."""
    if not fields:
        return value
    if isinstance(value, list):
        return [masked(each, fields) for each in value]
    return {name: masked(value[name], inner) for name, inner in fields.items() if name in value}


def refusal(code: int, status: str, reason: str, message: str, *, drive: bool = False) -> Refusal:
    """An error as the Sheets API words it, or as Drive does."""
    error: dict[str, Any] = {"code": code, "message": message}
    if drive:
        error["errors"] = [{"domain": "global", "reason": reason, "message": message}]
    else:
        error["status"] = status
        if reason:
            error["details"] = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "googleapis.com"}]
    return Refusal(code, {"error": error})


@dataclass
class GoogleSheetsAPI(VendorAPI):
    """A spreadsheet. ``version`` is what Drive says of it; ``shared`` False: the account may not open it."""

    token: str = ""
    tabs: list[Tab] = field(default_factory=lambda: [Tab("Sheet1")])
    version: int = 1
    zone: str = "Etc/GMT"
    mime: str = MIME
    trashed: bool = False
    shared: bool = True
    enabled: bool = True
    narrow: bool = False
    loading: int = 0
    """So many more answers are given while formulas are being calculated."""

    def write(self, rows: Sequence[Sequence[Any]], tab: int = 0) -> None:
        """Let a sheet hold these rows: a new version."""
        self.tabs[tab].rows = rows
        self.version += 1

    @property
    def ranges(self) -> list[str]:
        """The ranges that were asked for."""
        return [each.query["ranges"] for each in self.asked if "ranges" in each.query]

    def authenticate(self, asked: Asked, *, dead: bool) -> None:
        """By bearer token."""
        if dead or asked.headers.get("Authorization") != f"Bearer {self.token}":
            raise refusal(401, "UNAUTHENTICATED", "ACCESS_TOKEN_EXPIRED", "Request had invalid authentication credentials.")

    def hasty(self) -> Refusal:
        """More than a minute allows; nothing says how long to wait."""
        message = "Quota exceeded for quota metric 'Read requests' and limit 'Read requests per minute per user'"
        return refusal(429, "RESOURCE_EXHAUSTED", "RATE_LIMIT_EXCEEDED", message)

    def answer(self, asked: Asked) -> Any:
        """The file as Drive has it, or the spreadsheet, with the cells of the ranges that are asked for."""
        match asked.method, asked.steps:
            case "GET", ["drive", "v3", "files", name]:
                drive = True
            case "GET", ["v4", "spreadsheets", name]:
                drive = False
            case _:
                raise Refusal(404, b"<!DOCTYPE html><title>Error 404 (Not Found)!!1</title>")
        if not self.enabled:
            reason = "accessNotConfigured" if drive else "SERVICE_DISABLED"
            raise refusal(403, "PERMISSION_DENIED", reason, "API has not been used in project 1 before or it is disabled.", drive=drive)
        if self.narrow:
            reason = "insufficientPermissions" if drive else "ACCESS_TOKEN_SCOPE_INSUFFICIENT"
            raise refusal(403, "PERMISSION_DENIED", reason, "Request had insufficient authentication scopes.", drive=drive)
        if name != ID or not self.shared:
            if drive:
                raise refusal(404, "", "notFound", f"File not found: {name}.", drive=True)
            raise refusal(403, "PERMISSION_DENIED", "", "The caller does not have permission")
        fields = mask(asked.query.get("fields", ""))
        if drive:
            about = {
                "kind": "drive#file",
                "id": ID,
                "name": "Contacts",
                "mimeType": self.mime,
                "trashed": self.trashed,
                "version": str(self.version),
            }
            return masked(about, fields or mask("kind,id,name,mimeType"))
        return self._spreadsheet(asked.lists.get("ranges", []), fields)

    def _spreadsheet(self, ranges: Sequence[str], fields: dict[str, Any]) -> Any:
        if self.mime != MIME:
            raise refusal(400, "FAILED_PRECONDITION", "", "This operation is not supported for this document")
        told: dict[str, Any] = {"spreadsheetId": ID, "properties": {"title": "Contacts", "locale": "en_US", "timeZone": self.zone}}
        if not ranges:
            return masked({**told, "sheets": [{"properties": tab.about()} for tab in self.tabs]}, fields)
        sheets = []
        for each in ranges:
            found = _RANGE.fullmatch(each)
            tab = next((tab for tab in self.tabs if found and tab.title == found[1].replace("''", "'")), None)
            if found is None or tab is None or tab.kind != "GRID":
                raise refusal(400, "INVALID_ARGUMENT", "", f"Unable to parse range: {each}")
            left, first, right, last = number(found[2]), int(found[3]), number(found[4]), int(found[5])
            if last > tab.height or right > tab.columns:
                raise refusal(400, "INVALID_ARGUMENT", "", f"Range ({each}) exceeds grid limits.")
            data = tab.data(first, last, left, right)
            if self.loading > 0:
                self.loading -= 1
                data = {"rowData": [{"values": [failed("LOADING")]}]}
            sheets.append({"properties": tab.about(), "data": [data]})
        return masked({**told, "sheets": sheets}, fields)
