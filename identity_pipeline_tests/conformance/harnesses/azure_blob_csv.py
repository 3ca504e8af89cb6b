"""Azure Blob Storage: one blob of a container of Azurite, which checks signatures and rights."""

from collections.abc import Sequence
from typing import Any, ClassVar
from urllib.parse import parse_qs
from uuid import uuid4

from identity_pipeline_tests.conformance.csv_files import CsvHarness, csv_of
from identity_pipeline_tests.conformance.harness import Contact
from identity_pipeline_tests.servers import azurite


class AzureBlobCsvHarness(CsvHarness):
    """A blob that is the whole truth, asked for with a signature that was made for the test."""

    requests_before_pages = 1
    old_configs: ClassVar = (
        {"container": "crm", "account": "acmeexports", "account_key": {"env": "KEY"}},
        {"container": "crm", "connection_string": {"env": "CONNECTION"}, "endpoint_url": "https://storage.example.org"},
        {"container": "crm", "account": "acmeexports", "sas_token": {"env": "SAS"}, **CsvHarness.storage_settings},
        {
            "container": "crm", "account": "acmeexports", "tenant_id": "t", "client_id": "c", "client_secret": {"env": "SECRET"},
            "token_url": "https://login.microsoftonline.us/{tenant_id}/oauth2/v2.0/token",
        },
        {"container": "crm", "account": "acmeexports", "ambient_credentials": True},
    )  # fmt: skip

    def start(self) -> dict[str, Any]:
        """A container behind faults."""
        self.server, self.prefix = azurite.server(), f"{uuid4().hex}/"
        return {
            "container": azurite.CONTAINER,
            "sas_token": self.env("SAS", self._secret(azurite.sas())),
            "endpoint_url": f"{self.behind_faults(self.server.url)}/{azurite.ACCOUNT}",
            "prefix": self.prefix,
            "contents": "everything",
        }

    def show(self, contacts: Sequence[Contact]) -> None:
        """Write the blob anew."""
        self.server.put(f"{self.prefix}contacts.csv", csv_of(contacts))

    def refuse_credential(self) -> None:
        """Let the signature be one with another key."""
        self.env("SAS", self._secret(azurite.sas(key="b3RoZXI=")))

    def refuse_permission(self) -> None:
        """Let it be one that may read, and not list."""
        self.env("SAS", self._secret(azurite.sas("r")))

    def _secret(self, sas: str) -> str:
        self.canaries += [sas, *parse_qs(sas)["sig"]]
        return sas
