"""Signing in at a provider of OpenID Connect: a certified one, and one that lies."""

import base64
import hashlib
import json
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from flask import Flask, jsonify, request
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey
from werkzeug.serving import make_server

from identity_pipeline.core.errors import ConfigurationError, CredentialError, PermissionDenied, PipelineError, TryLater
from identity_pipeline.web.access import Access, Person
from identity_pipeline.web.oidc import CALLBACK, WITHIN, Provider, Settings
from identity_pipeline_tests.servers import openid_provider

REDIRECT = f"http://127.0.0.1:9{CALLBACK}"
SECRET = "canary-oidc-secret-5b1e"
RSA, STRANGER, EC = (
    RSAKey.generate_key(2048, {"kid": "one"}),
    RSAKey.generate_key(2048, {"kid": "one"}),
    ECKey.generate_key("P-256", {"kid": "two"}),
)
SHARED = OctKey.import_key(SECRET * 2, {"kid": "all"})
CANARY = "canary-code-77fe"


def _half(token: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(token.encode()).digest()[:16]).rstrip(b"=").decode()


@dataclass
class Liar:
    """A provider whose answers are what a test makes of them. ``claims`` and ``header`` go over what is right."""

    url: str = ""
    described: dict[str, Any] = field(default_factory=dict)
    key: Any = field(default_factory=lambda: RSA)
    published: list[Any] = field(default_factory=lambda: [RSA])
    header: dict[str, Any] = field(default_factory=lambda: {"alg": "RS256", "kid": "one"})
    claims: dict[str, Any] = field(default_factory=dict)
    token: str | None = None
    info: dict[str, Any] = field(default_factory=lambda: {"sub": "1001", "email": "ada@nordwind-demo.com", "email_verified": True})
    refusal: tuple[int, Any] | None = None
    nonce: str = ""
    asked: list[tuple[dict[str, str], str]] = field(default_factory=list)
    key_requests: int = 0

    def app(self) -> Flask:
        """The provider as a WSGI application."""
        flask = Flask("liar")

        @flask.get("/.well-known/openid-configuration")
        def describe() -> Any:
            paths = {f"{name}_endpoint": f"{self.url}/{name}" for name in ("authorization", "token", "userinfo")}
            return jsonify({"issuer": self.url, "jwks_uri": f"{self.url}/keys", **paths, **self.described})

        @flask.get("/keys")
        def keys() -> Any:
            self.key_requests += 1
            return jsonify({"keys": [key.as_dict(private=isinstance(key, OctKey)) for key in self.published]})

        @flask.post("/token")
        def token() -> Any:
            self.asked.append((request.form.to_dict(), request.headers.get("Authorization", "")))
            if self.refusal:
                return jsonify(self.refusal[1]), self.refusal[0]
            return jsonify({"access_token": "canary-access-91", "token_type": "Bearer", "id_token": self.token or self.id_token()})

        @flask.get("/userinfo")
        def userinfo() -> Any:
            assert request.headers["Authorization"] == "Bearer canary-access-91"
            return jsonify(self.info)

        return flask

    def id_token(self) -> str:
        """Who signed in, signed."""
        now = int(time.time())
        told = {
            "iss": self.url, "sub": "1001", "aud": "client-1", "exp": now + 300, "iat": now, "nonce": self.nonce,
            "groups": ["crew"], "at_hash": _half("canary-access-91"),
        } | self.claims  # fmt: skip
        return jwt.encode(self.header, {name: value for name, value in told.items() if value is not None}, self.key,
                          algorithms=[self.header["alg"]])  # fmt: skip


@pytest.fixture
def liar(monkeypatch: pytest.MonkeyPatch) -> Iterator[Liar]:
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "127.0.0.1")
    for bundle in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):  # nothing here is encrypted, and loading one takes longer than a test
        monkeypatch.delenv(bundle, raising=False)
    made = Liar()
    server = make_server("127.0.0.1", 0, made.app(), threaded=True)
    made.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


