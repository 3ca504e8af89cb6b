"""How to get from one page to the next: values that are asked for the next request and remember nothing.

None ends only where the vendor says it ends; a page that is short or empty is not the end.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from identity_pipeline.core.errors import ContractBroken
from identity_pipeline.readers.rest.message import Request, Response


class Paginator(Protocol):
    """Asked with each response for the request of the page after it."""

    def next(self, response: Response) -> Request | None:
        """The next request, None after the last page."""
        ...


@dataclass(frozen=True)
class CursorPaginator:
    """The response holds a token at ``token``; the next request carries it ``into`` its query or body.

    ``CursorPaginator("paging.next.after", "query.after")``. Without ``more`` the last page is the
    one without a token; with it, ``more(response)`` says whether there is another.
    """

    token: str
    into: str
    more: Callable[[Response], bool] | None = None

    def next(self, response: Response) -> Request | None:
        """The next request, None after the last page."""
        token = response.at(self.token)
        if not (self.more(response) if self.more else token):
            return None
        if not isinstance(token, str) or not token:
            raise ContractBroken(f"{response.tried} says that there is another page, but gives no token at {self.token!r}")
        return response.request.put(self.into, str(token))


@dataclass(frozen=True)
class KeysetPaginator:
    """Records come in order of an integer key; the next request asks for those above the last one.

    Nothing shifts when records come and go meanwhile, and no ceiling on a result set is met.
    """

    records: str
    key: str
    into: str
    more: Callable[[Response], bool]

    def next(self, response: Response) -> Request | None:
        """The next request, None after the last page."""
        try:
            found = [int(record[self.key]) for record in response.records(self.records)]
        except (KeyError, TypeError, ValueError):
            raise ContractBroken(f"{response.tried} answered a record without a whole number as {self.key!r}") from None
        if any(after <= before for before, after in pairwise(found)):
            raise ContractBroken(f"{response.tried} answered records that are not in order of {self.key!r}, as was asked")
        if not self.more(response):
            return None
        if not found:
            raise ContractBroken(f"{response.tried} says that there is another page, but this one is empty")
        return response.request.put(self.into, str(found[-1]))


@dataclass(frozen=True)
class LinkPaginator:
    """The response holds the address of the next page at ``link``. The client follows it on its own origin only."""

    link: str

    def next(self, response: Response) -> Request | None:
        """The next request, None after the last page."""
        link = response.at(self.link)
        return Request(link) if isinstance(link, str) and link else None


@dataclass(frozen=True)
class OffsetPaginator:
    """The next request skips as many records as were read: up to the number at ``total``."""

    records: str
    total: str
    into: str = "query.offset"

    def next(self, response: Response) -> Request | None:
        """The next request, None after the last page."""
        try:
            total = int(response.at(self.total))
        except (TypeError, ValueError):
            raise ContractBroken(f"{response.tried} answered without a number at {self.total!r}") from None
        read = len(response.records(self.records))
        offset = int(response.request.query.get(self.into.partition(".")[2], 0)) + read
        return response.request.put(self.into, offset) if read and offset < total else None
