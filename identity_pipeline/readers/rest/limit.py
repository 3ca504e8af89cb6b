"""What a vendor's headers say of its limits."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from identity_pipeline.readers.http.exchange import http_date

_SINCE_1970 = 10**9
"""A larger number is an instant, a smaller one a number of seconds from now."""


@dataclass(frozen=True)
class RateHeaders:
    """The headers that say how many requests are left of a limit, and when there are new ones.

    ``RateHeaders("X-RateLimit-Remaining", "X-RateLimit-Reset")``. The latter holds seconds from now or
    since 1970. Without ``reset`` it is not said when: a source that refuses then is left alone.
    """

    remaining: str
    reset: str = ""

    def wait(self, headers: Mapping[str, str], *, refused: bool = False) -> float | None:
        """Seconds until there are requests again, by the source's own clock; None where none is to be waited for.

        ``refused`` says that the source asked to slow down: then ``reset`` counts, whatever is left.
        """
        left, reset = headers.get(self.remaining, "").strip(), headers.get(self.reset, "").strip()
        none_left = re.fullmatch(r"-?\d{1,15}", left) is not None and int(left) <= 0
        if re.fullmatch(r"\d{1,12}(\.\d+)?", reset) and (refused or none_left):
            until = float(reset)
            now = http_date(headers.get("Date", "")) or datetime.now(UTC)
            return max(0.0, until - now.timestamp()) if until > _SINCE_1970 else until
        return math.inf if none_left and refused and not self.reset else None


def longest(limits: tuple[RateHeaders, ...], headers: Mapping[str, str], *, refused: bool = False) -> float | None:
    """The longest wait that one of ``limits`` asks for."""
    return max((wait for each in limits if (wait := each.wait(headers, refused=refused)) is not None), default=None)
