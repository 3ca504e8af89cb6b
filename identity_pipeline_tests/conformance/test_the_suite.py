"""The suite itself: each of its promises catches the bug that it is for."""

import traceback
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import count
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from identity_pipeline.connectors.base import Connector, Secret, setting
from identity_pipeline.core import cursor
from identity_pipeline.core.check import CheckStep
from identity_pipeline.core.errors import ContractBroken, CredentialError, PipelineError, SourceUnavailable
from identity_pipeline.core.fieldmap import REJECTED
from identity_pipeline.core.window import ReadContext, Window
from identity_pipeline.loading import start
from identity_pipeline.loading.spec import RunOptions
from identity_pipeline.readers.http import body, exchange
from identity_pipeline.readers.rest import client, message
from identity_pipeline.store import batch as merged_batch
from identity_pipeline.store import ledger
from identity_pipeline.store.record_hash import HASH
from identity_pipeline_tests.conformance import test_check as checking
from identity_pipeline_tests.conformance import test_faults as failing
from identity_pipeline_tests.conformance import test_reading as reading
from identity_pipeline_tests.conformance import test_settings as settings
from identity_pipeline_tests.conformance.harness import Harness, harness_classes
from identity_pipeline_tests.conformance.loader import Loader

Batches = Iterable[pa.Table]
Bug = Callable[[Connector, Window, Callable[[Window], Batches]], Batches]
"""A read that is wrong: of this connector, for this window, made of the right read."""

CAUGHT = (AssertionError, PipelineError, pytest.fail.Exception)
HARNESSES = harness_classes()
SWEEP, START, TEXT_OF = ledger.sweep, start.Start, cursor.text_of
NUMBERS = count()


@contextmanager
def caught(by: str) -> Iterator[None]:
    """The body has to fail, and at that line of a promise: ``by`` is a part of it."""
    with pytest.raises(CAUGHT) as failure:
        yield
    frames = [f for f in traceback.extract_tb(failure.value.__traceback__) if "identity_pipeline_tests" in f.filename]
    lines = [str(f.line) for f in frames if "test_the_suite" not in f.filename]
    assert any(by in line for line in lines), f"caught by something else: {lines} ({failure.value!r:.300})"


def kept(batch: pa.Table, mask: pa.Array) -> pa.Table:
    return batch.filter(pc.fill_null(mask, False))


def keys(window: Window, batch: pa.Table) -> pa.Array:
    """The cursor values of a batch."""
    assert window.cursor is not None
    found = window.cursor.of(batch)
    assert found is not None
    return found


def above(window: Window, batch: pa.Table, seconds: float = 0) -> pa.Table:
    """The records later than so many seconds after the lower bound."""
    if window.lower is None:
        return batch
    lower = cursor.keys("timestamp", pa.array([cursor.subtract_overlap("timestamp", window.lower, -seconds)]))[0]
    return kept(batch, pc.greater(keys(window, batch), lower))


def changed(change: Callable[[str], str | None]) -> Bug:
    """Every value changed on its way."""

    def bug(_: Connector, window: Window, read: Callable[[Window], Batches]) -> Iterator[pa.Table]:
        for batch in read(window):
            texts = {n: [None if v is None else change(v) for v in batch.column(n).to_pylist()] for n in batch.column_names}
            yield pa.table({name: pa.array(values, pa.string()) for name, values in texts.items()})

    return bug


def each(change: Callable[[Window, pa.Table], Any]) -> Bug:
    """Every batch changed on its way."""
    return lambda _, window, read: (change(window, batch) for batch in read(window))


def joined(batches: Batches) -> pa.Table:
    return pa.concat_tables(list(batches), promote_options="default")


def without_the_last_page(_: Connector, window: Window, read: Callable[[Window], Batches]) -> Iterator[pa.Table]:
    rows = joined(read(window))
    yield rows.slice(0, len(rows) - len(rows) % 3)


def ends_at_an_error(_: Connector, window: Window, read: Callable[[Window], Batches]) -> Iterator[pa.Table]:
    with suppress(PipelineError):
        yield from read(window)


def without_repeats(batch: pa.Table, column: str) -> pa.Table:
    values = batch.column(column).to_pylist()
    return kept(batch, pa.array([values.index(value) == n for n, value in enumerate(values)]))


def remembers_what_it_saw() -> Bug:
    """What dlt does: the same id under the same cursor value is no news."""
    seen: set[tuple[Any, Any]] = set()

    def fresh(window: Window, batch: pa.Table) -> pa.Table:
        pairs = list(zip(batch.column("id").to_pylist(), keys(window, batch).to_pylist(), strict=True))
        new = pa.array([pair not in seen for pair in pairs])
        seen.update(pairs)
        return kept(batch, new)

    return each(fresh)


