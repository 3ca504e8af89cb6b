"""What does and what does not change the hash of a raw record."""

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from identity_pipeline.store.record_hash import record_hashes

_TEXTS = st.one_of(st.none(), st.text(st.sampled_from("ab=\x1b\x1e\x1f01é"), max_size=4))
_RECORDS = st.dictionaries(st.text(st.sampled_from("ab\x1b\x1e\x1f0"), min_size=1, max_size=3), _TEXTS, max_size=4)


def hashes(*records: dict[str, str | None], fingerprint: str = "rules") -> list[str]:
    names = list(dict.fromkeys(name for record in records for name in record))
    columns = {name: pa.array([record.get(name) for record in records], pa.string()) for name in names}
    found = pa.table(columns) if columns else pa.table({"nothing": pa.nulls(len(records), pa.string())})
    return record_hashes(found, fingerprint).to_pylist()


def test_a_hash_is_128_bits():
    [one] = hashes({"a": "1"})
    assert len(one) == 16


def test_the_order_of_columns_does_not_count():
    assert hashes({"a": "1", "b": "2"}) == hashes({"b": "2", "a": "1"})


def test_a_null_is_the_same_as_an_absent_field():
    assert hashes({"a": "1", "b": None}) == hashes({"a": "1"})


def test_an_empty_text_is_not_a_null():
    assert hashes({"a": "1", "b": ""}) != hashes({"a": "1", "b": None})


def test_the_company_a_record_came_in_does_not_count():
    together = hashes({"a": "1"}, {"b": "2"}, {"a": "x\x1e", "c": "3"})
    assert together == [*hashes({"a": "1"}), *hashes({"b": "2"}), *hashes({"a": "x\x1e", "c": "3"})]


def test_chunks_and_slices_do_not_count():
    whole = pa.table({"a": ["1", "2", "3", "4"], "b": ["x", None, "y", ""]})
    chunked = pa.concat_tables([whole.slice(0, 1), whole.slice(1, 2), whole.slice(3)])
    assert record_hashes(chunked, "r").equals(record_hashes(whole, "r"))
    assert record_hashes(whole.slice(2), "r").to_pylist() == record_hashes(whole, "r").to_pylist()[2:]


def test_another_fingerprint_changes_every_hash():
    assert not set(hashes({"a": "1"}, {}, fingerprint="one")) & set(hashes({"a": "1"}, {}, fingerprint="two"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": "1"}, {"a": "2"}),
        ({"a": "1"}, {"b": "1"}),
        ({"a": "1", "b": "2"}, {"a": "2", "b": "1"}),
        ({"ab": "c"}, {"a": "bc"}),
        ({"a": "1\x1fb\x1e2"}, {"a": "1", "b": "2"}),
        ({"a": "1\x1f", "b": "2"}, {"a": "1", "\x1fb": "2"}),
        ({"a\x1e": "1"}, {"a": "\x1e1"}),
        ({"a\x1eb": None, "c": "d\x1e"}, {"c\x1ed": "", "e": None}),
        ({"a": "\x1b"}, {"a": "\x1b0"}),
        ({"a": "\x1e"}, {"a": "\x1b1"}),
        ({"a": ""}, {}),
        ({"a": "1"}, {"a": "1 "}),
        ({"a": "A"}, {"a": "a"}),
    ],
)
def test_different_records_differ(one: dict[str, str | None], other: dict[str, str | None]):
    assert hashes(one) != hashes(other)


@settings(max_examples=300, deadline=None)
@given(st.lists(_RECORDS, min_size=2, max_size=5))
def test_two_records_have_the_same_hash_only_if_they_hold_the_same(records: list[dict[str, Any]]):
    filled = [{name: text for name, text in record.items() if text is not None} for record in records]
    found = [hashes(record)[0] for record in records]
    assert found == hashes(*records)
    for i, one in enumerate(filled):
        for j, other in enumerate(filled):
            assert (found[i] == found[j]) == (one == other)


def test_no_records_have_no_hashes():
    assert record_hashes(pa.table({"a": pa.array([], pa.string())}), "r").to_pylist() == []