def _provider(issuer: str, **more: Any) -> Provider:
    told = {"client_id": "client-1", "client_secret": SECRET, "operators": frozenset({"crew"}), "viewers": frozenset({"staff"})} | more
    return Provider(Settings(issuer, **told), REDIRECT, Access(lambda: "", "k" * 43, "oidc"))


def _back(liar: Liar, provider: Provider, **more: str) -> tuple[str, str]:
    """Begin, and the query with which the provider leads back; with what the browser keeps."""
    address, kept = provider.begin("/sources/crm")
    asked = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
    liar.nonce = asked["nonce"]
    return urlencode({"code": CANARY, "state": asked["state"], "iss": liar.url} | more), kept


def _signed_in(liar: Liar, provider: Provider) -> Person:
    return provider.finish(*_back(liar, provider))[0]


def test_a_certified_provider_signs_people_in(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "127.0.0.1")
    groups = {"ada": ["crew"], "bob": ["staff", "others"], "eve": ["others"]}
    with openid_provider.serve([REDIRECT], groups) as foreign:
        provider = _provider(foreign.issuer, client_secret=openid_provider.CLIENT_SECRET, scope="openid email groups")

        def come_in(account: str) -> tuple[Person, str]:
            address, kept = provider.begin("/sources/crm?x=1")
            return provider.finish(urlsplit(foreign.agreed(address, account, REDIRECT)).query, kept)

        assert come_in("ada") == (Person("ada@nordwind-demo.com", "operator", by_session=True), "/sources/crm?x=1")
        assert come_in("bob")[0] == Person("bob@nordwind-demo.com", "viewer", by_session=True)
        with pytest.raises(PermissionDenied, match=r"^eve@\S+ is signed in at 127\.0\.0\.1, and may not come in here: none of the 1 "):
            come_in("eve")
        address, kept = provider.begin("/")
        query = urlsplit(foreign.agreed(address, "ada", REDIRECT)).query
        provider.finish(query, kept)
        with pytest.raises(CredentialError, match="invalid_grant: the code was used already"):
            provider.finish(query, kept)


def test_what_is_asked_binds_the_answer_to_this_browser(liar: Liar):
    address, _ = _provider(liar.url).begin("/")
    asked = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
    assert address.startswith(f"{liar.url}/authorization?")
    assert (asked["response_type"], asked["scope"], asked["code_challenge_method"]) == ("code", "openid profile email", "S256")
    assert asked["redirect_uri"] == REDIRECT
    assert len({asked["state"], asked["nonce"], asked["code_challenge"]}) == 3
    assert min(len(asked[name]) for name in ("state", "nonce", "code_challenge")) == 43


def test_the_verifier_goes_with_the_code(liar: Liar):
    provider = _provider(liar.url)
    address, kept = provider.begin("/")
    asked = parse_qs(urlsplit(address).query)
    liar.nonce = asked["nonce"][0]
    provider.finish(urlencode({"code": CANARY, "state": asked["state"][0]}), kept)
    form, authorization = liar.asked[0]
    challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=").decode()
    assert asked["code_challenge"] == [challenge]
    assert (form["code"], form["redirect_uri"], form["grant_type"]) == (CANARY, REDIRECT, "authorization_code")
    assert base64.b64decode(authorization.removeprefix("Basic ")).decode() == f"client-1:{SECRET}"
    assert "client_secret" not in form


@pytest.mark.parametrize(("ways", "secret", "sent"), [(["client_secret_post"], SECRET, SECRET), (["none"], "", None)])
def test_the_client_is_shown_as_the_provider_takes_it(liar: Liar, ways: list[str], secret: str, sent: str | None):
    liar.described = {"token_endpoint_auth_methods_supported": ways}
    _signed_in(liar, _provider(liar.url, client_secret=secret))
    form, authorization = liar.asked[0]
    assert (form["client_id"], form.get("client_secret"), authorization) == ("client-1", sent, "")


