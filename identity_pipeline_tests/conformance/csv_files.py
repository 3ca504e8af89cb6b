"""Harnesses whose source is a CSV file: what it holds, and what a file cannot have."""

import csv
import io
from collections.abc import Sequence
from typing import Any, ClassVar

from identity_pipeline.readers.files import csv as reader
from identity_pipeline.readers.files import read
from identity_pipeline_tests.conformance.harness import Contact, Harness, instant


def csv_of(contacts: Sequence[Contact]) -> bytes:
    """A file of these contacts."""
    text = io.StringIO()
    lines = csv.writer(text)
    lines.writerow(("id", "first_name", "email", "phone", "note", "updated_at", "deleted_at"))
    lines.writerows((c.id, c.first_name, c.email, c.phone, c.note, instant(c.at), instant(c.at) if c.deleted else None) for c in contacts)
    return text.getvalue().encode()


class CsvHarness(Harness):
    """One file, written anew for each state of the source."""

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
    same_ids: ClassVar = {"1.0": "1"}  # programs write whole numbers so where a cell of their column is empty
    second_batch_at = 50_001
    csv_settings: ClassVar[dict[str, Any]] = {
        "delimiter": "tab", "encoding": "cp1252", "quote": "'", "escape": "\\", "header": False,
        "cursor_format": "%d.%m.%Y", "cursor_timezone": "Europe/Berlin", "max_bytes": 1_000_000,
    }  # fmt: skip
    storage_settings: ClassVar[dict[str, Any]] = {
        **csv_settings, "prefix": "crm/", "glob": "*.csv", "contents": "everything", "file_fields": True,
    }  # fmt: skip

    def shrink_pages(self) -> None:
        """Cut frames at three rows."""
        self.tools.monkeypatch.setattr(reader, "MAX_ROWS", 3)
        self.tools.monkeypatch.setattr(read, "GATHERED_ROWS", 3)
