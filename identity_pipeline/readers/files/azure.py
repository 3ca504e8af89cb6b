"""Blobs of a container of Azure Blob Storage.

Each request goes through our session; see :mod:`.bucket`. A blob is read by the entity tag it was
listed with.

A list gives what is there now. Snapshots, earlier versions and deleted blobs are in none that does
not ask for them.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import ClassVar
from urllib.parse import quote, unquote, urlencode
from xml.etree.ElementTree import Element

from identity_pipeline.core.errors import ContractBroken
from identity_pipeline.core.window import ReadContext
from identity_pipeline.readers.files.azure_access import FEW_RIGHTS, UNSIGNED, AzureAccess, Signer
from identity_pipeline.readers.files.bucket import AT_ONCE, Bucket, Refusals
from identity_pipeline.readers.files.glob import Glob
from identity_pipeline.readers.files.store import Content, Entry, Page, Replaced
from identity_pipeline.readers.files.xml import parse, text_of
from identity_pipeline.readers.http.exchange import http_date

PAGE_SIZE = 5_000
"""Blobs of one part of the list: more are not given."""
_PAGES_TO_NAME = 100
"""Pages without blobs that may come before the one that is looked for."""
_VERSION = "2023-11-03"
# https://learn.microsoft.com/rest/api/storageservices/common-rest-api-error-codes, blob-service-error-codes, sas-error-codes
_REFUSALS = Refusals(
    credential={
        UNSIGNED: "the credential is not accepted: correct it",
        "InvalidAuthenticationInfo": "the credential is not accepted: correct it",
        "NoAuthenticationInformation": "it wants a credential: set one",
    },
    permission={
        FEW_RIGHTS: "let the credential read and list the container",
        "AuthorizationFailure": "a firewall of the account keeps this machine out, or it may not do this: ask who runs the account",
        "AuthorizationResourceTypeMismatch": "the SAS has to be for containers and objects (srt=co), or for the whole container",
        "AuthorizationServiceMismatch": "the SAS has to be for the blob service (ss=b)",
        "AuthorizationProtocolMismatch": "the SAS holds for https only: check endpoint_url",
        "AuthorizationSourceIPMismatch": "the SAS holds for other addresses than that of this machine: make one that holds for it",
        "InsufficientAccountPermissions": "the account may not do this: ask who runs it",
        "KeyBasedAuthenticationNotPermitted": "the account lets nobody in by key or SAS: sign in by Entra, with client_id",
        "AccountIsDisabled": "the account is disabled: ask who runs it",
        "BlobArchived": "the blob is in the archive tier: rehydrate it, or leave it out by prefix or glob",
        "BlobUsesCustomerSpecifiedEncryption": "the blob is encrypted with its writer's own key: store it without, or leave it out by glob",
    },
    place={
        "ContainerNotFound": "there is no such container: check container and account",
        "ContainerBeingDeleted": "the container is being deleted: check container",
        "ContainerDisabled": "the container is disabled: ask who runs the account",
        "InvalidResourceName": "a container cannot be called so: check container",
        "OutOfRangeInput": "a container cannot be called so: check container",
        "InvalidUri": "a container cannot be called so: check container",
        "ResourceNotFound": "there is no such account or container: check account, container and endpoint_url",
    },
    busy=frozenset({"ServerBusy", "OperationTimedOut", "InternalError"}),
    replaced=frozenset({"BlobNotFound", "ConditionNotMet"}),
)


@dataclass(frozen=True)
class AzureStore:
    """The blobs of ``container`` that ``names`` means."""

    at_once: ClassVar[int] = AT_ONCE
    access: AzureAccess
    container: str
    names: Glob
    context: ReadContext

    def page(self, token: str) -> Page:
        """At most 5,000 blobs, in the order of their names; fewer, or none, may still have a next page."""
        listed = self._listed(self.names.beginning, PAGE_SIZE, token)
        entries = filter(None, map(_entry, listed.iterfind("Blobs/Blob")))
        return Page([entry for entry in entries if self.names.matches(entry.name)], _marker(listed))

    def stat(self, name: str) -> Entry | None:
        """The blob of this name."""
        if not self.names.matches(name):
            return None
        token = ""
        for _ in range(_PAGES_TO_NAME):
            listed = self._listed(name, 1, token)
            if (blob := listed.find("Blobs/Blob")) is not None:  # the name itself comes first of all that begin with it
                found = _entry(blob)
                return found if found and found.name == name else None
            if not (token := _marker(listed)):
                break
        return None

    @contextmanager
    def open(self, entry: Entry, known: str) -> Iterator[Content | None]:  # noqa: ARG002 - the list has shown it
        """The blob under the entity tag that was listed."""
        headers = {"If-Match": f'"{entry.version}"', "Accept-Encoding": "identity"}
        with self._wire.content(entry, *self._call(f"/{quote(entry.name)}", {}, headers)) as content:
            if content.headers.get("ETag", entry.version).strip('"') != entry.version:
                raise Replaced(f"{entry.name} was written anew while it was read: try again later")
            yield content

    def close(self) -> None:
        """End the connections."""
        self._wire.close()

    def _listed(self, prefix: str, size: int, token: str) -> Element:
        # https://learn.microsoft.com/rest/api/storageservices/list-blobs
        asked = {"restype": "container", "comp": "list", "prefix": prefix, "maxresults": size, **({"marker": token} if token else {})}
        listed = parse(self._wire.text(*self._call("", asked, {})))
        if listed.tag != "EnumerationResults" or listed.find("NextMarker") is None:
            raise ContractBroken(f"the list of blobs is none, or does not say whether it goes on: check {self.access.setting}")
        return listed

    def _call(self, path: str, asked: Mapping[str, object], headers: Mapping[str, str]) -> tuple[str, dict[str, str]]:
        place, signer = self._opened
        query = "&".join(part for part in (urlencode(asked, quote_via=quote), signer.query()) if part)
        return f"{place}/{quote(self.container, safe='$')}{path}?{query}", {"x-ms-version": _VERSION, **headers, **signer.headers()}

    def _explained(self, status: int, said: bytes) -> tuple[str, str]:  # noqa: ARG002 - the code says it
        """Code of a refusal, and what to do about it that only who signed can say. The server's own text quotes what was signed."""
        try:
            error = parse(said)
        except ContractBroken:
            return "", ""
        code = text_of(error, "Code")
        if code == "AuthorizationFailure" and text_of(error, "Message").startswith("Server failed to authenticate"):
            code = UNSIGNED  # so Azurite calls it
        return code, self._opened[1].advice(code, self.context.source_clock or datetime.now(UTC))

    @cached_property
    def _opened(self) -> tuple[str, Signer]:
        return self.access.opened(self.container, self.context)

    @cached_property
    def _wire(self) -> Bucket:
        return Bucket(self.context, _REFUSALS, self._explained, self.access.setting)


def _entry(blob: Element) -> Entry | None:
    """The blob, None for one that holds nothing: a folder, as accounts with a hierarchical namespace list them, or as tools make them."""
    name, has = blob.find("Name"), blob.find("Properties")
    if name is None or has is None:
        raise ContractBroken("the list of blobs holds one without a name or properties: check endpoint_url")
    size, tag, plain = int(text_of(has, "Content-Length") or 0), text_of(has, "Etag").strip('"'), name.text or ""
    if not size or text_of(has, "ResourceType") == "directory":
        return None
    if not tag:
        raise ContractBroken("the list of blobs holds one without an entity tag: check endpoint_url")
    plain = unquote(plain) if name.get("Encoded") == "true" else plain
    return Entry(plain, tag, size, http_date(text_of(has, "Last-Modified")))


def _marker(listed: Element) -> str:
    """What leads to the next page; it may be a name, which may begin with a space."""
    return listed.findtext("NextMarker") or ""
