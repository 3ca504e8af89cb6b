"""The suite itself: each of its promises catches the bug that it is for."""

import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import count
from typing import Any
from uuid import uuid4

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from identity_pipeline.connectors.base import CheckStep, Connector, setting
from identity_pipeline.core import cursor
from identity_pipeline.core.errors import CredentialError, PipelineError, SourceUnavailable
from identity_pipeline.core.text import TEXT, from_table, to_table
from identity_pipeline.core.window import ReadContext, Window
from identity_pipeline.orchestration.reading import RunOptions
from identity_pipeline.readers.rest import client, exchange
from identity_pipeline.store import ledger, merge
from identity_pipeline_tests.conformance import test_check as checking
from identity_pipeline_tests.conformance import test_faults as failing
from identity_pipeline_tests.conformance import test_reading as reading
from identity_pipeline_tests.conformance import test_settings as settings
from identity_pipeline_tests.conformance.harness import Harness, harness_classes
from identity_pipeline_tests.conformance.loader import Loader

Frames = Iterable[pd.DataFrame]
Bug = Callable[[Connector, Window, Callable[[Window], Frames]], Frames]
"""A read that is wrong: of this connector, for this window, made of the right read."""

CAUGHT = (AssertionError, PipelineError, pytest.fail.Exception)
HARNESSES = harness_classes()
MARK_UNSEEN = ledger._mark_unseen
NUMBERS = count()


def kept(frame: pd.DataFrame, mask: pa.Array) -> pd.DataFrame:
    return from_table(to_table(frame).filter(pc.fill_null(mask, False)))


def keys(window: Window, frame: pd.DataFrame) -> pa.Array:
    """The cursor values of a frame."""
    return cursor.keys(window.cursor_type or "text", pa.array(frame[window.cursor_column or ""].array, pa.string()))


def above(window: Window, frame: pd.DataFrame, seconds: float = 0) -> pd.DataFrame:
    """The records later than so many seconds after the lower bound."""
    if window.lower is None:
        return frame
    lower = cursor.keys("timestamp", pa.array([cursor.subtract_overlap("timestamp", window.lower, -seconds)]))[0]
    return kept(frame, pc.greater(keys(window, frame), lower))


def told(change: Callable[[str], str | None]) -> Bug:
    """Every value changed on its way."""

    def bug(_: Connector, window: Window, read: Callable[[Window], Frames]) -> Iterator[pd.DataFrame]:
        for frame in read(window):
            texts = {name: [None if pd.isna(v) else change(v) for v in frame[name]] for name in frame.columns}
            yield pd.DataFrame(texts, dtype=TEXT)

    return bug


def each(change: Callable[[Window, pd.DataFrame], pd.DataFrame]) -> Bug:
    """Every frame changed on its way."""
    return lambda _, window, read: (change(window, frame) for frame in read(window))


def without_the_last_page(_: Connector, window: Window, read: Callable[[Window], Frames]) -> Iterator[pd.DataFrame]:
    rows = pd.concat(list(read(window)), ignore_index=True)
    yield rows.head(len(rows) - len(rows) % 3)


def ends_at_an_error(_: Connector, window: Window, read: Callable[[Window], Frames]) -> Iterator[pd.DataFrame]:
    with suppress(PipelineError):
        yield from read(window)


def remembers_what_it_saw() -> Bug:
    """What dlt does: the same id under the same cursor value is no news."""
    seen: set[tuple[Any, Any]] = set()

    def fresh(window: Window, frame: pd.DataFrame) -> pd.DataFrame:
        pairs = list(zip(frame["id"], keys(window, frame).to_pylist(), strict=True))
        new = pa.array([pair not in seen for pair in pairs])
        seen.update(pairs)
        return kept(frame, new)

    return each(fresh)


def tells_its_secret(connector: Connector, window: Window, read: Callable[[Window], Frames]) -> Frames:
    try:
        return list(read(window))
    except CredentialError as error:
        raise CredentialError(f"{error}: {connector.secrets()[0]}") from None


def logs_its_secret(connector: Connector, window: Window, read: Callable[[Window], Frames]) -> Frames:
    window.context.log(f"reading with {connector.secrets()[0]}")
    return read(window)


def warns_of_a_person(_: Connector, window: Window, read: Callable[[Window], Frames]) -> Iterator[pd.DataFrame]:
    for frame in read(window):
        window.context.warn(f"odd record: {frame.iloc[0].to_dict()}")
        yield frame


def blames_the_source(_: Connector, window: Window, read: Callable[[Window], Frames]) -> Frames:
    try:
        return list(read(window))
    except PipelineError as error:
        raise SourceUnavailable(str(error)) from None


def missing(name: str) -> Bug:
    return each(lambda _, frame: frame.drop(columns=[c for c in frame.columns if c == name]))


