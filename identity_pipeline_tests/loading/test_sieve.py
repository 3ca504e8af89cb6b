"""The sieve: whatever a source streams, holding back what is stored leaves the same as landing all of it."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from identity_pipeline.core.balance import BALANCE
from identity_pipeline.core.cursor import Cursor
from identity_pipeline.core.fieldmap import FieldMap
from identity_pipeline.loading import read
from identity_pipeline.loading.spec import Target
from identity_pipeline.store import landing, sieve
from identity_pipeline.store.landing import Landing
from identity_pipeline_tests.loading.test_load import SPEC, Played, table

NAMES = ("id", "at", "name", "gone")
FIELDS = FieldMap(full_name=("name",), deleted_when=(("gone", "yes"),))
NUMBERS = itertools.count()

Row = tuple[Any, ...]
ROW = st.tuples(
    st.sampled_from([1, 2, 3]),
    st.sampled_from([None, *(f"2026-04-0{day}T00:00:00Z" for day in (1, 2, 3))]),
    st.sampled_from(["A", "B"]),
    st.sampled_from([None, None, "yes"]),
)
STREAM = st.lists(st.lists(ROW, min_size=1, max_size=3), min_size=1, max_size=4)
LANDED_BEFORE = [[(1, None, "B", None)], [(2, None, "A", None)], [(1, None, "A", None)]]
"""Another version of a record comes before the sieve begins, and what is stored of it after that."""
GONE_AND_BACK = [[(2, None, "A", None), (1, None, "A", "yes"), (3, None, "A", None)], [(1, None, "A", None)]]
OLD, NEW = "2026-04-01T00:00:00Z", "2026-04-03T00:00:00Z"


@pytest.fixture
def target(database_url: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Target:
    monkeypatch.setattr(landing, "PART_ROWS", 3)
    return Target(database_url, Landing(str(tmp_path_factory.mktemp("landing"))))


def outcome(target: Target, spec: Any, streams: list[list[list[Row]]], *, sieved: bool, full_refresh: bool, worth: float = 8) -> list[Any]:
    """After each load: what is stored, and what of the balance does not depend on where a version was settled.

    ``deleted`` does: a record that is shown deleted and then alive counts where the two are in different parts.
    """
    source = Played(target, replace(spec, source_name=f"crm_{next(NUMBERS)}"))
    found: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sieve, "_WORTH", worth)
        if not sieved:
            patch.setattr(read._Reading, "_sieve", lambda _self: None)
        for stream in streams:
            source.shows(*(table(*rows, names=NAMES) for rows in stream))
            row = source.load(full_refresh=full_refresh)
            assert row["records_read"] == sum(row[name] for name in BALANCE)
            found.append((stored(target.url, source.spec.source_name), row["inserted"], row["row_count"]))
    return found


def stored(url: str, source_name: str) -> list[Any]:
    with psycopg.connect(url) as connection:
        return connection.execute(
            "select external_id, raw, deleted_at is null, record_hash from identity.records where source_name = %s order by 1",
            (source_name,),
        ).fetchall()


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(STREAM, min_size=2, max_size=3), st.booleans(), st.booleans(), st.booleans(), st.sampled_from([0.4, 1, 8]))
@example([[[(1, None, "A", None)]], [[(1, None, "B", None)], [(1, None, "A", None)]]], False, False, False, 8)
@example([[[(1, NEW, "A", None)]], [[(1, NEW, "A", None)], [(1, OLD, "B", None)]]], True, False, True, 8)
@example([[[(1, NEW, "A", "yes")]], [[(1, NEW, "A", "yes")], [(1, OLD, "B", None)]]], True, False, False, 8)
@example([[[(1, None, "A", None), (2, None, "A", None)]], LANDED_BEFORE], False, False, False, 1)
@example([[[(2, None, "A", None)]], GONE_AND_BACK], False, False, False, 1)
def test_it_changes_nothing_of_what_is_stored(
    target: Target, streams: list[list[list[Row]]], by_cursor: bool, snapshot: bool, full_refresh: bool, worth: float
):
    cursor = Cursor("at", "timestamp") if by_cursor else None
    spec = replace(SPEC, field_map=FIELDS, cursor=cursor, snapshot=snapshot, whole=True, max_deleted_share=1.0, overlap=30 * 86_400)
    plain, sieved = (outcome(target, spec, streams, sieved=flag, full_refresh=full_refresh, worth=worth) for flag in (False, True))
    assert sieved == plain


def test_what_is_unchanged_is_neither_landed_nor_asked_for(target: Target, monkeypatch: pytest.MonkeyPatch):
    source = Played(target, replace(SPEC, cursor=None))
    rows = [(n, None, f"N{n}") for n in range(20)]
    source.shows(table(*rows))
    source.load()
    landed: list[pa.Table] = []
    write = landing.LandingWriter.write
    monkeypatch.setattr(landing.LandingWriter, "write", lambda self, t: landed.append(t) or write(self, t))
    source.shows(table(*rows[:10]), table(*rows[10:], (3, None, "changed"), (99, None, "new"), (5, None, "N5")))
    row = source.load()
    assert {name: row[name] for name in ("inserted", "updated", "unchanged", "duplicates")} == {
        "inserted": 1, "updated": 1, "unchanged": 20, "duplicates": 1,
    }  # fmt: skip
    assert [t.column("id").to_pylist() for t in landed if t.num_rows] == [["3", "99"]]


def test_a_full_refresh_knows_what_was_held_back(target: Target):
    source = Played(target, replace(SPEC, cursor=None, whole=True))
    source.shows(table(*((n, None, "A") for n in range(10))))
    source.load()
    source.shows(table(*((n, None, "A") for n in range(9))))
    row = source.load(full_refresh=True)
    assert (row["unchanged"], row["deleted"]) == (9, 1)


def test_a_record_that_was_gone_and_comes_back_as_it_was_is_alive(target: Target):
    source = Played(target, replace(SPEC, cursor=None, whole=True, max_deleted_share=1.0))
    rows = [(1, None, "A"), (2, None, "B")]
    for shown in (rows, rows[:1], rows):
        source.shows(table(*shown))
        source.load(full_refresh=True)
    assert all(alive for _, _, alive, _ in stored(target.url, "crm"))


def test_where_most_is_new_it_gives_up_holding_back(target: Target, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sieve, "_LANDED_MAX", 3)
    source = Played(target, replace(SPEC, cursor=None))
    rows = [(n, None, "A") for n in range(12)]
    source.shows(table(*rows))
    source.load()

    def changed() -> Iterator[pa.Table]:
        for n in range(12):
            yield table((n, None, "B" if n < 8 else "A"))

    source.script = lambda _: changed()
    row = source.load()
    assert (row["updated"], row["unchanged"]) == (8, 4)
    assert source.names() == {str(n): "B" if n < 8 else "A" for n in range(12)}


def test_a_source_of_more_than_its_hashes_may_take_is_probed(target: Target, monkeypatch: pytest.MonkeyPatch):
    source = Played(target, replace(SPEC, cursor=None))
    source.shows(table(*((n, None, "A") for n in range(10))))
    source.load()
    monkeypatch.setattr(read, "MAX_ROWS", 9)
    monkeypatch.setattr(sieve.Sieve, "_fetch", None)
    assert source.load()["unchanged"] == 10


def test_a_small_increment_is_probed(target: Target, monkeypatch: pytest.MonkeyPatch):
    source = Played(target, replace(SPEC, cursor=None))
    source.shows(table(*((n, None, "A") for n in range(20))))
    source.load()
    source.shows(table((1, None, "B"), (2, None, "A")))
    monkeypatch.setattr(sieve.Sieve, "_fetch", None)
    row = source.load()
    assert (row["updated"], row["unchanged"]) == (1, 1)
