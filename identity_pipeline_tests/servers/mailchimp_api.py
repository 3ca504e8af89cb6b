"""A Mailchimp-shaped API: audiences, their merge fields and members.

Written from Mailchimp's published contract (mailchimp.com/developer/marketing). A page is an offset into
the members that match at that moment; the bound of a time is exclusive; archived members are left out
unless they are asked for; too many connections are refused without saying for how long.
"""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from identity_pipeline.demo.vendor_api import Asked, Refusal, VendorAPI

Member = dict[str, Any]
STATUSES = ("subscribed", "unsubscribed", "cleaned", "pending", "transactional", "archived")
SORTS = ("timestamp_opt", "timestamp_signup", "last_changed")
STANDARD = (
    ("FNAME", "First Name", "text"),
    ("LNAME", "Last Name", "text"),
    ("ADDRESS", "Address", "address"),
    ("PHONE", "Phone Number", "phone"),
)


@dataclass
class MailchimpAPI(VendorAPI):
    """An account: audiences by id with their name, merge fields and members of each."""

    key: str = ""
    disabled: bool = False
    audiences: dict[str, str] = field(default_factory=dict)
    merge_fields: dict[str, list[tuple[str, str, str]]] = field(default_factory=dict)
    members: dict[str, list[Member]] = field(default_factory=dict)

    def audience(self, audience_id: str, name: str = "Newsletter") -> list[Member]:
        """A new audience with the merge fields that each one begins with; its members."""
        self.audiences[audience_id] = name
        self.merge_fields[audience_id] = list(STANDARD)
        return self.members.setdefault(audience_id, [])

    def authenticate(self, asked: Asked, *, dead: bool) -> None:
        """By key, as a bearer token or as the password of anybody."""
        kind, _, given = asked.headers.get("Authorization", "").partition(" ")
        if kind == "Basic":
            given = base64.b64decode(given).decode().partition(":")[2]
        if not given:
            raise _refusal(401, "API Key Missing", "Your request did not include an API key.")
        if dead or given != self.key:
            raise _refusal(401, "API Key Invalid", "Your API key may be invalid, or you've attempted to access the wrong datacenter.")
        if self.disabled:
            raise _refusal(403, "User Disabled", "This account has been disabled.")

    def hasty(self) -> Refusal:
        """More connections than ten."""
        return _refusal(429, "Too Many Requests", "You have exceeded the limit of 10 simultaneous connections.")

    def answer(self, asked: Asked) -> Any:
        """The audiences, the merge fields of one, or its members."""
        match asked.method, asked.steps:
            case "GET", ["3.0", "lists"]:
                found = [{"id": each, "web_id": n, "name": name} for n, (each, name) in enumerate(self.audiences.items(), 1)]
                return self._page(asked.query, "lists", found)
            case "GET", ["3.0", "lists", audience, "merge-fields"] if audience in self.audiences:
                found = [
                    {"merge_id": n, "tag": tag, "name": name, "type": kind, "required": False, "default_value": "", "public": True,
                     "display_order": n + 1, "options": {}, "help_text": "", "list_id": audience}
                    for n, (tag, name, kind) in enumerate(self.merge_fields[audience], 1)
                ]  # fmt: skip
                return self._page(asked.query, "merge_fields", found) | {"list_id": audience}
            case "GET", ["3.0", "lists", audience, "members"] if audience in self.audiences:
                return self._members(asked.query, audience)
            case _:
                raise _refusal(404, "Resource Not Found", "The requested resource could not be found.")

    def _members(self, query: Mapping[str, str], audience: str) -> dict[str, Any]:
        status, sort = query.get("status", ""), query.get("sort_field", "")
        if (status and status not in STATUSES) or (sort and sort not in SORTS) or query.get("sort_dir", "ASC") not in {"ASC", "DESC"}:
            raise _invalid("status")
        found = [m for m in self.members[audience] if (m["status"] == status if status else m["status"] != "archived")]
        for name in ("last_changed", "timestamp_opt"):
            for bound, side in ((query.get(f"since_{name}"), 1), (query.get(f"before_{name}"), -1)):
                if bound:
                    limit = _time(bound)
                    if limit is None:
                        raise _invalid(name)
                    found = [m for m in found if (at := _time(m[name])) is not None and (at - limit).total_seconds() * side > 0]
        if sort:
            beginning = datetime(1970, 1, 1, tzinfo=UTC)
            found.sort(key=lambda m: _time(m[sort]) or beginning, reverse=query.get("sort_dir") == "DESC")
        page = self._page(query, "members", found) | {"list_id": audience}
        left_out = {each.partition(".")[2] for each in query.get("exclude_fields", "").split(",") if each.startswith("members.")}
        page["members"] = [{name: value for name, value in m.items() if name not in left_out} for m in page["members"]]
        return page

    def _page(self, query: Mapping[str, str], name: str, found: list[dict[str, Any]]) -> dict[str, Any]:
        count, offset = query.get("count", "10"), query.get("offset", "0")
        if not count.isdigit() or not offset.isdigit() or not 1 <= int(count) <= 1000:
            raise _invalid("count")
        size = self.least(int(count)) if name == "members" else int(count)
        return {name: found[int(offset) : int(offset) + size], "total_items": len(found)}


@lru_cache(100_000)
def _time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text).astimezone(UTC).replace(microsecond=0)
    except ValueError:
        return None


def _invalid(name: str) -> Refusal:
    refusal = _refusal(
        400, "Invalid Resource", "The resource submitted could not be validated. For field-specific details, see the 'errors' array."
    )
    refusal.body["errors"] = [{"field": name, "message": "This value is not valid."}]
    return refusal


def _refusal(status: int, title: str, detail: str) -> Refusal:
    body = {
        "type": "https://mailchimp.com/developer/marketing/docs/errors/",
        "title": title,
        "status": status,
        "detail": detail,
        "instance": "00000000-0000-4000-8000-000000000000",
    }
    return Refusal(status, body, {"Content-Type": "application/problem+json; charset=utf-8"})


def member(contact_id: str, changed: str, email: str = "", **fields: Any) -> Member:
    """A member of an audience, as the API shows one."""
    return {
        "id": hashlib.md5((email.lower() or contact_id).encode(), usedforsecurity=False).hexdigest(),
        "email_address": email,
        "unique_email_id": f"u{contact_id}",
        "contact_id": contact_id,
        "full_name": "",
        "web_id": 1,
        "email_type": "html",
        "status": "subscribed",
        "consents_to_one_to_one_messaging": True,
        "sms_phone_number": "",
        "sms_subscription_status": "nonsubscribed",
        "sms_subscription_last_updated": "",
        "merge_fields": {"FNAME": "", "LNAME": "", "ADDRESS": "", "PHONE": ""},
        "interests": {},
        "stats": {"avg_open_rate": 0, "avg_click_rate": 0},
        "ip_signup": "",
        "timestamp_signup": "",
        "ip_opt": "198.2.191.34",
        "timestamp_opt": changed,
        "member_rating": 2,
        "last_changed": changed,
        "language": "",
        "vip": False,
        "email_client": "",
        "location": {"latitude": 0, "longitude": 0, "gmtoff": 0, "dstoff": 0, "country_code": "", "timezone": "", "region": ""},
        "source": "API - Generic",
        "tags_count": 0,
        "tags": [],
        **fields,
    }
