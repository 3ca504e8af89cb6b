"""CSV over HTTPS: a file server whose addresses are signed."""

import hashlib
from collections.abc import Sequence
from typing import Any, ClassVar

from identity_pipeline_tests.conformance.csv_files import CsvHarness, csv_of
from identity_pipeline_tests.conformance.harness import Contact
from identity_pipeline_tests.servers.files import FileServer

PATH = "/export/contacts.csv"


class CsvUrlHarness(CsvHarness):
    """One file at a signed address."""

    old_configs: ClassVar = ({"url": "https://example.org/contacts.csv"}, {"url": {"env": "URL"}, **CsvHarness.csv_settings})

    def start(self) -> dict[str, Any]:
        """A file server behind faults, at an https address with a signature."""
        self.server = self.enter(FileServer(None))
        return {"url": self.env("URL", f"{self.behind_faults(self.server.url, tls=True)}{PATH}?signature={self.canary('signature')}")}

    def show(self, contacts: Sequence[Contact]) -> None:
        """Write the file anew."""
        body = csv_of(contacts)
        self.server.put(PATH, body, etag=f'"{hashlib.sha256(body).hexdigest()}"')
