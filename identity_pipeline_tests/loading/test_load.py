"""A whole load from a reader that does what a test says: where it starts, what it believes, where the mark goes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import psycopg
import pyarrow as pa
import pytest

from identity_pipeline.core.cursor import Cursor, Mark
from identity_pipeline.core.errors import ConfigurationError, ContractBroken, SchemaChanged
from identity_pipeline.core.fieldmap import GONE, FieldMap
from identity_pipeline.core.load_spec import LoadSpec
from identity_pipeline.core.text import Batch
from identity_pipeline.core.window import Window
from identity_pipeline.loading.load import load
from identity_pipeline.loading.spec import RunOptions, Target
from identity_pipeline.store import ledger
from identity_pipeline.store.landing import Landing

SPEC = LoadSpec("crm", "a_type", FieldMap(full_name=("name",)), Cursor("at", "timestamp"), settings="as declared")
NOON = datetime(2026, 4, 13, 12, tzinfo=UTC)


def table(*rows: tuple[Any, ...], names: tuple[str, ...] = ("id", "at", "name")) -> pa.Table:
    """Records of text."""
    columns = list(zip(*rows, strict=True)) or [()] * len(names)
    return pa.table(
        {name: pa.array([None if v is None else str(v) for v in c], pa.string()) for name, c in zip(names, columns, strict=True)}
    )


@dataclass
class Played:
    """A source that a test plays, and the loads of it. ``script`` answers each window that is asked."""

    target: Target
    spec: LoadSpec = SPEC
    script: Callable[[Window], Iterator[Batch]] = lambda _: iter(())
    windows: list[Window] = field(default_factory=list)

    def read(self, window: Window) -> Iterator[Batch]:
        """As a connector does."""
        self.windows.append(window)
        yield from self.script(window)

    def shows(self, *batches: Batch, now: datetime = NOON, **context: Any) -> None:
        """Let the source give these batches at this time of its own, and report these things."""

        def script(window: Window) -> Iterator[Batch]:
            window.context.clock(now)
            for name, value in context.items():
                setattr(window.context, name, value)
            yield from batches

        self.script = script

    def load(self, *, wiped: bool = False, **options: Any) -> dict[str, Any]:
        """One load, from the mark that is published."""
        published = None if wiped else self.state.mark
        return load(self.spec, self, self.target, "run", options=RunOptions(**options), published=published, log=lambda _: None)

    @property
    def state(self) -> ledger.SourceState:
        """What is kept of the source."""
        return ledger.state(self.target.url, self.spec.source_name)

    @property
    def mark(self) -> str | None:
        """The mark in the ledger."""
        return self.state.mark and self.state.mark.after

    def names(self) -> dict[str, str]:
        """Names in the identity table by external id."""
        with psycopg.connect(self.target.url) as connection:
            return dict(connection.execute("select external_id, full_name from identity.records").fetchall())


@pytest.fixture
def source(database_url: str, tmp_path: Path) -> Played:
    return Played(Target(database_url, Landing(str(tmp_path / "landing"))))


# -- What a reader may yield --------------------------------------------------------------------


def test_frames_and_tables_of_any_types_are_one_thing(source: Played):
    moment = pd.Timestamp("2026-01-02T03:04:05Z")
    source.shows(
        pd.DataFrame({"id": [1], "at": [moment], "name": ["Ann"]}),
        pa.table({"id": pa.array([2]), "at": pa.array([moment]), "name": pa.array(["Bob"]).dictionary_encode()}),
    )
    assert source.load()["inserted"] == 2
    assert source.names() == {"1": "Ann", "2": "Bob"}
    assert source.mark == "2026-01-02T03:04:05Z"


# -- The mark -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "later"), [("1776067200", "32503680000"), ("1776067200000", "32503680000000"), ("2026-04-13T08:00:00Z", "3000-01-01")]
)
def test_a_mark_does_not_follow_the_year_3000_however_time_is_written(source: Played, first: str, later: str):
    source.shows(table((1, first, "Ann"), (2, later, "Poison")))
    assert source.load()["inserted"] == 2
    assert source.mark == "2026-04-13T08:00:00Z"


def test_a_clock_that_was_set_back_is_followed_with_a_warning(source: Played):
    source.shows(table((1, "2026-04-13T11:59:00Z", "Ann")))
    source.load()
    back = NOON - timedelta(hours=1)
    source.shows(table((2, "2026-04-13T10:55:00Z", "Bob")), now=back)
    source.spec = replace(SPEC, overlap=600)
    row = source.load()
    assert [window.lower for window in source.windows[-2:]] == ["2026-04-13T11:49:00Z", "2026-04-13T10:50:00Z"]
    assert (row["inserted"], source.mark) == (1, "2026-04-13T11:00:00Z")
    assert any("clock" in warning for warning in row["warnings"])


def test_a_clock_that_is_behind_by_less_than_the_overlap_is_no_cause_for_a_warning(source: Played):
    source.spec = replace(SPEC, overlap=600)
    source.shows(table((1, "2026-04-13T11:59:59Z", "Ann")))
    source.load()
    source.shows(table((2, "2026-04-13T11:59:57Z", "Bob")), now=NOON - timedelta(seconds=2))
    row = source.load()
    assert (row["inserted"], row["warnings"]) == (1, [])
    assert len(source.windows) == 2


def test_an_unreadable_mark_counts_as_none_with_a_warning(source: Played):
    source.shows(table((1, "2026-01-01", "Ann")))
    source.load()
    with psycopg.connect(source.target.url) as connection:
        connection.execute("update identity.sources set cursor_after = 'garbage'")
    row = source.load()
    assert source.windows[-1].lower is None
    assert any("crm" in warning and "counts as none" in warning for warning in row["warnings"])
    assert source.mark == "2026-01-01T00:00:00Z"


def test_a_number_that_was_too_high_is_left_once_a_whole_look_shows_that_nothing_reaches_it(source: Played):
    source.spec = replace(SPEC, cursor=Cursor("at", "int"))
    source.shows(table((1, 5, "Ann"), (2, 9 * 10**18, "Poison")))
    source.load()
    source.shows(table((1, 5, "Ann"), (2, 6, "Corrected")))
    row = source.load()
    assert source.mark == "6"
    assert any("the mark goes back to 6" in warning for warning in row["warnings"])
    source.shows(table((3, 7, "Next")))
    assert source.load()["inserted"] == 1


def test_a_maximum_that_the_source_reports_takes_the_mark_back(source: Played):
    source.spec = replace(SPEC, cursor=Cursor("at", "int"))
    source.shows(table((1, 9 * 10**18, "Poison")))
    source.load()
    source.shows(source_maximum="7")
    source.load()
    assert source.mark == "7"


def test_a_cursor_of_the_wrong_type_is_refused_and_one_without_values_is_not(source: Played):
    source.spec = replace(SPEC, cursor=Cursor("at", "int"))
    source.shows(table((1, "2026-01-01T00:00:00Z", "Ann")))
    with pytest.raises(ConfigurationError, match="none of 1 values of 'at' is a whole number"):
        source.load()
    source.shows(table((1, None, "Ann"), (2, " ", "Bob")))
    assert source.load()["null_cursor"] == 2


# -- A cursor that no record carries ------------------------------------------------------------


def test_a_cursor_in_the_request_leads_to_the_sources_time_and_filters_nothing(source: Played):
    source.spec = replace(SPEC, cursor=Cursor("LAST_MODIFIED_TIME()", "timestamp", in_records=False), overlap=60)
    source.shows(table((1, "x"), names=("id", "name")))
    assert source.load()["filtered"] == 0
    assert source.mark == "2026-04-13T12:00:00Z"
    source.shows(table((1, "y"), names=("id", "name")), now=NOON + timedelta(minutes=5))
    assert source.load()["updated"] == 1
    assert source.windows[-1].lower == "2026-04-13T11:59:00Z"
    assert source.mark == "2026-04-13T12:05:00Z"


@pytest.mark.parametrize(("order", "kept"), [("oldest_first", "second"), ("newest_first", "first")])
def test_between_two_versions_without_a_cursor_the_order_of_the_stream_decides(source: Played, order: Any, kept: str):
    source.spec = replace(SPEC, cursor=Cursor("at", "timestamp", in_records=False), order=order)
    source.shows(table((1, None, "first")), table((1, None, "second")))
    row = source.load()
    assert (row["records_read"], row["inserted"], row["updated"] + row["duplicates"]) == (2, 1, 1)
    assert source.names() == {"1": kept}


# -- State beside the mark ----------------------------------------------------------------------


def test_what_a_source_hands_out_is_given_back_with_the_mark_it_was_stored_with(source: Played):
    source.shows(table((1, "2026-01-01", "Ann")), state="delta-1")
    source.load()
    source.shows(table((2, "2026-01-02", "Bob")), state="delta-2")
    row = source.load()
    assert source.windows[-1].state == "delta-1"
    assert "delta" not in str(row) + repr(source.state) + repr(source.windows)
    source.load()
    assert source.windows[-1].state == "delta-2"


@pytest.mark.parametrize(
    ("change", "options"),
    [
        ({}, {"full_refresh": True}),
        ({}, {"wiped": True}),
        ({}, {"cursor_after": "2025-01-01"}),
        ({"settings": "another table"}, {}),
        ({"cursor": Cursor("changed", "timestamp")}, {}),
    ],
)
def test_state_is_dropped_where_it_would_leave_a_gap(source: Played, change: dict, options: dict):
    source.shows(table((1, "2026-01-01", "2026-01-01", "Ann"), names=("id", "at", "changed", "name")), state="delta-1")
    source.load()
    source.spec = replace(SPEC, **change)
    source.load(**options)
    assert source.windows[-1].state is None


def test_state_stays_until_a_reader_has_a_new_one(source: Played):
    source.shows(table((1, "2026-01-01", "Ann")), state="delta-1")
    source.load()
    source.shows(table((1, "2026-01-01", "Ann")))
    source.load()
    source.load()
    assert [window.state for window in source.windows] == [None, "delta-1", "delta-1"]


def test_state_that_the_source_does_not_accept_any_more_costs_a_second_read_without_it(source: Played):
    source.shows(table((1, "2026-01-01", "Ann")), state="delta-1")
    source.load()

    def script(window: Window) -> Iterator[Batch]:
        window.context.clock(NOON)
        if window.state:
            raise ContractBroken("the delta link has expired")
        window.context.state = "delta-2"
        yield table((2, "2026-01-02", "Bob"))

    source.script = script
    assert source.load()["inserted"] == 1
    source.shows()
    source.load()
    assert source.windows[-1].state == "delta-2"


def test_a_run_that_reads_only_a_part_stores_no_state(source: Played):
    source.shows(table((1, "2026-01-01", "Ann")), state="delta-1")
    source.load()
    source.shows(table((2, "2026-01-02", "Bob")), state="delta-2")
    source.load(limit=1)
    source.load()
    assert source.windows[-1].state == "delta-1"


# -- A read is whole or it is not believed ------------------------------------------------------


def test_a_read_that_gives_less_than_the_source_says_is_read_once_more_and_then_fails(source: Played):
    source.shows(table((1, "2026-01-01", "Ann")), source_count=3)
    with pytest.raises(ContractBroken, match="it has 3 records and gave 1"):
        source.load()
    assert len(source.windows) == 2
    assert (source.names(), source.mark) == ({}, None)


def test_a_contract_broken_on_the_way_begins_the_read_again_once(source: Played):
    broken = [True]

    def script(window: Window) -> Iterator[Batch]:
        window.context.clock(NOON)
        yield table((1, "2026-01-01", "Ann"))
        if broken:
            broken.pop()
            raise ContractBroken("the page token has expired")
        yield table((2, "2026-01-02", "Bob"))

    source.script = script
    row = source.load()
    assert (row["records_read"], row["inserted"], row["duplicates"]) == (2, 2, 0)


def test_a_mapping_of_a_field_that_never_was_is_refused_where_the_source_says_what_it_has(source: Played):
    source.spec = replace(SPEC, whole=False, mapped=(("work_phone",),))
    source.shows(table((1, "2026-01-01", "Ann")), fields=("id", "at", "name"))
    for choice in (False, True):
        with pytest.raises(ConfigurationError, match=r"'work_phone' is not in the source, which has at, id, name.*correct `mapping:`"):
            source.load(full_refresh=choice)


def test_a_file_that_lost_a_mapped_field_is_refused_although_another_of_the_load_has_it(source: Played):
    source.shows(table((1, "2026-01-01", "Ann"), (2, "2026-01-01", "Bob")))
    source.load()
    source.shows(table((3, "2026-01-02", "Cid")), table((2, "2026-01-02"), names=("id", "at")))
    with pytest.raises(SchemaChanged, match="'name' is not in the source any more"):
        source.load()
    assert source.names() == {"1": "Ann", "2": "Bob"}
    assert source.load(full_refresh=True)["updated"] == 1, "one full refresh accepts it"


def test_files_of_different_fields_are_said_in_a_first_load(source: Played):
    source.shows(table((1, "2026-01-01", "Ann")), table((2, "2026-01-01"), names=("id", "at")))
    row = source.load()
    assert (row["inserted"], len(row["warnings"])) == (2, 1)
    assert row["warnings"][0].startswith("not every file has the field 'name'")


@pytest.mark.parametrize("full_refresh", [False, True])
def test_a_new_field_that_would_be_the_id_doubles_nobody(source: Played, full_refresh: bool):
    source.spec = replace(SPEC, field_map=FieldMap(external_id=("id", "customer_id"), full_name=("name",)))
    source.shows(table(("C1", "2026-01-01", "Ann"), names=("customer_id", "at", "name")))
    source.load()
    source.shows(table(("C1", 1, "2026-01-02", "Ann"), names=("customer_id", "id", "at", "name")))
    with pytest.raises(SchemaChanged, match=r"new field 'id'.*mapping: \{external_id: customer_id\}"):
        source.load(full_refresh=full_refresh)
    source.spec = replace(SPEC, field_map=FieldMap(external_id=("customer_id",), full_name=("name",)))
    source.load(full_refresh=full_refresh)
    assert list(source.names()) == ["C1"]


@pytest.mark.parametrize(("count", "deleted"), [(None, 0), (9, 9)])
def test_an_absence_proves_a_deletion_only_where_the_read_is_known_to_be_whole(source: Played, count: int | None, deleted: int):
    source.spec = replace(SPEC, whole=False, max_deleted_share=1)
    source.shows(table(*((n, "2026-01-01", "Ann") for n in range(18))))
    source.load()
    source.shows(table(*((n, "2026-01-01", "Ann") for n in range(9))), source_count=count)
    assert source.load(full_refresh=True)["deleted"] == deleted


def test_an_empty_source_after_a_full_one_warns(source: Played):
    source.spec = replace(SPEC, cursor=None)
    source.shows(table((1, "2026-01-01", "Ann")))
    source.load()
    source.shows()
    assert any("the source is empty" in warning for warning in source.load()["warnings"])
    assert source.names() == {"1": "Ann"}


def test_other_settings_read_what_is_older_than_the_mark_too(source: Played):
    source.shows(table((1, "2026-04-10", "Ann")))
    source.load()
    source.spec = replace(SPEC, settings="another list as well")
    source.shows(table((1, "2026-04-10", "Ann"), (2, "2025-01-01", "Old")))
    assert source.load(cursor_after="2026-04-09T00:00:00Z")["filtered"] == 1, "a person's own bound holds, for this one load"
    row = source.load()
    assert (source.windows[-1].lower, row["inserted"], source.mark) == (None, 1, "2026-04-10T00:00:00Z")
    assert any("the settings changed" in warning for warning in row["warnings"])
    row = source.load()
    assert (source.windows[-1].lower, row["warnings"]) == ("2026-04-10T00:00:00Z", [])


def test_settings_that_an_older_version_did_not_store_are_no_change(source: Played):
    source.shows(table((1, "2026-04-10", "Ann")))
    source.load()
    with psycopg.connect(source.target.url) as connection:
        connection.execute("update identity.sources set state_settings = null")
    source.load()
    assert source.windows[-1].lower == "2026-04-10T00:00:00Z"


@pytest.mark.parametrize(("only", "at"), [(False, "2026-01-01"), (True, "2026-01-01"), (True, None)])
@pytest.mark.parametrize(("field", "value"), [("deleted_at", "2026-04-09"), ("archived", "true"), ("merged_into", "2")])
def test_a_deletion_counts_although_the_record_is_older_than_the_mark(source: Played, field: str, value: str, only: bool, at: str | None):
    """Not every source moves a record's cursor when it deletes it, or tells one; and it tells it once."""
    source.spec = replace(
        SPEC,
        field_map=FieldMap(
            full_name=("name",), deleted_at=("deleted_at",), deleted_when=(("archived", "true"),), merged_into=("merged_into",)
        ),
        whole=False,
    )
    source.shows(table((1, "2026-01-01", "Ann"), (2, "2026-04-10", "Bob")))
    source.load()
    source.shows(
        table(
            (1, at, "Ann", value, "true" if only else None),
            (3, "2026-01-01", "Old", None, None),
            (2, "2026-04-10", "Bob", None, None),
            names=("id", "at", "name", field, GONE),
        )
    )
    row = source.load()
    assert (row["filtered"], row["inserted"]) == (1, 0)
    with psycopg.connect(source.target.url) as connection:
        gone = connection.execute(
            "select external_id from identity.records where deleted_at is not null or merged_into is not null"
        ).fetchall()
    assert gone == [("1",)]


def test_a_published_mark_takes_the_ledgers_back_and_never_forward(source: Played):
    source.shows(table((1, "2026-02-01", "Ann")))
    source.load()
    for after, lower in (("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"), ("2999-01-01T00:00:00Z", "2026-02-01T00:00:00Z")):
        load(SPEC, source, source.target, "run", published=Mark("at", "timestamp", after), log=lambda _: None)
        assert source.windows[-1].lower == lower


# -- Limits -------------------------------------------------------------------------------------


def test_a_load_takes_its_turns_where_other_runs_take_theirs(source: Played):
    def script(window: Window) -> Iterator[Batch]:
        window.context.pace.turn("an account", 60.0)
        yield table((1, "2026-04-01T00:00:00Z", "Ann"))

    source.script = script
    source.load()
    with psycopg.connect(source.target.url) as connection:
        assert connection.execute("select count(*) from identity.paces").fetchone() == (1,)
