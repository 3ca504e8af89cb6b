"""A request and its response as values."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate, takewhile
from typing import Any, Literal
from urllib.parse import quote, urlencode

from identity_pipeline.core.errors import ContractBroken
from identity_pipeline.core.fieldmap import REJECTED
from identity_pipeline.core.text import to_json

ITEM = "@identity.item"
"""Field of a record that is no object: the item as JSON."""
ADDRESS = 4_000
"""Bytes of a list of names that any server takes in an address."""
REPORT = "run it again, and if it stays so, report it"
"""Who does what next where a source broke its contract."""
_KEYS = frozenset({"code", "data", "detail", "error", "errors", "message", "paging", "records", "results", "status", "title", "type"})
"""Keys of a body that a message may name. Any other may be a value itself."""


@dataclass(frozen=True)
class Request:
    """What to ask for: a path below the base URL, its query, and a JSON body if there is one.

    ``path`` may be the whole address that the source gave for the next page, on the same origin.
    ``size`` is where the request says how many records a page may hold (``query.limit``): a page
    that is too large is then asked for in a smaller size. ``interval`` is the least time in seconds
    between such requests, where it is not the client's: vendors count some endpoints apart. ``follows``
    are, by a field's name, its values in the records that were read last, if the page is to begin with some of them:
    they are no records of the page then, and show that nothing is left out. ``again`` counts how often the
    address is asked on purpose for once more. ``options`` are what headers ask
    for, by their names: ``{"Prefer": {"odata.maxpagesize": 500}}``. ``answers`` is what comes back: of CSV
    the rows, as objects of text under ``records``. ``verb`` is the method, where it is not the customary one.
    """

    path: str
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] | None = field(default=None, repr=False)
    size: str = ""
    interval: float | None = None
    follows: Mapping[str, Sequence[Any]] = field(default_factory=dict, repr=False)
    again: int = 0
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    answers: Literal["json", "csv"] = "json"
    verb: str = ""

    @property
    def method(self) -> str:
        """``POST`` with a body, else ``GET``; another where ``verb`` says so."""
        return self.verb or ("GET" if self.body is None else "POST")

    @cached_property
    def address(self) -> str:
        """The path with the query behind it, percent-encoded."""
        given = {name: str(value).lower() if isinstance(value, bool) else value for name, value in self.query.items() if value is not None}
        return f"{self.path}{'&' if '?' in self.path else '?'}{urlencode(given, doseq=True)}" if given else self.path

    @property
    def headers(self) -> dict[str, str]:
        """The options, as headers."""
        return {header: ", ".join(f"{name}={value}" for name, value in asked.items()) for header, asked in self.options.items()}

    @cached_property
    def content(self) -> bytes | None:
        """The body as it is sent."""
        return None if self.body is None else json.dumps(self.body, allow_nan=False).encode()

    def put(self, into: str, value: Any) -> "Request":
        """This request with ``value`` at ``query.<name>``, ``options.<header>.<name>`` or ``body.<dotted path>``; with None without one."""
        part, _, name = into.partition(".")
        if part == "options":
            header, _, name = name.partition(".")
            return replace(self, options={**self.options, header: {**self.options.get(header, {}), name: value}})
        if part == "query":
            return replace(self, query={**self.query, name: value})
        if part == "body":
            return replace(self, body=_put(self.body or {}, name.split("."), value))
        raise ValueError(f"expected query.<name>, options.<header>.<name> or body.<path>, found {into!r}")

    def at(self, place: str) -> Any:
        """The value at ``query.<name>``, ``options.<header>.<name>`` or ``body.<dotted path>``, None where there is none."""
        part, _, name = place.partition(".")
        return _at({"query": self.query, "options": self.options}.get(part, self.body), name)

    def halved(self) -> "Request | None":
        """This request for a page of half the size, None if it does not say its size or that is 1."""
        size = self.at(self.size)
        return self.put(self.size, size // 2) if isinstance(size, int) and size > 1 else None


def _put(node: Any, path: Sequence[str], value: Any) -> Any:
    if not path:
        return value
    if isinstance(node, list | tuple):
        at = int(path[0])
        return [*node[:at], _put(node[at], path[1:], value), *node[at + 1 :]]
    if path[1:] or value is not None:
        return {**node, path[0]: _put(node.get(path[0], {}), path[1:], value)}
    return {name: held for name, held in node.items() if name != path[0]}


def _at(node: Any, path: str) -> Any:
    names = path.split(".")
    while names:
        if isinstance(node, Mapping):
            whole = ".".join(names)  # a key may hold dots itself: @odata.nextLink
            if whole in node:
                return node[whole]
            node = node.get(names.pop(0))
        elif isinstance(node, list):
            name = names.pop(0)
            at = int(name) if name.lstrip("-").isdigit() else len(node)
            node = node[at] if -len(node) <= at < len(node) else None
        else:
            return None
    return node


@dataclass(frozen=True)
class Response:
    """What came back: the status, the headers (names in any case) and the parsed JSON, None if it is none.

    ``code`` is the vendor's word for what went wrong, where the body holds one.
    """

    request: Request
    tried: str
    """Method and address, without the query: for messages."""
    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: Any = field(repr=False)
    code: str = ""

    def at(self, path: str) -> Any:
        """The value at a dotted path (``data.-1.id``: of the last), None where there is none."""
        return _at(self.body, path)

    def records(self, path: str, lift: str = "") -> list[dict[str, Any]]:
        """The list of objects at ``path``. ``lift`` names an object in each whose fields belong beside its own.

        An item that is no such object is a record too, which says so under
        :data:`~identity_pipeline.core.fieldmap.REJECTED`: it goes to quarantine alone.

        Raises:
            ContractBroken: there is no such list, or one of several items that holds no object at all.
                That is never "no records".
        """
        found = self.at(path)
        if not isinstance(found, list):
            raise self.broken(f"a list of records at {path!r}")
        made = [_record(item, lift, number) for number, item in enumerate(found[self.overlaps(path) :], 1)]
        if len(made) > 1 and all(REJECTED in record for record in made):
            raise self.broken(f"a list of objects{f' with {lift}' if lift else ''} at {path!r}")
        return made

    def overlaps(self, path: str) -> int:
        """With how many of the records that its request follows the page begins."""
        found = self.at(path)
        return sum(1 for _ in takewhile(self._follows, found)) if isinstance(found, list) and self.request.follows else 0

    def _follows(self, record: Any) -> bool:
        return isinstance(record, Mapping) and all(record.get(key) in known for key, known in self.request.follows.items())

    def texts(self, path: str, key: str) -> list[str]:
        """The texts under ``key`` of the objects at ``path``, at least one.

        Raises:
            ContractBroken: there is none, or an object without it.
        """
        found = self.at(path)
        texts = [item.get(key) if isinstance(item, Mapping) else None for item in found] if isinstance(found, list) else []
        if not texts or not all(isinstance(text, str) and text for text in texts):
            raise self.broken(f"a list of objects with {key!r} at {path!r}")
        return [str(text) for text in texts]

    def keyed(self, path: str, key: str) -> dict[str, Mapping[str, Any]]:
        """The objects at ``path`` by their ``key``; what is no such object is left out."""
        found = self.at(path)
        items = found if isinstance(found, list) else ()
        return {str(item[key]): item for item in items if isinstance(item, Mapping) and item.get(key) is not None}

    def grouped(self, path: str, owner: str, kind: str, value: str) -> dict[str, dict[str, list[Any]]]:
        """Values of the objects at ``path``, by ``owner`` and by ``kind``.

        Raises:
            ContractBroken: there is no such list.
        """
        made: dict[str, dict[str, list[Any]]] = {}
        for item in self.records(path):
            made.setdefault(str(item.get(owner)), {}).setdefault(str(item.get(kind)), []).append(item.get(value))
        return made

    def flag(self, path: str) -> bool:
        """The boolean at ``path``.

        Raises:
            ContractBroken: there is none.
        """
        found = self.at(path)
        if not isinstance(found, bool):
            raise self.broken(f"true or false at {path!r}")
        return found

    def number(self, path: str) -> int:
        """The whole number at ``path``, 0 or more.

        Raises:
            ContractBroken: there is none.
        """
        found = str(self.at(path))
        if not re.fullmatch(r"[0-9]{1,18}", found):
            raise self.broken(f"a number at {path!r}")
        return int(found)

    def broken(self, lacks: str) -> ContractBroken:
        """An error that says what came back without what it had to hold."""
        code = f" {self.code}" if self.code else ""
        return ContractBroken(f"{self.tried} answered {self.status}{code} with {_shape(self.body)}, without {lacks}: {REPORT}")


def fitting(names: Sequence[str], most: int) -> list[str]:
    """The first of ``names`` that an address takes, joined by commas and percent-encoded to ``most`` bytes."""
    lengths = accumulate(len(quote(f"{name},", safe="")) for name in names)
    return [name for name, length in zip(names, lengths, strict=True) if length <= most]


def fits(names: Iterable[str]) -> bool:
    """True if ``names``, joined by commas, are short enough for any address once they are percent-encoded.

    Where they are not, ask by POST: a page that is asked for in parts, each with other fields, is of
    several moments.
    """
    return len(quote(",".join(names), safe="")) <= ADDRESS


def _shape(body: Any) -> str:
    """What a body is, in our own words: nothing of its values."""
    if isinstance(body, Mapping):
        named = sorted(_KEYS.intersection(body))
        return "an empty object" if not body else f"an object of {', '.join(named)}" if named else "another object"
    return "a list" if isinstance(body, list) else "no JSON" if body is None else "a single value"


def _record(item: Any, lift: str, number: int) -> dict[str, Any]:
    """``item`` as a record, with the fields of ``lift`` at its level; one that the record has itself stays dotted."""
    if not isinstance(item, dict):
        return {ITEM: to_json(item), REJECTED: f"malformed: item {number} of the page is no object"}
    if not lift:
        return item
    inner = item.get(lift)
    if not isinstance(inner, dict):
        return {**item, REJECTED: f"malformed: item {number} of the page has no object as {lift}"}
    own = {name: value for name, value in item.items() if name != lift}
    if own.keys().isdisjoint(inner):
        return own | inner
    return own | {f"{lift}.{name}" if name in own else name: value for name, value in inner.items()}
