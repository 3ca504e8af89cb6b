"""CSV over HTTPS: the rows of one file, as it stands at one address.

Left out: files behind a login form; an archive of several files (a single file packed with gzip is
read); ``http://``, except from hosts in IDENTITY_ALLOW_PRIVATE_HOSTS. The address of a page of Google
Sheets, Google Drive, Dropbox or GitHub that shows a file is taken for the file's own.

The external id and the canonical fields are found by the customary headers, in any spelling
(``id``, ``Customer ID``, ``E-Mail``); others go under ``mapping:``. A deleted row is simply gone from
the file: a full refresh finds out.

The cursor's traps:

- Any column can be the cursor, and the whole file is read each time, unless it is the same as before.
- A file that is written anew may hold rows older than the mark: for those, leave the cursor out.
- ``01/02/2026`` has two meanings: other than ISO 8601 is read only as ``cursor_format`` says, and a
  time without a zone is wall clock in ``cursor_timezone``.

https://www.rfc-editor.org/rfc/rfc4180
"""

from collections.abc import Iterator
from itertools import starmap

import pandas as pd

from identity_pipeline.connectors.base import CheckStep, Connector, CursorColumn, setting
from identity_pipeline.core.cursor import CursorReading, check_format, check_timezone
from identity_pipeline.core.window import Window
from identity_pipeline.readers.csv import Dialect
from identity_pipeline.readers.files import read_files, steps
from identity_pipeline.readers.headers import CUSTOMARY
from identity_pipeline.readers.storage import MAX_BYTES, https_file


class CsvUrl(Connector):
    """A CSV file at an https address."""

    group = "files"
    vendor = "csv"
    field_map = CUSTOMARY
    cursor_columns = {"*": CursorColumn(type=None, filtered_by="us")}  # noqa: RUF012 - a ClassVar of the base

    url: str = setting("Address of the file. It may be signed: give it as {env: NAME} then. Shown without its query.")
    delimiter: str = setting("What stands between cells: one character, or tab. Empty: found out among , ; tab |", default="")
    encoding: str = setting("What the file is written in, such as cp1252. Empty: byte order mark, server, UTF-8, cp1252.", default="")
    quote: str = setting("What encloses cells that hold a delimiter. Empty: nothing does.", default='"')
    escape: str = setting("What takes the meaning off the next character, such as \\. Empty: nothing does.", default="")
    header: bool = setting("False if the first row is a record: the columns are column_1, column_2, … then.", default=True)
    cursor_format: str = setting("How the cursor column writes time, as for strptime: %d.%m.%Y %H:%M. Empty: ISO 8601.", default="")
    cursor_timezone: str = setting("Time zone of times that have none, such as Europe/Berlin.", default="UTC")
    max_bytes: int = setting("A larger file, unpacked, is refused.", default=MAX_BYTES, ge=1, le=2_000_000_000)

    def read(self, window: Window) -> Iterator[pd.DataFrame]:
        """Yield the rows of the file, unless it is the same as before."""
        dialect = self._dialect()
        files = https_file(self.url, window, rules=repr((dialect, self.cursor_reading())), max_bytes=self.max_bytes)
        return read_files(files, dialect, window.context)

    def check(self) -> Iterator[CheckStep]:
        """Test the way to the first rows, step by step."""
        return starmap(CheckStep, steps(lambda: self.read(Window())))

    def cursor_reading(self) -> CursorReading:
        """Times as ``cursor_format`` and ``cursor_timezone`` say."""
        return CursorReading(check_timezone(self.cursor_timezone), check_format(self.cursor_format) if self.cursor_format else None)

    def secrets(self) -> tuple[str, ...]:
        """The query, which may be a signature."""
        return tuple(filter(None, [self.url.partition("?")[2]]))

    def _dialect(self) -> Dialect:
        return Dialect(self.delimiter or None, self.encoding or None, self.quote, self.escape or None, self.header)