FALSE = {
    "of another issuer": {"claims": {"iss": "https://evil.example"}},
    "for another client": {"claims": {"aud": "client-2"}},
    "for another client, and authorised to this one": {"claims": {"aud": "client-2", "azp": "client-1"}},
    "for several clients, and authorised to another": {"claims": {"aud": ["client-1", "client-2"], "azp": "client-2"}},
    "for several clients, and authorised to none": {"claims": {"aud": ["client-1", "client-2"]}},
    "too old": {"claims": {"exp": 1_600_000_000, "iat": 1_599_999_000}},
    "without an end": {"claims": {"exp": None}},
    "of tomorrow": {"claims": {"iat": int(time.time()) + 86_400}},
    "of another sign-in": {"claims": {"nonce": "another"}},
    "of no sign-in": {"claims": {"nonce": None}},
    "of nobody": {"claims": {"sub": None}},
    "of an empty name": {"claims": {"sub": ""}},
    "with another access token": {"claims": {"at_hash": _half("another")}},
    "signed by a stranger": {"key": STRANGER},
    "signed by a key that is not published": {"key": EC, "header": {"alg": "ES256", "kid": "two"}},
    "signed with the client's secret": {"key": OctKey.import_key(SECRET * 2), "header": {"alg": "HS256", "kid": "one"},
                                        "described": {"id_token_signing_alg_values_supported": ["HS256", "RS256"]}},
    "signed with a secret that everybody can read": {"key": SHARED, "header": {"alg": "HS256", "kid": "all"}, "published": [RSA, SHARED],
                                                     "described": {"id_token_signing_alg_values_supported": ["HS256", "RS256"]}},
    "not signed": {"token": "eyJhbGciOiJub25lIn0.eyJzdWIiOiIxMDAxIn0.", "described": {"id_token_signing_alg_values_supported": ["none"]}},
    "no token": {"token": "nothing"},
    "by a way that was not offered": {"described": {"id_token_signing_alg_values_supported": ["ES256"]}},
}  # fmt: skip


@pytest.mark.parametrize("lie", FALSE)
def test_what_does_not_vouch_for_the_person_is_not_believed(liar: Liar, lie: str):
    for name, value in FALSE[lie].items():
        setattr(liar, name, value)
    with pytest.raises(CredentialError, match=r"does not vouch for anybody|does not say who you are") as caught:
        _signed_in(liar, _provider(liar.url))
    assert not any(secret in str(caught.value) for secret in (SECRET, CANARY, "canary-access-91", liar.nonce))


def test_a_provider_that_changed_its_keys_is_asked_once_more_and_not_without_end(liar: Liar):
    provider = _provider(liar.url)
    assert _signed_in(liar, provider).may_change
    later = provider.access.clock() + 61
    provider.access.clock = lambda: later
    liar.key = RSAKey.generate_key(2048, {"kid": "next"})
    liar.header, liar.published = {"alg": "RS256", "kid": "next"}, [liar.key]
    assert _signed_in(liar, provider).may_change
    assert liar.key_requests == 2
    liar.header = {"alg": "RS256", "kid": "of nobody"}
    for _ in range(3):
        with pytest.raises(CredentialError):
            _signed_in(liar, provider)
    assert liar.key_requests == 2


def test_an_answer_to_another_browser_or_to_nothing_is_refused(liar: Liar):
    provider = _provider(liar.url)
    query, kept = _back(liar, provider)
    _, another = provider.begin("/")
    for wrong_query, wrong_kept in ((query, another), (query, ""), (query, kept[:-3] + "abc"), ("", kept), (query + "&state=x", kept)):
        with pytest.raises(CredentialError, match="begun in this browser within the last 10 minutes"):
            provider.finish(wrong_query, wrong_kept)
    later = provider.access.clock() + WITHIN + 1
    provider.access.clock = lambda: later
    with pytest.raises(CredentialError, match="begun in this browser within the last 10 minutes"):
        provider.finish(query, kept)
    assert not liar.asked


