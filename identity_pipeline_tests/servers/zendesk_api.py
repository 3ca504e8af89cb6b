"""A Zendesk-shaped API: the incremental export of users by cursor, many users at once, token endpoint.

Written from Zendesk's published contract (developer.zendesk.com: incremental exports, users, OAuth).
The export lists users in the order in which they changed; what changed within the last minute is
withheld. A cursor is a place in that order and never expires.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from identity_pipeline.demo.vendor_api import Asked, Refusal, VendorAPI

User = dict[str, Any]
WITHHELD = timedelta(minutes=1)
BEGINNING = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


@dataclass
class ZendeskAPI(VendorAPI):
    """An account. ``token`` is an OAuth access token, ``api_token`` goes with an agent's e-mail address.

    ``role`` and ``scopes`` are those of whoever asks. ``users`` are kept with the moment of their last change.
    """

    token: str = ""
    api_token: str = ""
    client_secret: str = ""
    role: str = "admin"
    scopes: tuple[str, ...] = ("read",)
    users: dict[int, tuple[datetime, User]] = field(default_factory=dict)
    identities: list[dict[str, Any]] = field(default_factory=list)
    organizations: dict[int, str] = field(default_factory=dict)
    tokens_given: int = 0

    def put(self, user: User, changed: datetime | None = None) -> None:
        """Let the account hold ``user``; one that differs from what was there changed ``changed``, by default five minutes ago."""
        known = self.users.get(user["id"])
        if known is None or known[1] != user or changed is not None:
            self.users[user["id"]] = (changed or self.clock() - timedelta(minutes=5), user)

    def authenticate(self, asked: Asked, *, dead: bool) -> None:
        """By bearer token, or by e-mail address and API token."""
        if asked.path == "/oauth/tokens":
            return
        given = asked.headers.get("Authorization", "")
        basic = base64.b64encode(f"agent@example.com/token:{self.api_token}".encode()).decode()
        if not dead and (given == f"Bearer {self.token}" or (self.api_token and given == f"Basic {basic}")):
            return
        if given.startswith("Basic"):
            raise Refusal(401, {"error": "Couldn't authenticate you"})
        raise Refusal(
            401,
            {
                "error": "invalid_token",
                "error_description": "The access token provided is expired, revoked, malformed or invalid for other reasons.",
            },
        )

    def hasty(self) -> Refusal:
        """More than ten requests a minute."""
        body = {"error": "APIRateLimitExceeded", "description": "Number of allowed API requests per minute exceeded"}
        return Refusal(429, body, {"Retry-After": "1"})

    def answer(self, asked: Asked) -> Any:
        """The export, many users, or a token."""
        *steps, last = asked.steps
        match asked.method, [*steps, last.removesuffix(".json")]:
            case "POST", ["oauth", "tokens"]:
                return self._grant(asked.body or {})
            case "GET", ["api", "v2", "incremental", "users", "cursor"]:
                self._demand()
                return self._export(asked)
            case "GET", ["api", "v2", "users", "show_many"]:
                self._demand()
                return self._many(asked.query)
            case _:
                raise Refusal(404, b"<html><body>No help desk at this address</body></html>")

    def _demand(self) -> None:
        if not {"read", "users:read"} & set(self.scopes):
            raise Refusal(403, {"error": "Forbidden", "description": "Missing the following required scopes: read, users:read"})
        if self.role != "admin":
            raise Refusal(403, {"error": {"title": "Forbidden", "message": "You do not have access to this page."}})

    def _grant(self, body: Mapping[str, Any]) -> dict[str, Any]:
        if body.get("grant_type") != "client_credentials":
            raise Refusal(400, {"error": "unsupported_grant_type", "error_description": "The grant type is not supported."})
        if body.get("client_secret") != self.client_secret or not self.client_secret:
            raise Refusal(401, {"error": "invalid_client", "error_description": "Client authentication failed."})
        self.tokens_given += 1
        self.token = f"granted-{self.tokens_given}-51fe8a"
        return {"access_token": self.token, "token_type": "bearer", "scope": body.get("scope", ""), "expires_in": 172_800}

    def _export(self, asked: Asked) -> dict[str, Any]:
        query = asked.query
        try:
            limit = self.least(min(1000, int(query.get("per_page", 1000))))
            place = _place(query["cursor"]) if "cursor" in query else (BEGINNING + timedelta(seconds=int(query["start_time"])), -1)
        except KeyError:
            raise Refusal(400, {"error": "StartTimeMissing", "description": "Parameter start_time missing or invalid"}) from None
        except ValueError:
            raise Refusal(400, {"error": "InvalidValue", "description": "Invalid attribute"}) from None
        if "cursor" not in query and place[0] > self.clock() - WITHHELD:
            raise Refusal(
                422, {"error": "StartTimeTooRecent", "description": "Too recent start_time. Use a start_time older than 60 seconds"}
            )
        settled = self.clock() - WITHHELD
        found = sorted(
            ((changed, user["id"], user) for changed, user in self.users.values() if changed <= settled and (changed, user["id"]) > place),
            key=lambda each: each[:2],
        )
        page = found[:limit]
        after = _cursor(*page[-1][:2]) if page else query.get("cursor") or _cursor(*place)
        host = asked.headers.get("Host", "")
        answer = {
            "users": [user for _, _, user in page],
            "after_cursor": after,
            "after_url": f"https://{host}{asked.path}?cursor={after}",
            "before_cursor": None,
            "before_url": None,
            "end_of_stream": len(found) <= limit,
        }
        if query.get("include") == "organizations":
            wanted = {user["organization_id"] for _, _, user in page}
            answer["organizations"] = [{"id": each, "name": name} for each, name in self.organizations.items() if each in wanted]
        return answer

    def _many(self, query: Mapping[str, str]) -> dict[str, Any]:
        ids = [int(each) for each in query.get("ids", "").split(",") if each]
        if len(ids) > 100:
            raise Refusal(400, {"error": "TooManyValues", "description": "Number of values exceeds the limit of 100"})
        found = [self.users[each][1] for each in ids if each in self.users]
        answer: dict[str, Any] = {"users": found, "count": len(found), "next_page": None, "previous_page": None}
        if query.get("include") == "identities":
            answer["identities"] = [each for each in self.identities if each["user_id"] in {user["id"] for user in found}]
        return answer


def _cursor(changed: datetime, user_id: int) -> str:
    return base64.b64encode(f"{(changed - BEGINNING) // timedelta(microseconds=1)}||{user_id}|".encode()).decode()


def _place(cursor: str) -> tuple[datetime, int]:
    micros, _, rest = base64.b64decode(cursor).decode().partition("||")
    return BEGINNING + timedelta(microseconds=int(micros)), int(rest.strip("|"))


def user(user_id: int, updated: str, **fields: Any) -> User:
    """A user as the API shows one."""
    return {
        "id": user_id,
        "url": f"https://acme.zendesk.com/api/v2/users/{user_id}.json",
        "name": "",
        "email": None,
        "phone": None,
        "shared_phone_number": None,
        "alias": None,
        "role": "end-user",
        "role_type": None,
        "custom_role_id": None,
        "active": True,
        "suspended": False,
        "verified": True,
        "moderator": False,
        "shared": False,
        "shared_agent": False,
        "restricted_agent": True,
        "only_private_comments": False,
        "ticket_restriction": "requested",
        "external_id": None,
        "organization_id": None,
        "locale": "en-US",
        "locale_id": 1,
        "time_zone": "Copenhagen",
        "details": None,
        "notes": None,
        "signature": None,
        "tags": [],
        "photo": None,
        "user_fields": {},
        "last_login_at": None,
        "created_at": updated,
        "updated_at": updated,
        **fields,
    }


def identity(identity_id: int, user_id: int, kind: str, value: str, *, primary: bool = False, verified: bool = True) -> dict[str, Any]:
    """A further way to reach a user, as the API shows it."""
    return {"id": identity_id, "user_id": user_id, "type": kind, "value": value, "primary": primary, "verified": verified}
