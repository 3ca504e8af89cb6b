"""Azure Blob Storage for tests: Azurite, Microsoft's emulator, which checks keys, signatures and, over TLS, tokens of Entra.

Of a token it checks issuer, audience and lifetime, and not who signed it; it gives every token all rights.
"""

import base64
import json
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import trustme
from azure.core.exceptions import AzureError, ResourceExistsError
from azure.storage.blob import BlobServiceClient, ContainerClient, ContainerSasPermissions, generate_container_sas

from identity_pipeline_tests.node import NODE, modules
from identity_pipeline_tests.servers import program

ACCOUNT = "crmaccount"
KEY = base64.b64encode(b"the key of the account that the tests use for Azure Blob Storage").decode()
CONTAINER = "crm"


@dataclass(frozen=True)
class Server:
    """A running server. ``url`` is that of the account, ``bundle`` the certificate of who vouches for it, None without TLS."""

    url: str
    bundle: Path | None = None

    @cache  # noqa: B019 - there are two servers at most
    def container(self, name: str = CONTAINER) -> ContainerClient:
        """Microsoft's own client of a container, for somebody who may do everything."""
        options: dict[str, Any] = {"connection_verify": str(self.bundle)} if self.bundle else {}
        return BlobServiceClient(self.url, KEY, retry_total=0, **options).get_container_client(name)

    def put(self, name: str, body: bytes, **options: Any) -> None:
        """Write a blob of :data:`CONTAINER`."""
        self.container().upload_blob(name, body, overwrite=True, **options)


@cache
def server(*, tls: bool = False) -> Server:
    """The server of this process, started when it is first asked for: with TLS it takes tokens too."""
    place = program.folder("azurite")
    [port] = program.free_ports(1)
    command = [
        NODE, modules() / "azurite" / "dist" / "src" / "blob" / "main.js", "--blobHost", "127.0.0.1", "--blobPort", str(port),
        "--inMemoryPersistence", "--disableTelemetry", "--skipApiVersionCheck",
    ]  # fmt: skip
    bundle = None
    if tls:
        authority, bundle = trustme.CA(), place / "authority.pem"
        own = authority.issue_cert("127.0.0.1")
        authority.cert_pem.write_to_path(str(bundle))
        own.private_key_and_cert_chain_pem.write_to_path(str(place / "own.pem"))
        command += ["--oauth", "basic", "--cert", place / "own.pem", "--key", place / "own.pem"]
    made = Server(f"{'https' if tls else 'http'}://127.0.0.1:{port}/{ACCOUNT}", bundle)

    def ready() -> None:
        with suppress(ResourceExistsError):
            made.container().create_container()

    program.start(place, command, ready, (AzureError,), AZURITE_ACCOUNTS=f"{ACCOUNT}:{KEY}")
    return made


def sas(rights: str = "rl", *, key: str = KEY, begins: float = -1, ends: float = 1, container: str = CONTAINER) -> str:
    """A signature for a container with these rights, that holds from and until so many hours from now."""
    now = datetime.now(UTC)
    hours = {name: now + timedelta(hours=value) for name, value in (("start", begins), ("expiry", ends))}
    return generate_container_sas(ACCOUNT, container, account_key=key, permission=ContainerSasPermissions.from_string(rights), **hours)


def token(audience: str = "https://storage.azure.com", lives: int = 3600) -> str:
    """A token as Entra hands it out."""
    now = int(time.time())
    claims = {"aud": audience, "iss": "https://sts.windows.net/directory/", "iat": now, "nbf": now - 60, "exp": now + lives}
    parts = ({"alg": "RS256", "typ": "JWT"}, claims)
    return ".".join([*(base64.urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=").decode() for each in parts), "c2ln"])
