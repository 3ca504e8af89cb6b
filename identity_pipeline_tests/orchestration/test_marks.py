"""Where a load starts: from the lower of what the ledger and a committed run of ours say, whoever says what else."""

from typing import Any

import dagster as dg
import pytest

from identity_pipeline.core.cursor import Mark
from identity_pipeline.orchestration import marks
from identity_pipeline_tests.orchestration.conftest import MakeWorld
from identity_pipeline_tests.orchestration.world import PEOPLE, Outcome, World

JANUARY, FEBRUARY = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"
NUMBERED = PEOPLE | {"cursor_column": "version", "cursor_type": "int"}


@pytest.fixture(scope="module")
def twice(make_world: MakeWorld) -> World:
    """A pipeline after two loads, one in January and one in February."""
    world = make_world()
    world.people("Ann", "Bob")
    assert world.load().metadata["cursor_after"] == JANUARY
    world.people("Cid", at="2026-02-01", start=3)
    assert world.load().metadata["cursor_after"] == FEBRUARY
    return world


@pytest.fixture
def world(make_world: MakeWorld, twice: World) -> World:
    """That pipeline, with one more person in its source."""
    world = make_world(twice)
    world.people("Dora", at="2026-03-01", start=4)
    return world


def read(outcome: Outcome) -> dict[str, Any]:
    """From where a load read and what it found."""
    assert outcome.success, outcome.failures
    return {name: outcome.metadata.get(name) for name in ("cursor_before", "records_read", "inserted")}


ORDINARY = {"cursor_before": FEBRUARY, "records_read": 2, "inserted": 1}
EVERYTHING = {"cursor_before": None, "records_read": 4, "inserted": 1}


def test_a_load_reads_from_the_mark_on_and_ties_again(world: World):
    world.people("Late, but dated like the mark", at="2026-02-01", start=5)
    assert read(world.load()) == {"cursor_before": FEBRUARY, "records_read": 3, "inserted": 2}
    assert world.mark() == world.published() == Mark("updated_at", "timestamp", "2026-03-01T00:00:00Z")


# -- What others say ----------------------------------------------------------------------------


def test_events_that_were_reported_by_hand_move_nothing(world: World):
    claim = {"cursor_column": "updated_at", "cursor_type": "timestamp"}
    for forged in (
        claim | {"cursor_after": "2999-01-01T00:00:00Z", "load_id": 2},
        claim | {"cursor_after": FEBRUARY, "load_id": 2},
        claim | {"cursor_after": JANUARY, "load_id": 1},
        {"cursor": "2999-01-01"},
        {"cursor_column": 7, "cursor_type": "pickle", "cursor_after": "'; drop table people", "load_id": "x"},
        {},
    ):
        world.report(**forged)
    assert world.published() == Mark("updated_at", "timestamp", FEBRUARY)
    assert read(world.load()) == ORDINARY
    assert len(world.names()) == 4


@pytest.mark.parametrize(
    "claim",
    [
        {"load_id": 2, "cursor_after": "2999-01-01T00:00:00Z"},
        {"load_id": 99, "cursor_after": FEBRUARY},
        {"load_id": 2, "cursor_after": "not a time"},
        {"load_id": 2, "cursor_after": FEBRUARY, "cursor_type": "text"},
        {"load_id": 2, "cursor_after": FEBRUARY, "cursor_column": "id"},
        {"load_id": 10**30, "cursor_after": FEBRUARY},
        {"load_id": 2, "cursor_after": "\x00", "cursor_type": "text"},
        {"load_id": 2, "cursor_after": "\ud800", "cursor_type": "text"},
    ],
)
def test_an_event_of_another_run_counts_only_if_the_ledger_agrees(world: World, claim: dict[str, Any]):
    metadata = {"cursor_column": "updated_at", "cursor_type": "timestamp"} | claim

    @dg.asset(name="people")
    def imposter() -> dg.MaterializeResult:
        return dg.MaterializeResult(metadata=metadata)

    with world.entered() as instance:
        assert dg.materialize([imposter], instance=instance).success
    assert world.published() == Mark("updated_at", "timestamp", FEBRUARY)


