"""When the source fails: the load waits, or ends in an error that says who acts; nothing is lost, doubled or half done."""

import gzip
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import cache
from typing import Any

import pytest

from identity_pipeline.core.errors import (
    ContractBroken,
    CredentialError,
    LimitExceeded,
    OperatorError,
    PermissionDenied,
    PipelineError,
    RateLimited,
    SourceUnavailable,
    TruncatedBody,
    TryLater,
)
from identity_pipeline.readers import rest
from identity_pipeline_tests.conformance.harness import LONG, Contact, Harness, contacts, minute
from identity_pipeline_tests.conformance.loader import Loader, searched
from identity_pipeline_tests.servers import faults
from identity_pipeline_tests.servers.faults import Exchange, Fault, status
from identity_pipeline_tests.servers.files import FileServer


@cache
def packed(megabytes: int) -> bytes:
    """A small gzip body that unpacks to this much."""
    return gzip.compress(b" " * (megabytes * 2**20))


def empty(exchange: Exchange) -> None:
    """An answer like the true one, without a body."""
    true = exchange.forward()
    exchange.send(true.status, true.headers, b"")


def bomb(exchange: Exchange) -> None:
    """An answer like the true one, with a small body that unpacks to a large one."""
    true = exchange.forward()
    exchange.send(true.status, {**true.headers, "Content-Encoding": "gzip"}, packed(80))


BROKEN: dict[str, tuple[Fault, type[PipelineError] | tuple[type[PipelineError], ...], bool | None]] = {
    "refused": (status(404), OperatorError, False),
    "unauthenticated": (status(401), CredentialError, False),
    "forbidden": (status(403), PermissionDenied, False),
    "hasty": (status(429), RateLimited, True),
    "unavailable": (status(503), SourceUnavailable, True),
    "reset": (faults.reset, SourceUnavailable, True),
    "reset_in_body": (faults.reset_in_body, (SourceUnavailable, TruncatedBody), True),
    "short_body": (faults.short_body, TruncatedBody, True),
    "open_chunks": (faults.open_chunks, TruncatedBody, True),
    "cut_gzip": (faults.cut_gzip, TruncatedBody, True),
    "html": (faults.html(200), PipelineError, None),
    "empty": (empty, PipelineError, None),
    "something_else": (status(200, {"status": "error"}), PipelineError, None),
}
"""Fault → the error it ends in when it does not pass, and whether a retry of the run helps."""
PASSING = {name: fault for name, (fault, _, retryable) in BROKEN.items() if retryable}

FIRST, CHANGES = contacts(3), [Contact(str(n), minute(n + 20)) for n in (2, 4, 5, 6, 7)]
ALL = {str(n) for n in range(1, 8)}


def loaded(loader: Loader) -> None:
    """Three contacts are loaded; since then one changed and four are new, which takes two pages."""
    loader.show(*FIRST)
    loader.load()
    loader.harness.shrink_pages()
    loader.add(*CHANGES)


def clean(loader: Loader) -> None:
    """A load without faults: everything is there, once."""
    line = loader.load()
    assert (line["inserted"], line["updated"]) == (4, 1)
    assert loader.live() == ALL


@pytest.mark.needs("http")
@pytest.mark.parametrize("name", BROKEN)
def test_a_fault_that_stays_ends_the_load_and_loses_nothing(loader: Loader, name: str) -> None:
    fault, kind, retryable = BROKEN[name]
    harness = loader.harness
    fault = harness.dialect.get(name, fault)
    loaded(loader)
    pages = (0, 1) if harness.has("pages") else (0,)
    for page in pages:
        harness.faults.forget()
        harness.faults.plan([None] * (harness.requests_before_pages + page) + [fault] * LONG)
        error = loader.fail(kind)  # type: ignore[type-var]
        assert retryable in {None, error.retryable}
    harness.faults.forget()
    clean(loader)


@pytest.mark.needs("http")
@pytest.mark.parametrize("name", PASSING)
def test_a_fault_that_passes_is_waited_out(loader: Loader, name: str) -> None:
    loader.show(*contacts(3))
    loader.harness.faults.plan([None] * loader.harness.requests_before_pages + [loader.harness.dialect.get(name, PASSING[name])] * 2)
    assert loader.load()["inserted"] == 3
    assert 0 < sum(loader.naps) < 300


@pytest.mark.needs("http", "framed")
def test_a_body_that_breaks_off_where_its_length_says_is_no_page(loader: Loader) -> None:
    loader.show(*contacts(3))
    before = [None] * loader.harness.requests_before_pages
    loader.harness.faults.plan([*before, faults.cut_json, faults.cut_json_unframed])
    assert loader.load()["inserted"] == 3
    loader.show(*contacts(4))  # what has not changed need not be asked for
    loader.harness.faults.plan([*before, *[faults.cut_json] * LONG])
    loader.fail(TruncatedBody)


