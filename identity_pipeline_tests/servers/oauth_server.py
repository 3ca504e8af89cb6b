"""An OAuth 2 server on Authlib: agreement with PKCE, refresh tokens that are good for once, the app itself, signed assertions.

A refresh token that is used twice revokes all that came from the same agreement (RFC 9700, section 4.14.2).
What is granted, refused and spoiled are plain values that may be changed while it runs.
"""

import base64
import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

os.environ.setdefault("AUTHLIB_INSECURE_TRANSPORT", "1")

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.rfc6749 import AuthorizationCodeMixin, ClientMixin, TokenMixin, grants
from authlib.oauth2.rfc7523 import JWTBearerGrant
from authlib.oauth2.rfc7636 import CodeChallenge
from flask import Flask, Response, jsonify, request
from joserfc.jwk import RSAKey
from werkzeug.serving import make_server

_METHODS = ["client_secret_post", "none"]


@dataclass
class _Client(ClientMixin):
    of: "OAuthServer"

    def get_client_id(self) -> str:
        return self.of.client_id

    def get_default_redirect_uri(self) -> str:
        return self.of.redirects[0]

    def get_allowed_scope(self, scope: str) -> str:
        return scope or "all"

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return redirect_uri in self.of.redirects

    def check_client_secret(self, client_secret: str) -> bool:
        return client_secret == self.of.client_secret

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method in _METHODS and (method != "none" or not self.of.client_secret)

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code"

    def check_grant_type(self, grant_type: str) -> bool:
        return True


class _Code(SimpleNamespace, AuthorizationCodeMixin):
    def get_redirect_uri(self) -> str:
        return self.redirect_uri

    def get_scope(self) -> str:
        return self.scope


class _Token(SimpleNamespace, TokenMixin):
    def check_client(self, client: _Client) -> bool:
        return True

    def get_scope(self) -> str:
        return self.scope

    def get_expires_in(self) -> int:
        return self.expires_in

    def is_expired(self) -> bool:
        return self.issued + self.lives < time.time()

    def is_revoked(self) -> bool:
        return self.revoked


