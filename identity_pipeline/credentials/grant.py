"""Connecting an account: from the address at which its owner agrees to the credential that is stored.

Two steps, for a command line and for a web server alike: :func:`begin` gives the address, :func:`finish`
takes the one to which the vendor led back. What lies between is kept in the database, sealed, for ten minutes and
for one use. :func:`let_in` stores what needs no agreement: the app itself, or a key.
"""

import hashlib
import json
import re
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography.exceptions import InvalidTag
from psycopg.rows import dict_row

from identity_pipeline.core import settings
from identity_pipeline.core.errors import ConfigurationError, CredentialError, PipelineError, SourceUnavailable
from identity_pipeline.credentials import flow, keyring, vault
from identity_pipeline.credentials.flow import App, Kept
from identity_pipeline.credentials.vendors import SALESFORCE, VENDORS, Account, Vendor, account, home_tenant, missing, vendor, vendor_of
from identity_pipeline.credentials.verdict import judge
from identity_pipeline.readers.http.endpoint import Answer, ask, look
from identity_pipeline.readers.http.exchange import same_origin
from identity_pipeline.readers.http.guard import check_url
from identity_pipeline.store import ledger
from identity_pipeline.store.database import connect

LOOPBACK_PORT = 1717
CALLBACK = "/oauth/callback"
WITHIN = timedelta(minutes=10)
"""So long the address of :func:`begin` may be used."""
_AGAIN = "begin again"
_NOT_OURS = "this is not the answer to a connect that was begun here within the last 10 minutes, or it was used already: begin again"


@dataclass(frozen=True)
class Begun:
    """``address`` is where the owner of the account agrees; the vendor leads back to ``redirect_uri``."""

    address: str = field(repr=False)
    redirect_uri: str
    vendor: str


@dataclass(frozen=True)
class Connected:
    """What is stored now, and whose it is."""

    name: str
    vendor: str
    account: str
    scopes: tuple[str, ...]


@dataclass(frozen=True)
class _Pending:
    """What :func:`finish` has to know of :func:`begin`."""

    source_type: str
    name: str
    tenant: str
    redirect_uri: str
    verifier: str
    session: str
    other_account: bool


def redirect_uri() -> str:
    """Where vendors lead back to: below ``IDENTITY_PUBLIC_URL`` where that is set, else a port of this machine that never changes.

    Exactly this address is registered with each vendor's app.
    """
    return f"{public}{CALLBACK}" if (public := settings.public_url()) else f"http://localhost:{LOOPBACK_PORT}{CALLBACK}"


def vendors() -> list[Vendor]:
    """The vendors that are connected by OAuth, each with its source types and their scopes."""
    return list(VENDORS.values())


def store_app(url: str, vendor_name: str, app: App) -> None:
    """Store the OAuth app of a vendor, over the one that is there. Grants stay as they are.

    Raises:
        ConfigurationError: it has no id, or an address is none that may be asked.
    """
    of = vendor(vendor_name)
    if not re.fullmatch(r"[\x21-\x7e]{1,500}", app.client_id):
        raise ConfigurationError("client_id: is empty or holds a space: copy it from the app's page at the vendor")
    for name in ("authorize_url", "token_url"):
        if address := getattr(app, name):
            check_url(address.replace("{tenant}", "tenant"), name)
    about = vault.About(vendor=of.name, account=app.client_id)
    vault.store(url, flow.app_name(of.name), "oauth_app", json.dumps(asdict(app)), about)


