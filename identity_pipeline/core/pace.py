"""Pace: how far apart the requests to one limit of a source are kept."""

import time
from dataclasses import dataclass, field
from typing import Protocol


class Pace(Protocol):
    """Gives requests their turn. ``limit`` names what they share: an account's limit for one kind of request."""

    def turn(self, limit: str, interval: float) -> float:
        """Seconds until the next request may go, which is then taken as sent; the one after it goes ``interval`` seconds later."""
        ...

    def rest(self, limit: str, seconds: float) -> None:
        """Let no further request go for so long."""
        ...

    def refused(self, limit: str, seconds: float) -> None:
        """The source refused a request and asks to be left alone for so long: whoever asked waits by itself, nobody else may ask."""
        ...


@dataclass
class LocalPace:
    """For one process that asks alone."""

    _next: dict[str, float] = field(default_factory=dict)

    def turn(self, limit: str, interval: float) -> float:
        """Seconds until the next request may go."""
        now = time.monotonic()
        pause = max(0.0, self._next.get(limit, now) - now)
        self._next[limit] = now + pause + interval
        return pause

    def rest(self, limit: str, seconds: float) -> None:
        """Let no further request go for so long."""
        self._next[limit] = max(self._next.get(limit, 0.0), time.monotonic() + seconds)

    def refused(self, limit: str, seconds: float) -> None:
        """Nobody else asks."""