def secret_of(connector: Connector) -> str:
    """The first secret that the connector can get at."""
    values = [getattr(connector, each.name) for each in type(connector).settings()]
    [token] = [value.token() for value in values if isinstance(value, Secret)] or [str(getattr(connector, "url", "")).partition("?")[2]]
    return token


def raises_its_secret(connector: Connector, window: Window, read: Callable[[Window], Batches]) -> Batches:
    try:
        return list(read(window))
    except CredentialError as error:
        raise CredentialError(f"{error}: {secret_of(connector)}") from None


def logs_its_secret(connector: Connector, window: Window, read: Callable[[Window], Batches]) -> Batches:
    window.context.log(f"reading with {secret_of(connector)}")
    return read(window)


def warns_of_a_person(_: Connector, window: Window, read: Callable[[Window], Batches]) -> Iterator[pa.Table]:
    for batch in read(window):
        window.context.warn(f"odd record: {batch.slice(0, 1).to_pylist()}")
        yield batch


def blames_the_source(_: Connector, window: Window, read: Callable[[Window], Batches]) -> Batches:
    try:
        return list(read(window))
    except PipelineError as error:
        raise SourceUnavailable(str(error)) from None


def missing(*names: str) -> Bug:
    return each(lambda _, batch: batch.drop_columns([c for c in batch.column_names if c in names]))


CAUGHT_BY = {
    "lower bound exclusive": 'loader.live() == {*IDS, "6"}',
    "overlap cut off": '"7" in loader.live()',
    "null cursors dropped": '(row["inserted"], row["null_cursor"]) == (7, 2)',
    "last page left out": '(row["records_read"], row["inserted"], row["duplicates"]) == (5, 5, 0)',
    "last page of changes left out": '(row["inserted"], row["updated"], row["duplicates"]) == (1, 5, older)',
    "pages read twice": '(row["records_read"], row["inserted"], row["duplicates"]) == (5, 5, 0)',
    "one batch for all": "len(batches) >= 2",
    "mark rounded up": 'loader.live() == {*IDS, "6"}',
    "values of their own type": "{kind for batch in batches for kind in pa.table(batch).schema.types} =",
    "deduplicated by cursor": 'loader.live() == {*IDS, "6"}',
    "deduplicated by id and cursor": 'loader.load()["updated"] == 1',
    "mark follows the future": "loader.mark == mark_at(loader, 5)",
    "deletions left out": 'loader.load()["deleted"] == 1',
    "merges left out": "into ==",
    "values stripped": "notes(loader) == told",
    "null guessed": "notes(loader) == told",
    "line breaks unified": "notes(loader) == told",
    "nul removed": "assert notes(loader) ==",
    "surrogate replaced": "assert notes(loader) ==",
    "values cut": 'notes(loader)["1"] == "x" * 1_000_000',
    "ids folded": "sorted(loader.rows()) == sorted(",
    "ids trimmed": "sorted(loader.rows()) == sorted(",
    "secret in a log": "hidden not in text",
    "person in a warning": "hidden not in text",
    "secret in an error": "hidden not in text",
    "every error retried": "return load(",
    "503 taken for the end": "pytest.raises(kind)",
    "cut taken for the end": "pytest.raises(kind)",
    "silence taken for emptiness": "pytest.raises(kind)",
    "a page may come again": "pytest.raises(kind)",
    "half of a packed page": "pytest.raises(kind)",
    "an early end believed": "pytest.raises(kind)",
    "a dead token taken for a wrong address": "clean(loader)",
    "a large page given up": "clean(loader)",
    "bad items left out": 'row["quarantined"] == spoilt',
    "a bad item fails all": 'row["quarantined"] == spoilt',
    "no wish to wait heeded": "least <= max(loader.naps) <= least + 60",
    "every wish to wait cut short": "len(loader.harness.faults.requests) < 5",
    "refusals quoted": "hidden not in text",
    "mark set back": "loader.mark == mark_at(loader, 5)",
    "mark never set back": "loader.mark == mark_at(loader, 3)",
    "mark moved by a limit": "loader.mark is None",
    "everything written anew": '(row["inserted"], row["updated"], row["deleted"]) == (0, 0, 0)',
    "the last row wins": 'loader.rows()["1"]["raw"][loader.harness.note] == "newer"',
    "deletes all it does not see": 'row["deleted"] == 0',
}
"""Bug → a part of the line of a promise, or of the loader, that catches it."""

