"""An account of Snowflake on this machine: fakesnow, which runs SQL on DuckDB, behind sign-in that is really checked.

It runs in an environment of its own (``uv`` makes it once), since fakesnow needs another version of the driver than
we do. Started as a program: ``python snowflake_account.py PORT USERS``. ``USERS`` is a JSON file, read anew at each
sign-in: ``{user: {"password": …, "token": …, "oauth": …, "public_key": PEM, "denied": true}}``. One who is denied may
see tables, but not select from them.
"""

import base64
import gzip
import hashlib
import json
import secrets
import sys
from pathlib import Path
from typing import Any

PACKAGES = ("fakesnow[server]==0.12.1", "snowflake-connector-python>=4.8,<5", "pandas", "pyjwt", "cryptography")
_METHODS = {"PROGRAMMATIC_ACCESS_TOKEN": "token", "OAUTH": "oauth"}


def _serve(port: int, users: Path) -> None:  # noqa: C901 - its parts need what only its own environment can import
    import fakesnow.server as fake  # noqa: PLC0415 - only in its own environment
    import jwt  # noqa: PLC0415
    import uvicorn  # noqa: PLC0415
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
    from starlette.applications import Starlette  # noqa: PLC0415
    from starlette.responses import JSONResponse  # noqa: PLC0415
    from starlette.routing import Route  # noqa: PLC0415

    sessions: dict[str, str] = {}

    def refused(code: str, message: str, state: str | None = None) -> JSONResponse:
        return JSONResponse({"data": {"sqlState": state, "token": None}, "code": code, "message": message, "success": False})

    def of(name: str) -> dict[str, Any]:
        return json.loads(users.read_text()).get(name.upper(), {})

    async def body_of(request: Any) -> dict[str, Any]:
        raw = await request.body()
        return json.loads(gzip.decompress(raw) if request.headers.get("content-encoding") == "gzip" else raw)

    def proven(user: dict[str, Any], name: str, data: dict[str, Any]) -> str | None:
        """The code of the refusal, None if the user proved who they are."""
        method = (data.get("AUTHENTICATOR") or "").upper()
        if method == "SNOWFLAKE_JWT":
            key = serialization.load_pem_public_key(user.get("public_key", "").encode())
            der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
            fingerprint = "SHA256:" + base64.b64encode(hashlib.sha256(der).digest()).decode()
            claims = jwt.decode(data["TOKEN"], key, algorithms=["RS256"], options={"verify_aud": False})
            return None if claims["iss"].endswith(f".{name.upper()}.{fingerprint}") else "390144"
        given = data.get("TOKEN") if method in _METHODS else data.get("PASSWORD")
        expected = user.get(_METHODS.get(method, "password"))
        return None if expected and given == expected else {"OAUTH": "390303"}.get(method, "390100")

    async def login(request: Any) -> JSONResponse:
        data = (await body_of(request))["data"]
        name = data.get("LOGIN_NAME") or ""
        try:
            code = proven(of(name), name, data)
        except (jwt.InvalidTokenError, ValueError):
            code = "390144"
        if code:
            return refused(code, f"Incorrect username or password was specified for {name}.")
        answer = json.loads((await fake.login_request(request)).body)
        answer["data"] |= {
            "masterToken": secrets.token_urlsafe(32),
            "validityInSeconds": 3600,
            "masterValidityInSeconds": 14400,
            "sessionId": 1,
        }
        sessions[answer["data"]["token"]] = name
        return JSONResponse(answer)

    async def query(request: Any) -> JSONResponse:
        name = sessions.get(fake.to_token(request), "")
        text = (await body_of(request))["sqlText"].lower()
        if of(name).get("denied") and "information_schema" not in text and " from " in text:
            return refused("003001", "SQL access control error: Insufficient privileges to operate on table", "42501")
        return await fake.query_request(request)

    async def rows(request: Any) -> JSONResponse:
        """What no account has: replace the rows of a table at once, by a file of Parquet."""
        table, path = request.query_params["table"], request.query_params["path"]
        connection = fake.shared_fs.duck_conn.cursor()
        connection.execute("BEGIN")
        connection.execute(f"DELETE FROM {table}")
        connection.execute(f"INSERT INTO {table} SELECT * FROM read_parquet('{path}')")
        connection.execute("COMMIT")
        return JSONResponse({})

    own = [Route("/session/v1/login-request", login, methods=["POST"]), Route("/queries/v1/query-request", query, methods=["POST"]),
           Route("/rows", rows, methods=["POST"])]  # fmt: skip
    uvicorn.run(Starlette(routes=own + list(fake.routes)), host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    _serve(int(sys.argv[1]), Path(sys.argv[2]))
