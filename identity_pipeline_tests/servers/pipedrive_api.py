"""A Pipedrive-shaped API on this machine: persons, their fields and organizations (version 2), who asks and recent changes (version 1).

Written from Pipedrive's published contract (https://developers.pipedrive.com/docs/api/v1). Version 2 is
strict about what it is given; recent changes reach back a month, silently.
"""

import base64
import binascii
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from identity_pipeline.demo.vendor_api import Asked, Refusal, VendorAPI

Person = dict[str, Any]

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_V2 = {
    "persons": {
        "filter_id", "ids", "owner_id", "org_id", "updated_since", "updated_until", "sort_by", "sort_direction", "include_fields",
        "custom_fields", "include_option_labels", "include_labels", "limit", "cursor",
    },
    "organizations": {"filter_id", "ids", "owner_id", "updated_since", "updated_until", "sort_by", "sort_direction", "limit", "cursor"},
    "personFields": {"include_fields", "limit", "cursor"},
}  # fmt: skip
_COSTS = {"persons": 10, "organizations": 10, "personFields": 10, "recents": 20, "me": 2}
_CONSENT = {"marketing_status", "doi_status"}


def _refusal(status: int, error: str, **more: Any) -> Refusal:
    return Refusal(status, {"success": False, "error": error, **more})


def _invalid(name: str) -> Refusal:
    return _refusal(400, f"Parameter '{name}' is invalid.", code="ERR_SCHEMA_VALIDATION_FAILED")


