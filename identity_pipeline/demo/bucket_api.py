"""An S3-shaped store on this machine: the files of one folder as the objects of one bucket.

Written from Amazon's published contract (https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html,
API_GetObject.html), as far as reading goes. It knows an access key by its id and does not verify signatures.
"""

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import escape

from identity_pipeline.demo.vendor_api import Asked, Refusal, VendorAPI

XML = {"Content-Type": "application/xml"}


@dataclass
class BucketAPI(VendorAPI):
    """The bucket ``name`` with the files of ``folder``, for the holder of the access key ``key``."""

    folder: Path = field(default_factory=Path)
    name: str = "drops"
    key: str = "demo"

    def authenticate(self, asked: Asked, *, dead: bool) -> None:
        """By the id of the access key, in the header or the address."""
        signed = f"{asked.headers.get('Authorization', '')} {asked.query.get('X-Amz-Credential', '')}"
        if dead or f"{self.key}/" not in signed:
            raise _error(403, "InvalidAccessKeyId")

    def hasty(self) -> Refusal:
        """Asked too often."""
        return _error(503, "SlowDown")

    def answer(self, asked: Asked) -> Any:
        """The list of objects, or one of them."""
        match asked.steps:
            case [self.name] if asked.query.get("list-type") == "2":
                raise Refusal(200, self._listed(asked), XML)
            case [self.name, key] if (path := self.folder / key).is_file() and "/" not in key:
                content = path.read_bytes()
                if asked.headers.get("If-Match", tag := _tag(content)) != tag:
                    raise _error(412, "PreconditionFailed")
                raise Refusal(200, content, {"Content-Type": "text/csv", "ETag": tag})
            case [self.name, _]:
                raise _error(404, "NoSuchKey")
            case _:
                raise _error(404, "NoSuchBucket")

    def _listed(self, asked: Asked) -> bytes:
        after, prefix = asked.query.get("continuation-token", ""), asked.query.get("prefix", "")
        paths = [path for path in sorted(self.folder.iterdir()) if path.name.startswith(prefix) and path.name > after]
        page = paths[: self.least(int(asked.query.get("max-keys", 1_000)))]
        more = f"<NextContinuationToken>{escape(page[-1].name)}</NextContinuationToken>" if len(page) < len(paths) else ""
        listed = "".join(
            f"<Contents><Key>{escape(quote(path.name))}</Key><Size>{len(content := path.read_bytes())}</Size>"
            f"<ETag>{escape(_tag(content))}</ETag>"
            f"<LastModified>{datetime.fromtimestamp(path.stat().st_mtime, UTC):%Y-%m-%dT%H:%M:%S.000Z}</LastModified></Contents>"
            for path in page
        )
        told = f"<Name>{self.name}</Name><EncodingType>url</EncodingType>"
        told += f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>{more}{listed}"
        return f'<?xml version="1.0" encoding="UTF-8"?><ListBucketResult>{told}</ListBucketResult>'.encode()


def _tag(content: bytes) -> str:
    return f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'


def _error(status: int, code: str) -> Refusal:
    return Refusal(status, f"<Error><Code>{code}</Code><Message>refused</Message></Error>".encode(), XML)