def test_many_forged_events_do_not_hide_the_true_one(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(marks, "_PAGE", 2)
    for _ in range(5):
        world.report(cursor_after="2999-01-01T00:00:00Z")
    assert world.published() == Mark("updated_at", "timestamp", FEBRUARY)


# -- Metadata and ledger disagree ---------------------------------------------------------------


def test_metadata_behind_the_ledger_rule_the_load(world: World):
    """As after a kill between commit and event: the newest event is that of the load before."""
    with world.entered() as instance:
        records = instance.fetch_materializations(dg.AssetKey("people"), limit=2).records
        world.query("delete from dagster.event_logs where id = %s", records[0].storage_id)
        world.query(
            "update dagster.asset_keys set last_materialization = (select event from dagster.event_logs where id = %s)",
            records[1].storage_id,
        )
    assert read(world.load()) == {"cursor_before": JANUARY, "records_read": 4, "inserted": 1}
    assert world.mark() == world.published() == Mark("updated_at", "timestamp", "2026-03-01T00:00:00Z")


def test_a_ledger_behind_the_metadata_rules(world: World):
    """As after the identity database was restored from a backup: what came later is read again."""
    world.query("delete from identity.records where external_id = '3'")
    world.query("delete from identity.loads where load_id = 2")
    world.query("update identity.sources set cursor_after = %s, token = 1", JANUARY)
    assert world.published() == Mark("updated_at", "timestamp", JANUARY)
    assert read(world.load()) == {"cursor_before": JANUARY, "records_read": 4, "inserted": 2}
    assert set(world.names()) == {"1", "2", "3", "4"}


def test_a_ledger_mark_that_somebody_moved_back_rules(world: World):
    world.query("update identity.sources set cursor_after = %s", JANUARY)
    assert read(world.load()) == {"cursor_before": JANUARY, "records_read": 4, "inserted": 1}


def test_a_wiped_asset_is_read_from_the_beginning(world: World):
    with world.entered() as instance:
        instance.wipe_assets([dg.AssetKey("people")])
    assert read(world.load()) == EVERYTHING
    assert read(world.load())["cursor_before"] == "2026-03-01T00:00:00Z"


def test_the_last_runs_deletion_loses_no_mark(world: World):
    with world.entered() as instance:
        instance.delete_run(world.loads()[-1]["run_id"])
    assert read(world.load()) == ORDINARY


# -- The cursor changes -------------------------------------------------------------------------


def test_another_cursor_column_reads_everything_and_the_old_one_too_when_it_returns(world: World):
    world.change("alter table people add version int", "update people set version = id::int")
    world.declare(NUMBERED)
    assert read(world.load()) == EVERYTHING
    assert read(world.load()) == {"cursor_before": "4", "records_read": 1, "inserted": 0}
    world.declare(PEOPLE)
    assert read(world.load())["records_read"] == 4


def test_another_type_of_the_same_column_reads_everything(world: World):
    world.change("alter table people alter updated_at type int using ('1' || id)::int")
    world.declare(PEOPLE | {"cursor_type": "int"})
    assert read(world.load()) == EVERYTHING
    assert world.mark() == Mark("updated_at", "int", "14")


def test_without_a_cursor_everything_is_read(world: World):
    world.declare({name: value for name, value in PEOPLE.items() if not name.startswith("cursor")})
    for inserted in (1, 0):
        assert read(world.load()) == EVERYTHING | {"inserted": inserted}


def test_a_first_load_starts_where_the_declaration_says(make_world: MakeWorld):
    world = make_world()
    world.people("Old", at="2025-01-01")
    world.people("New", at="2026-02-01", start=2)
    world.declare(PEOPLE | {"cursor_after": JANUARY})
    assert read(world.load()) == {"cursor_before": None, "records_read": 1, "inserted": 1}


# -- What one run may choose --------------------------------------------------------------------


def test_an_override_reads_from_there_on_and_the_mark_goes_on(world: World):
    assert read(world.load(cursor_after="2025-12-31")) == {"cursor_before": FEBRUARY, "records_read": 4, "inserted": 1}
    assert world.mark() == world.published() == Mark("updated_at", "timestamp", "2026-03-01T00:00:00Z")


def test_an_override_beyond_the_mark_leaves_no_gap(world: World):
    world.people("Eve", at="2026-04-01", start=5)
    assert world.load(cursor_after="2026-03-15").metadata["records_read"] == 1
    assert world.load().success
    assert set(world.names()) == {"1", "2", "3", "4", "5"}
    assert world.mark() == world.published() == Mark("updated_at", "timestamp", "2026-04-01T00:00:00Z")


def test_an_override_that_is_no_value_of_the_cursor_is_refused(world: World):
    assert "cursor value is not a timestamp" in world.load(cursor_after="yesterday").failure


def test_a_full_refresh_reads_everything_and_marks_what_is_gone(world: World):
    world.load()
    world.change("insert into people select 'n' || n, null, 'N', '2026-03-02' from generate_series(1, 6) n")
    world.load()
    world.change("delete from people where id = '1'")
    outcome = world.load(full_refresh=True)
    assert {n: outcome.metadata[n] for n in ("records_read", "deleted", "updated", "unchanged")} == {
        "records_read": 9, "deleted": 1, "updated": 0, "unchanged": 9,
    }  # fmt: skip
    assert world.mark() == world.published() == Mark("updated_at", "timestamp", "2026-03-02T00:00:00Z")


def test_a_limit_leaves_the_mark(world: World):
    assert world.load(limit=1).metadata["records_read"] == 1
    assert world.mark() == world.published() == Mark("updated_at", "timestamp", FEBRUARY)
    world.load()
    assert len(world.names()) == 4


# -- Odd cursor values --------------------------------------------------------------------------


def test_a_row_dated_in_the_future_is_loaded_and_blinds_nobody(world: World):
    world.people("Poison", at="2999-01-01", start=9)
    outcome = world.load()
    assert "1 records are dated after the source's own time" in outcome.metadata["warnings"][0]
    world.people("Eve", at="2026-03-02", start=5)
    world.load()
    assert {"5", "9"} <= set(world.names())
    assert world.mark() == Mark("updated_at", "timestamp", "2026-03-02T00:00:00Z")


def test_rows_without_a_cursor_value_are_counted_and_found_by_every_load(world: World):
    world.change("insert into people values ('9', null, 'Nobody', null)")
    outcome = world.load()
    assert (outcome.metadata["null_cursor"], "9" in world.names()) == (1, True)


def test_a_mark_keeps_its_microseconds(world: World):
    world.people("Exact", at="2026-03-05 12:00:00.123456+00", start=5)
    world.load()
    assert world.mark() == world.published() == Mark("updated_at", "timestamp", "2026-03-05T12:00:00.123456Z")
