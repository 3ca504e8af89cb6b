"""How Google's client sends: over our guarded session, each request with an end, signed in with nothing beside it.

Its own sessions look up in the background where a service account may be used from, ask the machine's metadata
server, and wait for as long as nobody answers.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import requests
from google.auth import credentials as google_credentials
from google.auth import exceptions as google_exceptions
from google.auth import transport as google_transport

from identity_pipeline.core.errors import SourceUnavailable
from identity_pipeline.readers.http.session import within

CONNECT = 10.0
LONGEST = 120.0
"""Seconds for a connection, and for a whole answer: BigQuery sends at most 20 MB in one, and waits 10 s for a query."""


@dataclass
class Transport:
    """The requests of one client. ``renewing`` sends those for a token, which ``learn`` is told before it is used."""

    project: str
    session: requests.Session
    credentials: google_credentials.Credentials
    renewing: google_transport.Request
    learn: Callable[[str], None]
    _answered: bool = field(default=False, init=False)
    is_mtls = False  # asked by the client

    def request(
        self, method: str, url: str, data: Any = None, headers: dict[str, str] | None = None, timeout: object = None  # noqa: ARG002 - ours is shorter
    ) -> requests.Response:  # fmt: skip
        """One answer, of whatever status; after a refused token that to a new one.

        Raises:
            SourceUnavailable: nobody answers the first request. What fails later may pass: the client tries again.
            requests.RequestException: as ``requests`` raises it.
            TimeoutError: the answer did not come in time.
        """
        try:
            answer = self._signed(method, url, data, headers or {})
            if answer.status_code == 401:
                self.credentials.token = None
                answer = self._signed(method, url, data, headers or {})
        except (TimeoutError, requests.RequestException, google_exceptions.TransportError) as error:
            if self._answered:
                raise
            raise unreachable(self.project, error) from None
        self._answered = True
        return answer

    def _signed(self, method: str, url: str, data: Any, headers: dict[str, str]) -> requests.Response:
        with within(LONGEST):
            if not self.credentials.valid:
                self.credentials.refresh(self.renewing)
                self.learn(self.credentials.token or "")
            signed = headers | {"Authorization": f"Bearer {self.credentials.token}"}
            return self.session.request(method, url, data=data, headers=signed, timeout=(CONNECT, LONGEST))


def unreachable(project: str, error: Exception) -> SourceUnavailable:
    """The error for nobody who answers; what went wrong is told by its kind alone."""
    return SourceUnavailable(f"BigQuery cannot be reached for the project {project} ({type(error).__name__}): check network and base_url")
