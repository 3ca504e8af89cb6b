"""Google Cloud Storage: the CSV files of one bucket.

Left out: generations of an object other than the present one; empty objects. Packed files, and
ZIP archives of one, are unpacked, whatever they are called.

An object is read once for each generation of it: one that is written again is read again, one that
comes late is read, whatever its date says. No file of ``changes`` tells of a deleted row; under
``contents: everything`` what the newest file does not hold is deleted.

The cursor's trap: it decides which of two versions of a record stays, and never which objects are
read. Of an object that was not read before no row is left out, even below the mark.

https://cloud.google.com/storage/docs/json_api/v1/objects/list
"""

from identity_pipeline.connectors.base import Secret, StorageConnector, setting
from identity_pipeline.core.window import ReadContext
from identity_pipeline.readers.files.gcs import ENDPOINT, GcsStore


class GcsCsv(StorageConnector):
    """The CSV files of one bucket."""

    vendor = "gcs"

    bucket: str = setting("Name of the bucket", min_length=1)
    service_account: Secret | None = setting("JSON of a service account's key.", default=None)
    ambient_credentials: bool = setting(
        "True: the credential that this machine has may be used.", default=False
    )
    endpoint_url: str = setting("Address of the API", default=ENDPOINT)

    def store(self, context: ReadContext) -> GcsStore:
        """The bucket."""
        return GcsStore(
            self.service_account,
            self.ambient_credentials,
            self.bucket,
            self.names(),
            context,
            self.endpoint_url,
        )
