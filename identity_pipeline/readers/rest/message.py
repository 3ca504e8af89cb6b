"""A request and its response as values."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from identity_pipeline.core.errors import ContractBroken

_LOOK = "the API has changed or base_url leads elsewhere"


@dataclass(frozen=True)
class Request:
    """What to ask for: a path below the base URL, its query, and a JSON body if it is a POST.

    ``path`` may be the whole address that the source gave for the next page, on the same origin.
    """

    path: str
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] | None = field(default=None, repr=False)

    @property
    def method(self) -> str:
        """``POST`` with a body, else ``GET``."""
        return "GET" if self.body is None else "POST"

    def put(self, into: str, value: Any) -> "Request":
        """This request with ``value`` at ``query.<name>`` or ``body.<dotted path>``."""
        part, _, name = into.partition(".")
        if part == "query":
            return replace(self, query={**self.query, name: value})
        if part == "body":
            return replace(self, body=_put(self.body or {}, name.split("."), value))
        raise ValueError(f"expected query.<name> or body.<path>, found {into!r}")


def _put(node: Any, path: Sequence[str], value: Any) -> Any:
    if not path:
        return value
    if isinstance(node, list | tuple):
        at = int(path[0])
        return [*node[:at], _put(node[at], path[1:], value), *node[at + 1 :]]
    return {**node, path[0]: _put(node.get(path[0], {}), path[1:], value)}


@dataclass(frozen=True)
class Response:
    """What came back: the status, the headers (names in any case) and the parsed JSON, None if it is none."""

    request: Request
    tried: str
    """Method and address, without the query: for messages."""
    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: Any = field(repr=False)

    def at(self, path: str) -> Any:
        """The value at a dotted path (``data.-1.id``: of the last), None where there is none."""
        node = self.body
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

    def records(self, path: str, lift: str = "") -> list[dict[str, Any]]:
        """The list of objects at ``path``. ``lift`` names an object in each whose fields belong beside its own.

        Raises:
            ContractBroken: there is no such list. That is never "no records".
        """
        found = self.at(path)
        if not isinstance(found, list) or not all(isinstance(record, dict) for record in found):
            raise ContractBroken(f"{self.tried} answered {self.status} without a list of records at {path!r}: {_LOOK}")
        return [_lifted(record, lift) for record in found] if lift else found

    def flag(self, path: str) -> bool:
        """The boolean at ``path``.

        Raises:
            ContractBroken: there is none.
        """
        found = self.at(path)
        if not isinstance(found, bool):
            raise ContractBroken(f"{self.tried} answered {self.status} without true or false at {path!r}: {_LOOK}")
        return found


def chunks(names: Iterable[str], length: int = 15_000) -> Iterator[str]:
    """``names`` joined by commas, in as many texts as keep each within ``length`` once it stands in an address."""
    held: list[str] = []
    size = 0
    for name in names:
        if held and size + len(name) + 3 > length:
            yield ",".join(held)
            held, size = [], 0
        held.append(name)
        size += len(name) + 3  # a comma is %2C there
    yield ",".join(held)


def _lifted(record: dict[str, Any], inner: str) -> dict[str, Any]:
    """``record`` with the fields of ``inner`` at its level; one that the record has itself stays dotted."""
    own = {name: value for name, value in record.items() if name != inner}
    return own | {f"{inner}.{name}" if name in own else name: value for name, value in (record.get(inner) or {}).items()}
