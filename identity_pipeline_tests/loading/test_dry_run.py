"""A dry run says what the load after it does, and leaves everything as it was."""

from dataclasses import replace
from typing import Any

import psycopg
import pytest

from identity_pipeline.core.errors import ConfigurationError, ContractBroken, SchemaChanged
from identity_pipeline.core.fieldmap import FieldMap
from identity_pipeline.loading.dry_run import DryRun, dry_run
from identity_pipeline.loading.spec import RunOptions, Target
from identity_pipeline.store.landing import Landing
from identity_pipeline_tests.loading.test_load import SPEC, Played, table

COUNTED = ("records_read", "inserted", "updated", "unchanged", "duplicates", "quarantined", "filtered")


@pytest.fixture
def source(database_url: str, tmp_path: Any) -> Played:
    played = Played(Target(database_url, Landing(str(tmp_path / "landing"))), replace(SPEC, field_map=FieldMap(full_name=("name",))))
    played.shows(table((1, "2026-04-01T00:00:00Z", "Ann"), (2, "2026-04-02T00:00:00Z", "Ben"), (3, "2026-04-03T00:00:00Z", "Cy")))
    return played


def tried(source: Played, **options: Any) -> DryRun:
    return dry_run(source.spec, source, source.target.url, options=RunOptions(**options), published=source.state.mark, log=lambda _: None)


def everything(url: str) -> list[Any]:
    """All that the identity tables hold."""
    with psycopg.connect(url) as connection:
        names = ("records", "sources", "loads", "load_parts", "leases", "quarantine", "files")
        return [connection.execute(f"select t::text from identity.{name} t order by 1".encode()).fetchall() for name in names]


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("options", [{}, {"full_refresh": True}, {"cursor_after": "2026-04-02T00:00:00Z"}, {"limit": 2}])
def test_it_counts_as_the_load_does_and_writes_nothing(source: Played, loaded: bool, options: dict[str, Any]):
    if loaded:
        source.load()
        source.shows(
            table(
                (1, "2026-04-04T00:00:00Z", "Anna"), (2, "2026-04-01T00:00:00Z", "older"), (3, "2026-04-03T00:00:00Z", "Cy"),
                (3, "2026-04-03T00:00:00Z", "Cy"), (None, "2026-04-05T00:00:00Z", "nobody"), (4, "2026-04-06T00:00:00Z", "Di"),
            )
        )  # fmt: skip
    before = everything(source.target.url)
    found = tried(source, **options)
    assert everything(source.target.url) == before
    row = source.load(**options)
    counted = {name: getattr(found, name) for name in COUNTED}
    settled = {"unchanged", "duplicates"}  # a version that is older than the stored one counts as a duplicate there
    assert {n: counted[n] for n in COUNTED if n not in settled} == {n: row[n] for n in COUNTED if n not in settled}
    assert sum(counted[n] for n in settled) == sum(row[n] for n in settled)


def test_it_names_the_fields_that_change_and_the_reasons_of_quarantine(source: Played):
    source.load()
    source.shows(table((1, "2026-04-04T00:00:00Z", "Anna"), (2, "2026-04-04T00:00:00Z", "Ben"), (None, "2026-04-05T00:00:00Z", "nobody")))
    found = tried(source)
    assert (found.changed_fields, found.reasons, found.sampled) == ({"at": 2, "name": 1}, {"missing_id": 1}, 2)


def test_it_refuses_what_a_load_refuses(source: Played):
    source.load()
    source.shows(table((1, "tomorrow", "Anna")))
    with pytest.raises(ConfigurationError, match="none of 1 values of 'at' is a timestamp"):
        tried(source)
    source.shows(table((1, "2026-04-04T00:00:00Z"), names=("id", "at")))
    with pytest.raises(SchemaChanged, match="'name' is not in the source any more"):
        tried(source)
    source.spec = replace(source.spec, mapped=(("nmae",),))
    source.shows(table((1, "2026-04-04T00:00:00Z", "Anna")))
    with pytest.raises(ConfigurationError, match=r"'nmae' is not in the source.*did you mean 'name'"):
        tried(source)


def test_an_early_end_is_not_believed_either(source: Played):
    source.shows(table((1, "2026-04-04T00:00:00Z", "Anna")), source_count=5)
    with pytest.raises(ContractBroken, match="has 5 records and gave 1"):
        tried(source)
