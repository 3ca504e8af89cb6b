"""The test of a connection: step by step, up to the first that fails, each with what to do."""

import re

import pytest

from identity_pipeline_tests.conformance.harness import contacts
from identity_pipeline_tests.conformance.loader import Loader

STEPS = ["reach", "authenticate", "permission", "sample"]


def checked(loader: Loader) -> list[str]:
    """The steps of a connection test, the last of which failed if it is not ``sample``."""
    steps = list(loader.connector().check())
    loader.search(*(step.message for step in steps), repr(steps))
    assert all(len(step.message) > 10 for step in steps)
    assert all(step.ok for step in steps[:-1])
    assert steps[-1].ok == (len(steps) == 4), steps[-1].message
    assert all(int(times) <= 5 for times in re.findall(r"asked (\d+) times", steps[-1].message))
    return [step.name for step in steps]


@pytest.mark.parametrize("number", [0, 5])
def test_every_step_passes_on_a_good_source(loader: Loader, number: int) -> None:
    loader.show(*contacts(number))
    assert checked(loader) == STEPS


@pytest.mark.needs("credential")
def test_it_stops_at_a_refused_credential(loader: Loader) -> None:
    loader.harness.refuse_credential()
    assert checked(loader) == STEPS[:2]


@pytest.mark.needs("permission")
def test_it_stops_at_a_missing_permission(loader: Loader) -> None:
    loader.show(*contacts(5))
    loader.harness.refuse_permission()
    assert checked(loader) == STEPS[:3]


def test_it_stops_at_a_source_that_is_down(loader: Loader) -> None:
    loader.harness.go_down()
    assert checked(loader) == STEPS[:1]
    # 5 seconds, for somebody looks on; and the source's own pace, in which each nap comes on top of those before that took no time
    assert sum(loader.naps) <= 5 + getattr(loader.connector(), "interval", 0) * sum(range(5))


def test_it_leaves_no_trace(loader: Loader) -> None:
    """The identity database holds nothing of a source that was only tested: no row, no mark, no load, no lease."""
    loader.show(*contacts(5))
    checked(loader)
    assert loader.traces() == []
