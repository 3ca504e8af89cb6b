"""A Shopify-shaped Admin API: the customers of one shop by GraphQL, and tokens for an app.

Written from Shopify's published schema and guides (shopify.dev). :data:`SDL` is the part of the schema
that customers need; a query that does not fit it is refused as graphql-core sees it. What a query
selects is cut out of plain dictionaries, since a resolver for each field would take seconds.
"""

import base64
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    OperationDefinitionNode,
    build_schema,
    parse,
    validate,
)

from identity_pipeline.demo.vendor_api import Asked, Refusal, VendorAPI

Customer = dict[str, Any]
SDL = """
type Query {
  customers(after: String, before: String, first: Int, last: Int, query: String, reverse: Boolean = false,
            sortKey: CustomerSortKeys = ID): CustomerConnection!
  shop: Shop!
}
scalar DateTime
scalar UnsignedInt64
enum CustomerSortKeys { CREATED_AT ID LOCATION NAME RELEVANCE UPDATED_AT }
enum CustomerState { DECLINED DISABLED ENABLED INVITED }
enum CustomerEmailAddressMarketingState { INVALID NOT_SUBSCRIBED PENDING SUBSCRIBED UNSUBSCRIBED }
enum CustomerSmsMarketingState { NOT_SUBSCRIBED PENDING REDACTED SUBSCRIBED UNSUBSCRIBED }
enum CustomerMarketingOptInLevel { CONFIRMED_OPT_IN SINGLE_OPT_IN UNKNOWN }
type Shop { id: ID! name: String! myshopifyDomain: String! }
type PageInfo { endCursor: String hasNextPage: Boolean! hasPreviousPage: Boolean! startCursor: String }
type CustomerConnection { nodes: [Customer!]! pageInfo: PageInfo! }
type Customer {
  id: ID! legacyResourceId: UnsignedInt64! createdAt: DateTime! updatedAt: DateTime!
  firstName: String lastName: String displayName: String! locale: String! state: CustomerState! tags: [String!]!
  note: String verifiedEmail: Boolean! taxExempt: Boolean! numberOfOrders: UnsignedInt64!
  defaultEmailAddress: CustomerEmailAddress defaultPhoneNumber: CustomerPhoneNumber defaultAddress: MailingAddress
  addressesV2(after: String, before: String, first: Int, last: Int, reverse: Boolean = false): MailingAddressConnection!
  metafields(after: String, before: String, first: Int, keys: [String!], last: Int, namespace: String,
             reverse: Boolean = false): MetafieldConnection!
}
type CustomerEmailAddress {
  emailAddress: String! marketingState: CustomerEmailAddressMarketingState! marketingOptInLevel: CustomerMarketingOptInLevel
  marketingUpdatedAt: DateTime validFormat: Boolean!
}
type CustomerPhoneNumber {
  phoneNumber: String! marketingState: CustomerSmsMarketingState! marketingOptInLevel: CustomerMarketingOptInLevel
  marketingUpdatedAt: DateTime
}
type MailingAddressConnection { nodes: [MailingAddress!]! pageInfo: PageInfo! }
type MailingAddress {
  id: ID! firstName: String lastName: String company: String address1: String address2: String city: String province: String
  provinceCode: String zip: String country: String countryCodeV2: String phone: String
}
type MetafieldConnection { nodes: [Metafield!]! pageInfo: PageInfo! }
type Metafield { id: ID! namespace: String! key: String! type: String! value: String! }
"""
SCHEMA = build_schema(SDL)
VERSIONS = ("2026-01", "2026-04", "2026-07", "2026-10")
LARGEST_COST = 1000
_TERM = re.compile(r"(\w+):(>=|<=|>|<)?('[^']*'|\S+)")
_FIELDS = {"updated_at": "updatedAt", "created_at": "createdAt"}
_SORTS = {"UPDATED_AT": "updatedAt", "CREATED_AT": "createdAt", "ID": None}


