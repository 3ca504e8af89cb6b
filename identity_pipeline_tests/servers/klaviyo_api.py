"""A Klaviyo-shaped API: the profiles of one account.

Written from Klaviyo's published contract (github.com/klaviyo/openapi, developers.klaviyo.com). Times are
compared exclusively; a filter that cannot be read gives all profiles, as was seen of a date whose
offset was not percent-encoded; a revision that has ended is served by another one, unless the caller
wants none of that.
"""

import base64
import binascii
import hashlib
import json
import re
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Any

from identity_pipeline.demo.vendor_api import Asked, Refusal, VendorAPI

Profile = dict[str, Any]
SORTS = ("created", "email", "id", "updated")
ATTRIBUTES = (
    "created", "email", "external_id", "first_name", "image", "last_event_date", "last_name", "locale", "location", "organization",
    "phone_number", "properties", "subscriptions", "title", "updated",
)  # fmt: skip
LOCATION = ("address1", "address2", "city", "country", "latitude", "longitude", "region", "zip", "timezone", "ip")
_FILTER = re.compile(r"(greater-than|less-than)\((created|updated),([^),]+)\)(?:,(?=\w))?")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


@dataclass
class KlaviyoAPI(VendorAPI):
    """An account and the private key that may read it."""

    key: str = ""
    scopes: tuple[str, ...] = ("profiles:read",)
    profiles: list[Profile] = field(default_factory=list)
    cursors_expire: bool = False

    def authenticate(self, asked: Asked, *, dead: bool) -> None:
        """By private key."""
        given = asked.headers.get("Authorization", "")
        if not given.startswith("Klaviyo-API-Key "):
            raise _refusal(401, "not_authenticated", "Missing or invalid authorization scheme. Please use Klaviyo-API-Key.")
        if dead or given != f"Klaviyo-API-Key {self.key}":
            raise _refusal(401, "authentication_failed", "Incorrect authentication credentials.")

    def hasty(self) -> Refusal:
        """More than the burst allows."""
        return _refusal(429, "throttled", "Request was throttled. Expected available in 1 second.", {"Retry-After": "1"})

    def answer(self, asked: Asked) -> Any:
        """A page of profiles."""
        if (asked.method, asked.steps) != ("GET", ["api", "profiles"]):
            raise _refusal(404, "not_found", "The path was not found")
        self._revision(asked)
        if "profiles:read" not in self.scopes:
            raise _refusal(403, "permission_denied", "You do not have permission to perform this action. Required scopes: profiles:read")
        return self._page(asked)

    def _revision(self, asked: Asked) -> None:
        given = asked.headers.get("revision", "")
        if not re.fullmatch(r"\d{4}-\d\d-\d\d(\.\w+)?", given):
            raise _refusal(400, "invalid", "Missing or invalid revision header.")
        released = date.fromisoformat(given[:10])
        if (self.clock().date() - released).days > 730 and asked.headers.get("X-Klaviyo-Revision-Fall-Forward-Opt-Out"):
            raise _refusal(410, "gone", "This revision is retired.")

    def _page(self, asked: Asked) -> dict[str, Any]:
        query = asked.query
        size = query.get("page[size]", "20")
        if not size.isdigit() or not 1 <= int(size) <= 100:
            raise _refusal(400, "invalid", "Page size must be an integer between 1 and 100.")
        sort = query.get("sort", "id")
        by = sort.lstrip("-")
        if by not in SORTS:
            raise _refusal(400, "invalid", "Invalid sort")
        tests = self._tests(query.get("filter", ""))
        found = sorted((p for p in self.profiles if all(test(p) for test in tests)), key=lambda p: _key(p, by), reverse=sort != by)
        rule = hashlib.sha256(f"{sort}{query.get('filter')}".encode()).hexdigest()[:8]
        start = self._place(query["page[cursor]"], rule, found, by) if "page[cursor]" in query else 0
        end = start + self.least(int(size))
        page = found[start:end]
        after = None
        if end < len(found):
            held = json.dumps([rule, *map(str, _key(page[-1], by))])
            cursor = base64.urlsafe_b64encode(held.encode()).decode().rstrip("=")
            kept = "".join(f"&{_quoted(name)}={_quoted(value)}" for name, value in query.items() if name != "page[cursor]")
            after = f"http://{asked.headers['Host']}/api/profiles/?page%5Bcursor%5D={cursor}{kept}"
        shown = query.get("fields[profile]", "")
        more = query.get("additional-fields[profile]", "").split(",")
        return {
            "data": [self._shown(each, shown.split(",") if shown else None, more) for each in page],
            "links": {"self": f"http://{asked.headers['Host']}{asked.address}", "first": None, "last": None, "prev": None, "next": after},
        }

    def _place(self, cursor: str, rule: str, found: list[Profile], by: str) -> int:
        try:
            held = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        except (ValueError, binascii.Error):
            held = [""]
        if held[0] != rule or self.cursors_expire:
            raise _refusal(400, "invalid", "Invalid cursor provided.")
        return sum(list(map(str, _key(each, by))) <= held[1:] for each in found)

    def _tests(self, given: str) -> list[Any]:
        tests = []
        for operator, name, value in _FILTER.findall(given):
            if not _TIME.fullmatch(value):
                continue  # it is ignored, silently
            bound = datetime.fromisoformat(value)
            if bound > self.clock():
                raise _refusal(400, "invalid", "Datetime filters cannot be in the future.")
            tests.append(
                lambda p, name=name, bound=bound, more=operator == "greater-than": (
                    (_time(p, name) > bound) == more and _time(p, name) != bound
                )
            )
        return tests

    def _shown(self, held: Profile, names: list[str] | None, more: list[str]) -> Profile:
        wanted = [*(names or [name for name in ATTRIBUTES if name != "subscriptions"]), *(name for name in more if name)]
        attributes = {name: held["attributes"].get(name) for name in ATTRIBUTES if name in wanted}
        related = f"{self.url}/api/profiles/{held['id']}"
        return {
            "type": "profile",
            "id": held["id"],
            "attributes": attributes,
            "relationships": {"lists": {"links": {"self": f"{related}/relationships/lists/", "related": f"{related}/lists/"}}},
            "links": {"self": f"{related}/"},
        }


