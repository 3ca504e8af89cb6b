"""How to get from one page to the next: values that are asked for the next request and remember nothing.

None ends only where the vendor says it ends; a page that is short or empty is not the end.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise, takewhile
from typing import Any, Protocol

from identity_pipeline.core.errors import ContractBroken
from identity_pipeline.readers.rest.message import REPORT, Request, Response

_FALLS = 100
"""Times that the records of one time are asked for again in a row."""


class Paginator(Protocol):
    """Asked with each response for the request of the page after it."""

    def next(self, response: Response) -> Request | None:
        """The next request, None after the last page."""
        ...


@dataclass(frozen=True)
class Total:
    """Where a response says how many records there are in all, and where it holds its own: ``Total("total", "results")``.

    That of the first page is the number of the whole: a later page may say how many are left. ``indexed``
    says that it counts what a search index has at the moment: that proves no record to be gone.
    """

    at: str
    records: str
    indexed: bool = False


@dataclass(frozen=True)
class CursorPaginator:
    """The response holds a token at ``token``; the next request carries it ``into`` its query or body.

    ``CursorPaginator("paging.next.after", "query.after")``. Without ``more`` the last page is the
    one without a token; with it, ``more(response)`` says whether there is another. ``instead_of`` is
    what only the first request holds.
    """

    token: str
    into: str
    more: Callable[[Response], bool] | None = None
    instead_of: str = ""

    def next(self, response: Response) -> Request | None:
        """The next request, None after the last page."""
        token = _token(response, self.token)
        if not (self.more(response) if self.more else token):
            return None
        if not isinstance(token, str) or not token:
            raise ContractBroken(f"{response.tried} says that there is another page, but gives no token at {self.token!r}: {REPORT}")
        following = response.request.put(self.into, str(token))
        return following.put(self.instead_of, None) if self.instead_of else following


def _token(response: Response, path: str) -> Any:
    """The value at ``path``; where that is of the last record, of the last one that has it."""
    records, last, key = path.partition(".-1.")
    found = response.at(records) if last else None
    backwards = range(1, len(found) + 1) if isinstance(found, list) else ()
    return next((token for n in backwards if (token := response.at(f"{records}.-{n}.{key}"))), None) if last else response.at(path)


@dataclass(frozen=True)
class KeysetPaginator:
    """Records come in order of an integer key; the next request asks for those above the last one.

    Nothing shifts when records come and go meanwhile, and no ceiling on a result set is met. A record
    without such a key is passed over: it is a record of its page and nothing to go on from. A page without
    any, an empty one too, is followed by its token, as ``tokens`` finds it: up to the ceiling, where the
    source refuses. A page that begins below its bound, or is in another order, is none; two neighbours that
    changed places cost nothing.
    """

    records: str
    key: str
    into: str
    more: Callable[[Response], bool]
    tokens: CursorPaginator

    def next(self, response: Response) -> Request | None:
        """The next request, None after the last page."""
        keys = [str(record.get(self.key, "")) for record in response.records(self.records)]
        found = [int(key) for key in keys if re.fullmatch(r"[0-9]{1,30}", key)]
        bound = str(response.request.at(self.into))
        if not _ascending(found) or (found and bound.isdigit() and min(found) <= int(bound)):
            raise ContractBroken(f"{response.tried} answered records that are not in order of {self.key!r}, as was asked: {REPORT}")
        if not self.more(response):
            return None
        if not found:
            return replace(self.tokens, more=self.more).next(response)
        return response.request.put(self.into, str(max(found))).put(self.tokens.into, None)


def _ascending(keys: list[int]) -> bool:
    """True if ``keys`` grow from one to the next, but for two neighbours at most that changed places."""
    falls = [place for place, (before, after) in enumerate(pairwise(keys)) if after <= before]
    if len(falls) != 1:
        return not falls
    [at] = falls
    swapped = [*keys[:at], keys[at + 1], keys[at], *keys[at + 2 :]]
    return all(before < after for before, after in pairwise(swapped))


@dataclass(frozen=True)
class LinkPaginator:
    """The response holds the address of the next page at ``link``. The client follows it on its own origin only."""

    link: str

    def next(self, response: Response) -> Request | None:
        """The next request, None after the last page."""
        link = response.at(self.link)
        asked = response.request
        return Request(link, size=asked.size, options=asked.options) if isinstance(link, str) and link else None


@dataclass(frozen=True)
class OffsetPaginator:
    """The next request skips as many records as were read: up to the number at ``total``."""

    records: str
    total: str
    into: str = "query.offset"

    def next(self, response: Response) -> Request | None:
        """The next request, None after the last page."""
        total, read = response.number(self.total), len(response.records(self.records))
        offset = int(response.request.query.get(self.into.partition(".")[2], 0)) + read
        if offset >= total:
            return None
        if not read:
            raise ContractBroken(f"{response.tried} says that there are {total:,} records, but gives none after {offset:,}: {REPORT}")
        return response.request.put(self.into, offset)


@dataclass(frozen=True)
class TimePaginator:
    """Records come in order of a time in whole seconds; the next page is asked for from the last one's time on.

    ``since`` is the query's name for a bound, which leaves out what equals it (or does not: that costs some
    records twice), ``offset`` its name for how many records are skipped: those of that time that were read, but for the
    last tenth of a page. The page has to begin with one of these, or with an earlier one. If it does not, so
    many changed and moved away meanwhile: all records of that time are asked for again. So none is
    missed, however many change during a read.
    """

    records: str
    total: str
    time: str
    since: str
    offset: str = "offset"
    key: str = "id"

    def next(self, response: Response) -> Request | None:
        """The next request, None after the last page."""
        request, found = response.request, response.at(self.records)
        response.records(self.records)  # there is such a list
        times = [_moment(record.get(self.time)) if isinstance(record, dict) else None for record in found]
        if any(after < before for before, after in pairwise(time for time in times if time)):
            raise ContractBroken(f"{response.tried} answered records that are not in order of {self.time!r}, as was asked: {REPORT}")
        if request.follows and not response.overlaps(self.records) and not self._before(response, times):
            if request.again == _FALLS:
                raise ContractBroken(f"{response.tried} gave no page that follows the one before, {_FALLS} times: {REPORT}")
            return replace(request.put(f"query.{self.offset}", None), follows={}, again=request.again + 1)
        total, skipped = response.number(self.total), int(request.query.get(self.offset) or 0)
        read = skipped + len(found)
        if read >= total:
            return None
        if not found:
            raise ContractBroken(f"{response.tried} says that there are {total:,} records, but gives none after {skipped:,}: {REPORT}")
        last = times[-1]
        if last is None or len(found) == 1 or self.key not in found[-1]:
            return replace(request.put(f"query.{self.offset}", read), follows={})
        tied = sum(1 for _ in takewhile(last.__eq__, reversed(times)))
        kept = min(tied, max(1, len(found) // 10))
        again = [record for record in found[-kept:] if self.key in record]
        follows = {name: [record[name] for record in again] for name in (self.key, self.time)}
        since = last - timedelta(seconds=1)
        if tied == len(found) or since == _moment(request.query.get(self.since)):  # the bound stays, within that time
            return replace(request.put(f"query.{self.offset}", read - kept), follows=follows)
        onward = request.put(f"query.{self.since}", since.strftime("%Y-%m-%dT%H:%M:%SZ"))
        return replace(onward.put(f"query.{self.offset}", tied - kept), follows=follows, again=0)

    def _before(self, response: Response, times: Sequence[datetime | None]) -> bool:
        """True if a page begins before the time of what it follows, as one does whose bound is inclusive."""
        request, first = response.request, times[0] if times else None
        bound, followed = _moment(request.query.get(self.since)), _moment(request.follows[self.time][-1])
        if first and bound and first < bound:
            raise ContractBroken(f"{response.tried} answered records below the bound of {self.time!r} that was asked for: {REPORT}")
        return bool(first and bound and followed and first < followed)


def _moment(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (TypeError, ValueError):
        return None


@dataclass(frozen=True)
class HeaderPaginator:
    """The response's ``header`` holds a token, the next request carries it ``into`` its query; ``last`` is what it holds at the end."""

    header: str
    into: str
    last: str

    def next(self, response: Response) -> Request | None:
        """The next request, None after the last page."""
        token = response.headers.get(self.header)
        if not token:
            raise ContractBroken(f"{response.tried} does not say whether there is another page ({self.header}): {REPORT}")
        return None if token == self.last else response.request.put(self.into, token)
