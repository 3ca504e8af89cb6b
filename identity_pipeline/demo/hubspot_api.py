"""A HubSpot-shaped API on this machine: properties, list and search of contacts, with its limits and refusals.

Written from HubSpot's published contract, for the demo and for tests. Contacts are plain
dictionaries that may be changed while it runs.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from identity_pipeline.demo import vendor_api
from identity_pipeline.demo.vendor_api import Asked, Refusal, VendorAPI

Contact = dict[str, Any]

SCOPES = ("crm.objects.contacts.read", "crm.schemas.contacts.read")
SEARCH_CEILING = 10_000
LONGEST_ADDRESS = 16_000
MOST_IN_A_BATCH = 100
_ALWAYS = ("createdate", "hs_object_id", "lastmodifieddate")
_BY_DEFAULT = ("email", "firstname", "lastname")
_STANDARD = (
    "phone", "mobilephone", "hs_whatsapp_phone_number", "hs_additional_emails", "company", "jobtitle", "address", "city", "state", "zip",
    "country", "hs_merged_object_ids",
)  # fmt: skip
"""Properties that every portal has, used or not."""
_DATES = frozenset({"createdate", "lastmodifieddate"})
_OPERATORS: dict[str, Callable[[int, int], bool]] = {
    "GT": lambda value, bound: value > bound,
    "GTE": lambda value, bound: value >= bound,
    "LT": lambda value, bound: value < bound,
    "LTE": lambda value, bound: value <= bound,
    "EQ": lambda value, bound: value == bound,
}


def _refusal(status: int, category: str, message: str, **more: Any) -> Refusal:
    return Refusal(
        status,
        {"status": "error", "message": message, "correlationId": "00000000-0000-4000-8000-000000000000", "category": category, **more},
    )


@dataclass
class HubSpotAPI(VendorAPI):
    """A portal: its contacts, the token that may read them, what that may do."""

    contacts: list[Contact] = field(default_factory=list)
    token: str = ""
    scopes: tuple[str, ...] = SCOPES

    @property
    def requests(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Method, path, and query or body, of what was asked."""
        return [(each.method, each.path, dict(each.query) if each.body is None else each.body) for each in self.asked]

    def authenticate(self, asked: Asked, *, dead: bool) -> None:
        """By bearer token."""
        if len(asked.address) > LONGEST_ADDRESS:
            raise _refusal(414, "URI_TOO_LONG", "the address is too long")
        if dead or asked.headers.get("Authorization") != f"Bearer {self.token}":
            raise _refusal(401, "INVALID_AUTHENTICATION", "Authentication credentials not found.")

    def hasty(self) -> Refusal:
        """More than ten seconds allow."""
        return _refusal(429, "RATE_LIMITS", "You have reached your ten_secondly_rolling limit.", policyName="TEN_SECONDLY_ROLLING")

    def answer(self, asked: Asked) -> dict[str, Any]:
        """The properties, a list, a search, a batch."""
        if asked.method == "POST" and not isinstance(asked.body, dict):
            raise _invalid("the body is not a JSON object")
        match asked.method, asked.steps:
            case "GET", ["crm", "properties", _version, "contacts"]:
                self._demand("crm.schemas.contacts.read")
                return self._properties()
            case "GET", ["crm", "objects", _version, "contacts"]:
                self._demand("crm.objects.contacts.read")
                return self._list(dict(asked.query))
            case "POST", ["crm", "objects", _version, "contacts", "search"]:
                self._demand("crm.objects.contacts.read")
                return self._search(asked.body)
            case "POST", ["crm", "objects", _version, "contacts", "batch", "read"]:
                self._demand("crm.objects.contacts.read")
                return self._batch(dict(asked.query), asked.body)
            case _:
                raise _refusal(404, "OBJECT_NOT_FOUND", "there is nothing at this address")

    def _demand(self, scope: str) -> None:
        if scope not in self.scopes:
            raise _refusal(
                403,
                "MISSING_SCOPES",
                "This app hasn't been granted all required scopes to make this call.",
                errors=[{"message": "One or more of these scopes are required.", "context": {"requiredGranularScopes": [scope]}}],
            )

    def _properties(self) -> dict[str, Any]:
        names = dict.fromkeys((*_ALWAYS, *_BY_DEFAULT, *_STANDARD))
        for contact in self.contacts:
            names |= dict.fromkeys(contact["properties"])
        return {
            "results": [
                {
                    "name": name,
                    "label": name,
                    "type": "datetime" if name in _DATES else "string",
                    "fieldType": "text",
                    "groupName": "contactinformation",
                }
                for name in names
            ]
        }

    def _list(self, query: dict[str, str]) -> dict[str, Any]:
        limit = self.least(_whole(query.get("limit", "10"), "limit", 1, 100))
        after = _whole(query.get("after") or "0", "after", 0)
        archived = query.get("archived", "false") == "true"
        found = [c for c in self._by_id() if c["archived"] == archived and int(c["id"]) >= after]
        page: dict[str, Any] = {"results": _shown(found[:limit], query.get("properties", "").split(","))}
        if len(found) > limit:
            following = str(int(found[limit - 1]["id"]) + 1)
            page["paging"] = {"next": {"after": following, "link": f"{self.url}/crm/objects/contacts?after={following}"}}
        return page

    def _batch(self, query: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
        inputs = body.get("inputs", [])
        if not 1 <= len(inputs) <= MOST_IN_A_BATCH:
            raise _invalid(f"a batch holds 1 to {MOST_IN_A_BATCH} inputs")
        wanted = {str(each["id"]) for each in inputs}
        archived = query.get("archived", "false") == "true"
        found = [c for c in self.contacts if c["archived"] == archived and c["id"] in wanted]  # in no order that is promised
        answer: dict[str, Any] = {"status": "COMPLETE", "results": _shown(found, body.get("properties", []))}
        if gone := sorted(wanted - {c["id"] for c in found}):
            answer |= {"numErrors": 1, "errors": [{"status": "error", "category": "OBJECT_NOT_FOUND", "context": {"ids": gone}}]}
            raise Refusal(207, answer)
        return answer

    def _search(self, body: dict[str, Any]) -> dict[str, Any]:
        limit = self.least(_whole(body.get("limit", 10), "limit", 1, 200))
        after = _whole(body.get("after") or 0, "after", 0)
        if after + limit > SEARCH_CEILING:
            raise _invalid(f"paging beyond {SEARCH_CEILING} results is not possible")
        groups, sorts = body.get("filterGroups", []), body.get("sorts", [])
        if len(groups) > 5 or len(sorts) > 1 or any(len(group["filters"]) > 6 for group in groups):
            raise _invalid("too many filter groups, filters or sorts")
        tests = [[_test(each) for each in group["filters"]] for group in groups]
        found = [c for c in self._by_id() if not c["archived"] and (not tests or any(all(t(c) for t in all_of) for all_of in tests))]
        if sorts:
            name = sorts[0]["propertyName"]
            found.sort(key=lambda c: _number(name, c["properties"].get(name)) or 0, reverse=sorts[0].get("direction") == "DESCENDING")
        page: dict[str, Any] = {"total": len(found), "results": _shown(found[after : after + limit], body.get("properties", []))}
        if len(found) > after + limit:
            page["paging"] = {"next": {"after": str(after + limit)}}
        return page

    def _by_id(self) -> list[Contact]:
        return sorted(self.contacts, key=lambda contact: int(contact["id"]))


def _whole(value: Any, name: str, least: int, most: int | None = None) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError):
        raise _invalid(f"{name} is not a whole number") from None
    if number < least or (most is not None and number > most):
        raise _invalid(f"{name} is out of range")
    return number


