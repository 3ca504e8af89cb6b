"""Google Cloud Storage: one object of a bucket, read by a service account whose tokens are checked."""

import json
from collections.abc import Sequence
from typing import Any, ClassVar
from uuid import uuid4

from identity_pipeline_tests.conformance.csv_files import CsvHarness, csv_of
from identity_pipeline_tests.conformance.harness import Contact
from identity_pipeline_tests.servers import gcs


class GcsCsvHarness(CsvHarness):
    """An object that is the whole truth."""

    requests_before_pages = 1
    old_configs: ClassVar = (
        {"bucket": "crm", "service_account": {"env": "KEY"}},
        {"bucket": "crm", "ambient_credentials": True, "endpoint_url": "https://storage.example.org", **CsvHarness.storage_settings},
    )

    def start(self) -> dict[str, Any]:
        """A bucket behind the gate, behind faults."""
        self.server, self.gate, self.prefix = gcs.server(), self.enter(gcs.Gate()), f"{uuid4().hex}/"
        self.canaries.append(json.loads(self.gate.account())["private_key"].splitlines()[5])
        return {
            "bucket": gcs.BUCKET,
            "service_account": self.env("KEY", self.gate.account()),
            "endpoint_url": self.behind_faults(self.gate.url),
            "prefix": self.prefix,
            "contents": "everything",
        }

    def show(self, contacts: Sequence[Contact]) -> None:
        """Write the object anew."""
        self.server.put(f"{self.prefix}contacts.csv", csv_of(contacts))

    def refuse_credential(self) -> None:
        """Let the key be one that was deleted."""
        self.gate.known = False

    def refuse_permission(self) -> None:
        """Take the account's role away."""
        self.gate.allowed = False
