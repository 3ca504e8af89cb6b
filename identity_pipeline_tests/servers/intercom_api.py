"""An Intercom-shaped API on this machine: search of contacts by day, and the activities of contacts.

Written from Intercom's published contract (https://developers.intercom.com/docs/references/rest-api).
:meth:`IntercomAPI.put`, :meth:`IntercomAPI.delete` and :meth:`IntercomAPI.merge` leave activities.
"""

import base64
import binascii
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from itertools import count
from typing import Any
from zoneinfo import ZoneInfo

from identity_pipeline.demo.vendor_api import Asked, Refusal, VendorAPI

Contact = dict[str, Any]

SCOPES = ("read_users_companies",)
VERSIONS = (*(f"2.{minor}" for minor in range(18)), "Preview")
_DATES = frozenset({"created_at", "updated_at", "signed_up_at", "last_seen_at", "last_contacted_at", "last_replied_at"})
_MOST = 150


def _refusal(status: int, code: str, message: str) -> Refusal:
    error = {"code": code, "message": message}
    return Refusal(status, {"type": "error.list", "request_id": "004e1f2h4v5c8o0rl8rg", "errors": [error]})


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())


@dataclass
class IntercomAPI(VendorAPI):
    """A workspace: its contacts by id, their activities from the oldest on, its time zone, who may read.

    ``unsearchable`` are ids that search does not find yet; ``store_down`` lets the activities look empty.
    They are in the version Preview alone, and in that only while there is a ``preview`` of them.
    """

    token: str = ""
    scopes: tuple[str, ...] = SCOPES
    zone: str = "America/Los_Angeles"
    contacts: dict[str, Contact] = field(default_factory=dict)
    activities: list[dict[str, Any]] = field(default_factory=list)
    unsearchable: set[str] = field(default_factory=set)
    store_down: bool = False
    preview: bool = True
    _number: count = field(default_factory=lambda: count(1))

    def put(self, contact_id: str, at: datetime, **fields: Any) -> None:
        """Create or change a contact at this time."""
        before = self.contacts.get(contact_id)
        if before is None:
            self._happened("contact.created", at, contact_id=contact_id)
        new = contact(**{"created_at": _seconds(at), **(before or {}), "id": contact_id, "updated_at": _seconds(at), **fields})
        self.contacts[contact_id] = new

    def delete(self, contact_id: str, at: datetime) -> None:
        """Delete a contact for good at this time."""
        gone = self.contacts.pop(contact_id, None)
        self._happened("contact.deleted", at, contact_id=contact_id, role=gone and gone["role"])

    def merge(self, loser: str, winner: str, at: datetime) -> None:
        """Merge one contact into another, which must be a user."""
        role = self.contacts.pop(loser)["role"] if loser in self.contacts else "lead"
        entry = {"type": "merge_history", "source_contact_id": loser, "source_contact_role": role, "merged_at": _seconds(at)}
        self.contacts[winner] |= {"updated_at": _seconds(at), "merge_history": [*self.contacts[winner].get("merge_history", ()), entry]}
        self._happened("contact.merged", at, contact_id=winner, merge_source_id=loser, merge_target_id=winner)

    def _happened(self, kind: str, at: datetime, **more: Any) -> None:
        moment = _seconds(at)
        one = {"type": "contact_activity", "id": f"{moment}000.{next(self._number):06x}", "event_type": kind, "created_at": moment, **more}
        self.activities.append(one)

    def authenticate(self, asked: Asked, *, dead: bool) -> None:
        """By bearer token; of another region it is not known here."""
        if dead or asked.headers.get("Authorization") != f"Bearer {self.token}":
            raise _refusal(401, "unauthorized", "Access Token Invalid")
        if asked.headers.get("Intercom-Version", "2.16") not in VERSIONS:
            raise _refusal(400, "intercom_version_invalid", "The requested version could not be found")

    def hasty(self) -> Refusal:
        """More than ten seconds allow; the headers say until when."""
        refusal = _refusal(429, "rate_limit_exceeded", "Exceeded rate limit of 167 in 10_seconds")
        reset = str(_seconds(self.clock()) + 10)
        refusal.headers = {"X-RateLimit-Limit": "167", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": reset}
        return refusal

    def answer(self, asked: Asked) -> Any:
        """Who asks, the contacts of a search, the activities."""
        if asked.method == "POST" and not isinstance(asked.body, dict):
            raise _refusal(400, "bad_request", "The body is no JSON object")
        version = asked.headers.get("Intercom-Version", "2.16")
        match asked.method, asked.steps:
            case "GET", ["me"]:
                return {"type": "admin", "id": "1", "app": {"type": "app", "id_code": "xyz789", "region": "US", "timezone": self.zone}}
            case "POST", ["contacts", "search"]:
                self._demand("read_users_companies")
                return self._search(asked.body, with_merges=asked.query.get("include_merge_history") == "true")
            case "GET", ["contacts", "activities"] if version == "Preview" and self.preview:
                self._demand("read_users_companies")
                return self._activities(asked.query)
            case "GET", ["contacts", contact_id]:
                return self._one(contact_id)
            case _:
                raise _refusal(404, "not_found", "Resource Not Found")

    def _demand(self, scope: str) -> None:
        if scope not in self.scopes:
            raise _refusal(403, "token_unauthorized", f"The token is not allowed to access the resource: {scope}")

    def _one(self, contact_id: str) -> Contact:
        if contact_id in self.contacts:
            return self.contacts[contact_id]
        for each in self.activities:
            if each.get("merge_source_id") == contact_id:
                raise Refusal(
                    410,
                    {"type": "error.list", "errors": [{"code": "contact_merged", "message": "This contact has been merged."}]},
                    {"Link": f'<{self.url}/contacts/{each["merge_target_id"]}>; rel="canonical"'},
                )
        raise _refusal(404, "not_found", "User Not Found")

    def _search(self, body: dict[str, Any], *, with_merges: bool) -> dict[str, Any]:
        passes = self._filter(body.get("query"))
        sort = body.get("sort") or {}
        order, by = sort.get("order", "descending"), sort.get("field", "created_at")
        if order not in {"ascending", "descending"}:
            raise _refusal(400, "invalid_sort_order", f"Invalid sort order '{order}'. Must be one of: ascending, descending")
        found = [each for each in self.contacts.values() if each["id"] not in self.unsearchable and passes(each)]
        ordered = sorted(found, key=lambda each: (each[by] or 0, each["id"]), reverse=order == "descending")
        paging = body.get("pagination") or {}
        per_page = paging.get("per_page", 50)
        if not isinstance(per_page, int) or per_page < 1:
            raise _refusal(400, "parameter_invalid", "per_page is invalid")
        per_page = self.least(min(per_page, _MOST))
        page, rest = 1, ordered
        if token := paging.get("starting_after"):
            value, contact_id, page = _unpacked(token)
            place = (value, contact_id)
            rest = [e for e in ordered if ((e[by] or 0, e["id"]) > place if order == "ascending" else (e[by] or 0, e["id"]) < place)]
        shown = rest[:per_page]
        pages: dict[str, Any] = {"type": "pages", "page": page, "per_page": per_page, "total_pages": -(-len(ordered) // per_page)}
        if len(rest) > per_page:
            last = shown[-1]
            following = base64.b64encode(json.dumps([last[by] or 0, last["id"], page + 1]).encode()).decode()
            pages["next"] = {"page": page + 1, "starting_after": following}
        hidden = set() if with_merges else {"merge_history"}
        data = [{name: value for name, value in each.items() if name not in hidden} for each in shown]
        return {"type": "list", "data": data, "total_count": len(ordered), "pages": pages}

    def _filter(self, query: Any) -> Callable[[Contact], bool]:
        if not isinstance(query, dict) or "operator" not in query:
            raise _refusal(400, "parameter_not_found", "query is missing")
        if query["operator"] in {"AND", "OR"}:
            inner = [self._filter(each) for each in query.get("value", [])]
            together = all if query["operator"] == "AND" else any
            return lambda each: together(passes(each) for passes in inner)
        name, operator, value = query.get("field"), query["operator"], query.get("value")
        if name not in _DATES or operator not in {"<", ">", "="} or not isinstance(value, int):
            raise _refusal(400, "parameter_invalid", "the operator or the value does not fit the field")
        zone = ZoneInfo(self.zone)
        day = datetime.fromtimestamp(value, zone).date()
        starts, ends = (_seconds(datetime.combine(each, time(), zone)) for each in (day, day + timedelta(days=1)))

        def passes(each: Contact) -> bool:
            at = each.get(name)
            if at is None:
                return False
            return at < starts if operator == "<" else at >= ends if operator == ">" else starts <= at < ends

        return passes

    def _activities(self, query: Any) -> dict[str, Any]:
        text = query.get("per_page", "50")
        if not text.isdigit() or int(text) < 1:
            raise _refusal(400, "invalid_per_page", "per_page is invalid")
        per_page = self.least(min(int(text), _MOST))
        found = self.activities
        if after := query.get("starting_after"):
            if not after.partition(".")[0].isdigit():
                raise _refusal(400, "parameter_invalid", "starting_after is invalid")
            found = [each for each in found if each["id"] > after]
        shown = [] if self.store_down else found[:per_page]
        pages: dict[str, Any] = {"type": "pages", "per_page": per_page}
        if shown and len(found) > per_page:
            pages["next"] = {"starting_after": shown[-1]["id"]}
        return {"type": "list", "data": shown, "pages": pages}


def _unpacked(token: Any) -> tuple[int, str, int]:
    try:
        value, contact_id, page = json.loads(base64.b64decode(token, validate=True))
    except (ValueError, TypeError, binascii.Error):
        raise _refusal(400, "parameter_invalid", "starting_after is invalid") from None
    return value, contact_id, page


def contact(**fields: Any) -> Contact:
    """A contact as the API shows it."""

    def listed(what: str) -> dict[str, Any]:
        return {"type": "list", "data": [], "url": f"/contacts/{fields['id']}/{what}", "total_count": 0, "has_more": False}

    return {
        "type": "contact",
        "workspace_id": "xyz789",
        "external_id": None,
        "role": "user",
        "email": "",
        "phone": None,
        "name": None,
        "avatar": None,
        "owner_id": None,
        "social_profiles": {"type": "list", "data": []},
        "has_hard_bounced": False,
        "marked_email_as_spam": False,
        "unsubscribed_from_emails": False,
        "signed_up_at": None,
        "last_seen_at": None,
        "language_override": None,
        "location": {"type": "location", "country": None, "region": None, "city": None, "country_code": None},
        "custom_attributes": {},
        "tags": listed("tags"),
        "notes": listed("notes"),
        "companies": listed("companies"),
        "opted_out_subscription_types": listed("subscriptions"),
        "opted_in_subscription_types": listed("subscriptions"),
        **fields,
    }