@dataclass
class PipedriveAPI(VendorAPI):
    """A company: its persons and organizations by id, its custom fields, the token and whose it is.

    ``told`` is when a change was told whose ``update_time`` is another. ``tokens`` are those left today,
    None for no end of them. A user who is no ``admin`` sees what is his.
    """

    token: str = ""
    user: int = 1
    admin: bool = True
    campaigns: bool = False
    tokens: int | None = None
    persons: dict[int, Person] = field(default_factory=dict)
    organizations: dict[int, dict[str, Any]] = field(default_factory=dict)
    fields: list[dict[str, Any]] = field(default_factory=list)
    told: dict[int, str] = field(default_factory=dict)

    def put(self, person_id: int, at: datetime, **fields: Any) -> None:
        """Create or change a person at this time."""
        before = self.persons.get(person_id, {})
        self.persons[person_id] = person(**{"add_time": _v2(at), **before, "id": person_id, "update_time": _v2(at), **fields})

    def delete(self, person_id: int, at: datetime, *, stamped: bool = True) -> None:
        """Delete a person at this time, which becomes the ``update_time`` if it is ``stamped``."""
        before = self.persons[person_id]["update_time"]
        self.put(person_id, at, is_deleted=True)
        if not stamped:
            self.persons[person_id]["update_time"], self.told[person_id] = before, _v2(at)

    def authenticate(self, asked: Asked, *, dead: bool) -> None:
        """By a header of Pipedrive's own, or a parameter. As a bearer token it is no token."""
        sent = asked.headers.get("x-api-token") or asked.query.get("api_token")
        if dead or sent != self.token:
            raise _refusal(401, "unauthorized access", errorCode=401, error_info="Please check developers.pipedrive.com")

    def hasty(self) -> Refusal:
        """More than two seconds allow; a header says for how long."""
        refusal = _refusal(429, "request over limit", errorCode=429, error_info="Please check developers.pipedrive.com")
        refusal.headers = {"x-ratelimit-limit": "20", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "2"}
        return refusal

    def answer(self, asked: Asked) -> Any:
        """Who asks, the recent changes; the fields, the organizations, the persons."""
        steps = asked.steps[1:] if asked.steps[0] == "api" else asked.steps
        self._pay(steps[-1])
        match asked.method, steps:
            case "GET", ["v1", "users", "me"]:
                return {"success": True, "data": {"id": self.user, "name": "Own Er", "is_admin": int(self.admin), "active_flag": True}}
            case "GET", ["v1", "recents"]:
                return self._recents(asked)
            case "GET", ["v2", "personFields"]:
                return self._listed("personFields", asked, [{**each, "id": n} for n, each in enumerate(self._all_fields())])
            case "GET", ["v2", "organizations"]:
                return self._listed("organizations", asked, list(self.organizations.values()))
            case "GET", ["v2", "persons"]:
                return self._persons(asked)
            case _:
                raise _refusal(404, "Unknown method .")

    def _pay(self, what: str) -> None:
        if self.tokens is None:
            return
        cost = _COSTS.get(what, 0)
        self.headers["x-daily-ratelimit-token-remaining"] = str(max(0, self.tokens - cost))
        if self.tokens < cost:
            self.headers["x-daily-ratelimit-token-remaining"] = "0"
            raise _refusal(429, "request over limit", errorCode=429)
        self.tokens -= cost

    def _all_fields(self) -> list[dict[str, Any]]:
        known = ["id", "name", "first_name", "last_name", "email", "phone", "add_time", "update_time", "org_id", "owner_id"]
        known += sorted(_CONSENT) if self.campaigns else []
        own = [
            {"field_code": code, "field_name": code, "field_type": "varchar", "is_custom_field": False, "options": None} for code in known
        ]
        return [*own, *({"is_custom_field": True, "options": None, "field_type": "varchar", **each} for each in self.fields)]

    def _seen(self) -> list[Person]:
        return [each for each in self.persons.values() if self.admin or each["owner_id"] == self.user]

    def _persons(self, asked: Asked) -> dict[str, Any]:
        extra = set(filter(None, asked.query.get("include_fields", "").split(",")))
        if not extra <= _CONSENT or (extra and not self.campaigns):
            raise _invalid("include_fields")
        shown = [{name: value for name, value in each.items() if name in extra or name not in _CONSENT} for each in self._seen()]
        return self._listed("persons", asked, [each for each in shown if not each["is_deleted"]])

    def _listed(self, what: str, asked: Asked, found: list[dict[str, Any]]) -> dict[str, Any]:
        query = asked.query
        if unknown := set(query) - _V2[what] - {"api_token"}:
            raise _invalid(min(unknown))
        limit = query.get("limit", "100")
        if not limit.isdigit() or not 1 <= int(limit) <= 500:
            raise _invalid("limit")
        for name, passes in (("updated_since", lambda at, bound: at >= bound), ("updated_until", lambda at, bound: at < bound)):
            if (bound := query.get(name)) is not None:
                if not _TIME.fullmatch(bound):
                    raise _invalid(name)
                found = [each for each in found if passes(each["update_time"], bound)]
        if (ids := query.get("ids")) is not None:
            wanted = ids.split(",")
            if len(wanted) > 100 or not all(each.isdigit() for each in wanted):
                raise _invalid("ids")
            found = [each for each in found if str(each["id"]) in set(wanted)]
        by, direction = query.get("sort_by", "id"), query.get("sort_direction", "asc")
        if by not in {"id", "update_time", "add_time"} or direction not in {"asc", "desc"}:
            raise _invalid("sort_by")
        key: Callable[[dict[str, Any]], tuple[Any, int]] = lambda each: (each[by], each["id"])  # noqa: E731 - of this sort alone
        found.sort(key=key, reverse=direction == "desc")
        if (cursor := query.get("cursor")) is not None:
            after = _unpacked(cursor)
            found = [each for each in found if (key(each) > after if direction == "asc" else key(each) < after)]
        size = self.least(int(limit)) if what == "persons" else int(limit)
        following = base64.b64encode(json.dumps(key(found[size - 1])).encode()).decode() if len(found) > size else None
        return {"success": True, "data": found[:size], "additional_data": {"next_cursor": following}}

    def _recents(self, asked: Asked) -> dict[str, Any]:
        since = asked.query.get("since_timestamp", "")
        if not re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", since):
            raise _refusal(400, "since_timestamp is missing or wrong")
        since = max(since.replace(" ", "T") + "Z", _v2(self.clock() - timedelta(days=31)))
        times = {each["id"]: self.told.get(each["id"], each["update_time"]) for each in self._seen()}
        found = sorted((each for each in self._seen() if times[each["id"]] >= since), key=lambda each: times[each["id"]])
        start, limit = int(asked.query.get("start", "0")), self.least(int(asked.query.get("limit", "100")))
        more = len(found) > start + limit
        items = [{"item": "person", "id": each["id"], "data": _as_v1(each)} for each in found[start : start + limit]]
        pagination = {"start": start, "limit": limit, "more_items_in_collection": more}
        return {
            "success": True,
            "data": items or None,
            "additional_data": {
                "since_timestamp": since,
                "pagination": pagination | ({"next_start": start + limit} if more else {}),
            },
        }


def _v2(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _as_v1(each: Person) -> dict[str, Any]:
    times = {name: each[name].replace("T", " ").rstrip("Z") for name in ("add_time", "update_time")}
    names = {"id": each["id"], "name": each["name"], "first_name": each["first_name"], "last_name": each["last_name"]}
    return {**names, "email": each["emails"], "phone": each["phones"], "active_flag": not each["is_deleted"], **times}


def _unpacked(cursor: str) -> tuple[Any, ...]:
    try:
        return tuple(json.loads(base64.b64decode(cursor, validate=True)))
    except (ValueError, TypeError, binascii.Error):
        raise _invalid("cursor") from None


def person(**fields: Any) -> Person:
    """A person as version 2 shows it."""
    return {
        "name": "",
        "first_name": None,
        "last_name": None,
        "owner_id": 1,
        "org_id": None,
        "emails": [],
        "phones": [],
        "is_deleted": False,
        "visible_to": 3,
        "label_ids": [],
        "picture_id": None,
        "custom_fields": {},
        "marketing_status": "no_consent",
        "doi_status": 1,
        **fields,
    }