def test_a_session_is_no_sign_in_and_a_sign_in_no_session(liar: Liar):
    provider = _provider(liar.url)
    _, kept = provider.begin("/")
    assert provider.access.by_session(kept) is None
    session = provider.access.session(Person("ada", "viewer"))
    with pytest.raises(CredentialError):
        provider.finish("state=ada&code=1", session)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"error": "access_denied"}, "did not sign you in: access_denied: you, or a rule there, refused"),
        ({"error": "<script>"}, "an error without a code"),
        ({"iss": "https://evil.example"}, "came from another provider"),
        ({"code": ""}, "without a code"),
    ],
)
def test_what_the_provider_leads_back_with_is_told(liar: Liar, query: dict[str, str], words: str):
    provider = _provider(liar.url)
    with pytest.raises(CredentialError, match=words):
        provider.finish(*_back(liar, provider, **query))
    assert not liar.asked


@pytest.mark.parametrize(
    ("status", "body", "error", "words"),
    [
        (401, {"error": "invalid_client", "error_description": "canary"}, CredentialError, "IDENTITY_OIDC_CLIENT_ID or"),
        (400, {"error": "invalid_grant"}, CredentialError, "sign in again"),
        (503, {}, TryLater, "answered 503"),
        (500, "<html>", TryLater, "answered 500"),
    ],
)
def test_a_refusal_says_who_has_to_act(liar: Liar, status: int, body: Any, error: type[PipelineError], words: str):
    liar.refusal = status, body
    with pytest.raises(error, match=words) as caught:
        _signed_in(liar, _provider(liar.url))
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("claims", "info", "settings", "role"),
    [
        ({}, {}, {}, "operator"),
        ({"groups": "crew"}, {}, {}, "operator"),
        ({"groups": ["staff"]}, {}, {}, "viewer"),
        ({"groups": ["staff", "crew"]}, {}, {}, "operator"),
        ({"groups": ["CREW"]}, {}, {}, None),
        ({"groups": None}, {"groups": ["staff"]}, {}, "viewer"),
        ({"groups": ["others"]}, {"groups": ["crew"]}, {}, None),  # what is signed is not overruled
        ({"groups": [["crew"], {"crew": 1}, None]}, {}, {}, None),
        ({"roles": ["crew"], "groups": None}, {}, {"groups_claim": "roles"}, "operator"),
        ({"groups": None}, {}, {"operators": frozenset({"Ada@nordwind-demo.com"})}, "operator"),
        ({"groups": None}, {"email_verified": False}, {"operators": frozenset({"ada@nordwind-demo.com"})}, None),
        ({"groups": None}, {"email_verified": "true"}, {"operators": frozenset({"ada@nordwind-demo.com"})}, None),
        ({"groups": None}, {}, {"viewers": frozenset({"*"})}, "viewer"),
        ({"groups": ["*"]}, {}, {}, None),
    ],
)
def test_groups_and_verified_addresses_say_who_may_come_in(
    liar: Liar, claims: dict[str, Any], info: dict[str, Any], settings: dict[str, Any], role: str | None
):
    liar.claims = claims
    liar.info |= info
    provider = _provider(liar.url, **settings)
    if role:
        assert _signed_in(liar, provider).role == role
        return
    with pytest.raises(PermissionDenied, match="may not come in here"):
        _signed_in(liar, provider)


def test_an_address_that_nobody_verified_is_nobodys_name(liar: Liar):
    liar.info |= {"email_verified": False, "preferred_username": "ada"}
    assert _signed_in(liar, _provider(liar.url)).name == "ada"
    liar.info.pop("preferred_username")
    assert _signed_in(liar, _provider(liar.url)).name == "1001"


def test_what_is_told_of_another_person_is_not_believed(liar: Liar):
    liar.info |= {"sub": "1002"}
    with pytest.raises(CredentialError, match="another person"):
        _signed_in(liar, _provider(liar.url))


