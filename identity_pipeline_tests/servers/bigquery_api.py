"""BigQuery on this machine: its REST API version 2, over DuckDB, as far as a reader asks it.

Written from https://cloud.google.com/bigquery/docs/reference/rest/v2: jobs.insert with dry run and a limit of the bytes that
are billed, jobs.get, jobs.getQueryResults by pages, tables.get, tables.list, tables.testIamPermissions; and the token endpoint of
https://developers.google.com/identity/protocols/oauth2/service-account, which verifies the assertion of a service account.
"""

import json
import re
import secrets
import threading
import uuid
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

import duckdb
import google.auth.jwt
import sqlglot
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth.exceptions import GoogleAuthError
from sqlglot import exp

PROJECT = "my-project"
_TYPES = {
    "VARCHAR": "STRING", "BIGINT": "INTEGER", "INTEGER": "INTEGER", "DOUBLE": "FLOAT", "BOOLEAN": "BOOLEAN",
    "TIMESTAMP WITH TIME ZONE": "TIMESTAMP", "TIMESTAMP": "DATETIME", "DATE": "DATE", "TIME": "TIME", "BLOB": "BYTES", "JSON": "JSON",
    "GEOMETRY": "GEOGRAPHY",
}  # fmt: skip
_VALUES = {"INT64": int, "TIMESTAMP": datetime.fromisoformat, "DATETIME": datetime.fromisoformat, "DATE": date.fromisoformat, "STRING": str}


class Refused(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, reason: str, message: str = "refused") -> None:
        super().__init__(message)
        self.status, self.reason = status, reason

    def body(self) -> dict[str, Any]:
        """As Google writes errors."""
        errors = [{"reason": self.reason, "message": str(self), "domain": "global"}]
        return {"error": {"code": self.status, "message": str(self), "errors": errors}}


@dataclass
class Job:
    """A query that was run."""

    configuration: dict[str, Any]
    size: int
    fields: list[dict[str, str]] = field(default_factory=list)
    rows: list[tuple] = field(default_factory=list)
    refusal: Refused | None = None
    waits: int = 0
    name: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def reference(self) -> dict[str, str]:
        """Where it is."""
        return {"projectId": PROJECT, "jobId": self.name, "location": "EU"}

    def resource(self) -> dict[str, Any]:
        """The job itself."""
        status: dict[str, Any] = {"state": "RUNNING" if self.waits else "DONE"}
        if self.refusal:
            status["errorResult"] = self.refusal.body()["error"]["errors"][0]
        statistics = {"totalBytesProcessed": str(self.size), "query": {"statementType": "SELECT", "totalBytesProcessed": str(self.size)}}
        return {"jobReference": self.reference, "configuration": self.configuration, "status": status, "statistics": statistics}


