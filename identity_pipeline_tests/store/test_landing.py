"""The landing: what a read wrote is what the merge gets, in bounded parts, and nothing stays."""

import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest

from identity_pipeline.core.errors import LandedPartLost, TargetUnavailable
from identity_pipeline.store import landing as module
from identity_pipeline.store.landing import LandedPart, Landing, LandingWriter, Part

FIRST = Part(0, 0)


@pytest.fixture
def landing(tmp_path: Path) -> Landing:
    return Landing(str(tmp_path / "landing"))


def batch(*ids: int, **columns: str) -> pa.Table:
    return pa.table({"id": [str(n) for n in ids]} | {name: [value] * len(ids) for name, value in columns.items()})


def land(landing: Landing, *batches: pa.Table | Iterator[pa.Table], load_id: int = 1, shard: int = 0) -> LandingWriter:
    with landing.writer("crm", load_id, shard) as writer:
        for one in batches:
            for table in [one] if isinstance(one, pa.Table) else one:
                writer.write(table)
    return writer


def ids(landing: Landing, part: int, load_id: int = 1, shard: int = 0) -> list[str]:
    return [text for table in landing.tables("crm", load_id, Part(shard, part)) for text in table.column("id").to_pylist()]


def sizes(writer: LandingWriter) -> list[int]:
    return [landed.records for landed in writer.parts]