READS: dict[str, tuple[str, Bug, Callable[..., None], dict[str, Any]]] = {
    "lower bound exclusive": ("postgres_identity", each(above), reading.test_a_tie_at_the_mark_is_read_again, {"microseconds": 0}),
    "overlap cut off": (
        "csv_url", each(lambda w, f: above(w, f, 599)), reading.test_a_record_that_comes_late_is_found_within_the_overlap, {},
    ),
    "null cursors dropped": (
        "csv_url", each(lambda w, f: kept(f, pc.is_valid(keys(w, f)))),
        reading.test_records_without_a_cursor_value_are_loaded_and_counted_by_a_full_read, {},
    ),
    "last page left out": ("hubspot_contacts", without_the_last_page, reading.test_five_records_over_two_pages_are_read_once_each, {}),
    "last page of changes left out": (
        "hubspot_contacts", without_the_last_page, reading.test_five_changes_over_two_pages_are_read_once_each, {},
    ),
    "pages read twice": (
        "csv_url", lambda _, w, read: [*read(w), *read(w)], reading.test_five_records_over_two_pages_are_read_once_each, {},
    ),
    "one frame for all": (
        "csv_url", lambda _, w, read: [pd.concat(list(read(w)), ignore_index=True)],
        reading.test_frames_are_bounded_and_hold_nothing_but_text, {},
    ),
    "lower bound rounded up": (
        "postgres_identity", lambda _, w, read: read(replace(w, lower=w.lower and cursor.subtract_overlap("timestamp", w.lower, -0.000001))),
        reading.test_a_tie_at_the_mark_is_read_again, {"microseconds": 999_999},
    ),
    "values of their own type": (
        "postgres_identity", each(lambda _, f: f.astype(object)), reading.test_frames_are_bounded_and_hold_nothing_but_text, {},
    ),
    "deduplicated by cursor": (
        "csv_url", each(lambda w, f: f.drop_duplicates(w.cursor_column)), reading.test_a_tie_at_the_mark_is_read_again, {"microseconds": 0},
    ),
    "deduplicated by id and cursor": (
        "hubspot_contacts", remembers_what_it_saw(), reading.test_a_changed_value_under_the_same_cursor_value_is_loaded, {},
    ),
    "mark follows the future": (
        "csv_url", lambda _, w, read: read(replace(w, context=ReadContext())),
        reading.test_a_record_from_the_future_is_loaded_and_blinds_no_later_load, {},
    ),
    "deletions left out": ("hubspot_contacts", missing("archivedAt"), reading.test_a_deletion_that_the_source_tells_is_noted, {}),
    "merges left out": (
        "hubspot_contacts", missing("hs_merged_object_ids"), reading.test_a_merge_in_the_source_points_the_loser_at_the_survivor, {},
    ),
    "values stripped": ("csv_url", told(str.strip), reading.test_odd_values_arrive_exactly, {"values": reading.ODD}),
    "null guessed": (
        "hubspot_contacts", told(lambda v: None if v == "NULL" else v), reading.test_odd_values_arrive_exactly, {"values": reading.ODD},
    ),
    "line breaks unified": (
        "csv_url", told(lambda v: v.replace("\r\n", "\n")), reading.test_odd_values_arrive_exactly, {"values": reading.LINES},
    ),
    "nul removed": (
        "hubspot_contacts", told(lambda v: v.replace("\x00", "").replace("\\u0000", "")),
        reading.test_a_nul_becomes_a_visible_escape_and_the_record_is_marked, {},
    ),
    "surrogate replaced": (
        "hubspot_contacts", told(lambda v: v.replace("\\ud83d", "?")),
        reading.test_a_lone_surrogate_becomes_a_visible_escape_and_the_record_is_marked, {},
    ),
    "values cut": ("csv_url", told(lambda v: v[:65_535]), reading.test_a_million_characters_arrive_and_more_are_quarantined_alone, {}),
    "ids folded": ("csv_url", told(str.lower), reading.test_ids_are_told_apart_by_every_character, {}),
    "ids trimmed": ("postgres_identity", told(str.strip), reading.test_ids_are_told_apart_by_every_character, {}),
    "secret in a log": ("hubspot_contacts", logs_its_secret, reading.test_five_records_over_two_pages_are_read_once_each, {}),
    "person in a warning": ("postgres_identity", warns_of_a_person, reading.test_five_records_over_two_pages_are_read_once_each, {}),
    "secret in an error": ("csv_url", tells_its_secret, failing.test_a_refused_credential_is_the_operators_to_mend, {}),
    "every error retried": ("postgres_identity", blames_the_source, failing.test_a_missing_permission_is_the_operators_to_grant, {}),
    "503 taken for the end": (
        "hubspot_contacts", ends_at_an_error, failing.test_a_fault_that_stays_ends_the_load_and_loses_nothing, {"name": "unavailable"},
    ),
    "cut taken for the end": (
        "postgres_identity", ends_at_an_error, failing.test_a_connection_that_is_cut_ends_the_load_and_loses_nothing, {},
    ),
    "silence taken for emptiness": ("csv_url", ends_at_an_error, failing.test_a_source_that_is_down_is_unavailable, {}),
}  # fmt: skip
"""Bug → the harness it is planted in, the wrong read, and the promise that has to catch it."""


