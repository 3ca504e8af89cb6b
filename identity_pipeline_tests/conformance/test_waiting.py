"""A source that wants to be left alone is left alone by every layer, until the time that it gave."""

import pytest

from identity_pipeline.core.errors import RateLimited
from identity_pipeline_tests.conformance.harness import LONG, contacts
from identity_pipeline_tests.conformance.loader import Loader
from identity_pipeline_tests.servers.faults import status

DAY = 86_400


@pytest.mark.needs("http")
def test_a_wait_too_long_for_a_run_is_kept_by_the_loads_after_it(loader: Loader) -> None:
    loader.show(*contacts(5))
    loader.harness.faults.plan([status(429, Retry_After=str(2 * DAY))] * LONG)
    error = loader.fail(RateLimited)
    assert (error.exhausted, error.wait) == (True, 2 * DAY)
    assert "no load asks it before" in str(error)
    loader.harness.faults.forget()
    with pytest.raises(RateLimited, match=r"asked us to wait until .* with --force"):
        loader.load()
    assert not loader.harness.faults.requests, "the source was asked before its time"
    assert loader.load(force=True)["inserted"] == 5
    assert loader.load(full_refresh=True)["unchanged"] == 5, "a load that went well takes the note back"


@pytest.mark.needs("http")
def test_what_was_tried_to_the_end_is_tried_by_no_other_layer(loader: Loader) -> None:
    """Tries of the client, of the op and of the run would multiply: 5 by 3 by 2 downloads of one file."""
    loader.show(*contacts(5))
    loader.harness.faults.plan([status(503)] * LONG)
    error = loader.fail()
    assert error.retryable
    assert error.exhausted
    assert len(loader.harness.faults.requests) <= 10
