"""Objects of a bucket of Google Cloud Storage.

Google's library signs in; see :mod:`.bucket` for the rest. An object is read in the generation that
was listed. One that is stored packed is asked for as it is stored, since what the server unpacks has
no length to check.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, ClassVar
from urllib.parse import quote, urlencode

import requests

from identity_pipeline.core.errors import ConfigurationError, ContractBroken, CredentialError, SourceUnavailable
from identity_pipeline.core.secret import TokenProvider
from identity_pipeline.core.window import ReadContext
from identity_pipeline.readers.files.bucket import AT_ONCE, Bucket, Refusals
from identity_pipeline.readers.files.glob import Glob
from identity_pipeline.readers.files.store import Content, Entry, Page, Replaced
from identity_pipeline.readers.http.guard import check_url
from identity_pipeline.readers.http.session import session

PAGE_SIZE = 1_000
"""Objects of one part of the list."""
ENDPOINT = "https://storage.googleapis.com"
_SCOPES = ("https://www.googleapis.com/auth/devstorage.read_only",)
_FIELDS = "name,generation,size,updated"
_KEY = "make a new key of the service account, and check service_account"
_REFUSALS = Refusals(
    credential={"authError": f"the token is not accepted: {_KEY}", "required": f"it wants a credential: {_KEY}"},
    permission={"forbidden": "give the account the role Storage Object Viewer on the bucket"},
    place={"notFound": "there is no such bucket: check bucket", "invalid": "a bucket cannot be called so: check bucket"},
    busy=frozenset({"rateLimitExceeded", "userRateLimitExceeded", "quotaExceeded", "backendError", "internalError"}),
    replaced=frozenset({"notFound", "conditionNotMet"}),
)


@dataclass(frozen=True)
class GcsStore:
    """The objects of ``bucket`` that ``names`` means.

    ``service_account`` is the JSON of a key; None: the machine's own credential, which ``ambient`` allows.
    """

    at_once: ClassVar[int] = AT_ONCE
    service_account: TokenProvider | None = field(repr=False)
    ambient: bool
    bucket: str
    names: Glob
    context: ReadContext
    endpoint: str = ENDPOINT

    def page(self, token: str) -> Page:
        """At most 1,000 objects, in the order of their names."""
        # https://cloud.google.com/storage/docs/json_api/v1/objects/list
        asked = {"prefix": self.names.beginning, "maxResults": PAGE_SIZE, "fields": f"nextPageToken,items({_FIELDS})"}
        listed = self._json(f"{self._place}?{urlencode({**asked, **({'pageToken': token} if token else {})})}")
        following = listed.get("nextPageToken") or ""
        try:
            return Page([entry for item in listed.get("items", ()) if self._is_meant(entry := _entry(item))], str(following))
        except (KeyError, TypeError, ValueError, AttributeError):
            raise ContractBroken("the list of objects is none: check endpoint_url") from None

    def stat(self, name: str) -> Entry | None:
        """The object of this name."""
        if not self.names.matches(name):
            return None
        asked = urlencode({"prefix": name, "maxResults": 1, "fields": f"items({_FIELDS})"})
        found = [_entry(item) for item in self._json(f"{self._place}?{asked}").get("items", ())]
        return next((entry for entry in found if entry.name == name), None)

    @contextmanager
    def open(self, entry: Entry, known: str) -> Iterator[Content | None]:  # noqa: ARG002 - the list has shown it
        """The generation of the object that was listed."""
        url = f"{self._place}/{quote(entry.name, safe='')}?{urlencode({'alt': 'media', 'generation': entry.version})}"
        with self._wire.content(entry, url, self._signed() | {"Accept-Encoding": "gzip"}) as content:
            if content.headers.get("x-goog-generation", entry.version) != entry.version:
                raise Replaced(f"{entry.name} was written anew while it was read: try again later")
            yield content

    def close(self) -> None:
        """End the connections."""
        self._wire.close()

    def _is_meant(self, entry: Entry) -> bool:
        return bool(entry.size) and self.names.matches(entry.name)

    def _json(self, url: str) -> dict[str, Any]:
        try:
            found = json.loads(self._wire.text(url, self._signed()))
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise ContractBroken("the list of objects is not JSON: check endpoint_url")
        return found

    @property
    def _place(self) -> str:
        return f"{check_url(self.endpoint, 'endpoint_url').rstrip('/')}/storage/v1/b/{quote(self.bucket, safe='')}/o"

    def _signed(self) -> dict[str, str]:
        """The header of a token that holds for a while."""
        from google.auth import exceptions  # noqa: PLC0415 - as the rest of it

        credentials, request = self._credentials
        try:
            if not credentials.valid:
                credentials.refresh(request)
        except exceptions.RefreshError as error:
            if error.retryable:
                raise SourceUnavailable("Google gives no token at the moment: try again later") from None
            raise CredentialError(f"Google does not accept the credential: {_KEY}") from None
        except (exceptions.TransportError, requests.RequestException):
            raise SourceUnavailable("Google's address for tokens does not answer: try again later") from None
        if self.service_account is not None:
            self.service_account.learn(credentials.token)
        return {"Authorization": f"Bearer {credentials.token}"}

    @cached_property
    def _credentials(self) -> tuple[Any, Any]:
        """The credential, and how a token is asked for."""
        from google.auth import default, exceptions  # noqa: PLC0415 - only where it is used
        from google.auth.transport.requests import Request  # noqa: PLC0415

        from identity_pipeline.readers import google  # noqa: PLC0415

        if (self.service_account is None) != self.ambient:
            raise ConfigurationError(
                "set service_account to the JSON of a key; or, for whatever credential this machine has, ambient_credentials: true and none"
            )
        if self.service_account is not None:
            return google.credentials(self.service_account, _SCOPES), Request(session())
        try:
            # it may come from the machine's metadata server, to which the guard leads nobody else
            return default(scopes=_SCOPES)[0], Request()
        except exceptions.DefaultCredentialsError:
            raise CredentialError("this machine has no credential for Google: set service_account") from None

    @cached_property
    def _wire(self) -> Bucket:
        return Bucket(self.context, _REFUSALS, _explained)


def _entry(item: dict[str, Any]) -> Entry:
    return Entry(item["name"], str(item["generation"]), int(item["size"]), datetime.fromisoformat(item["updated"]))


def _explained(status: int, said: bytes) -> tuple[str, str]:
    """The reason of a refusal. That there is no such object is said in plain text where its content was asked for."""
    if status == requests.codes.not_found and said.startswith((b"No such object", b"Not Found")):
        return "notFound", ""
    try:
        error = json.loads(said)["error"]
        return "notFound" if error["code"] == status == requests.codes.not_found else str(error["errors"][0]["reason"]), ""
    except (ValueError, KeyError, TypeError, IndexError):
        return "", ""
