"""Google Sheets: the rows of one sheet of a spreadsheet, as they are now.

Left out: empty rows, what formulas say (only what comes of them), notes and links of cells, sheets
that show another system's data (connected sheets) or a chart.

A spreadsheet that Drive has in the version of the last load is not read again. All rows are of one
version: one that is edited while it is read is read again.

The cursor's traps:

- It decides which of two rows with one id stays, and never which rows are read: rows have no
  history, and people do not keep a column of dates as a program does.
- What a formula fetches from elsewhere (IMPORTRANGE, TODAY) changes without a new version:
  `skip_unchanged: false` reads it each time.

https://developers.google.com/workspace/sheets/api/reference/rest/v4/spreadsheets/get
"""

from typing import ClassVar

from identity_pipeline.connectors.base import CursorColumn, RestConnector, Secret, setting
from identity_pipeline.core.errors import PermissionDenied, RateLimited
from identity_pipeline.core.window import Window
from identity_pipeline.readers import names, rest, sheets

BUSY = rest.VendorError(error=RateLimited, wait=60)
UNSHARED = rest.VendorError(
    error=PermissionDenied,
    advice="the account may not open the spreadsheet, or there is none of this id: share it with "
    "the address that credentials list shows for the credential (of a service account: one at "
    "gserviceaccount.com), then run it again",
)
DISABLED = rest.VendorError(
    advice="enable the Google Sheets API and the Google Drive API for the app's project (Google "
    "Cloud, APIs & Services), then run it again"
)
NARROW = rest.VendorError(
    advice="the account did not grant to see its spreadsheets and their versions: connect it "
    "again, and leave every box ticked"
)


class GoogleSheets(RestConnector):
    """The rows of one sheet."""

    group = "oauth"
    vendor = "google"

    access_token: Secret = setting(
        "The account, connected by `credentials connect google_sheets NAME`, for a service account "
        "with its `--key-file`: {credential: NAME}"
    )
    spreadsheet: str = setting(
        "The spreadsheet: its address as the browser shows it, or its id", min_length=1
    )
    sheet: str = setting(
        "Name on the tab of the sheet. Empty: the one that the address shows, else the first "
        "that is not hidden.",
        default="",
    )
    range: str = setting(
        "Columns, with rows or without, that hold the table, such as A:F or A3:F. Empty: all.",
        default="",
    )
    header_row: int = setting(
        "Number of the row that names the columns, as the sheet shows it. 0: the first row that is "
        "not empty.",
        default=0,
        ge=0,
    )
    header: bool = setting(
        "False if the first row is a record: the columns are column_1, column_2, … then.",
        default=True,
    )
    skip_unchanged: bool = setting(
        "False: read the sheet also where Drive says that nobody changed it, for formulas that "
        "fetch from elsewhere.",
        default=True,
    )
    max_bytes: int = setting(
        "A sheet with more text is refused.", default=200_000_000, ge=1, le=2_000_000_000
    )
    base_url: str = setting("Address of the API", default="https://sheets.googleapis.com")
    drive_url: str = setting(
        "Address of the Drive API, which tells the version", default="https://www.googleapis.com"
    )

    interval = 1.0
    errors = rest.ErrorBody(
        code=("error.details.0.reason", "error.errors.0.reason", "error.status"),
        known={
            **dict.fromkeys(("RATE_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED"), BUSY),
            **dict.fromkeys(("rateLimitExceeded", "userRateLimitExceeded"), BUSY),
            **dict.fromkeys(("NOT_FOUND", "notFound"), UNSHARED),
            **dict.fromkeys(("PERMISSION_DENIED", "insufficientFilePermissions"), UNSHARED),
            **dict.fromkeys(("SERVICE_DISABLED", "accessNotConfigured"), DISABLED),
            **dict.fromkeys(("ACCESS_TOKEN_SCOPE_INSUFFICIENT", "insufficientPermissions"), NARROW),
        },
    )
    field_map = names.HEADERS
    cursor_columns: ClassVar = {"*": CursorColumn(type=None, filtered_by="us")}
    reads_whole = True
    reads_snapshot = True

    def auth(self) -> rest.Auth:
        """A bearer token."""
        return rest.BearerAuth(self.access_token)

    def pages(self, client: rest.Client, window: Window) -> rest.Pages:
        """Yield the rows, unless nothing has changed since they were read."""
        place = sheets.Place(self.spreadsheet, self.sheet, self.range, self.header_row, self.header)
        reading, always = sheets.reading(self.max_bytes), not self.skip_unchanged
        return sheets.pages(client, self.drive_url, place, reading, window, always=always)
