"""Objects of a bucket that speaks S3: Amazon's, and those of others by their own endpoint.

Boto3 finds the credential, knows the endpoints and signs; see :mod:`.bucket` for the rest. An
object is read by the entity tag it was listed with, which is opaque here: of a multipart upload it
is no hash.
"""

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from functools import cache, cached_property
from typing import Any, ClassVar
from urllib.parse import parse_qsl, quote, unquote_plus
from xml.etree.ElementTree import Element

from identity_pipeline.core.errors import ConfigurationError, ContractBroken
from identity_pipeline.core.secret import TokenProvider
from identity_pipeline.core.window import ReadContext
from identity_pipeline.readers.files.bucket import AT_ONCE, Bucket, Refusals
from identity_pipeline.readers.files.glob import Glob
from identity_pipeline.readers.files.store import Content, Entry, Page
from identity_pipeline.readers.files.xml import parse, text_of
from identity_pipeline.readers.http.guard import check_url

PAGE_SIZE = 1_000
"""Objects of one part of the list: more are not given."""
_EXPIRES = 900
"""Seconds for which a signature holds; it is made for each request."""
_KEY = "check access_key_id and secret_access_key"
_EXPIRED = "the temporary credential has expired: give a new one, with its session_token"
_REFUSALS = Refusals(
    credential={
        "InvalidAccessKeyId": f"this key does not exist there: {_KEY}",
        "SignatureDoesNotMatch": f"the secret does not belong to the key: {_KEY}",
        "InvalidToken": _EXPIRED,
        "ExpiredToken": _EXPIRED,
        "TokenRefreshRequired": _EXPIRED,
    },
    permission={
        "AccessDenied": "let the key s3:ListBucket the bucket and s3:GetObject its objects",
        "AllAccessDisabled": "the bucket is closed to everybody: ask its owner",
        "InvalidObjectState": "the object is archived: restore it, or leave it out by prefix or glob",
    },
    place={
        "NoSuchBucket": "there is no such bucket: check bucket, region and endpoint_url",
        "InvalidBucketName": "a bucket cannot be called so: check bucket",
        "RequestTimeTooSkewed": "the clock of this machine is wrong: set it",
    },
    busy=frozenset({"SlowDown", "ServiceUnavailable", "RequestLimitExceeded", "Throttling"}),
    replaced=frozenset({"NoSuchKey", "NoSuchVersion", "PreconditionFailed"}),
)


@dataclass(frozen=True)
class S3Access:
    """Who asks: a key with its secret, or, only if ``ambient`` says so, whatever boto3 finds on this machine."""

    key: str = ""
    secret: TokenProvider | None = None
    token: TokenProvider | None = None
    ambient: bool = False

    def client(self, region: str, endpoint: str) -> tuple[Any, Any]:
        """A client that signs for this credential, and botocore's object of the credential, None where there is none.

        Raises:
            ConfigurationError: there is none, or the region or endpoint cannot be.
        """
        from botocore.config import Config  # noqa: PLC0415 - half a second, as all of boto3
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415

        named = bool(self.key and self.secret)
        if named == self.ambient or bool(self.key) != (self.secret is not None):
            raise ConfigurationError(
                "set access_key_id and secret_access_key; or, for whatever credential this machine has (environment, profile, role), "
                "ambient_credentials: true and neither"
            )
        try:
            session = _session(
                aws_access_key_id=self.key or None,
                aws_secret_access_key=self.secret.token() if self.secret else None,
                aws_session_token=self.token.token() if self.token else None,
            )
            client = session.client(
                "s3",
                region_name=region,
                endpoint_url=check_url(endpoint, "endpoint_url") if endpoint else None,
                config=Config(signature_version="s3v4", s3={"addressing_style": "path" if endpoint else "auto"}),
            )
            return client, session.get_credentials()
        except (BotoCoreError, ValueError) as error:
            raise ConfigurationError(f"region or endpoint_url cannot be used ({type(error).__name__}): correct them") from None