def begin(
    url: str, source_type: str, name: str, *, tenant: str = "", session: str = "", other_account: bool = False, redirect: str = ""
) -> Begun:
    """The address at which the owner of an account lets us read what ``source_type`` reads; the grant will be stored under ``name``.

    ``tenant`` is the Microsoft directory or Salesforce's My Domain. ``session`` is a secret text of the
    browser that begins: no other may finish. ``other_account`` says that the credential may become another
    account's although sources were loaded with it. ``redirect`` stands in the place of :func:`redirect_uri`.

    Raises:
        ConfigurationError: the app is not stored, the name or the tenant is none, or something else has the name.
    """
    from requests_oauthlib import OAuth2Session  # noqa: PLC0415 - only who connects needs it

    of = vendor_of(source_type)
    vault.check_name(name)
    tenant = of.check_tenant(tenant)
    app = flow.needed_app(url, of)
    _check_free(url, of, name)
    pending = _Pending(source_type, name, tenant, redirect or redirect_uri(), secrets.token_urlsafe(64), session, other_account)
    state = secrets.token_urlsafe(32)
    _put_aside(url, state, pending)
    challenge = urlsafe_b64encode(hashlib.sha256(pending.verifier.encode()).digest()).rstrip(b"=").decode()
    asking = OAuth2Session(app.client_id, redirect_uri=pending.redirect_uri, scope=[*of.scopes[source_type], *of.besides])
    at = (app.authorize_url or of.authorize_url).replace("{tenant}", tenant)
    scheme, _, rest = at.partition("://")  # the guard has judged it, by hosts; oauthlib knows one switch for all
    address, _ = asking.authorization_url(
        f"https://{rest}",
        state=state,
        code_challenge=challenge,
        code_challenge_method="S256",
        **of.parameters,
    )
    return Begun(f"{scheme}://{address.partition('://')[2]}", pending.redirect_uri, of.name)


def finish(url: str, redirected: str, *, session: str = "", named_by: Callable[[str], Sequence[str]] = lambda _: ()) -> Connected:
    """Store what the vendor grants to who was led back to the address ``redirected``.

    ``named_by`` tells the sources that name a credential: with one of them loaded, it stays the same
    account's, unless :func:`begin` was told otherwise.

    Raises:
        ConfigurationError: the address answers nothing that was begun; the app is not accepted; another account agreed.
        CredentialError: the owner did not agree, not to all that is needed, or too late.
        SourceUnavailable: the vendor is busy or down.
    """
    try:
        given = {key: values[-1] for key, values in parse_qs(urlsplit(redirected.strip()).query).items()}
    except ValueError:
        given = {}
    pending = _taken(url, given.get("state", ""))
    if pending is None or not secrets.compare_digest(pending.session, session):
        raise ConfigurationError(_NOT_OURS)
    of = vendor_of(pending.source_type)
    app = flow.needed_app(url, of)
    authorize_url, token_url = app.authorize_url or of.authorize_url, (app.token_url or of.token_url).replace("{tenant}", pending.tenant)
    if "iss" in given and not same_origin(given["iss"], authorize_url.replace("{tenant}", pending.tenant)):  # RFC 9207
        raise ConfigurationError(f"the answer comes from another server than {of.title}'s: nothing was stored")
    if "code" not in given:
        raise _not_agreed(of, given)
    form = {
        "grant_type": "authorization_code",
        "code": given["code"],
        "redirect_uri": pending.redirect_uri,
        "client_id": app.client_id,
        "client_secret": app.client_secret,
        "code_verifier": pending.verifier,
    }
    answer = _token(of, token_url, form)
    if not answer.text("refresh_token"):
        raise CredentialError(
            f"{of.title} granted no refresh token, so that access would end within the hour: see that the app may have one (the scopes "
            f"{', '.join(of.besides)}), then {_AGAIN}"
        )
    if lacks := missing(of.scopes[pending.source_type], answer.body):
        raise CredentialError(f"{of.title} did not grant {', '.join(lacks)}: {_AGAIN}, and leave every box ticked")
    who = _who(of, token_url, answer)
    names = named_by(pending.name)
    if not pending.other_account:
        _check_same(url, of, pending.name, who, names)
    home = home_tenant(of, answer.body, pending.tenant)
    kept = Kept((app.token_url or of.token_url).replace("{tenant}", home)).answered(answer)
    done = _stored(url, pending, "oauth_grant", kept, who, answer=answer)
    if pending.other_account:
        ledger.read_all_next(url, names)
    return done


