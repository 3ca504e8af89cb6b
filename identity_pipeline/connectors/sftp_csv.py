"""SFTP: the CSV files of one server.

Left out: symbolic links; empty files; SCP and FTP. Packed files, and ZIP archives of one,
are unpacked, whatever they are called. The host's key has to be pinned.

A file is read once for each version of it, which is its time of modification with its size: a file
that is written again with the same size within the same second is not noticed. One that is being
written waits for the next load. No file of ``changes`` tells of a deleted row; under
``contents: everything`` what the newest file does not hold is deleted.

The cursor's trap: it decides which of two versions of a record stays, and never which files are
read. Of a file that was not read before no row is left out, even below the mark.

https://datatracker.ietf.org/doc/html/draft-ietf-secsh-filexfer-02
"""

from identity_pipeline.connectors.base import Secret, StorageConnector, setting
from identity_pipeline.core.window import ReadContext
from identity_pipeline.readers.files.sftp import SftpAccess, SftpStore


class SftpCsv(StorageConnector):
    """The CSV files of one server."""

    vendor = "sftp"

    host: str = setting("Name or address of the server", min_length=1)
    port: int = setting("Port of the server", default=22, ge=1, le=65_535)
    user: str = setting("User to sign in as", min_length=1)
    password: Secret | None = setting("Password of the user.", default=None)
    private_key: Secret | None = setting("Private key of the user, in PEM.", default=None)
    passphrase: Secret | None = setting("Passphrase of an encrypted key.", default=None)
    public_host_key: str = setting(
        "Key of the server as in known_hosts, or its fingerprint (SHA256:…); several by commas or "
        "in lines. Empty: the connection test says which one the server shows.",
        default="",
    )

    def store(self, context: ReadContext) -> SftpStore:
        """The server."""
        access = SftpAccess(
            self.host,
            self.port,
            self.user,
            self.public_host_key,
            self.password,
            self.private_key,
            self.passphrase,
        )
        return SftpStore(access, self.names(), context)
