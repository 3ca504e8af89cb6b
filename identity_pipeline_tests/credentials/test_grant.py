"""Connecting an account and keeping it: the agreement, the tokens, and what is said when they are refused."""

import base64
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from identity_pipeline.core.errors import ConfigurationError, CredentialError, PermissionDenied, PipelineError, SourceUnavailable
from identity_pipeline.core.redaction import Redactor
from identity_pipeline.core.window import ReadContext
from identity_pipeline.credentials import flow, grant, keyring, refresh, vault
from identity_pipeline.credentials.vendors import vendor
from identity_pipeline.store import ledger
from identity_pipeline_tests.servers import openid_provider
from identity_pipeline_tests.servers.oauth_server import OAuthServer, serve

READ = "https://www.googleapis.com/auth/contacts.readonly"


@pytest.fixture
def url(identity_env: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The database, with one key in the environment."""
    monkeypatch.setenv(keyring.VARIABLE, base64.b64encode(secrets.token_bytes(32)).decode())
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "127.0.0.1")
    return database_url


@pytest.fixture
def server(url: str) -> Iterator[OAuthServer]:
    """An OAuth server, whose app is stored as that of each vendor."""
    with serve(OAuthServer()) as made:
        for vendor in ("google", "microsoft", "salesforce"):
            grant.store_app(url, vendor, flow.App(made.client_id, made.client_secret, made.authorize_url, made.token_url))
        yield made


def agree(address: str) -> str:
    """Where the browser of who agrees is led in the end."""
    return requests.get(address, allow_redirects=False, timeout=10).headers["Location"]


def connect(url: str, name: str = "ada", source_type: str = "google_contacts", **options) -> grant.Connected:
    named_by = options.pop("named_by", ())
    return grant.finish(url, agree(grant.begin(url, source_type, name, **options).address), named_by=lambda _: named_by)


def row(url: str, name: str = "ada") -> dict:
    return next(each for each in vault.listing(url) if each["name"] == name)


def quick() -> ReadContext:
    """A context whose waits take no time."""
    return ReadContext(sleep=lambda _: None)


def token(url: str, name: str = "ada", **options) -> str:
    return refresh.ensure_fresh_credential(url, name, context=quick(), **options).access_token


def run(url: str, statement: str, *values: object) -> list[tuple]:
    with psycopg.connect(url) as connection:
        cursor = connection.execute(statement.encode(), values)
        return cursor.fetchall() if cursor.description else []


def late(url: str) -> None:
    """Let the token that is held have ended."""
    run(url, "update identity.credentials set valid_until = now() - interval '1 second' where kind like 'oauth%%'")


# connecting


def test_an_account_that_agrees_is_stored_and_named(url: str, server: OAuthServer):
    done = connect(url)
    assert (done.account, done.vendor) == ("ada@nordwind-demo.com", "google")
    assert READ in done.scopes
    stored = row(url)
    assert (stored["kind"], stored["status"], stored["account"]) == ("oauth_grant", "ok", "ada@nordwind-demo.com")
    assert server.accepts(token(url))
    assert len(server.asked) == 1, "the token of the agreement is used, no other is asked for"


def test_the_address_asks_for_reading_only_with_pkce_and_a_state(url: str, server: OAuthServer):
    begun = grant.begin(url, "google_contacts", "ada")
    asked = {key: value[0] for key, value in parse_qs(urlsplit(begun.address).query).items()}
    assert (asked["redirect_uri"], asked["code_challenge_method"]) == ("http://localhost:1717/oauth/callback", "S256")
    assert set(asked["scope"].split()) == {READ, "openid", "email"}
    assert (asked["access_type"], asked["prompt"]) == ("offline", "consent")
    assert len(asked["state"]) >= 43
    assert server.client_secret not in begun.address


def test_the_public_address_is_where_vendors_lead_back_to(url: str, server: OAuthServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("IDENTITY_PUBLIC_URL", "https://identity.example.com/")
    assert grant.begin(url, "google_contacts", "ada").redirect_uri == "https://identity.example.com/oauth/callback"


def test_an_answer_is_taken_once_by_who_began_and_in_time(url: str, server: OAuthServer):
    led = agree(grant.begin(url, "google_contacts", "ada", session="a browser").address)
    with pytest.raises(ConfigurationError, match="begin again"):
        grant.finish(url, led, session="another browser")
    with pytest.raises(ConfigurationError, match="used already"):
        grant.finish(url, led, session="a browser")
    led = agree(grant.begin(url, "google_contacts", "ada").address)
    assert grant.finish(url, led).name == "ada"
    with pytest.raises(ConfigurationError, match="used already"):
        grant.finish(url, led)
    led = agree(grant.begin(url, "google_contacts", "ada").address)
    run(url, "update identity.grants_begun set begun_at = now() - interval '11 minutes'")
    with pytest.raises(ConfigurationError, match="within the last 10 minutes"):
        grant.finish(url, led)
    for nonsense in ("", "no address", "http://[", led.replace("state=", "state=x"), "http://localhost:1717/oauth/callback?code=1"):
        with pytest.raises(ConfigurationError, match="begin again"):
            grant.finish(url, nonsense)


def test_a_code_that_was_put_into_another_connect_is_refused(url: str, server: OAuthServer):
    """It is bound to the verifier of the connect that it was made for."""
    mine, theirs = (agree(grant.begin(url, "google_contacts", name).address) for name in ("mine", "theirs"))
    code = {led: parse_qs(urlsplit(led).query)["code"][0] for led in (mine, theirs)}
    with pytest.raises(CredentialError, match="agreement was not taken"):
        grant.finish(url, mine.replace(code[mine], code[theirs]))
    assert [each["name"] for each in vault.listing(url) if each["kind"] == "oauth_grant"] == []


def test_an_answer_of_another_server_is_refused(url: str, server: OAuthServer):
    led = agree(grant.begin(url, "google_contacts", "ada").address)
    with pytest.raises(ConfigurationError, match="another server"):
        grant.finish(url, f"{led}&iss=https%3A%2F%2Fevil.example")
    assert server.asked == []


def test_who_does_not_agree_or_not_to_all_is_told(url: str, server: OAuthServer):
    server.grants = "openid email"
    with pytest.raises(CredentialError, match=r"did not grant .*contacts.readonly.*every box"):
        connect(url)
    server.user = {}
    with pytest.raises(CredentialError, match=r"not granted \(access_denied\)"):
        connect(url)
    assert [each["kind"] for each in vault.listing(url)] == ["oauth_app"] * 3


def test_another_account_is_refused_where_sources_were_loaded_unless_that_is_wanted(url: str, server: OAuthServer):
    connect(url)
    server.user = {"sub": "1002", "email": "bob@nordwind-demo.com"}
    assert connect(url, named_by=["crm"]).account == "bob@nordwind-demo.com", "nothing was loaded yet"
    statement = "insert into identity.sources (source_name, source_type) values ('crm', 'google_contacts')"
    run(url, statement)
    run(
        url,
        "insert into identity.loads (source_name, source_type, run_id, token, status, full_refresh) "
        "values ('crm', 'google_contacts', 'run', 1, 'committed', false)",
    )
    server.user = {"sub": "1001", "email": "ada@nordwind-demo.com"}
    with pytest.raises(
        ConfigurationError, match=r"ada@nordwind-demo.com agreed, but credential 'ada' is that of bob@nordwind-demo.com.*crm"
    ):
        connect(url, named_by=["crm"])
    assert row(url)["account"] == "bob@nordwind-demo.com"
    run(url, "update identity.sources set state_settings = 'as before'")
    assert connect(url, named_by=["crm"], other_account=True).account == "ada@nordwind-demo.com"
    assert ledger.state(url, "crm").reads_other("as before"), "what is older than the mark in that account was never read"
    assert connect(url, named_by=["crm"]).account == "ada@nordwind-demo.com", "the same one again"


def test_a_name_that_is_taken_and_an_app_that_is_not_stored_are_said_before_anybody_agrees(url: str, server: OAuthServer):
    vault.store(url, "hub", "api_key", "secret")
    with pytest.raises(ConfigurationError, match="something else already"):
        grant.begin(url, "google_contacts", "hub")
    vault.delete(url, "app.google")
    with pytest.raises(ConfigurationError, match="set-app google"):
        grant.begin(url, "google_contacts", "ada")
    with pytest.raises(ConfigurationError, match="not connected by OAuth"):
        grant.begin(url, "hubspot_contacts", "ada")


@pytest.mark.parametrize(
    "tenant", ["", "acme", "acme.lightning.force.com", "acme.my.salesforce.com.evil.example", "evil.example/acme.my.salesforce.com"]
)
def test_only_a_my_domain_of_salesforce_is_asked(url: str, server: OAuthServer, tenant: str):
    with pytest.raises(ConfigurationError, match="My Domain"):
        grant.begin(url, "salesforce_contacts", "sf", tenant=tenant)


def test_salesforces_account_is_told_by_its_identity_address(url: str, server: OAuthServer):
    server.extra = {"id": f"{server.url}/id/00Dxx0000001gPLEAY/005xx000001SwiUAAS", "instance_url": "https://acme.my.salesforce.com"}
    done = connect(url, "sf", "salesforce_contacts", tenant="https://Acme.my.salesforce.com/")
    assert done.account == "ada@nordwind-demo.com"
    assert run(url, "select account_id from identity.credentials where name = 'sf'") == [("00Dxx0000001gPLEAY/005xx000001SwiUAAS",)]


def test_microsofts_grant_stays_with_the_directory_it_was_given_in(url: str, server: OAuthServer):
    grant.store_app(
        url, "microsoft", flow.App(server.client_id, server.client_secret, server.authorize_url, f"{server.url}/token?t={{tenant}}")
    )
    server.user = {"tid": "9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d", "oid": "77", "preferred_username": "ada@contoso.example"}
    assert connect(url, "ms", "microsoft_contacts").account == "ada@contoso.example"
    assert flow.Kept.read(vault.use(url, "ms").secret).token_url.endswith("?t=9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d")


# keeping it fresh


def test_a_token_that_ends_is_replaced_and_the_new_refresh_token_kept(url: str, server: OAuthServer):
    connect(url)
    first = token(url)
    for number in range(3):
        late(url)
        assert token(url) != first
        assert server.refreshed == number + 1
    assert token(url, refused=token(url)) != first, "one that the source refused is replaced before its time"
    assert (server.refreshed, server.refused) == (4, 0)


def test_a_refresh_token_stays_where_the_answer_brings_none(url: str, server: OAuthServer):
    server.rotates = False
    with serve(server):
        grant.store_app(url, "google", flow.App(server.client_id, server.client_secret, server.authorize_url, server.token_url))
        connect(url)
        kept = flow.Kept.read(vault.use(url, "ada").secret).refresh_token
        for _ in range(2):
            late(url)
            token(url)
        assert flow.Kept.read(vault.use(url, "ada").secret).refresh_token == kept
    assert server.refused == 0


def test_a_vendor_that_names_no_expiry_is_asked_again_by_its_own_rule(url: str, server: OAuthServer):
    server.says_expiry = False
    connect(url, "sf", "salesforce_contacts", tenant="acme.my.salesforce.com")
    ((left,),) = run(url, "select extract(epoch from valid_until - now()) from identity.credentials where name = 'sf'")
    assert 400 < left < 600


def test_an_account_whose_grant_was_revoked_is_said_once_and_not_asked_again(url: str, server: OAuthServer):
    connect(url)
    server.revoke()
    late(url)
    shown = []
    for _ in range(3):
        with pytest.raises(CredentialError) as error:
            token(url)
        shown.append(str(error.value))
    assert len(set(shown)) == 1
    assert len(server.asked) == 2, "the vendor was asked once"
    for part in ("'ada'", "Google", "ada@nordwind-demo.com", "revoked", "invalid_grant", "credentials connect google_contacts ada"):
        assert part in shown[0]
    assert (row(url)["status"], "invalid_grant" in row(url)["reason"]) == ("needs_reconnect", True)
    connect(url)
    assert server.accepts(token(url))
    assert (row(url)["status"], row(url)["reason"]) == ("ok", None)


LATE = "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. Check your iat and exp values."
UNAPPROVED = "user hasn't approved this consumer"
MS_IDLE = {
    "error": "invalid_grant",
    "error_codes": [700082],
    "error_description": "AADSTS700082: The refresh token has expired due to inactivity. canary.person@nordwind-demo.com",
}


@pytest.mark.parametrize(
    ("status", "body", "error", "words", "dead"),
    [
        (400, {"error": "invalid_grant", "error_description": "Token has been expired or revoked."}, CredentialError, "revoked", True),
        (400, {"error": "invalid_grant", "error_description": "expired access/refresh token"}, CredentialError, "expired", True),
        (400, {"error": "invalid_grant", "error_description": "Bad Request"}, CredentialError, "connect it again", True),
        (400, {"error": "inactive_user", "error_description": "user is inactive"}, PermissionDenied, "disabled: have it approved", False),
        (400, {"error": "invalid_grant", "error_subtype": "invalid_rapt"}, CredentialError, "multi-factor", True),
        (400, {"error": "invalid_grant", "error_description": "Account has been deleted"}, CredentialError, "gone", True),
        (400, MS_IDLE, CredentialError, "not used for too long.*AADSTS700082", True),
        (400, {"error": "interaction_required", "error_codes": [50076], "suberror": "basic_action"}, CredentialError, "multi-factor", True),
        (400, {"error": "invalid_grant", "error_codes": [53003]}, PermissionDenied, "Conditional Access", False),
        (400, {"error": "invalid_grant", "error_codes": [65001], "suberror": "consent_required"}, CredentialError, "consent", False),
        (400, {"error": "invalid_grant", "error_codes": [50053]}, PermissionDenied, "locked", False),
        (400, {"error": "access_denied"}, CredentialError, "run it again; if it stays so", False),
        (400, {"error": "invalid_grant", "error_description": LATE}, ConfigurationError, "clock is wrong.*: set the clock of this", False),
        (400, {"error": "invalid_grant", "error_description": "assertion is expired"}, ConfigurationError, "set the clock", False),
        (401, {"error": "invalid_client", "error_codes": [700024]}, ConfigurationError, "set the clock", False),
        (400, {"error": "invalid_grant", "error_description": UNAPPROVED}, PermissionDenied, "has not approved the app", False),
        (400, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}, CredentialError, "not yet.*run it again", False),
        (401, {"error": "invalid_client", "error_codes": [7000222]}, ConfigurationError, "client secret has expired.*set-app", False),
        (401, {"error": "invalid_client"}, ConfigurationError, "app is not accepted.*set-app", False),
        (400, {"error": "invalid_client_id", "error_description": "client identifier invalid"}, ConfigurationError, "set-app", False),
        (400, {"error": "invalid_grant", "error_description": "ip restricted"}, PermissionDenied, "address allowed", False),
        (403, {"error": "admin_policy_enforced"}, PermissionDenied, "administrator", False),
        (400, {"error": "something_new"}, CredentialError, "something_new", False),
        (503, b"<html>busy</html>", SourceUnavailable, "busy or down", False),
        (429, {"error": "rate_limit_exceeded"}, SourceUnavailable, "busy", False),
        (500, {"error": "server_error"}, SourceUnavailable, "busy", False),
        (400, {"error": "temporarily_unavailable", "error_codes": [90033]}, SourceUnavailable, "busy", False),
        (200, b"<html>log in</html>", SourceUnavailable, "login page", False),
        (404, b"<html>gone</html>", SourceUnavailable, "login page", False),
    ],
)  # fmt: skip
def test_what_a_refusal_means(url: str, server: OAuthServer, status: int, body: object, error: type[PipelineError], words: str, dead: bool):
    connect(url)
    late(url)
    kind = "text/html" if isinstance(body, bytes) else "application/json"
    server.spoiled = [(status, body, kind, {})] * 3
    with pytest.raises(error, match=words) as raised:
        token(url)
    assert row(url)["status"] == ("needs_reconnect" if dead else "ok")
    assert "canary" not in str(raised.value)
    server.spoiled = []
    if not dead:
        assert server.accepts(token(url)), "the grant is as it was"


def test_a_vendor_that_is_busy_for_a_moment_is_asked_again(url: str, server: OAuthServer):
    connect(url)
    late(url)
    server.spoiled = [(503, b"", "text/html", {"Retry-After": "1"}), (502, b"<html>", "text/html", {})]
    assert server.accepts(token(url))


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(url: str, server: OAuthServer, status: int):
    connect(url)
    late(url)
    for target in (f"{server.url}/token", "http://127.0.0.1:9/elsewhere"):
        server.spoiled, server.asked = [(status, b"", "text/html", {"Location": target})], []
        with pytest.raises(PipelineError, match="the token address"):
            token(url)
        assert len(server.asked) == 1
    assert row(url)["status"] == "ok"


def test_an_answer_that_was_lost_and_cost_the_grant_is_named(url: str, server: OAuthServer):
    connect(url)
    late(url)
    server.deaf = 1
    with pytest.raises(CredentialError, match=r"the answer to a renewal at .* was lost"):
        token(url)
    assert row(url)["status"] == "needs_reconnect"


RENEW = "import sys; from identity_pipeline.credentials.refresh import *; print(ensure_fresh_credential(*sys.argv[1:]).access_token)"


def test_who_is_killed_with_the_answer_in_hand_costs_this_grant_alone_and_that_is_said(url: str, server: OAuthServer):
    connect(url)
    connect(url, "other")
    late(url)
    killed = subprocess.run(
        [sys.executable, "-c", RENEW, url, "ada"], env=os.environ | {"IDENTITY_FAILPOINT": "token-received"}, check=False, timeout=60
    )
    assert killed.returncode == -9
    with pytest.raises(CredentialError, match=r"the answer to a renewal at .* was lost before it was stored"):
        token(url)
    assert server.accepts(token(url, "other"))
    connect(url)
    assert server.accepts(token(url))


PROCESSES, SECONDS = 8, 4
HAMMER = f"""
import sys, time
from identity_pipeline.credentials.refresh import GrantToken
until, got = time.monotonic() + {SECONDS}, set()
while time.monotonic() < until:
    got.add(GrantToken(sys.argv[1], "ada").token())
    time.sleep(0.01)
print(*got)
"""


def test_of_eight_processes_one_asks_at_each_expiry(url: str, server: OAuthServer):
    server.ttl = 0.5
    connect(url)
    running = [
        subprocess.Popen([sys.executable, "-c", HAMMER, url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(PROCESSES)
    ]
    ended = [each.communicate(timeout=120) for each in running]
    assert [each.returncode for each in running] == [0] * PROCESSES, ended
    seen = {name for out, _ in ended for name in out.split()}
    assert server.refused == 0
    assert server.refreshed >= 4
    assert server.refreshed <= len(seen) <= server.refreshed + 1, "each new token is used by all, and none was asked for beside another"
    lived = [each.issued for each in server.tokens]
    assert all(after - before >= 0.45 for before, after in pairwise(lived)), "one for each expiry"


def test_a_certified_server_is_connected_renewed_and_found_to_have_revoked_a_stolen_grant(url: str):
    scopes = vendor("google").scopes["google_contacts"]
    with openid_provider.serve([grant.redirect_uri()], scopes=scopes) as foreign:
        token_url = f"{foreign.issuer}/token"
        grant.store_app(
            url, "google", flow.App(openid_provider.CLIENT_ID, openid_provider.CLIENT_SECRET, f"{foreign.issuer}/auth", token_url)
        )

        def connected() -> grant.Connected:
            begun = grant.begin(url, "google_contacts", "ada")
            return grant.finish(url, foreign.agreed(begun.address, "ada", begun.redirect_uri))

        done = connected()
        assert (done.account, set(done.scopes) >= set(scopes)) == ("ada@nordwind-demo.com", True)
        with psycopg.connect(url) as connection:
            stolen = flow.Kept.read(vault.held(connection, "ada").secret).refresh_token
        seen = {token(url)}
        for _ in range(3):  # each refresh token is good for once: what is stored is the newest
            late(url)
            seen.add(token(url))
        assert len(seen) == 4
        form = {"grant_type": "refresh_token", "refresh_token": stolen, "client_id": openid_provider.CLIENT_ID}
        answer = requests.post(token_url, form | {"client_secret": openid_provider.CLIENT_SECRET}, timeout=20)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
        late(url)
        with pytest.raises(CredentialError, match="credentials connect google_contacts ada"):
            token(url)
        assert row(url)["status"] == "needs_reconnect"
        connected()
        assert token(url) not in seen


# without an agreement


def test_an_app_is_let_in_by_itself(url: str, server: OAuthServer):
    done = grant.let_in(url, "microsoft_contacts", "org", tenant="contoso.example")
    assert done.account == "app client-1"
    assert server.asked[0]["scope"] == "https://graph.microsoft.com/.default"
    late(url)
    assert server.accepts(token(url, "org"))
    with pytest.raises(ConfigurationError, match="GUID"):
        grant.let_in(url, "microsoft_contacts", "org", tenant="common")
    with pytest.raises(ConfigurationError, match="service account"):
        grant.let_in(url, "google_contacts", "g")


def test_a_key_gets_tokens_without_an_account_that_agrees(url: str, server: OAuthServer):
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
    server.keys = {"robot@project.iam.gserviceaccount.com": public, server.client_id: public}
    account = {"type": "service_account", "client_email": "robot@project.iam.gserviceaccount.com", "private_key": pem}
    done = grant.let_in(url, "google_sheets", "robot", key=json.dumps(account | {"token_uri": server.token_url}))
    assert done.account == "robot@project.iam.gserviceaccount.com"
    assert row(url, "robot")["kind"] == "oauth_key"
    late(url)
    assert server.accepts(token(url, "robot"))
    grant.let_in(url, "salesforce_contacts", "sf", key=pem, tenant="acme.my.salesforce.com", user="ada@acme.example")
    late(url)
    assert server.accepts(token(url, "sf"))
    for wrong in ("{}", "[]", json.dumps(account | {"private_key": "none"})):
        with pytest.raises(ConfigurationError, match="key file"):
            grant.let_in(url, "google_sheets", "other", key=wrong)


# secrets


def test_nothing_of_a_grant_stands_in_the_clear_and_the_redactor_knows_every_token(url: str, server: OAuthServer):
    connect(url)
    redactor = Redactor()
    provider = refresh.provider(url, "ada", redactor)
    provider.token()
    late(url)
    fresh = provider.refresh()
    known = [each for token in server.tokens for each in (token.access_token, token.refresh_token) if each]
    assert fresh in known
    told = " ".join([*known[-2:], server.client_secret])
    assert "canary" not in redactor.redact(told)
    ((dump,),) = run(url, "select string_agg(c::text, ' ') from identity.credentials c")
    assert not [each for each in (*known, server.client_secret) if each in dump or each.encode().hex() in dump]
    with pytest.raises(ConfigurationError, match="no secret that a source can be given"):
        vault.reveal(url, "app.google")
    assert "canary" not in repr([vault.use(url, "ada"), provider, flow.Kept.read(vault.use(url, "ada").secret), begin_repr(url)])


def begin_repr(url: str) -> str:
    return repr(grant.begin(url, "google_contacts", "ada"))


def test_a_grant_that_was_put_under_another_name_does_not_open(url: str, server: OAuthServer):
    connect(url)
    server.user = {"sub": "1002", "email": "bob@nordwind-demo.com"}
    connect(url, "bob")
    run(
        url,
        "update identity.credentials c set (nonce, ciphertext, key_id, version) = "
        "(select nonce, ciphertext, key_id, version from identity.credentials where name = 'bob') where name = 'ada'",
    )
    with pytest.raises(ConfigurationError, match=r"'ada' does not open.*credentials connect google_contacts ada"):
        token(url)


def test_rotating_the_key_while_tokens_are_renewed_loses_none(url: str, server: OAuthServer, monkeypatch: pytest.MonkeyPatch):
    connect(url)
    monkeypatch.setenv(keyring.VARIABLE, f"{base64.b64encode(secrets.token_bytes(32)).decode()},{os.environ[keyring.VARIABLE]}")
    late(url)
    began = time.monotonic()
    renewing = subprocess.Popen([sys.executable, "-c", RENEW, url, "ada"], stdout=subprocess.PIPE, text=True)
    while renewing.poll() is None:
        vault.rotate(url)
    assert time.monotonic() - began < 60
    assert server.accepts(renewing.communicate()[0].strip())
    vault.rotate(url)
    monkeypatch.setenv(keyring.VARIABLE, os.environ[keyring.VARIABLE].partition(",")[0])
    late(url)
    assert server.accepts(token(url))
