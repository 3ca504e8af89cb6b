"""A Stripe-shaped API on this machine: customers and events, newest first, with keys, permissions and refusals.

Written from Stripe's published contract (https://docs.stripe.com/api). A customer that is created,
changed or deleted by :meth:`StripeAPI.put` and :meth:`StripeAPI.delete` leaves an event.
"""

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from typing import Any

from identity_pipeline.demo.vendor_api import Asked, Refusal, VendorAPI

Object = dict[str, Any]

PERMISSIONS = ("rak_customer_read", "rak_event_read")
EVENTS_ARE_KEPT = timedelta(days=30)
_LISTS = {"limit", "starting_after", "ending_before", "created", "expand"}
_KNOWN = {"/v1/customers": _LISTS | {"email", "test_clock"}, "/v1/events": _LISTS | {"type", "types", "delivery_success"}}
_COMPARE: dict[str, Callable[[int, int], bool]] = {
    "gt": lambda value, bound: value > bound,
    "gte": lambda value, bound: value >= bound,
    "lt": lambda value, bound: value < bound,
    "lte": lambda value, bound: value <= bound,
}


def _refusal(status: int, message: str, **more: Any) -> Refusal:
    return Refusal(status, {"error": {"type": "invalid_request_error", "message": message, **more}})


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())


@dataclass
class StripeAPI(VendorAPI):
    """An account: its customers by id, its events from the oldest on, its key and what that may do."""

    key: str = "sk_test_0001"
    permissions: tuple[str, ...] = PERMISSIONS
    livemode: bool = False
    customers: dict[str, Object] = field(default_factory=dict)
    events: list[Object] = field(default_factory=list)
    _number: count = field(default_factory=count)

    def put(self, customer_id: str, at: datetime, **fields: Any) -> None:
        """Create or change a customer at this time."""
        before = self.customers.get(customer_id)
        created = before["created"] if before else _seconds(at)
        new = customer(**{**(before or {}), "id": customer_id, "livemode": self.livemode, "created": created, **fields})
        self.customers.pop(customer_id, None)
        self.customers[customer_id] = new
        self._event("customer.updated" if before else "customer.created", at, new)

    def delete(self, customer_id: str, at: datetime) -> None:
        """Delete a customer at this time."""
        self._event("customer.deleted", at, self.customers.pop(customer_id))

    def _event(self, kind: str, at: datetime, held: Object) -> None:
        self.events.append(
            {
                "id": f"evt_{next(self._number):08}",
                "object": "event",
                "api_version": "2026-10-28.endive",
                "created": _seconds(at),
                "data": {"object": held},
                "livemode": self.livemode,
                "pending_webhooks": 0,
                "request": {"id": None, "idempotency_key": None},
                "type": kind,
            }
        )

    def authenticate(self, asked: Asked, *, dead: bool) -> None:
        """By bearer token, or by the key as the user of Basic."""
        scheme, _, sent = asked.headers.get("Authorization", "").partition(" ")
        if scheme == "Basic":
            sent = base64.b64decode(sent).decode().partition(":")[0]
        if not sent:
            raise _refusal(401, "You did not provide an API key.")
        if sent.startswith("pk_"):
            raise _refusal(401, "This API call cannot be made with a publishable API key.", code="secret_key_required")
        if dead or sent != self.key:
            raise _refusal(401, f"Invalid API Key provided: {sent[:8]}****{sent[-4:]}")

    def hasty(self) -> Refusal:
        """More than a second allows; nobody says how long to wait."""
        refusal = _refusal(429, "Request rate limit exceeded.", code="rate_limit")
        refusal.headers = {"Stripe-Rate-Limited-Reason": "global-rate"}
        return refusal

    def answer(self, asked: Asked) -> Object:
        """A customer, the customers, the events."""
        match asked.method, asked.steps:
            case "GET", ["v1", "customers"]:
                self._demand("rak_customer_read")
                found = [each for each in self.customers.values() if each["test_clock"] == asked.query.get("test_clock")]
                return self._page(asked, [each for each in found if asked.query.get("email", each["email"]) == each["email"]])
            case "GET", ["v1", "customers", customer_id]:
                self._demand("rak_customer_read")
                if customer_id in self.customers:
                    return self.customers[customer_id]
                if any(each["data"]["object"]["id"] == customer_id for each in self.events):
                    return {"id": customer_id, "object": "customer", "deleted": True}
                raise _refusal(404, f"No such customer: '{customer_id}'", code="resource_missing", param="id")
            case "GET", ["v1", "events"]:
                self._demand("rak_event_read")
                oldest = _seconds(self.clock() - EVENTS_ARE_KEPT)
                types = {values[0] for name, values in asked.lists.items() if name.partition("[")[0] == "types"}
                types |= set(asked.lists.get("types[]", ()))
                return self._page(asked, [e for e in self.events if e["created"] >= oldest and (not types or e["type"] in types)])
            case _:
                raise _refusal(404, f"Unrecognized request URL ({asked.method}: {asked.path}).")

    def _demand(self, permission: str) -> None:
        if permission not in self.permissions:
            raise _refusal(
                403,
                f"The provided key 'rk_test_****' does not have the required permissions for this endpoint on account 'acct_123'. "
                f"Having the '{permission}' permission would allow this request to continue.",
                code="more_permissions_required_for_application",
            )

    def _page(self, asked: Asked, found: list[Object]) -> Object:
        """The newest first; of one second, what came later first."""
        for name in asked.query:
            if name.partition("[")[0] not in _KNOWN[asked.path]:
                raise _refusal(400, f"Received unknown parameter: {name}", code="parameter_unknown", param=name)
        limit = _whole(asked.query.get("limit", "10"), "limit")
        if not 1 <= limit <= 100:
            raise _refusal(400, "This value must be between 1 and 100.", code="parameter_invalid_integer", param="limit")
        for operator, passes in _COMPARE.items():
            if (name := f"created[{operator}]") in asked.query:
                bound = _whole(asked.query[name], "created")
                found = [each for each in found if passes(each["created"], bound)]
        ordered = sorted(found, key=lambda each: each["created"])[::-1]
        if after := asked.query.get("starting_after"):
            place = next((n for n, each in enumerate(ordered) if each["id"] == after), None)
            if place is None:
                raise _refusal(400, f"No such object: '{after}'", code="resource_missing", param="starting_after")
            ordered = ordered[place + 1 :]
        limit = self.least(limit)
        return {"object": "list", "url": asked.path, "has_more": len(ordered) > limit, "data": ordered[:limit]}


def _whole(text: str, name: str) -> int:
    if not text.lstrip("-").isdigit():
        raise _refusal(400, f"Invalid integer: {text}", code="parameter_invalid_integer", param=name)
    return int(text)


def customer(**fields: Any) -> Object:
    """A customer as the API shows it."""
    return {
        "object": "customer",
        "address": None,
        "balance": 0,
        "created": 0,
        "currency": None,
        "customer_account": None,
        "default_source": None,
        "delinquent": False,
        "description": None,
        "discount": None,
        "email": None,
        "invoice_prefix": "0759376C",
        "invoice_settings": {"custom_fields": None, "default_payment_method": None, "footer": None, "rendering_options": None},
        "livemode": False,
        "metadata": {},
        "name": None,
        "next_invoice_sequence": 1,
        "phone": None,
        "preferred_locales": [],
        "shipping": None,
        "tax_exempt": "none",
        "test_clock": None,
        **fields,
    }
