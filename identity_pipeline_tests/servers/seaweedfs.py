"""An S3 server for tests: SeaweedFS, which checks signatures and rights. One for each process that needs it, gone with it."""

import json
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from identity_pipeline_tests.servers import program

BUCKET = "crm"
"""The one bucket: each takes volumes of its own. Tests have a prefix of their own in it."""
ADMINISTRATOR = ("AKIAADMINISTRATOR", "secret-of-the-administrator")
NOBODY = ("AKIANOBODY", "secret-of-nobody")
"""A key that is right, and may read another bucket only."""


@dataclass(frozen=True)
class Server:
    """A running server and the file of its identities."""

    url: str
    folder: Path

    @cache  # noqa: B019 - there is one server
    def client(self, key: str = ADMINISTRATOR[0], secret: str = ADMINISTRATOR[1]) -> Any:
        """Boto3's own client, by default for somebody who may do everything."""
        config = Config(signature_version="s3v4", s3={"addressing_style": "path"}, retries={"total_max_attempts": 1})
        session = boto3.session.Session()
        return session.client(
            "s3", endpoint_url=self.url, aws_access_key_id=key, aws_secret_access_key=secret, region_name="us-east-1", config=config
        )

    def put(self, key: str, body: bytes) -> None:
        """Write an object of :data:`BUCKET`."""
        self.client().put_object(Bucket=BUCKET, Key=key, Body=body)


@cache
def server() -> Server:
    """The server of this process, started when it is first asked for. Its folder is the test session's."""
    folder = program.folder("seaweedfs")
    (folder / "data").mkdir()
    identities = [{"name": "administrator", "actions": ["Admin", "Read", "List", "Tagging", "Write"]}]
    identities += [{"name": "nobody", "actions": ["Read:elsewhere", "List:elsewhere"]}]
    keys = {"administrator": ADMINISTRATOR, "nobody": NOBODY}
    for identity in identities:
        key, secret = keys[str(identity["name"])]
        identity["credentials"] = [{"accessKey": key, "secretKey": secret}]  # type: ignore[list-item]
    (folder / "identities.json").write_text(json.dumps({"identities": identities}))
    ports = program.free_ports(8)
    made = Server(f"http://127.0.0.1:{ports[6]}", folder)
    names = (
        "master.port",
        "master.port.grpc",
        "volume.port",
        "volume.port.grpc",
        "filer.port",
        "filer.port.grpc",
        "s3.port",
        "s3.port.grpc",
    )
    command = [
        str(Path(sys.executable).parent / "weed"), "server", f"-dir={folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        "-filer", "-s3",
        *(f"-{name}={port}" for name, port in zip(names, ports, strict=True)),
        # without these it opens two more ports to the world, and reports home
        "-s3.port.iceberg=0", "-s3.port.lance=0", "-metricsPort=0", "-master.telemetry=false",
        f"-s3.config={folder / 'identities.json'}", "-master.volumeSizeLimitMB=128", "-volume.max=50",
        "-volume.minFreeSpace=100MiB",  # else it takes nothing any more where 1 % of the disk is left
    ]  # fmt: skip

    def ready() -> None:
        made.client().create_bucket(Bucket=BUCKET)
        made.put("ready", b"1")

    program.start(folder, command, ready, (BotoCoreError, ClientError))
    return made
