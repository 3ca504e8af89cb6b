"""A session that only selects, is told what a read may cost, and gives up in finite time."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import google.auth
import pyarrow as pa
import requests
from google.api_core import exceptions
from google.auth import credentials
from google.auth import exceptions as auth_exceptions
from google.auth.transport.requests import Request
from google.cloud import bigquery

from identity_pipeline.core.errors import (
    CredentialError,
    LimitExceeded,
    PermissionDenied,
    PipelineError,
    RateLimited,
    SourceRejected,
    SourceUnavailable,
)
from identity_pipeline.core.secret import TokenProvider
from identity_pipeline.core.window import Window
from identity_pipeline.readers import google as google_key
from identity_pipeline.readers.http import guard
from identity_pipeline.readers.http.session import session as guarded_session
from identity_pipeline.readers.sql.bigquery import catalog, stream
from identity_pipeline.readers.sql.bigquery.transport import Transport, unreachable
from identity_pipeline.readers.sql.catalog import Table
from identity_pipeline.readers.sql.cursor import FollowedColumn
from identity_pipeline.readers.sql.engine import Look

_API = "https://bigquery.googleapis.com"
_SCOPES = ("https://www.googleapis.com/auth/bigquery",)
_BUSY = frozenset({"rateLimitExceeded", "quotaExceeded", "jobRateLimitExceeded", "backendError", "internalError", "jobBackendError"})
_ENDED = frozenset({"stopped", "timeout"})
"""Someone canceled the query, or its time was over."""


@dataclass(frozen=True)
class BigQuerySession:
    """A client for one project."""

    client: bigquery.Client
    account: str
    maximum_bytes_billed: int

    def server(self) -> str:
        """What is billed; an answer proves that it is there."""
        self._clock()
        return f"BigQuery answers for the project {self.client.project}"

    def role(self) -> str:
        """As whom we are signed in, and what a read may cost."""
        gigabytes = self.maximum_bytes_billed / 10**9
        return (
            f"signed in as {self.account}; a query that would read more than {gigabytes:g} GB is refused; "
            "what a transaction commits late is found within cursor_overlap, an hour by default"
        )

    def table(self, name: tuple[str, ...]) -> Table | None:
        """The table or view of exactly this name."""
        return catalog.find(self.client, name)

    def tables(self, name: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        """The tables of the dataset of ``name``."""
        return catalog.neighbours(self.client, name)

    def look(self, table: Table, followed: FollowedColumn | None, window: Window) -> Look:  # noqa: ARG002 - nothing of others is shown
        """BigQuery's time. Transactions that are open are not shown: the overlap stands for them."""
        now = self._clock()
        return Look(now, now)

    def maximum(self, table: Table, followed: FollowedColumn) -> str | None:
        """The largest value of an ``int`` or ``text`` column."""
        return stream.maximum(self.client, table, followed, self.maximum_bytes_billed)

    def stream(
        self, table: Table, followed: FollowedColumn | None, window: Window, since: str | None = None  # noqa: ARG002 - no look gives one
    ) -> Iterator[pa.Table]:  # fmt: skip
        """The rows from the window's lower bound on, and those without a cursor value."""
        return stream.batches(self.client, table, followed, window, self.maximum_bytes_billed)

    def _clock(self) -> datetime:
        [[now]] = stream.ask(self.client, "SELECT CAST(CURRENT_TIMESTAMP() AS STRING)", [], self.maximum_bytes_billed)
        return datetime.fromisoformat(now)


@contextmanager
def signed_in(
    key: TokenProvider | None, project: str, location: str, maximum_bytes_billed: int, base_url: str
) -> Iterator[BigQuerySession]:
    """A session with nothing of this machine's configuration in it, unless that was asked for by giving no key.

    Raises:
        PipelineError: signing in or a request inside failed, by who must act. Google's own words are not passed
            on, they may hold values; the status and the reason's name are.
    """
    endpoint = {"api_endpoint": guard.check_url(base_url or _API, "base_url").rstrip("/")}
    try:
        with guarded_session() as guarded:
            transport = _transport(key, project, guarded)
            # the transport signs: with credentials of its own the client would look things up in the background
            anonymous = credentials.AnonymousCredentials()
            client = bigquery.Client(project, anonymous, transport, location or None, client_options=endpoint)  # pyright: ignore[reportArgumentType] - it asks no more of a session
            account = getattr(transport.credentials, "service_account_email", "this machine")
            yield BigQuerySession(client, account, maximum_bytes_billed)
    except auth_exceptions.DefaultCredentialsError:
        raise CredentialError("this machine has no application default credentials: set them up, or give a service account") from None
    except auth_exceptions.RefreshError as error:
        if error.retryable:
            raise SourceUnavailable("Google gives no token at the moment: the same read may work later") from None
        raise CredentialError("Google does not accept the credential: make a new key of the service account in its project") from None
    except (exceptions.GoogleAPIError, auth_exceptions.TransportError, requests.RequestException, TimeoutError) as error:
        cause = (error.cause if isinstance(error, exceptions.RetryError) else None) or error
        raise failure(project, cause) if isinstance(cause, exceptions.GoogleAPICallError) else unreachable(project, cause) from None


def _transport(key: TokenProvider | None, project: str, guarded: requests.Session) -> Transport:
    if key is None:
        # the machine's own credentials may come from its metadata server, to which the guard leads nobody else
        found, _ = google.auth.default(scopes=_SCOPES)
        return Transport(project, guarded, found, Request(), lambda _: None)
    return Transport(project, guarded, google_key.credentials(key, _SCOPES), Request(guarded), key.learn)


def failure(project: str, error: exceptions.GoogleAPICallError) -> PipelineError:
    """The error for a request that failed, by who must act."""
    status = int(error.code or 0)
    reason = next((str(each.get("reason", "")) for each in error.errors or () if isinstance(each, dict)), "")
    what = f"BigQuery answered {reason if reason.isalnum() else status} for the project {project}"
    if reason == "bytesBilledLimitExceeded":
        return LimitExceeded(
            f"{what}: raise maximum_bytes_billed, or read less: fewer columns, or a cursor that the table is partitioned by"
        )
    if reason in _BUSY or status == 429:
        return RateLimited(f"{what}: a quota is used up; the same read may work later")
    if status == 401:
        return CredentialError(f"{what}: it does not accept the credential: make a new key")
    if status == 403:
        return PermissionDenied(f"{what}: give the account BigQuery Data Viewer on the dataset and BigQuery Job User on the project")
    if reason in _ENDED or status >= 500 or not status:
        return SourceUnavailable(f"{what}: the same read may work later")
    return SourceRejected(f"{what}: the table or view cannot be read as it is; run SELECT * FROM it as this account, in its location")
