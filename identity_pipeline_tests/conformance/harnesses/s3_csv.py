"""S3: one object of a bucket of SeaweedFS, which checks signatures and rights."""

from collections.abc import Sequence
from typing import Any, ClassVar
from uuid import uuid4

from identity_pipeline_tests.conformance.csv_files import CsvHarness, csv_of
from identity_pipeline_tests.conformance.harness import Contact
from identity_pipeline_tests.servers import seaweedfs


class S3CsvHarness(CsvHarness):
    """An object that is the whole truth, asked for with a key that was made for the test."""

    requests_before_pages = 1
    old_configs: ClassVar = (
        {"bucket": "crm", "access_key_id": "AKIA", "secret_access_key": {"env": "SECRET"}},
        {
            "bucket": "crm", "region": "eu-central-1", "ambient_credentials": True, "endpoint_url": "https://s3.example.org",
            "session_token": {"env": "TOKEN"}, **CsvHarness.storage_settings,
        },
    )  # fmt: skip

    def start(self) -> dict[str, Any]:
        """A bucket behind faults."""
        self.server = seaweedfs.server()
        self.prefix = f"{uuid4().hex}/"
        return {
            "bucket": seaweedfs.BUCKET,
            "access_key_id": seaweedfs.ADMINISTRATOR[0],
            "secret_access_key": self.env("SECRET", self._secret(seaweedfs.ADMINISTRATOR[1])),
            "endpoint_url": self.behind_faults(self.server.url),
            "prefix": self.prefix,
            "contents": "everything",
        }

    def show(self, contacts: Sequence[Contact]) -> None:
        """Write the object anew."""
        self.server.put(f"{self.prefix}contacts.csv", csv_of(contacts))

    def refuse_credential(self) -> None:
        """Let the secret be a wrong one."""
        self.env("SECRET", self.canary("wrong"))

    def refuse_permission(self) -> None:
        """Ask with a key that may read another bucket only."""
        key, secret = seaweedfs.NOBODY
        self.config["access_key_id"] = key
        self.env("SECRET", self._secret(secret))

    def _secret(self, secret: str) -> str:
        self.canaries.append(secret)
        return secret
