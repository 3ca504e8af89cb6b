"""What a vendor's answers say of its limits, in headers or in their body."""

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from identity_pipeline.readers.http.exchange import http_date
from identity_pipeline.readers.rest.message import Response

_SINCE_1970 = 10**9
"""A larger number is an instant, a smaller one a number of seconds from now."""


class Limit(Protocol):
    """Something in a response that says how much is left of a limit."""

    def wait(self, response: Response, *, refused: bool = False) -> float | None:
        """Seconds until the next request may go; None where none is to be waited for. ``refused``: the source asked to slow down."""
        ...


@dataclass(frozen=True)
class RateHeaders:
    """The headers that say how many requests are left of a limit, and when there are new ones.

    ``RateHeaders("X-RateLimit-Remaining", "X-RateLimit-Reset")``. The latter holds seconds from now or
    since 1970; where no header says it, it is known to be ``period`` seconds. Without either a source that
    refuses when nothing is left is left alone.
    """

    remaining: str
    reset: str = ""
    period: float | None = None

    def wait(self, response: Response, *, refused: bool = False) -> float | None:
        """Seconds until there are requests again, by the source's own clock; None where none is to be waited for.

        ``refused`` says that the source asked to slow down: then ``reset`` counts, whatever is left.
        """
        headers = response.headers
        left, reset = headers.get(self.remaining, "").strip(), headers.get(self.reset, "").strip()
        none_left = re.fullmatch(r"-?\d{1,15}", left) is not None and int(left) <= 0
        if re.fullmatch(r"\d{1,12}(\.\d+)?", reset) and (refused or none_left):
            until = float(reset)
            now = http_date(headers.get("Date", "")) or datetime.now(UTC)
            return max(0.0, until - now.timestamp()) if until > _SINCE_1970 else until
        if none_left and self.period is not None:
            return self.period
        return math.inf if none_left and refused and not self.reset else None


@dataclass(frozen=True)
class Quota:
    """A header that says how many requests of a long time are used, and of how many: two numbers that ``form`` finds in it.

    All programs of an account share it, so the part ``keep`` is left to the others: nothing more is asked then.
    """

    header: str
    form: str
    keep: float = 0.1

    def wait(self, response: Response, *, refused: bool = False) -> float | None:  # noqa: ARG002 - a refusal says it itself
        """Infinite once no more than what is kept is left."""
        found = re.search(self.form, response.headers.get(self.header, ""))
        return math.inf if found and int(found[1]) > int(found[2]) * (1 - self.keep) else None


@dataclass(frozen=True)
class CostBudget:
    """Where a body holds what a request costs, what is left of the budget, and how much of it comes back in a second."""

    cost: str
    left: str
    rate: str

    def wait(self, response: Response, *, refused: bool = False) -> float | None:  # noqa: ARG002 - it is told either way
        """Seconds until a request that costs the same can be paid for; None where that is now or not told."""
        cost, left, rate = (response.at(path) for path in (self.cost, self.left, self.rate))
        try:
            lacking, rate = float(cost) - float(left), float(rate)
        except (TypeError, ValueError):
            return None
        return lacking / rate if lacking > 0 and rate > 0 else None


def longest(limits: tuple[Limit, ...], response: Response, *, refused: bool = False) -> float | None:
    """The longest wait that one of ``limits`` asks for."""
    return max((wait for each in limits if (wait := each.wait(response, refused=refused)) is not None), default=None)
