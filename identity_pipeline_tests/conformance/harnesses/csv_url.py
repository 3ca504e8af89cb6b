"""CSV over HTTPS: a file server whose addresses are signed."""

import csv
import hashlib
import io
from collections.abc import Sequence
from typing import Any, ClassVar

from identity_pipeline.readers.files import csv as reader
from identity_pipeline_tests.conformance.harness import Contact, Harness, instant
from identity_pipeline_tests.servers.files import FileServer

PATH = "/export/contacts.csv"


class CsvUrlHarness(Harness):
    """One file at a signed address."""

    cursor_column = "updated_at"
    traits: ClassVar = {
        "cursor", "null_cursor", "future_cursor", "repeated_id", "text_ids", "deletion",
        "restoring", "credential", "permission", "nul", "line_breaks", "megabyte",
    }  # fmt: skip
    lacking: ClassVar = {
        "merging": "files have no customary column for it: a `mapping:` names one",
        "pages": "a file is one answer",
        "counted": "a file is one answer",
        "nested": "a row has no objects in it",
        "framed": "half of a CSV file is a CSV file",
        "surrogate": "UTF-8 has no lone surrogates",
    }
    second_batch_at = 50_001
    old_configs: ClassVar = (
        {"url": "https://example.org/contacts.csv"},
        {
            "url": {"env": "URL"}, "delimiter": "tab", "encoding": "cp1252", "quote": "'", "escape": "\\", "header": False,
            "cursor_format": "%d.%m.%Y", "cursor_timezone": "Europe/Berlin", "max_bytes": 1_000_000,
        },
    )  # fmt: skip

    def start(self) -> dict[str, Any]:
        """A file server behind faults, at an https address with a signature."""
        self.server = self.enter(FileServer(None))
        return {"url": self.env("URL", f"{self.behind_faults(self.server.url, tls=True)}{PATH}?signature={self.canary('signature')}")}

    def show(self, contacts: Sequence[Contact]) -> None:
        """Write the file anew."""
        text = io.StringIO()
        lines = csv.writer(text)
        lines.writerow(("id", "first_name", "email", "phone", "note", "updated_at", "deleted_at"))
        lines.writerows(
            (c.id, c.first_name, c.email, c.phone, c.note, instant(c.at), instant(c.at) if c.deleted else None) for c in contacts
        )
        body = text.getvalue().encode()
        self.server.put(PATH, body, etag=f'"{hashlib.sha256(body).hexdigest()}"')

    def shrink_pages(self) -> None:
        """Cut frames at three rows."""
        self.tools.monkeypatch.setattr(reader, "MAX_ROWS", 3)
