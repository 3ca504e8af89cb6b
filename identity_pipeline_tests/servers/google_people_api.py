"""A People-shaped API on this machine: the contacts of one Google account, page tokens, sync tokens that end.

Written from Google's published contract (https://developers.google.com/people/api/rest/v1/people.connections/list).
:meth:`GooglePeopleAPI.put` and :meth:`GooglePeopleAPI.delete` are what a sync token tells of.
"""

import base64
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from identity_pipeline.demo.vendor_api import Asked, Refusal, VendorAPI

Person = dict[str, Any]
SCOPE = "https://www.googleapis.com/auth/contacts.readonly"
LISTS = {"connections": ("personFields", "CONTACT"), "otherContacts": ("readMask", "OTHER_CONTACT")}
KNOWN = frozenset(
    {
        "addresses", "ageRanges", "biographies", "birthdays", "calendarUrls", "clientData", "coverPhotos", "emailAddresses", "events",
        "externalIds", "genders", "imClients", "interests", "locales", "locations", "memberships", "metadata", "miscKeywords", "names",
        "nicknames", "occupations", "organizations", "phoneNumbers", "photos", "relations", "sipAddresses", "skills", "urls", "userDefined",
    }
)  # fmt: skip
_LIVES = timedelta(days=7)


def _refusal(code: int, status: str, reason: str, message: str) -> Refusal:
    detail = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "people.googleapis.com"}
    return Refusal(code, {"error": {"code": code, "message": message, "status": status, "details": [detail]}})