def let_in(url: str, source_type: str, name: str, *, tenant: str = "", key: str = "", user: str = "") -> Connected:
    """Store a credential for which nobody has to agree: the app itself is let in, or with ``key`` who has that key.

    ``key`` is a Google service account's JSON, or the private key (PEM) of a Salesforce app, with which ``user``
    is acted for. A token is asked for at once, so that what is stored is known to work.

    Raises:
        ConfigurationError: the vendor has no such way in, or a part is missing or not usable.
        CredentialError: the vendor gives no token.
        SourceUnavailable: the vendor is busy or down.
    """
    of = vendor_of(source_type)
    vault.check_name(name)
    _check_free(url, of, name)
    if key:
        kept, app, who = _by_key(url, of, source_type=source_type, key=key, tenant=tenant, user=user)
        kind = "oauth_key"
    else:
        if of.client_scope is None:
            raise ConfigurationError(f"{of.title} lets no app in by itself: use the key file of a service account, or agree as its user")
        app, kind = flow.needed_app(url, of), "oauth_client"
        tenant = of.check_tenant(tenant, alone=True)
        kept = Kept((app.token_url or of.token_url).replace("{tenant}", tenant), of.client_scope)
        who = Account(f"{tenant}/{app.client_id}", f"app {app.client_id}")
    answer = _token(of, kept.token_url, flow.form(kind, kept, app))
    pending = _Pending(source_type, name, tenant, "", "", "", other_account=True)
    return _stored(url, pending, kind, kept.answered(answer), who, answer=answer)


def _by_key(url: str, of: Vendor, *, source_type: str, key: str, tenant: str, user: str) -> tuple[Kept, App | None, Account]:
    if of is SALESFORCE:
        app = flow.needed_app(url, of)
        tenant = of.check_tenant(tenant, alone=True)
        flow.private_key(key)
        if not user:
            raise ConfigurationError("user: is missing: the name of the Salesforce user as whom is read")
        token_url = (app.token_url or of.token_url).replace("{tenant}", tenant)
        audience = f"{urlsplit(token_url).scheme}://{urlsplit(token_url).netloc}"
        return Kept(token_url, key=key, issuer=app.client_id, subject=user, audience=audience), app, Account(f"{tenant}/{user}", user)
    if of.name != "google":
        raise ConfigurationError(f"{of.title} is not connected by a key file")
    try:
        found = json.loads(key)
        email, pem, token_url = found["client_email"], found["private_key"], found.get("token_uri") or of.token_url
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigurationError("the key file is not that of a Google service account (JSON with client_email and private_key)") from None
    flow.private_key(pem)
    scope = " ".join(of.scopes[source_type])
    return (
        Kept(check_url(token_url, "token_uri"), scope, key=pem, issuer=email, subject=user, audience=token_url),
        None,
        Account(email, email),
    )


def _token(of: Vendor, token_url: str, form: dict[str, str]) -> Answer:
    """The answer with a token.

    Raises:
        PipelineError: there is none.
    """
    answer = ask(token_url, form)
    if answer.status == 200 and answer.text("access_token"):
        return answer
    verdict = judge(answer)
    code = f" {verdict.code}" if verdict.code else ""
    said = f"{answer.tried} answered {answer.status}{code}"
    match verdict.act:
        case "busy":
            raise SourceUnavailable(f"{said}: {verdict.why}: {_AGAIN} later")
        case "app" if "assertion" not in form:
            raise ConfigurationError(f"{said}: {verdict.why}: check its id, secret and redirect address: {flow.set_app(of)}; a new app "
                                     "may take 10 minutes until it is known")  # fmt: skip
        case "clock":
            raise ConfigurationError(f"{said}: {verdict.why}: set the clock of this machine, then {_AGAIN}")
        case "admin" | "network":
            raise ConfigurationError(f"{said}: {verdict.why}: have it allowed, then {_AGAIN}")
        case _ if form["grant_type"] == "authorization_code":
            raise CredentialError(f"{said}: the agreement was not taken: it came too late, or the redirect address of the app is another "
                                  f"one than {form['redirect_uri']}: {_AGAIN}")  # fmt: skip
        case _:
            raise CredentialError(f"{said}: {verdict.why}: {_AGAIN}")


def _not_agreed(of: Vendor, given: dict[str, str]) -> PipelineError:
    error = given.get("error", "")
    verdict = judge(Answer("", 400, "", {}, given)) if error else None
    code = f" ({verdict.code})" if verdict and verdict.code else ""
    if verdict and verdict.act in {"admin", "app"}:
        return ConfigurationError(f"{of.title} did not let the app in{code}: {verdict.why}: have it approved or corrected, then {_AGAIN}")
    return CredentialError(f"{of.title}: access was not granted{code}: nothing was stored; {_AGAIN} if that was a mistake")


