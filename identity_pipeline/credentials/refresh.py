"""Fresh access tokens: whoever needs one gets it, and of all who need it at once one alone asks the vendor.

The row of the credential is locked while the vendor is asked, and looked at again once it is: a
refresh token that may be used once only is used once. What the vendor answers is stored before
anybody uses it.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from identity_pipeline.core.errors import (
    ConfigurationError,
    CredentialError,
    PermissionDenied,
    PipelineError,
    SourceUnavailable,
    TargetUnavailable,
    TruncatedBody,
)
from identity_pipeline.core.failpoint import reached
from identity_pipeline.core.redaction import Redactor
from identity_pipeline.core.secret import StoredToken, TokenProvider
from identity_pipeline.core.window import ReadContext
from identity_pipeline.credentials import flow, vault
from identity_pipeline.credentials.flow import App, Kept
from identity_pipeline.credentials.vault import Held
from identity_pipeline.credentials.vendors import Vendor, vendor
from identity_pipeline.credentials.verdict import Verdict, judge
from identity_pipeline.readers.http.endpoint import Answer, ask
from identity_pipeline.readers.http.exchange import refusal
from identity_pipeline.readers.http.retry import Retry, Transient
from identity_pipeline.store.database import connect

_BUDGET, _ATTEMPTS = 45.0, 3
_LOST = 5.0
"""Seconds to wait after an answer that was lost: the vendor may still be storing the token that it made."""
_AGAIN = (1.0, 2.0, 4.0)
"""Seconds to wait before an answer is stored again, where the database went away with it in our hands."""
_TESTING = timedelta(days=8)
"""A grant that lives no longer than this belongs to a Google app that is being tested."""


@dataclass(frozen=True)
class Fresh:
    """An access token, and when it is to be replaced."""

    access_token: str = field(repr=False)
    until: datetime


def ensure_fresh_credential(
    url: str, name: str, *, refused: str = "", learn: Callable[[str], None] = lambda _: None, context: ReadContext | None = None
) -> Fresh:
    """An access token that is good for some time, another one than ``refused``.

    ``learn`` is told every secret before it is used; ``context`` says how to wait.

    Raises:
        CredentialError: the grant is dead, and says who connects it again how; the vendor is not asked again until then.
        ConfigurationError: there is no such credential, or the OAuth app, its secret or its addresses are not accepted.
        PermissionDenied: an administrator has to approve the app or the account.
        SourceUnavailable: the vendor is busy or down; the grant is as it was.
    """
    found = vault.use(url, name)
    if fresh := _fresh(found, refused, learn):
        return fresh
    with connect(url, doing="look at a credential") as connection:  # committed before the vendor is asked: who dies then leaves it behind
        was = _locked(connection, name)
        if fresh := _fresh(was, refused, learn):
            return fresh
        connection.execute("update identity.credentials set asked_at = statement_timestamp() where name = %s", (name,))
    made: _Made | None = None
    try:
        with connect(url, doing="renew a credential") as connection:
            now = _locked(connection, name)
            if fresh := _fresh(now, refused, learn):
                return fresh
            of = vendor(now.row["vendor"])
            app = flow.app_of(connection, of)
            lost = [was.row["asked_at"]] if was.row["asked_at"] else []
            try:
                answer = _Asking(now.row, Kept.read(now.secret), of, app, learn, context or ReadContext(), lost).answer()
            except _Refused as dead:
                connection.execute(
                    "update identity.credentials set asked_at = null, status = %s, reason = %s where name = %s",
                    (vault.NEEDS_RECONNECT if dead.reason else vault.OK, dead.reason, name),
                )
                connection.commit()
                raise dead.error from None
            made = _Made(now, Kept.read(now.secret).answered(answer), flow.about(of, now.row, answer))
            reached("token-received")
            made.store(connection)
    except TargetUnavailable:
        if made is None:
            raise
        _store_late(url, made)
    return made.fresh


@dataclass(frozen=True)
class _Made:
    """What a vendor answered, made ready to be stored in the place of what ``was``."""

    was: Held
    kept: Kept
    about: vault.About

    @property
    def fresh(self) -> Fresh:
        assert self.about.valid_until is not None  # noqa: S101 - flow.about always says it
        return Fresh(self.kept.access_token, self.about.valid_until)

    def store(self, connection: Any) -> None:
        vault.renew(connection, self.was, self.kept.text, self.about)


class _Refused(Exception):
    """The vendor gave no token: ``error`` says so, ``reason`` why the grant is dead, None if it is not."""

    def __init__(self, error: PipelineError, reason: str | None = None) -> None:
        super().__init__(str(error))
        self.error, self.reason = error, reason


def _locked(connection: Any, name: str) -> Held:
    connection.execute("set local lock_timeout = '2min'")
    found = vault.held(connection, name, locked=True)
    if found is None:
        raise ConfigurationError(f"credential {name!r} was deleted just now")
    return found


def _fresh(found: Held, refused: str, learn: Callable[[str], None]) -> Fresh | None:
    """The token that is held, if it is still good.

    Raises:
        CredentialError: the grant is known to be dead.
        ConfigurationError: it is no credential that tokens are got with.
    """
    row = found.row
    if row["kind"] not in flow.KINDS:
        raise ConfigurationError(f"credential {row['name']!r} is of kind {row['kind']}: no token is got with it")
    kept = Kept.read(found.secret)
    for secret in kept.secrets(None):
        learn(secret)
    if row["status"] == vault.NEEDS_RECONNECT:
        raise CredentialError(_dead(row, vendor(row["vendor"]), row["reason"] or "it was refused"))
    until: datetime | None = row["valid_until"]
    if until is None or until <= datetime.now(UTC) or kept.access_token in {"", refused}:
        return None
    return Fresh(kept.access_token, until)


@dataclass
class _Asking:
    """One vendor, asked for one credential's token. ``lost`` are the times at which an answer did not reach us, or not our store."""

    row: Mapping[str, Any]
    kept: Kept
    of: Vendor
    app: App | None
    learn: Callable[[str], None]
    context: ReadContext
    lost: list[datetime]

    def answer(self) -> Answer:
        """The vendor's answer with a token.

        Raises:
            _Refused: it gave none.
            SourceUnavailable: no answer came, so that nobody knows.
        """
        if self.app is None and self.row["kind"] != "oauth_key":
            raise _Refused(
                ConfigurationError(f"{_named(self.row, self.of)}: the OAuth app of {self.of.title} is not stored: {flow.set_app(self.of)}")
            )
        for secret in self.kept.secrets(self.app):
            self.learn(secret)
        try:
            return Retry(self.context, _BUDGET, _ATTEMPTS)(self._once)
        except SourceUnavailable as error:
            if self.lost:
                raise
            raise _Refused(error) from None

    def _once(self) -> Answer:
        row, of = self.row, self.of
        try:
            answer = ask(self.kept.token_url, flow.form(row["kind"], self.kept, self.app), self.context)
        except (SourceUnavailable, TruncatedBody) as error:
            self.lost.append(datetime.now(UTC))
            raise Transient(SourceUnavailable(f"{_named(row, of)}: {error}"), _LOST) from None
        for name in ("access_token", "refresh_token", "id_token"):
            if answer.text(name):
                self.learn(answer.text(name))
        if answer.status == 200 and answer.text("access_token"):
            return answer
        if answer.status == 200 and not answer.text("error"):  # nobody knows what it was to hold
            self.lost.append(datetime.now(UTC))
        verdict = judge(answer)
        if verdict.act == "reconnect":
            reason = self._reason(verdict)
            raise _Refused(CredentialError(_dead(row, of, reason)), reason)
        error = _error(row, of, verdict, answer)
        raise refusal(error, answer.headers) if verdict.act == "busy" else _Refused(error)

    def _reason(self, verdict: Verdict) -> str:
        """Why the grant is dead."""
        reason, row = f"{verdict.why} ({verdict.code})" if verdict.code else verdict.why, self.row
        if self.lost and row["kind"] == "oauth_grant":
            reason += (
                f"; or the answer to a renewal at {self.lost[0]:%Y-%m-%d %H:%M:%SZ} was lost before it was stored, which costs the grant "
                "where a refresh token is good for once"
            )
        if row["expires_at"] and row["refreshed_at"] and row["expires_at"] - row["refreshed_at"] < _TESTING:
            reason += "; grants of a Google app in Testing live for 7 days: publish the app, or make it Internal"
        return reason