@dataclass(frozen=True)
class S3Store:
    """The objects of ``bucket`` that ``names`` means."""

    at_once: ClassVar[int] = AT_ONCE
    access: S3Access
    bucket: str
    names: Glob
    context: ReadContext
    region: str = "us-east-1"
    endpoint: str = ""

    def page(self, token: str) -> Page:
        """At most 1,000 objects, in the order of their keys."""
        # https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html
        asked = {
            "Prefix": self.names.beginning,
            "EncodingType": "url",
            "MaxKeys": PAGE_SIZE,
            **({"ContinuationToken": token} if token else {}),
        }
        listed = parse(self._wire.text(self._signed("list_objects_v2", **asked), {}))
        more = text_of(listed, "IsTruncated") == "true"
        following = text_of(listed, "NextContinuationToken")
        if listed.tag.rpartition("}")[2] != "ListBucketResult" or (more and not following):
            raise ContractBroken("the list of objects is none, or does not say how it goes on: check endpoint_url")
        return Page(list(self._entries(listed)), following if more else "")

    def stat(self, name: str) -> Entry | None:
        """The object of this key."""
        if not self.names.matches(name):
            return None
        asked = parse(self._wire.text(self._signed("list_objects_v2", Prefix=name, EncodingType="url", MaxKeys=1), {}))
        return next((entry for entry in self._entries(asked) if entry.name == name), None)

    def open(self, entry: Entry, known: str) -> AbstractContextManager[Content | None]:  # noqa: ARG002 - the list has shown it
        """The object under the entity tag that was listed."""
        url, signed = self._asked(entry.name)
        return self._wire.content(entry, url, {**signed, "If-Match": entry.version, "Accept-Encoding": "identity"})

    def close(self) -> None:
        """End the connections."""
        self._wire.close()

    def _entries(self, listed: Element) -> Iterator[Entry]:
        """Objects that are meant. An empty one is a folder as consoles make them, or holds nothing."""
        # not every store writes keys as it is asked to
        read = unquote_plus if text_of(listed, "EncodingType") == "url" else str
        for found in listed.iterfind("{*}Contents"):
            name, size = read(found.findtext("{*}Key") or ""), int(text_of(found, "Size") or 0)
            if size and self.names.matches(name):
                yield Entry(name, text_of(found, "ETag"), size, datetime.fromisoformat(text_of(found, "LastModified")))

    def _signed(self, operation: str, **asked: Any) -> str:
        from botocore.exceptions import BotoCoreError, ParamValidationError  # noqa: PLC0415
        from botocore.exceptions import NoCredentialsError as Missing  # noqa: PLC0415

        try:
            return self._client.generate_presigned_url(operation, Params={"Bucket": self.bucket, **asked}, ExpiresIn=_EXPIRES)
        except Missing:
            raise ConfigurationError("this machine has no credential for S3: set access_key_id and secret_access_key") from None
        except (BotoCoreError, ParamValidationError) as error:
            raise ConfigurationError(
                f"a request for the bucket cannot be signed ({type(error).__name__}): check bucket and region"
            ) from None

    def _asked(self, key: str) -> tuple[str, dict[str, str]]:
        """The address of an object, and the headers that are signed for it.

        Boto3 looks for the endpoint each time, and its signatures are long addresses: that is a millisecond of CPU for each object.
        """
        from botocore.auth import S3SigV4Auth  # noqa: PLC0415
        from botocore.awsrequest import AWSRequest  # noqa: PLC0415

        address, service, region = self._place
        if not service:
            return self._signed("get_object", Key=key), {}
        asked = AWSRequest("GET", address + quote(key, safe="/~"))
        S3SigV4Auth(self._signs[1].get_frozen_credentials(), service, region).add_auth(asked)
        return str(asked.url), dict(asked.headers.items())

    @cached_property
    def _place(self) -> tuple[str, str, str]:
        """What the addresses of all objects begin with, the service and region to sign for; no service where boto3 has to sign itself."""
        address, _, query = self._signed("get_object", Key="k").partition("?")
        signed = dict(parse_qsl(query))
        _, _, region, service, _ = [*signed.get("X-Amz-Credential", "").split("/"), *[""] * 5][:5]
        plain = signed.get("X-Amz-Algorithm") == "AWS4-HMAC-SHA256" and "X-Amz-S3session-Token" not in signed
        return address.removesuffix("k"), service if plain else "", region

    @property
    def _client(self) -> Any:
        return self._signs[0]

    @cached_property
    def _signs(self) -> tuple[Any, Any]:
        return self.access.client(self.region, self.endpoint)

    @cached_property
    def _wire(self) -> Bucket:
        return Bucket(self.context, _REFUSALS, _explained)


def _session(**credential: str | None) -> Any:
    """A session of boto3's that looks for credentials anew, and shares what does not change: that takes 0.3 s to read."""
    import botocore.session  # noqa: PLC0415
    from boto3.session import Session  # noqa: PLC0415

    logging.getLogger("botocore").setLevel(logging.INFO)  # at DEBUG it logs what it signs, and the signature
    session = botocore.session.Session()
    session.register_component("data_loader", _loader())
    return Session(botocore_session=session, **credential)


@cache
def _loader() -> Any:
    import botocore.session  # noqa: PLC0415

    return botocore.session.get_session().get_component("data_loader")


def _explained(status: int, said: bytes) -> tuple[str, str]:
    """Code of a refusal; and, where the bucket is elsewhere, the region to set."""
    try:
        error = parse(said)
    except ContractBroken:
        return "", "the bucket is in another region, or has another endpoint: set region" if status in {301, 307} else ""
    region = text_of(error, "Region")
    plain = region.replace("-", "").isalnum() and len(region) < 30
    return text_of(error, "Code"), f"the bucket is in another region: set region: {region}" if plain else ""