def test_an_account_of_too_many_groups_is_told_why(liar: Liar):
    liar.claims = {"groups": None, "_claim_names": {"groups": "src1"}}
    with pytest.raises(PermissionDenied, match="more groups than it tells of"):
        _signed_in(liar, _provider(liar.url))


@pytest.mark.parametrize(
    ("described", "words"),
    [
        ({"issuer": "https://another.example"}, "calls itself 'https://another.example'"),
        ({"authorization_endpoint": None}, "names no authorization_endpoint"),
        ({"authorization_endpoint": "http://elsewhere.example/authorize"}, "not encrypted"),
        ({"jwks_uri": "file:///etc/passwd"}, "not an https"),
        ({"jwks_uri": "https://169.254.169.254/keys"}, "private or reserved"),
    ],
)
def test_a_provider_that_cannot_be_used_is_told(liar: Liar, described: dict[str, Any], words: str):
    liar.described = described
    with pytest.raises(ConfigurationError, match=words):
        _provider(liar.url).begin("/")


def test_an_address_that_is_no_provider_and_one_that_is_away_are_told_apart(liar: Liar):
    with pytest.raises(ConfigurationError, match=r"IDENTITY_OIDC_ISSUER: GET .*/elsewhere/\.well-known/openid-configuration answered 404"):
        _provider(f"{liar.url}/elsewhere").begin("/")
    with pytest.raises(TryLater):
        _provider("http://127.0.0.1:9").begin("/")


GOOD = {"IDENTITY_OIDC_ISSUER": "https://id.example.com/realm", "IDENTITY_OIDC_CLIENT_ID": "client-1", "IDENTITY_OIDC_OPERATORS": "a, b ,"}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"IDENTITY_OIDC_ISSUER": "", "IDENTITY_OIDC_CLIENT_ID": ""}, "set IDENTITY_OIDC_ISSUER and IDENTITY_OIDC_CLIENT_ID"),
        ({"IDENTITY_OIDC_ISSUER": "http://id.example.com"}, "IDENTITY_OIDC_ISSUER: .* not encrypted"),
        ({"IDENTITY_OIDC_ISSUER": "https://10.0.0.1"}, "IDENTITY_ALLOW_PRIVATE_HOSTS"),
        ({"IDENTITY_OIDC_OPERATORS": " , "}, "nobody may come in"),
        ({"IDENTITY_OIDC_SCOPE": "email"}, "must hold openid"),
    ],
)
def test_settings_that_let_nobody_in_are_said_at_once(changed: dict[str, str], words: str):
    with pytest.raises(ConfigurationError, match=words):
        Settings.read(GOOD | changed)


def test_settings_are_read_and_their_secret_is_not_shown():
    read = Settings.read(GOOD | {"IDENTITY_OIDC_CLIENT_SECRET": SECRET})
    assert (read.operators, read.viewers, read.client_secret) == ({"a", "b"}, frozenset(), SECRET)
    assert SECRET not in repr(read)
    assert SECRET not in read.rules


def test_a_session_ends_where_the_rules_have_changed():
    before, after = (Settings.read(GOOD | more) for more in ({}, {"IDENTITY_OIDC_OPERATORS": "b"}))
    cookie = Access(lambda: "", "k" * 43, "oidc", rules=before.rules).session(Person("ada", "operator"))
    assert Access(lambda: "", "k" * 43, "oidc", rules=before.rules).by_session(cookie)
    assert Access(lambda: "", "k" * 43, "oidc", rules=after.rules).by_session(cookie) is None


def test_nothing_of_a_sign_in_is_logged(liar: Liar, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG, "identity_pipeline")
    _signed_in(liar, _provider(liar.url))
    liar.claims = {"groups": ["others"]}
    with pytest.raises(PermissionDenied):
        _signed_in(liar, _provider(liar.url))
    said = json.dumps([record.getMessage() for record in caplog.records if record.name.startswith("identity_pipeline")])
    assert "may not come in" in said
    assert not any(text in said for text in (SECRET, CANARY, "canary-access-91", "ada@nordwind-demo.com", "1001"))