@pytest.mark.parametrize(
    ("harness_class", "bug", "promise", "given"),
    [pytest.param(HARNESSES[kind], *rest, id=name) for name, (kind, *rest) in READS.items()],
)
def test_a_wrong_read_is_caught(loader: Loader, bug: Bug, promise: Callable[..., None], given: dict[str, Any], monkeypatch) -> None:
    right = loader.harness.connector().read
    monkeypatch.setattr(loader.harness.connector(), "read", lambda self, window: bug(self, window, lambda asked: right(self, asked)))
    with pytest.raises(CAUGHT):
        promise(loader, **given)


def inflated(response: Any, limit: int, count: Callable[[int], None]) -> bytes:
    """A body, unpacked as far as it goes: what requests does."""
    body = b"".join(response.raw.stream(65_536, decode_content=False))
    return zlib.decompressobj(wbits=31).decompress(body) if response.headers.get("Content-Encoding") == "gzip" else body


PARTS: dict[str, tuple[str, Any, str, Any, Callable[..., None], dict[str, Any]]] = {
    "a page may come again": (
        "hubspot_contacts", client, "_identity", lambda _: next(NUMBERS),
        failing.test_a_page_that_comes_again_is_no_endless_load, {},
    ),
    "half of a packed page": (
        "hubspot_contacts", exchange, "read_body", inflated,
        failing.test_a_fault_that_stays_ends_the_load_and_loses_nothing, {"name": "cut_gzip"},
    ),
    "no wish to wait heeded": (
        "hubspot_contacts", client, "asked_wait", lambda *_: None, failing.test_a_wish_to_wait_is_heeded_in_every_form, {"form": "seconds"},
    ),
    "every wish to wait cut short": (
        "hubspot_contacts", client, "asked_wait", lambda *_: 1.0, failing.test_an_absurd_wish_to_wait_ends_the_load, {"wish": "date"},
    ),
    "refusals quoted": (
        "hubspot_contacts", client, "describe", lambda tried, status, fault, *_: f"{tried} {status} {fault.message}",
        failing.test_what_a_refusal_quotes_is_not_passed_on, {"code": 422},
    ),
    "mark set back": ("csv_url", ledger.cursor, "higher_of", lambda _kind, _old, new: new, reading.test_the_mark_never_goes_back, {}),
    "mark moved by a limit": ("csv_url", RunOptions, "partial", False, reading.test_a_limit_is_kept_and_leaves_the_mark, {}),
    "everything written anew": (
        "hubspot_contacts", merge, "record_hashes", lambda records, _: pa.array([uuid4().hex for _ in range(len(records))]),
        reading.test_a_second_load_of_the_same_writes_nothing, {"full_refresh": False},
    ),
    "the last row wins": (
        "csv_url", merge._Merger, "_cursor_keys", lambda *_: None, reading.test_of_two_rows_with_one_id_the_newer_stays, {},
    ),
    "deletes all it does not see": (
        "csv_url", ledger, "_mark_unseen", lambda connection, load, seen, _: MARK_UNSEEN(connection, load, seen, 1.0),
        reading.test_a_full_refresh_of_a_source_that_lost_much_deletes_nothing, {"left": 1},
    ),
}  # fmt: skip
"""Bug → a harness, what is replaced by something wrong, and the promise that has to catch it."""


@pytest.mark.parametrize(
    ("harness_class", "owner", "name", "wrong", "promise", "given"),
    [pytest.param(HARNESSES[kind], *rest, id=bug) for bug, (kind, *rest) in PARTS.items()],
)
def test_a_wrong_part_is_caught(loader: Loader, owner, name: str, wrong, promise: Callable[..., None], given, monkeypatch) -> None:
    monkeypatch.setattr(owner, name, wrong)
    with pytest.raises(CAUGHT):
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
    monkeypatch.setattr(loader.harness.connector(), "__repr__", lambda self: f"PostgresIdentity({self.connection_string!r})")
    with pytest.raises(AssertionError, match="is shown"):
        settings.test_a_connector_shows_none_of_its_secrets(loader)


def test_a_connector_without_a_bench_and_a_bench_without_a_connector_are_caught(monkeypatch) -> None:
    for name, all_of in (("connectors", settings.connectors), ("harness_classes", settings.harness_classes)):
        with monkeypatch.context() as patch:
            but_one = dict(list(all_of().items())[1:])
            patch.setattr(settings, name, lambda found=but_one: found)
            with pytest.raises(AssertionError):
                settings.test_every_connector_has_a_bench_and_every_bench_a_connector()


@pytest.mark.parametrize("harness_class", [HARNESSES["csv_url"]])
def test_a_right_connector_is_not_caught(loader: Loader) -> None:
    reading.test_five_records_over_two_pages_are_read_once_each(loader)