READS: dict[str, tuple[str, Bug, Callable[..., None], dict[str, Any]]] = {
    "lower bound exclusive": ("postgres_identity", each(above), reading.test_a_tie_at_the_mark_is_read_again, {"microseconds": 0}),
    "overlap cut off": (
        "csv_url", each(lambda w, f: above(w, f, 599)), reading.test_a_record_that_comes_late_is_found_within_the_overlap, {},
    ),
    "null cursors dropped": (
        "csv_url", each(lambda w, f: kept(f, pc.is_valid(keys(w, f)))),
        reading.test_records_without_a_cursor_value_are_loaded_and_counted_and_later_ones_found_or_reported, {},
    ),
    "last page left out": ("hubspot_contacts", without_the_last_page, reading.test_five_records_over_two_pages_are_read_once_each, {}),
    "last page of changes left out": (
        "hubspot_contacts", without_the_last_page, reading.test_five_changes_over_two_pages_are_read_once_each, {},
    ),
    "pages read twice": (
        "csv_url", lambda _, w, read: [*read(w), *read(w)], reading.test_five_records_over_two_pages_are_read_once_each, {},
    ),
    "one batch for all": (
        "csv_url", lambda _, w, read: [joined(read(w))],
        reading.test_batches_are_bounded_and_hold_nothing_but_text, {},
    ),
    "values of their own type": (
        "postgres_identity", each(lambda _, f: f.to_pandas()), reading.test_batches_are_bounded_and_hold_nothing_but_text, {},
    ),
    "deduplicated by cursor": (
        "csv_url", each(lambda w, f: without_repeats(f, w.cursor_column or "")),
        reading.test_a_tie_at_the_mark_is_read_again, {"microseconds": 0},
    ),
    "deduplicated by id and cursor": (
        "hubspot_contacts", remembers_what_it_saw(), reading.test_a_changed_value_under_the_same_cursor_value_is_loaded, {},
    ),
    "mark follows the future": (
        "csv_url", lambda _, w, read: read(replace(w, context=ReadContext())),
        reading.test_a_record_from_the_future_is_loaded_and_blinds_no_later_load, {},
    ),
    "deletions left out": (
        "hubspot_contacts", missing("archivedAt", "archived"), reading.test_a_deletion_that_the_source_tells_is_noted, {},
    ),
    "merges left out": (
        "hubspot_contacts", missing("hs_merged_object_ids"), reading.test_a_merge_in_the_source_points_the_loser_at_the_survivor, {},
    ),
    "values stripped": ("csv_url", changed(str.strip), reading.test_odd_values_arrive_exactly, {"values": reading.ODD}),
    "null guessed": (
        "hubspot_contacts", changed(lambda v: None if v == "NULL" else v), reading.test_odd_values_arrive_exactly, {"values": reading.ODD},
    ),
    "line breaks unified": (
        "csv_url", changed(lambda v: v.replace("\r\n", "\n")), reading.test_odd_values_arrive_exactly, {"values": reading.LINES},
    ),
    "nul removed": (
        "hubspot_contacts", changed(lambda v: v.replace("\x00", "").replace("\\u0000", "")),
        reading.test_a_nul_becomes_a_visible_escape_and_the_record_is_marked, {},
    ),
    "surrogate replaced": (
        "hubspot_contacts", changed(lambda v: v.replace("\\ud83d", "?")),
        reading.test_a_lone_surrogate_becomes_a_visible_escape_and_the_record_is_marked, {},
    ),
    "values cut": ("csv_url", changed(lambda v: v[:65_535]), reading.test_a_million_characters_arrive_and_more_are_quarantined_alone, {}),
    "ids folded": ("csv_url", changed(str.lower), reading.test_ids_are_told_apart_by_every_character, {}),
    "ids trimmed": ("postgres_identity", changed(str.strip), reading.test_ids_are_told_apart_by_every_character, {}),
    "secret in a log": ("hubspot_contacts", logs_its_secret, reading.test_five_records_over_two_pages_are_read_once_each, {}),
    "person in a warning": ("postgres_identity", warns_of_a_person, reading.test_five_records_over_two_pages_are_read_once_each, {}),
    "secret in an error": ("csv_url", raises_its_secret, failing.test_a_refused_credential_is_the_operators_to_mend, {}),
    "every error retried": ("postgres_identity", blames_the_source, failing.test_a_missing_permission_is_the_operators_to_grant, {}),
    "503 taken for the end": (
        "hubspot_contacts", ends_at_an_error, failing.test_a_fault_that_stays_ends_the_load_and_loses_nothing, {"name": "unavailable"},
    ),
    "cut taken for the end": (
        "postgres_identity", ends_at_an_error, failing.test_a_connection_that_is_cut_ends_the_load_and_loses_nothing, {},
    ),
    "bad items left out": (
        "hubspot_contacts", each(lambda _, f: f.filter(pc.is_null(f.column(REJECTED))) if REJECTED in f.column_names else f),
        failing.test_one_bad_item_of_a_page_is_quarantined_alone, {"name": "flat", "changes": False},
    ),
    "silence taken for emptiness": ("csv_url", ends_at_an_error, failing.test_a_source_that_is_down_is_unavailable, {}),
}  # fmt: skip
"""Bug → the harness it is planted in, the wrong read, and the promise that has to catch it."""