@dataclass
class ShopifyAPI(VendorAPI):
    """A shop. ``available`` is what is left of the budget, which gets back ``restore`` points a second of its clock.

    ``protected`` says what an app without access to customer data gets: ``""`` all, ``denied`` or ``nulls``.
    ``shop`` is ``open``, ``frozen``, ``locked`` or ``closed``.
    """

    token: str = ""
    client_secret: str = ""
    scopes: tuple[str, ...] = ("read_customers",)
    customers: list[Customer] = field(default_factory=list)
    protected: str = ""
    shop: str = "open"
    maximum: float = 2000.0
    restore: float = 1_000_000.0
    available: float = 2000.0
    tokens_given: int = 0
    paid_at: datetime | None = None
    ignores_filters: bool = False

    def authenticate(self, asked: Asked, *, dead: bool) -> None:
        """By access token, in Shopify's own header."""
        if asked.path == "/admin/oauth/access_token":
            return
        if {"frozen": 402, "locked": 423}.get(self.shop):
            raise Refusal({"frozen": 402, "locked": 423}[self.shop], {"errors": "Unavailable Shop"})
        if dead or asked.headers.get("X-Shopify-Access-Token") != self.token:
            raise Refusal(401, {"errors": "[API] Invalid API key or access token (unrecognized login or wrong password)"})

    def hasty(self) -> Refusal:
        """More points than are there: an error with status 200."""
        return Refusal(200, _errors("Throttled", "THROTTLED") | self._cost(402, None, left=302.0))

    def answer(self, asked: Asked) -> Any:
        """A token, or what a query selects."""
        match asked.method, asked.steps:
            case "POST", ["admin", "oauth", "access_token"]:
                return self._grant(asked.body or {})
            case "POST", ["admin", "api", version, "graphql.json"] if version <= VERSIONS[-1]:
                self.headers["X-Shopify-API-Version"] = max(version, VERSIONS[0])
                return self._query(asked.body if isinstance(asked.body, dict) else {})
            case _:
                raise Refusal(404, {"errors": "Not Found"})

    def _grant(self, body: Mapping[str, Any]) -> dict[str, Any]:
        if body.get("grant_type") != "client_credentials" or not self.client_secret or body.get("client_secret") != self.client_secret:
            raise Refusal(400, b"<html><body>Oauth error invalid_client: Client authentication failed</body></html>")
        self.tokens_given += 1
        self.token = f"shpat_granted-{self.tokens_given}-51fe8a"
        return {"access_token": self.token, "scope": ",".join(self.scopes), "expires_in": 86_399}

    def _query(self, body: Mapping[str, Any]) -> dict[str, Any]:
        if not body.get("query"):
            raise Refusal(400, {"errors": {"query": "Required parameter missing or invalid"}})
        document, faults = _read(body["query"])
        if faults:
            return {"errors": [{"message": fault, "extensions": {"code": "undefinedField"}} for fault in faults]}
        if self.shop == "closed":
            return _errors("The shop is inactive", "SHOP_INACTIVE")
        variables = body.get("variables") or {}
        plan, fragments = _plan(document)
        cost = _cost(plan, fragments, variables)
        if cost > LARGEST_COST:
            message = f"Query cost is {cost}, which exceeds the single query max cost limit ({LARGEST_COST})."
            return _errors(message, "MAX_COST_EXCEEDED", cost=cost, maxCost=LARGEST_COST)
        self._refill()
        if cost > self.available:
            return _errors("Throttled", "THROTTLED") | self._cost(cost, None)
        if "read_customers" not in self.scopes:
            message = "Access denied for customers field. Required access: `read_customers` access scope."
            return _errors(message, "ACCESS_DENIED", requiredAccess="`read_customers` access scope.") | {"data": None}
        if self.protected == "denied":
            message = (
                "This app is not approved to access the Customer object. See https://shopify.dev/docs/apps/launch/protected-customer-data"
            )
            return _errors(message, "ACCESS_DENIED") | {"data": None}
        self.available -= cost
        data = {each.name.value: self._customers(each, fragments, variables) for each in plan}
        return {"data": data} | self._cost(cost, max(1, cost // 2))

    def _refill(self) -> None:
        now = self.clock()
        passed = (now - (self.paid_at or now)).total_seconds()
        self.available, self.paid_at = min(self.maximum, self.available + passed * self.restore), now

    def _cost(self, cost: int, actual: int | None, left: float | None = None) -> dict[str, Any]:
        throttle = {
            "maximumAvailable": self.maximum,
            "currentlyAvailable": self.available if left is None else left,
            "restoreRate": min(self.restore, 100.0) if left is not None else self.restore,
        }
        return {"extensions": {"cost": {"requestedQueryCost": cost, "actualQueryCost": actual, "throttleStatus": throttle}}}

    def _customers(self, node: FieldNode, fragments: Mapping[str, Any], variables: Mapping[str, Any]) -> dict[str, Any]:
        given = arguments(node, variables)
        first = given.get("first") or 0
        if not 1 <= first <= 250:
            raise Refusal(200, _errors("first must be between 1 and 250", "argumentError"))
        by = _SORTS[given.get("sortKey") or "ID"]
        found = [each for each in self.customers if all(test(each) for test in self._tests(given.get("query") or ""))]

        def place(each: Customer) -> tuple[str, int]:
            return (_time(each[by]).isoformat() if by else "", int(each["legacyResourceId"]))

        found.sort(key=place)
        if given.get("after"):
            value, last = json.loads(base64.b64decode(given["after"]))
            found = [each for each in found if place(each) > (value, last)]
        page = found[: self.least(first)]
        cursors = [base64.b64encode(json.dumps(place(each)).encode()).decode() for each in (page[0], page[-1])] if page else [None, None]
        info = {"startCursor": cursors[0], "endCursor": cursors[1], "hasNextPage": len(found) > len(page), "hasPreviousPage": False}
        shown = [each | dict.fromkeys(PROTECTED) if self.protected == "nulls" else each for each in page]
        return project({"nodes": shown, "pageInfo": info}, node, fragments, variables)

    def _tests(self, query: str) -> list[Callable[[Customer], bool]]:
        tests: list[Callable[[Customer], bool]] = []
        for name, operator, value in [] if self.ignores_filters else _TERM.findall(query):
            if name not in _FIELDS or not operator:
                continue  # it is ignored, silently
            try:
                bound = _time(value.strip("'"))
            except ValueError:
                continue
            if not value.startswith("'"):  # it is taken for a whole day
                bound = bound.replace(hour=0, minute=0, second=0, microsecond=0)
            up = operator.startswith(">")
            tests.append(lambda each, key=_FIELDS[name], up=up, bound=bound: (_time(each[key]) >= bound) == up)
        return tests


@lru_cache(100_000)
def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC).replace(microsecond=0)


def _errors(message: str, code: str, **more: Any) -> dict[str, Any]:
    extensions = {"code": code, "documentation": "https://shopify.dev/api/usage/response-codes", **more}
    return {"errors": [{"message": message, "locations": [{"line": 2, "column": 3}], "path": ["customers"], "extensions": extensions}]}


@cache
def _read(query: str) -> tuple[DocumentNode, list[str]]:
    document = parse(query)
    return document, [str(fault) for fault in validate(SCHEMA, document)]


@cache
def _plan(document: DocumentNode) -> tuple[list[FieldNode], dict[str, FragmentDefinitionNode]]:
    fragments = {each.name.value: each for each in document.definitions if isinstance(each, FragmentDefinitionNode)}
    [operation] = [each for each in document.definitions if isinstance(each, OperationDefinitionNode)]
    return [each for each in operation.selection_set.selections if isinstance(each, FieldNode)], fragments


def arguments(node: FieldNode, variables: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a field, with the variables' values."""
    return {
        each.name.value: variables.get(each.value.name.value) if each.value.kind == "variable" else _literal(each.value)  # type: ignore[attr-defined]
        for each in node.arguments
    }


def _literal(node: Any) -> Any:
    return int(node.value) if node.kind == "int_value" else node.value


def fields(node: Any, fragments: Mapping[str, Any]) -> list[FieldNode]:
    """The fields that are selected in ``node``, fragments included."""
    found: list[FieldNode] = []
    for each in node.selection_set.selections:
        found += fields(fragments[each.name.value], fragments) if isinstance(each, FragmentSpreadNode) else [each]
    return found


def _cost(plan: list[FieldNode], fragments: Mapping[str, Any], variables: Mapping[str, Any]) -> int:
    """Points of a query: a connection costs what it holds, what is nested in it a tenth of that."""
    cost = 0
    for node in plan:
        inner = [int(arguments(each, variables).get("first") or 0) for each in _walked(node, fragments) if each is not node]
        cost += 2 + int((arguments(node, variables).get("first") or 0) * (1 + sum(inner) / 10))
    return cost


def _walked(node: FieldNode, fragments: Mapping[str, Any]) -> list[FieldNode]:
    found = [node]
    for each in fields(node, fragments) if node.selection_set else []:
        found += _walked(each, fragments)
    return found


def project(value: Any, node: FieldNode, fragments: Mapping[str, Any], variables: Mapping[str, Any]) -> Any:
    """What ``node`` selects of ``value``."""
    if value is None or not node.selection_set:
        return value
    if isinstance(value, list):
        return [project(each, node, fragments, variables) for each in value]
    first = arguments(node, variables).get("first")
    if first is not None and isinstance(value.get("nodes"), list) and "pageInfo" not in value:
        held = value["nodes"]
        info = {"hasNextPage": len(held) > first, "hasPreviousPage": False, "startCursor": None, "endCursor": None}
        value = {"nodes": held[:first], "pageInfo": info}
    return {each.name.value: project(value[each.name.value], each, fragments, variables) for each in fields(node, fragments)}


PROTECTED = ("firstName", "lastName", "defaultEmailAddress", "defaultPhoneNumber", "defaultAddress")


def address(address_id: int, **given: Any) -> dict[str, Any]:
    """A customer's address."""
    names = ("firstName", "lastName", "company", "address1", "address2", "city", "province", "provinceCode", "zip", "country")
    made = dict.fromkeys((*names, "countryCodeV2", "phone"))
    return {"id": f"gid://shopify/MailingAddress/{address_id}?model_name=CustomerAddress"} | made | given


def metafield(number: int, namespace: str, key: str, value: str) -> dict[str, Any]:
    """A custom field of a customer."""
    kind = "single_line_text_field"
    return {"id": f"gid://shopify/Metafield/{number}", "namespace": namespace, "key": key, "type": kind, "value": value}


def customer(customer_id: int, updated: str, *, email: str | None = None, phone: str | None = None, **given: Any) -> Customer:
    """A customer as the shop holds one."""
    consent = {"marketingState": "SUBSCRIBED", "marketingOptInLevel": "SINGLE_OPT_IN", "marketingUpdatedAt": updated}
    return {
        "id": f"gid://shopify/Customer/{customer_id}",
        "legacyResourceId": str(customer_id),
        "createdAt": updated,
        "updatedAt": updated,
        "firstName": None,
        "lastName": None,
        "displayName": email or phone or "",
        "locale": "en",
        "state": "ENABLED",
        "tags": [],
        "note": None,
        "verifiedEmail": True,
        "taxExempt": False,
        "numberOfOrders": "0",
        "defaultEmailAddress": {"emailAddress": email, "validFormat": True, **consent} if email else None,
        "defaultPhoneNumber": {"phoneNumber": phone, **consent} if phone else None,
        "defaultAddress": None,
        "addressesV2": {"nodes": []},
        "metafields": {"nodes": []},
        **given,
    }


def later(api: ShopifyAPI) -> Callable[[float], None]:
    """A way to wait by which only the shop's clock goes on: a little longer, since what the test itself takes is not on it."""
    api.now = api.now or datetime.now(UTC)

    def sleep(seconds: float) -> None:
        api.now = (api.now or datetime.now(UTC)) + timedelta(seconds=seconds + 0.05)

    return sleep