def _who(of: Vendor, token_url: str, answer: Answer) -> Account:
    """Who granted. Salesforce tells the user's name at an address of its own."""
    who = account(of, answer.body)
    address = answer.text("id")
    if of is SALESFORCE and who.id and (_salesforce(address) or same_origin(address, token_url)):
        try:
            found = look(address, answer.text("access_token"))
        except PipelineError:
            return who
        return Account(who.id, found.text("username") or who.label)
    return who


def _salesforce(address: str) -> bool:
    return re.fullmatch(r"https://[a-z0-9.-]+\.salesforce\.(com|mil)/[A-Za-z0-9/]*", address) is not None


def _check_free(url: str, of: Vendor, name: str) -> None:
    with connect(url, doing="look for a credential") as connection:
        row = connection.execute("select kind, vendor from identity.credentials where name = %s", (name,)).fetchone()
    if row and (row[0] not in flow.KINDS or row[1] != of.name):
        raise ConfigurationError(f"credential {name!r} is something else already: choose another name, or delete that one first")


def _check_same(url: str, of: Vendor, name: str, who: Account, named_by: Sequence[str]) -> None:
    """Refuse another account than before, where its records are in the table.

    Raises:
        ConfigurationError: it is another one.
    """
    with connect(url, doing="look for a credential") as connection:
        row = connection.execute("select account_id, account from identity.credentials where name = %s", (name,)).fetchone()
        loaded = connection.execute(
            "select distinct source_name from identity.loads where status = 'committed' and source_name = any(%s) order by 1",
            (list(named_by),),
        ).fetchall()
    if row and loaded and row[0] and row[0] != who.id:
        raise ConfigurationError(
            f"{of.title} account {who.label} agreed, but credential {name!r} is that of {row[1]}, of which {loaded[0][0]} was loaded: "
            f"nothing was stored. Sign in as {row[1]}, or begin again with --other-account: both accounts' records are then one source's"
        )


def _stored(url: str, pending: _Pending, kind: str, kept: Kept, who: Account, *, answer: Answer) -> Connected:
    of = vendor_of(pending.source_type)
    scopes = tuple(sorted(answer.text("scope").split())) or of.scopes[pending.source_type]
    row: dict[str, Any] = {
        "vendor": of.name,
        "source_type": pending.source_type,
        "account": who.label,
        "account_id": who.id,
        "scopes": scopes,
        "kind": kind,
    }
    vault.store(url, pending.name, kind, kept.text, flow.about(of, row, answer))
    return Connected(pending.name, of.name, who.label, scopes)


def _put_aside(url: str, state: str, pending: _Pending) -> None:
    digest = _digest(state)
    sealed = vault.sealed(keyring.newest(), digest.hex(), "pending", 1, json.dumps(asdict(pending)).encode())
    with connect(url, doing="begin to connect an account") as connection:
        connection.execute("delete from identity.grants_begun where begun_at < statement_timestamp() - %s", (WITHIN,))
        connection.execute(
            "insert into identity.grants_begun (digest, key_id, nonce, ciphertext) values (%s, %s, %s, %s)",
            (digest, sealed["key_id"], sealed["nonce"], sealed["ciphertext"]),
        )


def _taken(url: str, state: str) -> _Pending | None:
    """What was put aside under ``state``, for once; None if there is nothing, or it is too old."""
    digest = _digest(state)
    with connect(url, doing="finish connecting an account") as connection, connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(
            "delete from identity.grants_begun where digest = %s returning *, begun_at < statement_timestamp() - %s as late",
            (digest, WITHIN),
        ).fetchone()
    if row is None or row["late"]:
        return None
    try:
        text = vault.opened({**row, "name": digest.hex(), "kind": "pending", "version": 1}, keyring.keys())
    except (ConfigurationError, InvalidTag):
        return None
    return _Pending(**json.loads(text))


def _digest(state: str) -> bytes:
    return hashlib.sha256(state.encode()).digest()
