"""Google Sheets: one sheet, written anew for each state of the source, which makes a new version each time."""

from collections.abc import Sequence
from typing import Any, ClassVar

from identity_pipeline.demo.vendor_api import serve
from identity_pipeline.readers import sheets
from identity_pipeline_tests.conformance.harness import Contact, Harness, instant
from identity_pipeline_tests.servers.google_sheets_api import ID, GoogleSheetsAPI

HEADER = ("id", "first_name", "email", "phone", "note", "updated_at", "deleted_at")


class GoogleSheetsHarness(Harness):
    """A spreadsheet and an access token of an account that it is shared with."""

    cursor_column = "updated_at"
    requests_before_pages = 2
    traits: ClassVar = {
        "cursor", "null_cursor", "future_cursor", "repeated_id", "text_ids", "deletion", "restoring", "credential", "permission", "framed",
        "nul", "surrogate", "line_breaks",
    }  # fmt: skip
    lacking: ClassVar = {
        "merging": "sheets have no customary column for it: a `mapping:` names one",
        "pages": "rows are asked for by their numbers: no page names the next one",
        "counted": "the size of the grid says nothing of how many rows hold something",
        "nested": "a row has no objects in it",
        "megabyte": "a cell holds 50,000 characters at most",
    }
    old_configs: ClassVar = (
        {"access_token": {"credential": "google"}, "spreadsheet": ID},
        {
            "access_token": {"env": "TOKEN"}, "spreadsheet": f"https://docs.google.com/spreadsheets/d/{ID}/edit?gid=7#gid=7",
            "sheet": "Contacts", "range": "A3:F", "header_row": 3, "header": False, "skip_unchanged": False, "max_bytes": 1_000_000,
            "base_url": "https://sheets.googleapis.com", "drive_url": "https://www.googleapis.com",
        },
    )  # fmt: skip

    def start(self) -> dict[str, Any]:
        """An empty sheet behind faults."""
        token = self.canary("access_token")
        self.api = self.enter(serve(GoogleSheetsAPI(token=token)))
        url = self.behind_faults(self.api.url)
        return {"access_token": self.env("ACCESS_TOKEN", token), "spreadsheet": ID, "base_url": url, "drive_url": url}

    def show(self, contacts: Sequence[Contact]) -> None:
        """Write the sheet anew."""
        rows = [(c.id, c.first_name, c.email, c.phone, c.note, instant(c.at), instant(c.at) if c.deleted else None) for c in contacts]
        self.api.write([HEADER, *rows])

    def shrink_pages(self) -> None:
        """Ask for three rows at a time."""
        self.tools.monkeypatch.setattr(sheets, "CELLS", 3 * self.api.tabs[0].columns)

    def refuse_credential(self) -> None:
        """Know another token only."""
        self.api.token = "another"

    def refuse_permission(self) -> None:
        """Share the spreadsheet no more."""
        self.api.shared = False