@cache
def _first_key() -> rsa.RSAPrivateKey:
    """A key takes a second to make: all accounts begin with this one."""
    return rsa.generate_private_key(65537, 2048)


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a connection that was cut."""


class BigQueryAPI:
    """A project with datasets.

    ``rights`` is what the account may do; ``page`` the most rows of an answer. The ``next_refusals`` answer one request each, the
    ``kills`` end one query each that has begun; a query's result is not there yet for the first ``slow`` questions about it.
    """

    def __init__(self) -> None:
        self.database = duckdb.connect()
        self.database.execute("SET timezone = 'UTC'")
        self.rights = ["bigquery.jobs.create", "bigquery.tables.getData", "bigquery.tables.get"]
        self.page = 20_000
        self.bytes_of_a_row = 100
        self.next_refusals: list[Refused] = []
        self.kills: list[Refused] = []
        self.slow = 0
        self.asked: list[str] = []
        self.locations: set[str] = set()
        self.dry_runs = 0
        self._lock, self.tokens, self._jobs = threading.Lock(), set[str](), dict[str, Job]()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self.port = self._server.server_address[1]
        self._sign_with(_first_key())

    def forget_tokens(self) -> None:
        """No token that was given out is accepted any more."""
        self.tokens.clear()

    def new_key(self) -> None:
        """Give the account another key: with the old one nothing more is got."""
        self._sign_with(rsa.generate_private_key(65537, 2048))

    def _sign_with(self, key: rsa.RSAPrivateKey) -> None:
        text = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        self.private_key = key.private_bytes(*text).decode()
        self._public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        self.forget_tokens()

    def account(self, port: int | None = None, **changes: Any) -> str:
        """The JSON of the account's key."""
        uri = f"http://127.0.0.1:{port or self.port}/token"
        made = {"type": "service_account", "project_id": PROJECT, "private_key_id": "1", "private_key": self.private_key, "token_uri": uri,
                "client_email": "reader@my-project.iam.gserviceaccount.com"}  # fmt: skip
        return json.dumps(made | changes)

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self.database.close()

    def run(self, *statements: str) -> list[tuple]:
        """Execute statements of DuckDB as the owner; the last one's rows."""
        with self._lock:
            for statement in statements:
                self.database.execute(statement)
            return self.database.fetchall()

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes, authorization: str) -> Any:
        """The answer to one request."""
        if path == "/token":
            return self._token(parse_qs(body.decode()))
        if authorization.removeprefix("Bearer ") not in self.tokens:
            raise Refused(401, "authError", "Invalid credentials")
        if self.next_refusals:
            raise self.next_refusals.pop(0)
        parts = path.removeprefix("/bigquery/v2/").strip("/").split("/")
        if parts[2:] == ["jobs"] and method == "POST":
            return self._insert(json.loads(body))
        if parts[2] in {"jobs", "queries"} and len(parts) == 4:
            return self._get(parts[2], parts[3], query)
        if parts[2] == "datasets" and parts[4] == "tables":
            return self._list(parts[1], parts[3]) if len(parts) == 5 else self._table(parts[1], parts[3], unquote(parts[5]), body)
        raise Refused(404, "notFound", path)

    def _token(self, form: dict[str, list[str]]) -> dict[str, Any]:
        try:
            google.auth.jwt.decode(form["assertion"][0], certs=self._public.decode(), audience=None)
        except (ValueError, GoogleAuthError):
            raise Refused(400, "invalid_grant", "Invalid JWT Signature.") from None
        self.tokens.add(token := secrets.token_hex(16))
        return {"access_token": token, "expires_in": 3600, "token_type": "Bearer"}

    def _insert(self, asked: dict[str, Any]) -> dict[str, Any]:
        if "bigquery.jobs.create" not in self.rights:
            raise Refused(403, "accessDenied", "User does not have bigquery.jobs.create permission")
        configuration = asked["configuration"]
        self.locations.add(asked["jobReference"].get("location", ""))
        made = configuration["query"]
        tree = sqlglot.parse_one(made["query"], read="bigquery")
        self.asked.append(made["query"])
        tables = [(table.db, table.name) for table in tree.find_all(exp.Table)]
        if tables and "bigquery.tables.getData" not in self.rights:
            raise Refused(403, "accessDenied", "User does not have bigquery.tables.getData permission")
        for table in tree.find_all(exp.Table):
            table.set("catalog", None)
        values = {p["name"]: _VALUES[p["parameterType"]["type"]](p["parameterValue"]["value"]) for p in made.get("queryParameters", ())}
        size = sum(self.bytes_of_a_row * self.run(f'SELECT count(*) FROM "{schema}"."{name}"')[0][0] for schema, name in tables)
        job = Job(configuration, size, name=asked.get("jobReference", {}).get("jobId") or uuid.uuid4().hex)
        if size > int(made.get("maximumBytesBilled", size)):
            job.refusal = Refused(400, "bytesBilledLimitExceeded", "Query exceeded limit for bytes billed")
        elif configuration.get("dryRun"):
            self.dry_runs += 1
        else:
            statement = re.sub(r"@(\w+)", r"$\1", tree.sql("duckdb"))
            try:
                with self._lock:
                    found = self.database.execute(statement, values) if values else self.database.execute(statement)
                    job.fields = [{"name": each[0], "type": "STRING", "mode": "NULLABLE"} for each in found.description]
                    job.rows = found.fetchall()
            except duckdb.Error as error:
                job.refusal = Refused(400, "invalidQuery", str(error))
            if tables and self.kills:
                job.refusal = self.kills.pop(0)
            job.waits = self.slow
        self._jobs[job.name] = job
        return job.resource()

    def _get(self, what: str, name: str, query: dict[str, str]) -> dict[str, Any]:
        job = self._jobs[name]
        if what == "jobs":
            return job.resource()
        if job.refusal:
            raise job.refusal
        if job.waits:
            job.waits -= 1
            return {"jobReference": job.reference, "jobComplete": False}
        start, most = int(query.get("pageToken", 0)), min(int(query.get("maxResults", self.page)), self.page)
        answer = {"jobReference": job.reference, "jobComplete": True, "schema": {"fields": job.fields}, "totalRows": str(len(job.rows))}
        if most:
            answer["rows"] = [{"f": [{"v": value} for value in row]} for row in job.rows[start : start + most]]
        if start + most < len(job.rows) and most:
            answer["pageToken"] = str(start + most)
        return answer

    def _list(self, project: str, dataset: str) -> dict[str, Any]:
        names = self.run(f"SELECT table_name FROM duckdb_tables() WHERE schema_name = '{dataset}' ORDER BY 1")
        return {"tables": [{"tableReference": {"projectId": project, "datasetId": dataset, "tableId": name}} for (name,) in names]}

    def _table(self, project: str, dataset: str, name: str, body: bytes) -> dict[str, Any]:
        if name.endswith(":testIamPermissions"):
            return {"permissions": [right for right in json.loads(body)["permissions"] if right in self.rights]}
        if "bigquery.tables.get" not in self.rights:
            raise Refused(403, "accessDenied", "Permission bigquery.tables.get denied")
        with self._lock:
            known = self.database.execute(
                "SELECT 1 FROM duckdb_tables() WHERE schema_name = ? AND table_name = ? AND database_name = 'memory'", [dataset, name]
            ).fetchall()
        if project != PROJECT or not known:
            raise Refused(404, "notFound", f"Not found: Table {project}:{dataset}.{name}")
        with self._lock:
            columns = self.database.execute(
                "SELECT column_name, data_type FROM duckdb_columns() WHERE schema_name = ? AND table_name = ? ORDER BY column_index",
                [dataset, name],
            ).fetchall()
        [(rows,)] = self.run(f'SELECT count(*) FROM "{dataset}"."{name}"')
        reference = {"projectId": project, "datasetId": dataset, "tableId": name}
        return {
            "tableReference": reference,
            "type": "TABLE",
            "numRows": str(rows),
            "schema": {"fields": [_field(*column) for column in columns]},
        }


def _field(name: str, data_type: str) -> dict[str, Any]:
    mode = "REPEATED" if data_type.endswith("[]") else "NULLABLE"
    plain = data_type.removesuffix("[]")
    if plain.startswith("STRUCT"):
        return {"name": name, "type": "RECORD", "mode": mode, "fields": [{"name": "inner", "type": "STRING"}]}
    decimal = "NUMERIC" if plain == "DECIMAL(38,9)" else "BIGNUMERIC" if plain.startswith("DECIMAL") else None
    return {"name": name, "type": decimal or _TYPES[plain], "mode": mode}


def _handler(api: BigQueryAPI) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def _answer(self) -> None:
            place = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(place.query).items()}
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status = 200
            try:
                found = api.answer(self.command, place.path, query, body, self.headers.get("Authorization", ""))
            except Refused as refused:
                status = refused.status
                found = {"error": refused.reason, "error_description": str(refused)} if place.path == "/token" else refused.body()
            content = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = _answer  # noqa: N815 - as the base wants it

    return Handler