@pytest.mark.parametrize(
    ("harness_class", "bug", "promise", "given"),
    [pytest.param(HARNESSES[kind], *rest, id=name) for name, (kind, *rest) in READS.items()],
)
def test_a_wrong_read_is_caught(
    loader: Loader, bug: Bug, promise: Callable[..., None], given: dict[str, Any], monkeypatch, request: pytest.FixtureRequest
) -> None:
    right = loader.harness.connector().read
    monkeypatch.setattr(loader.harness.connector(), "read", lambda self, window: bug(self, window, lambda asked: right(self, asked)))
    with caught(by=CAUGHT_BY[request.node.callspec.id]):
        promise(loader, **given)


def inflated(response: Any, context: ReadContext) -> Iterator[bytes]:
    """A body, unpacked as far as it goes: what requests does."""
    body = b"".join(response.raw.stream(65_536, decode_content=False))
    context.bytes_read += len(body)
    yield zlib.decompressobj(wbits=31).decompress(body) if response.headers.get("Content-Encoding") == "gzip" else body


RECORD = message._record


def no_record(item: Any, lift: str, number: int) -> dict[str, Any]:
    """A record, or the end of the load."""
    if not isinstance(item, dict):
        raise ContractBroken("no record")
    return RECORD(item, lift, number)


PARTS: dict[str, tuple[str, Any, str, Any, Callable[..., None], dict[str, Any]]] = {
    "a page may come again": (
        "airtable_records", client, "_identity", lambda _: next(NUMBERS),
        failing.test_a_page_that_comes_again_is_no_endless_load, {},
    ),
    "half of a packed page": (
        "hubspot_contacts", body, "stream", inflated,
        failing.test_a_fault_that_stays_ends_the_load_and_loses_nothing, {"name": "cut_gzip"},
    ),
    "an early end believed": (
        "hubspot_contacts", client.Client, "_reached", lambda *_: None, failing.test_an_end_before_the_total_is_no_end, {},
    ),
    "a dead token taken for a wrong address": (
        "hubspot_contacts", client, "SourceRejected", ContractBroken,
        failing.test_a_page_that_breaks_the_contract_once_is_read_again_from_the_start, {"name": "the token is gone"},
    ),
    "a large page given up": (
        "hubspot_contacts", message.Request, "halved", lambda _: None,
        failing.test_a_page_that_is_too_large_is_asked_for_in_a_smaller_size, {},
    ),
    "a bad item fails all": (
        "hubspot_contacts", message, "_record", no_record,
        failing.test_one_bad_item_of_a_page_is_quarantined_alone, {"name": "null", "changes": True},
    ),
    "no wish to wait heeded": (
        "hubspot_contacts", exchange, "_retry_after", lambda *_: None,
        failing.test_a_wish_to_wait_is_heeded_in_every_form, {"form": "seconds"},
    ),
    "every wish to wait cut short": (
        "hubspot_contacts", exchange, "_retry_after", lambda *_: 1.0,
        failing.test_an_absurd_wish_to_wait_ends_the_load, {"wish": "date"},
    ),
    "refusals quoted": (
        "hubspot_contacts", client, "describe", lambda response, *_: f"{response.tried} {response.status} {response.body}",
        failing.test_what_a_refusal_quotes_is_not_passed_on, {"code": 422},
    ),
    "mark rounded up": (
        "hubspot_contacts", cursor, "text_of", lambda kind, key: TEXT_OF(kind, key + 1 if kind == "timestamp" else key),
        reading.test_a_tie_at_the_mark_is_read_again, {"microseconds": 999_999},
    ),
    "mark set back": ("csv_url", ledger, "_higher", lambda _kind, _old, new: new, reading.test_the_mark_never_goes_back_by_itself, {}),
    "mark never set back": (
        "csv_url", start, "Start", lambda *a, **k: START(*a, **(k | {"may_fall": False})),
        reading.test_a_mark_that_leads_too_far_can_be_taken_back, {},
    ),
    "mark moved by a limit": ("csv_url", RunOptions, "partial", False, reading.test_a_limit_is_kept_and_leaves_the_mark, {}),
    "everything written anew": (
        "hubspot_contacts", merged_batch, "record_hashes", lambda records, _: pa.array([uuid4().bytes for _ in range(len(records))], HASH),
        reading.test_a_second_load_of_the_same_writes_nothing, {"full_refresh": False},
    ),
    "the last row wins": (
        "csv_url", merged_batch.Recency, "keys", lambda *_: None, reading.test_of_two_rows_with_one_id_the_newer_stays, {},
    ),
    "deletes all it does not see": (
        "csv_url", ledger, "sweep", lambda connection, load, seen, _, whole: SWEEP(connection, load, seen, 1.0, whole=whole),
        reading.test_a_full_refresh_of_a_source_that_lost_much_deletes_nothing, {"left": 1},
    ),
}  # fmt: skip
"""Bug → a harness, what is replaced by something wrong, and the promise that has to catch it."""


