"""SFTP: one file of a server whose key is pinned."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from identity_pipeline_tests.conformance.csv_files import CsvHarness, csv_of
from identity_pipeline_tests.conformance.harness import Contact
from identity_pipeline_tests.servers import sftp


class SftpCsvHarness(CsvHarness):
    """A file that is the whole truth, read by a user with a password."""

    wire = "tcp"
    old_configs: ClassVar = (
        {"host": "files.example.org", "user": "reader", "password": {"env": "PASSWORD"}, "public_host_key": "SHA256:" + "A" * 43},
        {
            "host": "files.example.org", "port": 2222, "user": "reader", "private_key": {"env": "KEY"}, "passphrase": {"env": "PHRASE"},
            "public_host_key": "ssh-ed25519 AAAA", **CsvHarness.storage_settings,
        },
    )  # fmt: skip

    def start(self) -> dict[str, Any]:
        """A server behind a relay."""
        folder = Path(self.enter(tempfile.TemporaryDirectory(prefix="sftp-")))
        self.server = self.enter(sftp.Server(folder, password=self.canary("password")))
        return {
            "host": "127.0.0.1",
            "port": self.behind_relay("127.0.0.1", self.server.port),
            "user": self.server.user,
            "password": self.env("PASSWORD", self.server.password),
            "public_host_key": self.server.host_key,
            "prefix": "exports/",
            "contents": "everything",
        }

    def show(self, contacts: Sequence[Contact]) -> None:
        """Write the file anew."""
        self.server.put("exports/contacts.csv", csv_of(contacts))

    def refuse_credential(self) -> None:
        """Change the user's password."""
        self.server.password = "another"

    def refuse_permission(self) -> None:
        """Take the right to read away from the user."""
        self.server.readable = False