def person(contact_id: str, at: datetime | None, kind: str = "CONTACT", **fields: Any) -> Person:
    """A person as the account saved it."""
    prefix = "people/c" if kind == "CONTACT" else "otherContacts/c"
    stamp = {"updateTime": at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")} if at else {}
    source = {"type": kind, "id": contact_id, "etag": "#x", **stamp}
    made = {name: [{"metadata": {"primary": True, "source": {"type": kind, "id": contact_id}}, **value}] for name, value in fields.items()}
    return {
        "resourceName": prefix + contact_id, "etag": f"%{contact_id}", "metadata": {"sources": [source], "objectType": "PERSON"}, **made,
    }  # fmt: skip


@dataclass
class GooglePeopleAPI(VendorAPI):
    """An account: its people by id in the order of their last change, and what was deleted. ``expired`` words the end of a sync token."""

    token: str = ""
    scopes: tuple[str, ...] = (SCOPE,)
    enabled: bool = True
    expired: tuple[int, str] = (400, "INVALID_ARGUMENT")
    people: dict[str, dict[str, Person]] = field(default_factory=lambda: {name: {} for name in LISTS})
    changed: dict[str, dict[str, int]] = field(default_factory=lambda: {name: {} for name in LISTS})
    number: int = 0
    _pages: dict[str, tuple[list[Person], int, int, str]] = field(default_factory=dict)

    def put(self, contact_id: str, at: datetime | None, of: str = "connections", **fields: Any) -> None:
        """Save a person at this time."""
        self._note(of, contact_id, person(contact_id, at, LISTS[of][1], **fields))

    def delete(self, contact_id: str, of: str = "connections") -> None:
        """Delete a person."""
        gone = person(contact_id, None, LISTS[of][1])
        gone["metadata"]["deleted"] = True
        self._note(of, contact_id, gone)

    def _note(self, of: str, contact_id: str, told: Person) -> None:
        self.number += 1
        self.people[of].pop(contact_id, None)
        self.people[of][contact_id] = told
        self.changed[of][contact_id] = self.number

    def authenticate(self, asked: Asked, *, dead: bool) -> None:
        """By bearer token."""
        if dead or asked.headers.get("Authorization") != f"Bearer {self.token}":
            raise _refusal(401, "UNAUTHENTICATED", "ACCESS_TOKEN_EXPIRED", "Request had invalid authentication credentials.")

    def hasty(self) -> Refusal:
        """More than a minute allows; nothing says how long to wait."""
        message = "Quota exceeded for quota metric 'Critical read requests (Contact and Profile Reads)' and limit 'per minute per user'"
        return _refusal(429, "RESOURCE_EXHAUSTED", "RATE_LIMIT_EXCEEDED", message)

    def answer(self, asked: Asked) -> Any:
        """A page of one of the lists."""
        match asked.method, asked.steps:
            case "GET", ["v1", "people", "me", "connections"]:
                name = "connections"
            case "GET", ["v1", "otherContacts"]:
                name = "otherContacts"
            case _:
                raise Refusal(404, b"<!DOCTYPE html><title>Error 404 (Not Found)!!1</title>")
        if not self.enabled:
            raise _refusal(
                403, "PERMISSION_DENIED", "SERVICE_DISABLED", "People API has not been used in project 1 before or it is disabled."
            )
        if not any(
            scope.startswith(SCOPE.replace("contacts", "contacts.other") if name == "otherContacts" else SCOPE) for scope in self.scopes
        ):
            message = "Request had insufficient authentication scopes."
            raise _refusal(403, "PERMISSION_DENIED", "ACCESS_TOKEN_SCOPE_INSUFFICIENT", message)
        mask = asked.query.get(LISTS[name][0], "")
        if not mask or not set(mask.split(",")) <= KNOWN:
            raise Refusal(400, {"error": {"code": 400, "message": f"Invalid {LISTS[name][0]} mask", "status": "INVALID_ARGUMENT"}})
        return self._page(name, asked.query, mask.split(","))

    def _page(self, name: str, query: Any, mask: list[str]) -> dict[str, Any]:
        size = int(query.get("pageSize", 100))
        rules = json.dumps([[key, query[key]] for key in sorted(query) if key not in {"pageToken", "syncToken"}])
        if not 1 <= size <= 1000:
            raise Refusal(400, {"error": {"code": 400, "message": "pageSize must be within 1..1000", "status": "INVALID_ARGUMENT"}})
        if token := query.get("pageToken"):
            found, start, seen, held = self._pages.get(token, ([], 0, 0, ""))
            if held != rules:
                raise Refusal(400, {"error": {"code": 400, "message": "Request parameters do not match.", "status": "INVALID_ARGUMENT"}})
        else:
            since, start, seen = self._since(query.get("syncToken"), rules), 0, self.number
            found = [
                each
                for contact_id, each in self.people[name].items()
                if self.changed[name][contact_id] > since and (query.get("syncToken") or not each["metadata"].get("deleted"))
            ]
        end = start + self.least(size)
        page = [{k: v for k, v in each.items() if k in {"resourceName", "etag", *mask}} for each in found[start:end]]
        answer: dict[str, Any] = {name: page} if page else {}
        if end < len(found):
            answer["nextPageToken"] = f"page-{len(self._pages)}"
            self._pages[answer["nextPageToken"]] = (found, end, seen, rules)
        elif query.get("requestSyncToken") == "true":
            made = json.dumps({"seen": seen, "rules": rules, "made": self.clock().isoformat()})
            answer["nextSyncToken"] = base64.urlsafe_b64encode(made.encode()).decode()
        return answer | ({"totalItems": len(found), "totalPeople": len(found)} if name == "connections" else {"totalSize": len(found)})

    def _since(self, token: str | None, rules: str) -> int:
        """The change after which a sync token tells, -1 without one."""
        if token is None:
            return -1
        held = json.loads(base64.urlsafe_b64decode(token))
        if held["rules"] != rules:
            raise Refusal(400, {"error": {"code": 400, "message": "Request parameters do not match.", "status": "INVALID_ARGUMENT"}})
        if self.clock() - datetime.fromisoformat(held["made"]) > _LIVES:
            code, status = self.expired
            message = "Sync token is expired. Clear local cache and retry call without the sync token."
            raise _refusal(code, status, "EXPIRED_SYNC_TOKEN", message)
        return held["seen"]
