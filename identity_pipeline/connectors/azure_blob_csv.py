"""Azure Blob Storage: the CSV files of one container.

Left out: snapshots, earlier versions and deleted blobs; folders of accounts with a hierarchical
namespace, and the blobs that stand for folders elsewhere; empty blobs. Packed files, and ZIP
archives of one, are unpacked, whatever they are called. A blob in the archive tier has to be
rehydrated.

A blob is read once for each version (entity tag) of it: one that is written again is read again,
one that comes late is read, whatever its date says. No file of ``changes`` tells of a deleted row;
under ``contents: everything`` what the newest file does not hold is deleted.

The cursor's traps:

- It decides which of two versions of a record stays, and never which blobs are read. Of a blob
  that was not read before no row is left out, even below the mark.
- A blob whose metadata or tier is set has a new date, and with metadata a new entity tag: it is
  read again, and its rows are unchanged.

https://learn.microsoft.com/rest/api/storageservices/list-blobs
"""

from identity_pipeline.connectors.base import Secret, StorageConnector, setting
from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.core.window import ReadContext
from identity_pipeline.readers import entra
from identity_pipeline.readers.files.azure import AzureStore
from identity_pipeline.readers.files.azure_access import SCOPE, AzureAccess


class AzureBlobCsv(StorageConnector):
    """The CSV files of one container."""

    vendor = "azure"

    container: str = setting("Name of the container", min_length=1)
    account: str = setting("Name of the storage account.", default="")
    account_key: Secret | None = setting("Key of the account.", default=None)
    sas_token: Secret | None = setting(
        "Shared access signature that may read and list the container.", default=None
    )
    connection_string: Secret | None = setting("Connection string of the account.", default=None)
    tenant_id: str = setting("Entra: id of the directory", default="")
    client_id: str = setting("Entra: id of the app", default="")
    client_secret: Secret | None = setting("Entra: secret of the app.", default=None)
    ambient_credentials: bool = setting(
        "True: the identity that this machine has (environment, managed identity) may be used.",
        default=False,
    )
    endpoint_url: str = setting(
        "Address of the blob service, where it is not https://ACCOUNT.blob.core.windows.net.",
        default="",
    )
    token_url: str = setting(
        "Where Entra hands out tokens; national clouds have their own", default=entra.TOKEN_URL
    )

    def store(self, context: ReadContext) -> AzureStore:
        """The container."""
        access = AzureAccess(
            self.account,
            self.endpoint_url,
            self.account_key,
            self.sas_token,
            self.connection_string,
            self._app(),
            self.ambient_credentials,
        )
        return AzureStore(access, self.container, self.names(), context)

    def _app(self) -> entra.App | None:
        if not (self.tenant_id or self.client_id or self.client_secret):
            return None
        if not (self.tenant_id and self.client_id and self.client_secret):
            raise ConfigurationError("tenant_id, client_id and client_secret belong together")
        return entra.App(self.tenant_id, self.client_id, self.client_secret, SCOPE, self.token_url)