def _named(row: Mapping[str, Any], of: Vendor) -> str:
    whose = ", ".join(text for text in (of.title, row["account"]) if text)
    return f"credential {row['name']!r} ({whose})"


def _dead(row: Mapping[str, Any], of: Vendor, reason: str) -> str:
    page = " (or the credentials page)" if row["kind"] == "oauth_grant" else ""
    return f"{_named(row, of)} gives no access any more: {reason}: connect it again: {vault.stored_by(row)}{page}, then run again"


def _error(row: Mapping[str, Any], of: Vendor, verdict: Verdict, answer: Answer) -> PipelineError:
    """What to tell of an answer without a token."""
    code = f" {verdict.code}" if verdict.code else ""
    said = f"{_named(row, of)}: {answer.tried} answered {answer.status}{code}: {verdict.why}"
    match verdict.act:
        case "busy":
            return SourceUnavailable(f"{said}: the credential is as it was, try again later")
        case "app":
            fix = vault.stored_by(row) if row["kind"] == "oauth_key" else f"{flow.set_app(of)}; the grant need not be renewed"
            return ConfigurationError(f"{said}: store it as it is now: {fix}")
        case "admin":
            return PermissionDenied(f"{said}: have it approved, or lifted, then run again; the grant need not be renewed")
        case "clock":
            return ConfigurationError(f"{said}: set the clock of this machine, best by NTP, then run again; the credential is as it was")
        case "network":
            return PermissionDenied(f"{said}: have the address allowed, then run again; the grant need not be renewed")
        case _:
            return CredentialError(f"{said}: run it again; if it stays so, connect it again: {vault.stored_by(row)}")