@pytest.mark.needs("http", "pages")
def test_a_full_refresh_that_breaks_off_deletes_nothing(loader: Loader) -> None:
    loader.harness.shrink_pages()
    loader.show(*contacts(6))
    loader.load()
    loader.harness.faults.plan([None] * (loader.harness.requests_before_pages + 1) + [status(503)] * LONG)
    loader.fail(SourceUnavailable, full_refresh=True)
    assert len(loader.live()) == 6


@pytest.mark.needs("http")
def test_a_small_body_that_unpacks_to_a_large_one_is_given_up(loader: Loader) -> None:
    loader.show(*contacts(3))
    loader.harness.faults.plan([bomb] * LONG)
    loader.fail(LimitExceeded)


@pytest.mark.needs("http")
def test_a_redirect_to_another_host_takes_no_secret_along(loader: Loader) -> None:
    loader.show(*contacts(3))
    with FileServer(loader.harness.tools.authority) as other:
        loader.harness.faults.plan([faults.redirect(f"{other.url}/elsewhere", code) for code in (301, 302, 303, 307, 308)])
        for _ in range(5):
            loader.fail(OperatorError)
        searched(loader.harness, [repr(request) for request in other.requests])


@pytest.mark.needs("http", "pages")
def test_a_page_that_comes_again_is_no_endless_load(loader: Loader) -> None:
    loader.harness.shrink_pages()
    loader.show(*contacts(5))
    loader.harness.faults.plan([None] * (loader.harness.requests_before_pages + 1) + [faults.same_again] * LONG)
    loader.fail(ContractBroken)


# a page that is not what was asked for


def items(body: Any) -> list[Any]:
    """The records of a page: its longest list of objects."""
    inner = body.values() if isinstance(body, dict) else body if isinstance(body, list) else ()
    found = [body] if isinstance(body, list) and body and isinstance(body[0], dict) else []
    return max([*found, *map(items, inner)], key=len, default=[])


def page(change: Callable[[Any], object]) -> Fault:
    """The true answer, its JSON changed in place."""

    def fault(exchange: Exchange) -> None:
        true = exchange.forward()
        body = json.loads(true.body)
        change(body)
        exchange.send(true.status, true.headers, json.dumps(body).encode())

    return fault


ONCE: dict[str, Fault] = {
    "nothing": status(200, {}),
    "an error with status 200": status(200, {"status": "error", "message": "something went wrong"}),
    "the token is gone": status(400, {"status": "error", "message": "the token has expired"}),
    "the page is gone": status(410),
    "another order": page(lambda body: items(body).reverse()),
}


@pytest.mark.needs("http", "pages")
@pytest.mark.parametrize("name", ONCE)
def test_a_page_that_breaks_the_contract_once_is_read_again_from_the_start(loader: Loader, name: str) -> None:
    loaded(loader)
    loader.harness.faults.plan([None] * (loader.harness.requests_before_pages + 1) + [ONCE[name]])
    clean(loader)


@pytest.mark.needs("http", "pages", "counted")
def test_an_end_before_the_total_is_no_end(loader: Loader) -> None:
    key = loader.harness.next_page
    last = page(lambda body: body.pop(key, None))
    loaded(loader)
    loader.harness.faults.plan([last] * LONG)
    loader.fail(ContractBroken)
    loader.harness.faults.forget()
    loader.harness.faults.plan([None] * loader.harness.requests_before_pages + [last])
    clean(loader)


@pytest.mark.needs("http", "pages")
def test_a_page_that_is_too_large_is_asked_for_in_a_smaller_size(loader: Loader) -> None:
    loaded(loader)
    loader.harness.faults.plan([None] * loader.harness.requests_before_pages + [bomb])
    clean(loader)


BAD: dict[str, Callable[[Any, Harness], Any]] = {
    "null": lambda *_: None,
    "a text": lambda *_: "text",
    "no id": lambda item, harness: harness.without_id(item),
    "flat": lambda item, _: {name: "text" if isinstance(value, dict) else value for name, value in item.items()},
    "hollow": lambda item, _: {name: None if isinstance(value, dict) else value for name, value in item.items()},
}
"""What becomes of an item of a source."""
NESTED = {"flat", "hollow"}
"""Those that spoil only a record whose fields stand in an object inside it."""


@pytest.mark.needs("http", "pages")
@pytest.mark.parametrize("changes", [False, True], ids=["all", "changes"])
@pytest.mark.parametrize("name", BAD)
def test_one_bad_item_of_a_page_is_quarantined_alone(loader: Loader, name: str, changes: bool) -> None:
    def spoil(body: Any) -> None:
        found = items(body)
        found[1] = BAD[name](found[1], loader.harness)

    if changes:
        loaded(loader)
    else:
        loader.harness.shrink_pages()
        loader.show(*contacts(5))
    loader.harness.faults.plan([None] * loader.harness.requests_before_pages + [page(spoil)])
    row = loader.load()
    spoilt = name not in NESTED or loader.harness.has("nested") or (changes and loader.harness.by_events)
    assert row["quarantined"] == spoilt
    assert row["inserted"] + row["updated"] >= 5 - spoilt, "it may be one that was read again within the overlap"
    loader.load(full_refresh=True)
    assert loader.live() == (ALL if changes else {"1", "2", "3", "4", "5"})