def _invalid(message: str) -> Refusal:
    return _refusal(400, "VALIDATION_ERROR", message)


@lru_cache(maxsize=100_000)
def _number(name: str, value: str | None) -> int | None:
    """A property as HubSpot compares it: dates as milliseconds since 1970, ids as numbers."""
    text = value or ""
    if text.lstrip("-").isdigit():
        return int(text)
    if name not in _DATES or not text:
        return None
    moment = datetime.fromisoformat(text)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def _test(each: dict[str, Any]) -> Callable[[Contact], bool]:
    name, compare = each.get("propertyName", ""), _OPERATORS.get(each.get("operator", ""))
    try:
        bound = _number(name, str(each.get("value")))
    except ValueError:
        bound = None
    if compare is None or bound is None:
        raise _invalid(f"the filter on {name} cannot be read")

    def passes(contact: Contact) -> bool:
        value = _number(name, contact["properties"].get(name))
        return value is not None and compare(value, bound)

    return passes


def _shown(contacts: list[Contact], asked: Iterable[str]) -> list[Contact]:
    """The contacts with the properties that were asked for; an unknown name is ignored, an empty one is null."""
    names = [name for name in asked if name] or list(_BY_DEFAULT)
    return [
        contact | {"properties": {name: contact["properties"].get(name) for name in dict.fromkeys((*names, *_ALWAYS))}}
        for contact in contacts
    ]


@contextmanager
def serve(contacts: list[Contact], token: str, port: int = 0, scopes: tuple[str, ...] = SCOPES) -> Iterator[HubSpotAPI]:
    """Serve ``contacts`` on 127.0.0.1 to who sends ``token``, on a free port unless one is given."""
    with vendor_api.serve(HubSpotAPI(contacts=contacts, token=token, scopes=scopes), port) as api:
        yield api


def contact(contact_id: int, modified: str, *, archived_at: str | None = None, **properties: str | None) -> Contact:
    """A contact as the API shows it. ``modified`` is its last change; created the same moment unless ``createdate`` is given."""
    created = properties.pop("createdate", None) or modified
    return {
        "id": str(contact_id),
        "properties": {"createdate": created, "hs_object_id": str(contact_id), "lastmodifieddate": modified, **properties},
        "createdAt": created,
        "updatedAt": modified,
        "archived": archived_at is not None,
        **({"archivedAt": archived_at} if archived_at else {}),
    }
