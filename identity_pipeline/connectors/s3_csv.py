"""Amazon S3: the CSV files of one bucket, and of other stores that speak S3.

Left out: objects in an archive class that were not restored; versions of an object other than the
present one; empty objects. Packed files, and ZIP archives of one, are unpacked, whatever they
are called.

An object is read once for each version (entity tag) of it: one that is written again is read again,
one that comes late is read, whatever its date says. No file of ``changes`` tells of a deleted row;
under ``contents: everything`` what the newest file does not hold is deleted.

The cursor's traps:

- It decides which of two versions of a record stays, and never which objects are read. Of an object
  that was not read before no row is left out, even below the mark.
- S3 dates an upload in parts by its beginning, so that objects appear with dates before those of
  objects that were read already.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html
"""

from identity_pipeline.connectors.base import Secret, StorageConnector, setting
from identity_pipeline.core.window import ReadContext
from identity_pipeline.readers.files.s3 import S3Access, S3Store


class S3Csv(StorageConnector):
    """The CSV files of one bucket."""

    vendor = "s3"

    bucket: str = setting("Name of the bucket", min_length=1)
    region: str = setting("Region of the bucket", default="us-east-1", min_length=1)
    access_key_id: str = setting("Id of the access key", default="")
    secret_access_key: Secret | None = setting("Secret of the access key", default=None)
    session_token: Secret | None = setting("Token of a temporary credential.", default=None)
    ambient_credentials: bool = setting(
        "True: the credential that this machine has (environment, profile, role) may be used.",
        default=False,
    )
    endpoint_url: str = setting("Address of a store other than Amazon's.", default="")

    def store(self, context: ReadContext) -> S3Store:
        """The bucket."""
        access = S3Access(
            self.access_key_id,
            self.secret_access_key,
            self.session_token,
            self.ambient_credentials,
        )
        return S3Store(access, self.bucket, self.names(), context, self.region, self.endpoint_url)
