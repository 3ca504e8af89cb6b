"""CSV over HTTPS: the rows of one file, as it stands at one address.

Left out: files behind a login form; an archive of several files (a packed file, or a ZIP
archive of one, is read); ``http://``, except from hosts in IDENTITY_ALLOW_PRIVATE_HOSTS. The
address of a page of Google Sheets, Google Drive, Dropbox, SharePoint, GitHub and the like that
shows a file is taken for the file's own. A file is read again unless a strong entity tag, a settled
date with its length, or its bytes prove that it is the same.

The external id and the canonical fields are found by the customary headers, in any spelling
(``id``, ``Customer ID``, ``E-Mail``), and by those of the exports of Outlook, Google, HubSpot,
Mailchimp, Salesforce and Thunderbird; others go under ``mapping:``. A deleted row is simply gone
from the file: a full refresh finds out.

The cursor's traps:

- Any column can be the cursor, and the whole file is read each time, unless it is unchanged. No row
  is left out for lying below the mark: the cursor decides which of two versions of a record stays.
- ``01/02/2026`` has two meanings: other than ISO 8601 is read only as ``cursor_format`` says, and a
  time without a zone is wall clock in ``cursor_timezone``.

https://www.rfc-editor.org/rfc/rfc4180
"""

from identity_pipeline.connectors.base import FileConnector, setting
from identity_pipeline.core.window import ReadContext
from identity_pipeline.readers.files import HttpsStore


class CsvUrl(FileConnector):
    """A CSV file at an https address."""

    vendor = "csv"

    url: str = setting(
        "Address of the file, shown without its query. A signed one is given as {env: NAME}."
    )

    def store(self, context: ReadContext) -> HttpsStore:
        """The one address."""
        return HttpsStore(self.url, context)