def _quoted(text: str) -> str:
    return "".join(f"%{byte:02X}" if not chr(byte).isalnum() else chr(byte) for byte in text.encode())


def _time(held: Profile, name: str) -> datetime:
    return _instant(held["attributes"][name])


@lru_cache(100_000)
def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def _key(held: Profile, by: str) -> tuple[str, str]:
    value = held["id"] if by == "id" else _time(held, by).isoformat() if by in {"created", "updated"} else held["attributes"].get(by) or ""
    return value, held["id"]


def _refusal(status: int, code: str, detail: str, headers: dict[str, str] | None = None) -> Refusal:
    error = {
        "id": "00000000-0000-4000-8000-000000000000",
        "status": status,
        "code": code,
        "title": "The request cannot be served.",
        "detail": detail,
        "source": {"pointer": "/data/"},
    }
    return Refusal(status, {"errors": [error]}, headers)


def subscriptions(consent: str = "SUBSCRIBED", whatsapp: str | None = None) -> dict[str, Any]:
    """What a profile has agreed to, as the API shows it."""
    marketing = {
        "can_receive_email_marketing": consent == "SUBSCRIBED",
        "consent": consent,
        "consent_timestamp": "2026-01-02T03:04:05+00:00",
        "last_updated": "2026-01-02T03:04:05+00:00",
        "method": "PREFERENCE_PAGE",
        "method_detail": "",
        "custom_method_detail": None,
        "double_optin": False,
        "suppression": [],
        "list_suppressions": [],
    }
    channel = {
        "consent": "SUBSCRIBED",
        "consent_timestamp": "2026-01-02T03:04:05+00:00",
        "can_receive": True,
        "last_updated": "2026-01-02T03:04:05+00:00",
        "created_timestamp": "2026-01-02T03:04:05+00:00",
        "metadata": {},
        "valid_until": None,
        "phone_number": whatsapp,
    }
    return {"email": {"marketing": marketing}, "sms": None, "mobile_push": None, "whatsapp": {"marketing": channel} if whatsapp else None}


def profile(profile_id: str, updated: str, **attributes: Any) -> Profile:
    """A profile as the account holds it."""
    return {
        "id": profile_id,
        "attributes": {
            "email": None,
            "phone_number": None,
            "external_id": None,
            "first_name": None,
            "last_name": None,
            "organization": None,
            "locale": None,
            "title": None,
            "image": None,
            "created": updated,
            "updated": updated,
            "last_event_date": None,
            "location": dict.fromkeys(
                ("address1", "address2", "city", "country", "latitude", "longitude", "region", "zip", "timezone", "ip")
            ),
            "properties": {},
            "subscriptions": subscriptions("NEVER_SUBSCRIBED"),
            **attributes,
        },
    }