@dataclass
class OAuthServer:
    """The server's state. ``ttl`` are the seconds that an access token lives.

    ``rotates``: each refresh token is good for once. ``says_expiry``: an answer holds ``expires_in``.
    ``grants`` are the scopes given whatever was asked for, None: all of them. ``spoiled`` are answers to the
    next requests for a token, as (status, body, content type, headers); a body of bytes goes out as it is. With
    ``deaf`` the next answers are lost after they were made. ``keys``: issuer → public key (PEM).
    """

    client_id: str = "client-1"
    client_secret: str = "canary-client-secret-6c1d"
    redirects: list[str] = field(default_factory=lambda: ["http://localhost:1717/oauth/callback"])
    user: dict[str, str] = field(default_factory=lambda: {"sub": "1001", "email": "ada@nordwind-demo.com"})
    ttl: float = 3600
    rotates: bool = True
    says_expiry: bool = True
    grants: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    spoiled: list[tuple[int, Any, str, dict[str, str]]] = field(default_factory=list)
    deaf: int = 0
    keys: dict[str, str] = field(default_factory=dict)
    url: str = ""
    asked: list[dict[str, str]] = field(default_factory=list)
    tokens: list[_Token] = field(default_factory=list)
    codes: dict[str, _Code] = field(default_factory=dict)
    refreshed: int = 0
    refused: int = 0

    @property
    def authorize_url(self) -> str:
        """Where an account agrees."""
        return f"{self.url}/authorize"

    @property
    def token_url(self) -> str:
        """Where tokens are given."""
        return f"{self.url}/token"

    def accepts(self, access_token: str) -> bool:
        """True if the bearer of this token may come in."""
        found = next((each for each in self.tokens if each.access_token == access_token), None)
        return found is not None and not found.is_expired() and not found.revoked

    def expire(self) -> None:
        """Let every access token have ended now."""
        for each in self.tokens:
            each.issued -= 10**6

    def revoke(self) -> None:
        """Take back all that was granted."""
        for each in self.tokens:
            each.revoked = True

    def save(self, token: dict[str, Any], asked: Any) -> None:
        """Authlib's: remember a token."""
        family = getattr(asked, "family", None) or secrets.token_hex(4)
        user = asked.user if isinstance(asked.user, dict) else {}
        told = {"refresh_token": None, "scope": "", "expires_in": int(self.ttl), **token}
        self.tokens.append(_Token(**told, user=user, family=family, issued=time.time(), lives=self.ttl, revoked=False, used=False))

    def app(self) -> Flask:  # noqa: C901 - Authlib takes classes, Flask takes functions
        """The server as a WSGI application."""
        flask = Flask("oauth")
        flask.config["OAUTH2_REFRESH_TOKEN_GENERATOR"] = lambda *_, **__: f"canary-refresh-{secrets.token_hex(12)}"
        flask.config["OAUTH2_ACCESS_TOKEN_GENERATOR"] = lambda *_, **__: f"canary-access-{secrets.token_hex(12)}"
        of, lock = self, threading.Lock()
        server = AuthorizationServer(flask, query_client=lambda name: _Client(of) if name == of.client_id else None, save_token=self.save)

        class Code(grants.AuthorizationCodeGrant):
            TOKEN_ENDPOINT_AUTH_METHODS = _METHODS

            def save_authorization_code(self, code: str, request: Any) -> None:
                told, data = request.payload, request.payload.data
                of.codes[code] = _Code(
                    code=code,
                    redirect_uri=told.redirect_uri,
                    scope=told.scope if of.grants is None else of.grants,
                    user=request.user,
                    code_challenge=data.get("code_challenge"),
                    code_challenge_method=data.get("code_challenge_method"),
                )

            def query_authorization_code(self, code: str, client: Any) -> Any:
                return of.codes.get(code)

            def delete_authorization_code(self, authorization_code: Any) -> None:
                of.codes.pop(authorization_code.code, None)

            def authenticate_user(self, authorization_code: Any) -> Any:
                return authorization_code.user

        class Refresh(grants.RefreshTokenGrant):
            TOKEN_ENDPOINT_AUTH_METHODS = _METHODS
            INCLUDE_NEW_REFRESH_TOKEN = of.rotates

            def authenticate_refresh_token(self, refresh_token: str) -> Any:
                found = next((each for each in of.tokens if each.refresh_token == refresh_token), None)
                if found is None or found.revoked:
                    return None
                if found.used and of.rotates:
                    for each in of.tokens:
                        each.revoked = each.revoked or each.family == found.family
                    return None
                self.request.family = found.family
                return found

            def authenticate_user(self, refresh_token: Any) -> Any:
                return refresh_token.user

            def revoke_old_credential(self, refresh_token: Any) -> None:
                refresh_token.used = True
                of.refreshed += 1

        class Client(grants.ClientCredentialsGrant):
            TOKEN_ENDPOINT_AUTH_METHODS = _METHODS

        class Assertion(JWTBearerGrant):
            def get_audiences(self) -> list[str]:
                return [of.token_url, of.url]

            def resolve_issuer_client(self, issuer: str) -> _Client:
                return _Client(of)

            def resolve_client_key(self, client: Any, headers: Any, payload: Any) -> RSAKey:
                return RSAKey.import_key(of.keys[payload["iss"]])

            def authenticate_user(self, subject: str) -> dict[str, str]:
                return {"sub": subject}

            def has_granted_permission(self, client: Any, user: Any) -> bool:
                return True

        server.register_grant(Code, [CodeChallenge(required=True)])
        for grant in (Refresh, Client, Assertion):
            server.register_grant(grant)

        @flask.get("/authorize")
        def authorize() -> Any:
            """Agree at once, as ``user``."""
            if not of.user:
                told = {"error": "access_denied", "state": request.args.get("state", "")}
                return Response("", 302, {"Location": f"{request.args['redirect_uri']}?{urlencode(told)}"})
            grant = server.get_consent_grant(end_user=of.user)
            return server.create_authorization_response(grant_user=of.user, grant=grant)

        @flask.post("/token")
        def token() -> Any:
            with lock:
                of.asked.append(dict(request.form))
                if of.spoiled:
                    status, body, kind, headers = of.spoiled.pop(0)
                    return Response(body if isinstance(body, bytes) else json.dumps(body), status, headers, content_type=kind)
                made = server.create_token_response()
                if made.status_code != 200:
                    of.refused += 1
                    return made
                if of.deaf:
                    of.deaf -= 1
                    return Response(iter([b"{"]), 200, {"Content-Length": "1000"}, content_type="application/json", direct_passthrough=True)
                return jsonify(of._answer(json.loads(made.get_data())))

        @flask.get("/id/<org>/<user>")
        def identity(org: str, user: str) -> Any:
            known = of.accepts(request.headers.get("Authorization", "").removeprefix("Bearer "))
            return jsonify({"username": of.user.get("email"), "organization_id": org}) if known else Response("Bad_OAuth_Token", 403)

        return flask

    def _answer(self, told: dict[str, Any]) -> dict[str, Any]:
        told |= {"expires_in": self.ttl} if self.says_expiry else {}
        if not self.says_expiry:
            told.pop("expires_in", None)
        claims = base64.urlsafe_b64encode(json.dumps(self.tokens[-1].user or {}).encode()).rstrip(b"=").decode()
        return told | {"id_token": f"e30.{claims}."} | self.extra


@contextmanager
def serve(server: OAuthServer) -> Iterator[OAuthServer]:
    """Serve on a free port of 127.0.0.1."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    made = make_server("127.0.0.1", 0, server.app(), threaded=True)
    server.url = f"http://127.0.0.1:{made.server_port}"
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        made.shutdown()
        made.server_close()
        thread.join()