def _store_late(url: str, made: _Made) -> None:
    """Store what the vendor answered, after the database went away with the answer in our hands."""
    for wait in _AGAIN:
        time.sleep(wait)
        try:
            with connect(url, doing="store what a vendor answered", autocommit=True) as connection:
                made.store(connection)
        except TargetUnavailable:
            continue
        return
    was = made.was
    raise TargetUnavailable(
        f"credential {was.row['name']!r} was renewed, but the identity database did not take the answer: where a refresh token is good for "
        f"once, it has to be connected again: {vault.stored_by(was.row)}"
    )


@dataclass
class GrantToken:
    """A token provider: the access tokens of one stored credential, for as long as a run needs them."""

    url: str = field(repr=False)
    name: str
    redactor: Redactor = field(default_factory=Redactor, repr=False)
    _held: Fresh | None = field(default=None, init=False, repr=False)

    def token(self) -> str:
        """An access token that is good now.

        Raises:
            PipelineError: as :func:`ensure_fresh_credential`.
        """
        if self._held is None or self._held.until <= datetime.now(UTC):
            self._held = ensure_fresh_credential(self.url, self.name, learn=self.learn)
        return self._held.access_token

    def refresh(self) -> str:
        """Another access token, after the source refused the present one."""
        refused = self._held.access_token if self._held else ""
        self._held = ensure_fresh_credential(self.url, self.name, refused=refused, learn=self.learn)
        return self._held.access_token

    def learn(self, secret: str) -> None:
        """Redact ``secret`` from now on."""
        self.redactor.learn(secret)


def provider(url: str, name: str, redactor: Redactor) -> TokenProvider:
    """The way to what a credential is for: the secret itself, or tokens that are got with it.

    Raises:
        ConfigurationError: there is no such credential, or no key opens it.
    """
    found = vault.use(url, name)
    if found.row["kind"] in flow.KINDS:
        return GrantToken(url, name, redactor)
    return StoredToken(lambda: vault.reveal(url, name), redactor)
