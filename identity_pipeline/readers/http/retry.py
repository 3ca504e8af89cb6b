"""Trying again: the one loop in which readers repeat what failed for a reason that may pass."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import tenacity

from identity_pipeline.core.errors import PipelineError
from identity_pipeline.core.window import ReadContext

Result = TypeVar("Result")


class Transient(Exception):
    """An attempt failed with ``error``, and another may help.

    ``wait`` is how many seconds the source asks us to wait first; infinite: waiting is useless.
    Errors that are ``retryable``, and not ``exhausted``, need no such wrapper where the source asks for nothing.
    """

    def __init__(self, error: PipelineError, wait: float | None = None) -> None:
        super().__init__(str(error))
        self.error, self.wait = error, wait

    def after(self, seconds: float) -> "Transient":
        """The same, so many seconds later."""
        return Transient(self.error, self.wait and max(0.0, self.wait - seconds))


@dataclass(frozen=True)
class Retry:
    """Calls a function again while that may help.

    It is called up to ``attempts`` times; failed calls and the waits between them take at most
    ``budget`` seconds together. A wait is the one that the source asks for, else a part, by
    ``random``, of 2, 4, 8 … up to 60 seconds.
    """

    context: ReadContext
    budget: float
    attempts: int
    random: Callable[[], float] = random.random

    def __call__(self, attempt: Callable[[], Result]) -> Result:
        """What ``attempt`` returns in the end.

        Raises:
            PipelineError: its last error; one that might pass says how often it was asked, or which wait is asked for.
        """
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_may_pass),
            wait=self._wait,
            stop=self._stop,
            sleep=self._sleep,
            before_sleep=self._log,
            retry_error_callback=self._give_up,
        )
        return retrying(attempt)

    def _wait(self, state: tenacity.RetryCallState) -> float:
        asked = _failure(state).wait
        return self.random() * min(60.0, 2.0**state.attempt_number) if asked is None else asked

    def _stop(self, state: tenacity.RetryCallState) -> bool:
        # a sleep that a test replaces takes no time, but counts
        spent = max(state.seconds_since_start or 0.0, state.idle_for)
        return state.attempt_number >= self.attempts or spent + state.upcoming_sleep > self.budget

    def _sleep(self, seconds: float) -> None:
        self.context.throttled_seconds += seconds
        self.context.sleep(seconds)

    def _log(self, state: tenacity.RetryCallState) -> None:
        self.context.log(f"waiting {math.ceil(state.upcoming_sleep)} s: {_failure(state).error}")

    def _give_up(self, state: tenacity.RetryCallState) -> Any:
        failed = _failure(state)
        asked = "" if failed.wait is None else f", it asks us to wait {_duration(failed.wait)}"
        text = "" if failed.wait == math.inf else f" (asked {state.attempt_number} times{asked})"
        raise type(failed.error)(f"{failed.error}{text}", wait=failed.wait, exhausted=True) from None


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, Transient) or (isinstance(error, PipelineError) and error.retryable and not error.exhausted)


def _failure(state: tenacity.RetryCallState) -> Transient:
    """How the last attempt failed; only what may pass comes here."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, PipelineError):
        return Transient(error)
    if not isinstance(error, Transient):
        raise TypeError(error)
    return error


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds:.0f} seconds"