# Retry-After


def after(seconds: float) -> str:
    """An HTTP date that many seconds from now."""
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


WAITS: dict[str, tuple[Callable[[], str], int]] = {
    "seconds": (lambda: "7", 7),
    "date": (lambda: after(31), 29),
    "past": (lambda: after(-600), 0),
    "negative": (lambda: "-5", 0),
    "zero": (lambda: "0", 0),
    "nonsense": (lambda: "soon", 0),
    "empty": (lambda: "", 0),
}


@pytest.mark.needs("http")
@pytest.mark.parametrize("form", WAITS)
def test_a_wish_to_wait_is_heeded_in_every_form(loader: Loader, form: str) -> None:
    wish, least = WAITS[form]
    loader.show(*contacts(3))
    loader.harness.faults.plan([None] * loader.harness.requests_before_pages + [status(429, Retry_After=wish())])
    line = loader.load()
    assert line["inserted"] == 3
    assert least <= max(loader.naps) <= least + 60
    assert line["throttled_seconds"] >= least


@pytest.mark.needs("http")
@pytest.mark.parametrize("wish", ["315360000", "date"])
def test_an_absurd_wish_to_wait_ends_the_load(loader: Loader, wish: str) -> None:
    loader.show(*contacts(3))
    loader.harness.faults.plan([status(429, Retry_After=after(315_360_000) if wish == "date" else wish)] * LONG)
    assert loader.fail(RateLimited).retryable
    assert sum(loader.naps) < 60
    assert len(loader.harness.faults.requests) < 5


@pytest.mark.needs("http")
def test_a_wish_to_wait_is_heeded_from_a_source_that_is_down_too(loader: Loader) -> None:
    loader.show(*contacts(3))
    loader.harness.faults.plan([status(503, Retry_After="7")])
    assert loader.load()["inserted"] == 3
    assert 7 <= max(loader.naps) < 67


# the line


def test_a_source_that_is_down_is_unavailable(loader: Loader) -> None:
    loader.show(*FIRST)
    loader.load()
    loader.harness.go_down()
    assert loader.fail(SourceUnavailable).retryable


@pytest.mark.needs("tcp")
def test_a_connection_that_is_cut_ends_the_load_and_loses_nothing(loader: Loader) -> None:
    relay = loader.harness.relay
    assert relay is not None
    loaded(loader)
    loader.add(*(c.but(note="x" * 40_000) for c in CHANGES))
    loader.batches()
    most = relay.bytes_back
    for cut in (0, 200, most - 100_000, most - loader.harness.trailing):
        relay.cut_after = cut
        assert loader.fail(TryLater).retryable
    relay.cut_after = None
    clean(loader)


@pytest.mark.needs("tcp")
def test_a_read_that_is_given_up_leaves_no_connection_open(loader: Loader) -> None:
    relay = loader.harness.relay
    assert relay is not None
    loader.harness.shrink_pages()
    loader.show(*(c.but(note="x" * 10_000) for c in contacts(100)))
    loader.load(limit=2)
    deadline = time.monotonic() + 5
    while relay.open and time.monotonic() < deadline:
        time.sleep(0.02)
    assert relay.open == 0


# who has to act


@pytest.mark.needs("credential")
def test_a_refused_credential_is_the_operators_to_mend(loader: Loader) -> None:
    loader.show(*FIRST)
    loader.load()
    loader.harness.refuse_credential()
    assert not loader.fail(CredentialError).retryable


@pytest.mark.needs("permission")
def test_a_missing_permission_is_the_operators_to_grant(loader: Loader) -> None:
    loader.show(*FIRST)
    loader.load()
    loader.harness.refuse_permission()
    assert not loader.fail(PermissionDenied).retryable


@pytest.mark.needs("http")
@pytest.mark.parametrize("code", [400, 401, 403, 422, 429, 500])
def test_what_a_refusal_quotes_is_not_passed_on(loader: Loader, code: int) -> None:
    person = FIRST[0]
    said = f"{person.first_name} in Harbour Street, {person.email} ({person.phone}): refused with {' and '.join(loader.harness.canaries)}"
    body = {"message": said, "error": said, "errors": [{"message": said, "detail": said}], "error_description": said, "detail": said}
    errors = getattr(loader.connector(), "errors", rest.ErrorBody())
    for path in (*errors.code, *errors.message):  # where this vendor says what is wrong
        if "." in path and isinstance(body.get(path.partition(".")[0]), str):  # now as a text, now as an object
            del body[path.partition(".")[0]]
        body = dict(rest.Request("/", body=body).put(f"body.{path}", said).body or {})
    loader.harness.faults.plan([status(code, body)] * LONG)
    loader.fail()
