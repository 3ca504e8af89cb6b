"""An Airtable-shaped API on this machine: records of a table by formula and page, the schema, who asks.

Written from Airtable's published contract (https://airtable.com/developers/web/api). The list that
pages are taken of is fixed by the first of them, and is gone once :meth:`AirtableAPI.expire` is called.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any

from identity_pipeline.demo.vendor_api import Asked, Refusal, VendorAPI

Record = dict[str, Any]

SCOPES = ("data.records:read", "schema.bases:read")
_KNOWN = frozenset(
    {
        "pageSize", "offset", "maxRecords", "view", "filterByFormula", "sort[0][field]", "sort[0][direction]", "fields[]", "cellFormat",
        "timeZone", "userLocale", "returnFieldsByFieldId", "recordMetadata[]",
    }
)  # fmt: skip
_TIMES = frozenset({"date", "dateTime", "lastModifiedTime", "createdTime"})
_TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:\\.|[^'\\])*')|\{(?P<field>(?:\\.|[^}\\])*)\}|(?P<number>-?\d+(?:\.\d+)?)|(?P<word>\w+)"
    r"|(?P<op>>=|<=|[=<>(),]))"
)


def _refusal(status: int, kind: str, message: str) -> Refusal:
    return Refusal(status, {"error": {"type": kind, "message": message}})


def _bad_formula(why: str) -> Refusal:
    return _refusal(422, "INVALID_FILTER_BY_FORMULA", f"The formula for filtering records is invalid: {why}")


@dataclass
class AirtableAPI(VendorAPI):
    """One table of one base: its fields (name → type), its records, when each was changed last; the token and its scopes.

    ``quota`` is how many calls are left this month.
    """

    token: str = ""
    scopes: tuple[str, ...] = SCOPES
    base_id: str = "appHm1gE0wEh4OFA8"
    table_id: str = "tblHm1gE0wEh4OFA8"
    table: str = "Contacts"
    fields: dict[str, str] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    changed: dict[str, datetime] = field(default_factory=dict)
    quota: int | None = None
    _lists: dict[str, list[Record]] = field(default_factory=dict)
    _number: count = field(default_factory=lambda: count(1))

    def put(self, record_id: str, at: datetime, created: datetime | None = None, **fields: Any) -> None:
        """Create or change a record at this time. A field that is blank is not there."""
        old = next((each for each in self.records if each["id"] == record_id), None)
        cells = {n: v for n, v in {**(old["fields"] if old else {}), **fields}.items() if v not in (None, "", [], False)}
        new = {"id": record_id, "createdTime": old["createdTime"] if old else _iso(created or at), "fields": cells}
        self.records = [new if each is old else each for each in self.records] if old else [*self.records, new]
        self.changed[record_id] = at

    def expire(self) -> None:
        """Forget every list that pages are taken of."""
        self._lists.clear()

    def authenticate(self, asked: Asked, *, dead: bool) -> None:
        """By bearer token."""
        sent = asked.headers.get("Authorization", "")
        if not sent:
            raise _refusal(401, "AUTHENTICATION_REQUIRED", "Authentication required")
        if dead or sent != f"Bearer {self.token}":
            raise _refusal(401, "UNAUTHORIZED", "Invalid authentication token")

    def hasty(self) -> Refusal:
        """More than five a second; nobody says how long to wait."""
        return Refusal(429, {"errors": [{"error": "RATE_LIMIT_REACHED", "message": "Rate limit exceeded. Please try again later"}]})

    def answer(self, asked: Asked) -> Any:
        """Who asks, the schema, the records. Only the first two answer when the month's calls are used up."""
        match asked.method, asked.steps:
            case "GET", ["v0", "meta", "whoami"]:
                return {"id": "usrL2PNC5o3H4lBEi", "scopes": list(self.scopes)}
            case "GET", ["v0", "meta", "bases", self.base_id, "tables"]:
                self._demand("schema.bases:read")
                fields = [{"id": f"fld{n:014}", "name": name, "type": kind} for n, (name, kind) in enumerate(self.fields.items())]
                views = [{"id": "viwQpsuEDqHFqegkp", "name": "Grid view", "type": "grid"}]
                table = {"id": self.table_id, "name": self.table, "primaryFieldId": "fld" + "0" * 14, "fields": fields, "views": views}
                return {"tables": [{**table, "id": "tblOther000000000", "name": "Other", "fields": []}, table]}
            case "GET", ["v0", self.base_id, self.table | self.table_id]:
                self._demand("data.records:read")
                return self._list(asked)
            case "GET", ["v0", "meta", "bases", _, "tables"] | ["v0", _, _]:
                raise _refusal(403, "INVALID_PERMISSIONS_OR_MODEL_NOT_FOUND", "Invalid permissions, or the requested model was not found.")
            case _:
                raise Refusal(404, {"error": "NOT_FOUND"})

    def _demand(self, scope: str) -> None:
        if scope not in self.scopes:
            raise _refusal(403, "INVALID_PERMISSIONS_OR_MODEL_NOT_FOUND", "Invalid permissions, or the requested model was not found.")

    def _list(self, asked: Asked) -> dict[str, Any]:
        if self.quota is not None:
            self.quota -= 1
        if self.quota is not None and self.quota < 0:
            errors = [{"error": "PUBLIC_API_BILLING_LIMIT_EXCEEDED", "message": "API billing plan limit exceeded"}]
            raise Refusal(429, {"errors": errors})
        query = asked.query
        size = query.get("pageSize", "100")
        if not set(query) <= _KNOWN or not size.isdigit() or not 1 <= int(size) <= 100:
            raise _refusal(422, "INVALID_REQUEST_UNKNOWN", "Invalid request: parameter validation failed. Check your request data.")
        if offset := query.get("offset"):
            name, _, first = offset.partition("/")
            if name not in self._lists:
                why = "The iterator is no longer available; please restart from the beginning of the list"
                raise _refusal(422, "LIST_RECORDS_ITERATOR_NOT_AVAILABLE", why)
            found = self._lists[name]
            start = next((n for n, each in enumerate(found) if each["id"] == first), None)
            if start is None:
                raise _refusal(422, "INVALID_OFFSET_VALUE", "The value of offset is invalid")
        else:
            name, start = f"itr{next(self._number):014}", 0
            found = self._lists[name] = self._found(query)
        end = start + self.least(int(size))
        page: dict[str, Any] = {"records": found[start:end]}
        if end < len(found):
            page["offset"] = f"{name}/{found[end]['id']}"
        return page

    def _found(self, query: Any) -> list[Record]:
        formula = query.get("filterByFormula")
        passes = Formula(formula, self).parsed() if formula else lambda _: True
        found = [each for each in self.records if passes(each)]
        if by := query.get("sort[0][field]"):
            if by not in self.fields:
                raise _refusal(422, "UNKNOWN_FIELD_NAME", f'Unknown field name: "{by}"')
            blank = [each for each in found if by not in each["fields"]]
            filled = sorted((each for each in found if by in each["fields"]), key=lambda each: each["fields"][by])
            found = filled[::-1] + blank if query.get("sort[0][direction]") == "desc" else blank + filled
        return found