def files(landing: Landing) -> list[str]:
    return sorted(str(p.relative_to(landing.url)) for p in Path(landing.url).rglob("*") if p.is_file())


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """As on a full disk: what is written beyond ``size`` fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_was_landed_comes_back_in_its_order(landing: Landing):
    writer = land(landing, batch(1, 2), batch(), batch(3, name="Ann"), batch(4))
    assert writer.parts == [LandedPart(FIRST, 4)]
    assert ids(landing, 0) == ["1", "2", "3", "4"]
    assert list(writer.fields) == ["id", "name"]


def test_nulls_empty_texts_and_odd_characters_come_back(landing: Landing):
    texts = [None, "", " ", "\\N", "a\nb", "€\U0001f600", '"']
    land(landing, pa.table({"id": pa.array(texts, pa.string())}))
    assert ids(landing, 0) == texts


def test_nothing_landed_makes_no_part_and_no_file(landing: Landing):
    assert land(landing, batch()).parts == []
    assert not Path(landing.url).exists()


def test_parts_end_by_rows_and_by_bytes(landing: Landing, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "PART_ROWS", 3)
    assert sizes(land(landing, batch(1, 2), batch(3), batch(4))) == [3, 1]
    assert [ids(landing, part) for part in (0, 1)] == [["1", "2", "3"], ["4"]]
    monkeypatch.setattr(module, "PART_BYTES", 100)
    assert sizes(land(landing, batch(1, name="x" * 100), batch(2), load_id=2)) == [1, 1]


def test_small_batches_are_gathered_and_large_ones_cut(landing: Landing, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "BATCH_ROWS", 4)
    land(landing, batch(1), batch(2), batch(*range(3, 12)))
    assert [table.num_rows for table in landing.tables("crm", 1, FIRST)] == [4, 4, 3]
    assert len(files(landing)) == 1


def test_only_the_wanted_columns_are_read(landing: Landing):
    land(landing, batch(1, name="Ann", city="Bonn"), batch(2, city="Köln"))
    found = [table.to_pydict() for table in landing.tables("crm", 1, FIRST, ["name", "id"])]
    assert found == [{"id": ["1"], "name": ["Ann"]}, {"id": ["2"]}]


def test_a_read_that_fails_leaves_nothing(landing: Landing, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "PART_ROWS", 1)

    def batches() -> Iterator[pa.Table]:
        yield batch(1)
        assert files(landing)
        raise KeyError

    with pytest.raises(KeyError):
        land(landing, batches())
    assert files(landing) == []


@pytest.mark.parametrize("rows", [1, 20_000])
def test_a_full_disk_is_reported_with_what_to_do_and_leaves_nothing(landing: Landing, rows: int):
    """Whether it is full in the middle or when the last file is written."""
    with no_file_larger_than(200), pytest.raises(TargetUnavailable, match=r"crm: landing at .* failed .* free space") as full:
        land(landing, *(batch(*range(start, start + rows)) for start in range(0, rows * 2, rows)))
    assert full.value.retryable
    assert files(landing) == []
    assert sizes(land(landing, batch(1))) == [1]


def test_a_place_that_cannot_be_written_is_reported(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(TargetUnavailable, match="make it writable"):
        land(Landing(str(tmp_path / "file" / "landing")), batch(1))


def test_a_part_that_is_gone_says_what_to_do(landing: Landing):
    with pytest.raises(LandedPartLost, match="the landed part 0-00003 of load 1 is gone: materialize again"):
        ids(landing, 3)


def test_only_the_owner_can_read_it(landing: Landing):
    land(landing, batch(1))
    folders = [Path(landing.url), *(p for p in Path(landing.url).rglob("*") if p.is_dir())]
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o700}


def test_a_load_is_removed_alone_and_repeatedly(landing: Landing):
    for load_id in (1, 2, 3):
        land(landing, batch(load_id), load_id=load_id)
    landing.remove("crm", 1)
    landing.remove("crm", 1)
    assert files(landing) == ["crm/2/part-0-00000/000000.arrow", "crm/3/part-0-00000/000000.arrow"]
    landing.remove_others("crm", 3)
    landing.remove_others("erp", 3)
    assert ids(landing, 0, load_id=3) == ["3"]
    assert files(landing) == ["crm/3/part-0-00000/000000.arrow"]


def test_a_url_serves_as_a_folder_does(tmp_path: Path):
    landing = Landing(f"file://{tmp_path}/landing/")
    assert sizes(land(landing, batch(1, 2))) == [2]
    assert ids(landing, 0) == ["1", "2"]
    landing.remove("crm", 1)
    assert list((tmp_path / "landing" / "crm").iterdir()) == []


def test_each_shard_has_parts_of_its_own(landing: Landing):
    assert land(landing, batch(1), shard=0).parts == [LandedPart(Part(0, 0), 1)]
    assert land(landing, batch(2), shard=1).parts == [LandedPart(Part(1, 0), 1)]
    assert [ids(landing, 0, shard=shard) for shard in (0, 1)] == [["1"], ["2"]]
    both = landing.whole("crm", 1, ["id"])
    assert [(str(part), table.to_pydict()) for part, table in both] == [("0-00000", {"id": ["1"]}), ("1-00000", {"id": ["2"]})]


def test_a_shard_that_fails_leaves_the_others(landing: Landing, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "PART_ROWS", 1)

    def failing() -> Iterator[pa.Table]:
        yield from (batch(3), batch(4))
        raise KeyError

    with landing.writer("crm", 1, shard=10) as other:
        other.write(batch(1))
        with pytest.raises(KeyError):
            land(landing, failing(), shard=1)
        other.write(batch(2))
    assert files(landing) == ["crm/1/part-10-00000/000000.arrow", "crm/1/part-10-00001/000000.arrow"]


@pytest.mark.parametrize("kept", [0, 5, 0.3, 0.9, -1])
@pytest.mark.parametrize("columns", [None, ["id"]])
def test_a_part_that_was_cut_short_says_what_to_do(landing: Landing, kept: float, columns: list[str] | None):
    land(landing, batch(*range(20_000), name="Ann"))
    [file] = [Path(landing.url) / name for name in files(landing)]
    size = file.stat().st_size
    with file.open("r+b") as stream:
        stream.truncate(size - 1 if kept < 0 else int(kept * size) if 0 < kept < 1 else int(kept))
    with pytest.raises(LandedPartLost, match=r"part 0-00000 of load 1 was cut short or damaged .* materialize again"):
        list(landing.tables("crm", 1, FIRST, columns))


def test_batches_without_the_wanted_columns_keep_their_length(landing: Landing):
    land(landing, batch(1, 2), batch(3, name="Ann"))
    assert [table.num_rows for table in landing.tables("crm", 1, FIRST, ["name"])] == [2, 1]