@pytest.mark.parametrize(
    ("harness_class", "owner", "name", "wrong", "promise", "given"),
    [pytest.param(HARNESSES[kind], *rest, id=bug) for bug, (kind, *rest) in PARTS.items()],
)
def test_a_wrong_part_is_caught(loader: Loader, owner, name: str, wrong, promise: Callable[..., None], given, monkeypatch, request) -> None:
    monkeypatch.setattr(owner, name, wrong)
    with caught(by=CAUGHT_BY[request.node.callspec.id]):
        promise(loader, **given)


GOOD = [CheckStep(name, ok=True, message="everything is fine") for name in checking.STEPS]


@pytest.mark.parametrize("harness_class", [HARNESSES["hubspot_contacts"]])
@pytest.mark.parametrize(
    ("steps", "promise"),
    [
        pytest.param(GOOD, checking.test_it_stops_at_a_refused_credential, id="all is fine"),
        pytest.param(
            [*GOOD[:2], CheckStep("permission", ok=False, message="no")], checking.test_it_stops_at_a_missing_permission, id="no advice"
        ),
        pytest.param(
            [CheckStep("sample", ok=False, message="it did not work")], checking.test_it_stops_at_a_source_that_is_down, id="one step"
        ),
    ],
)
def test_a_wrong_connection_test_is_caught(loader: Loader, steps, promise: Callable[..., None], monkeypatch) -> None:
    monkeypatch.setattr(loader.harness.connector(), "check", lambda _: iter(steps))
    with pytest.raises(CAUGHT):
        promise(loader)


class Sloppy(Connector):
    """A connector with a setting without help."""

    region: str = setting("", default="eu")


class Unmarked(Connector):
    """A connector with a secret that is not marked."""

    api_key: str = setting("Key of the account, to be found under Settings, API")


@pytest.mark.parametrize("connector", [Sloppy, Unmarked])
def test_a_sloppy_form_is_caught(connector: type[Connector]) -> None:
    class Sloppily(Harness):
        @classmethod
        def connector(cls) -> type[Connector]:
            return connector

    with pytest.raises(AssertionError):
        settings.test_every_setting_has_help_and_every_secret_is_marked(Sloppily)


@pytest.mark.parametrize("harness_class", [HARNESSES["postgres_identity"]])
def test_a_secret_in_a_repr_is_caught(loader: Loader, monkeypatch) -> None:
    monkeypatch.setattr(loader.harness.connector(), "__repr__", lambda self: f"PostgresIdentity({self.connection_string.token()!r})")
    with pytest.raises(AssertionError, match="is shown"):
        settings.test_a_connector_shows_none_of_its_secrets(loader)


def test_a_connector_without_a_harness_and_a_harness_without_a_connector_are_caught(monkeypatch) -> None:
    for name, all_of in (("connectors", settings.connectors), ("harness_classes", settings.harness_classes)):
        with monkeypatch.context() as patch:
            but_one = dict(list(all_of().items())[1:])
            patch.setattr(settings, name, lambda found=but_one: found)
            with pytest.raises(AssertionError):
                settings.test_every_connector_has_a_harness_and_every_harness_a_connector()


@pytest.mark.parametrize("harness_class", [HARNESSES["csv_url"]])
def test_a_right_connector_is_not_caught(loader: Loader) -> None:
    reading.test_five_records_over_two_pages_are_read_once_each(loader)