Value = Callable[[Record], Any]


@dataclass
class Formula:
    """The part of Airtable's formulas that says which records are listed."""

    text: str
    api: AirtableAPI
    _tokens: Iterator[re.Match[str]] = field(init=False)
    _next: re.Match[str] | None = field(init=False)

    def parsed(self) -> Callable[[Record], bool]:
        """Says of a record whether it passes."""
        matches, end = [], 0
        while self.text[end:].strip():
            match = _TOKEN.match(self.text, end)
            if match is None:
                raise _bad_formula("it cannot be read")
            matches.append(match)
            end = match.end()
        self._tokens = iter(matches)
        self._step()
        value = self._compared()
        if self._next is not None:
            raise _bad_formula("something stands behind it")
        return lambda record: bool(value(record))

    def _step(self) -> None:
        self._next = next(self._tokens, None)

    def _taken(self, op: str) -> bool:
        found = self._next is not None and self._next["op"] == op
        if found:
            self._step()
        return found

    def _compared(self) -> Value:
        left = self._value()
        op = self._next["op"] if self._next else None
        if op not in {"=", ">", "<", ">=", "<="}:
            return left
        self._step()
        right = self._value()

        def compare(record: Record) -> bool:
            one, other = left(record), right(record)
            if op == "=":
                return one == other
            if one is None or other is None:
                return False
            return {">": one > other, "<": one < other, ">=": one >= other, "<=": one <= other}[op]

        return compare

    def _value(self) -> Value:
        token = self._next
        if token is None:
            raise _bad_formula("it ends too early")
        self._step()
        if token["text"] is not None:
            text = re.sub(r"\\(.)", r"\1", token["text"][1:-1])
            return lambda _: text
        if token["number"] is not None:
            number = float(token["number"])
            return lambda _: number
        if token["field"] is not None:
            return self._field(re.sub(r"\\(.)", r"\1", token["field"]))
        if token["word"] is not None and self._taken("("):
            return self._call(token["word"], list(self._arguments()))
        raise _bad_formula("it cannot be read")

    def _arguments(self) -> Iterator[Value]:
        while not self._taken(")"):
            yield self._compared()
            if not self._taken(",") and (self._next is None or self._next["op"] != ")"):
                raise _bad_formula("a bracket is missing")

    def _field(self, name: str) -> Value:
        if name not in self.api.fields:
            raise _bad_formula(f"Unknown field names: {name.lower()}")
        timed = self.api.fields[name] in _TIMES

        def value(record: Record) -> Any:
            held = record["fields"].get(name)
            return _instant(held) if timed and held else held

        return value

    def _call(self, name: str, given: list[Value]) -> Value:
        functions: dict[str, Callable[[Record], Any]] = {
            "OR": lambda record: any(each(record) for each in given),
            "AND": lambda record: all(each(record) for each in given),
            "NOT": lambda record: not given[0](record),
            "BLANK": lambda _: None,
            "IS_AFTER": lambda record: _both(given, record) and given[0](record) > given[1](record),
            "IS_BEFORE": lambda record: _both(given, record) and given[0](record) < given[1](record),
            "DATETIME_PARSE": lambda record: _instant(given[0](record)),
            "LAST_MODIFIED_TIME": lambda record: self.api.changed.get(record["id"]),
            "CREATED_TIME": lambda record: _instant(record["createdTime"]),
        }
        if name not in functions:
            raise _bad_formula(f"Unknown function names: {name}")
        return functions[name]


def _both(given: list[Value], record: Record) -> bool:
    return given[0](record) is not None and given[1](record) is not None


def _instant(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
