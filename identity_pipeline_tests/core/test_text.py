"""Every value as text: one canonical form, whichever way it came; and what is text already costs no look at each cell."""

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity_pipeline.core import text
from identity_pipeline.core.fieldmap import REJECTED
from identity_pipeline.core.text import SANITISED, cast_all_utf8, flatten, parse_json, table_of

PAGES: dict[str, list[dict[str, Any]]] = {
    "texts": [{"a": "x", "b": None}, {"a": "", "b": "y"}],
    "gaps": [{"a": "x"}, {"b": "y"}, {}],
    "one field": [{"a": "x"}, {"a": None}],
    "scalars": [{"a": True, "b": 1.5, "c": 2}, {"a": False, "b": float("nan"), "c": -1}],
    "numbers as written": parse_json('[{"a": 1.10, "b": 9007199254740993}, {"a": 1e400, "b": "x"}]'),
    "lists": [{"a": [1, {"b": None}], "b": []}, {"a": None, "b": ["x"]}],
    "nested": [{"a": {"b": {"c": "x"}}, "d": {}}, {"a": "plain", "a.b": "dotted"}],
    "bytes": [{"a": b"x"}, {"a": "y"}],
    "nothing": [],
}


@pytest.mark.parametrize("name", PAGES)
def test_a_table_of_records_is_each_record_flattened(name: str):
    flat = [flatten(record) for record in PAGES[name]]
    names = list(dict.fromkeys(field for record in flat for field in record))
    table = table_of(PAGES[name])
    assert set(table.column_names) == set(names)
    assert table.to_pylist() == [{field: record.get(field) for field in names} for record in flat]
    assert set(table.schema.types) <= {pa.string()}
    assert cast_all_utf8(table).equals(table)


VALUES = st.recursive(
    st.none() | st.booleans() | st.text("ab.", max_size=3) | st.integers(-9, 9).map(str).map(text._Number),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("ab.", max_size=2), inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(st.dictionaries(st.text("ab.", max_size=2), VALUES, max_size=4), min_size=1, max_size=4))
def test_any_page_is_each_record_flattened(page: list[dict[str, object]]):
    flat = [flatten(record) for record in page]
    names = {field for record in flat for field in record}
    table = table_of(page)
    assert set(table.column_names) == names
    if names:
        assert table.to_pylist() == [{field: record.get(field) for field in table.column_names} for record in flat]


@pytest.mark.parametrize("value", ["a\x00b", "\ud83d", "\x00"])
def test_what_cannot_be_stored_is_escaped_once_and_named(value: str):
    table = table_of([{"id": "1", "note": value}, {"id": "2", "note": "fine"}])
    assert table.column(SANITISED).to_pylist() == ["note", None]
    assert table.column("note").to_pylist() == [text.escape(value), "fine"]
    assert cast_all_utf8(table).equals(table)


def test_a_nul_in_a_slice_or_a_chunk_is_found_and_one_beside_it_is_not():
    column = pa.chunked_array([pa.array(["a\x00", "b"]), pa.array(["c", None])])
    assert cast_all_utf8(pa.table({"a": column})).column(SANITISED).to_pylist() == ["a", None, None, None]
    assert cast_all_utf8(pa.table({"a": column}).slice(1)).column_names == ["a"]


def test_a_page_of_texts_is_not_looked_at_cell_by_cell(monkeypatch: pytest.MonkeyPatch):
    def looked_at(*_: object) -> None:
        raise AssertionError("a cell")

    for name in ("to_text", "flatten"):
        monkeypatch.setattr(text, name, looked_at)
    table = table_of(parse_json('[{"id": 1, "name": "Zoë"}, {"id": 2, "name": null}]'))
    monkeypatch.setattr(text, "_array", looked_at)
    assert cast_all_utf8(table).to_pylist() == [{"id": "1", "name": "Zoë"}, {"id": "2", "name": None}]


@pytest.mark.parametrize("deep", ["{%s}" % ('"a":{' * 150 + "}" * 150), "[" * 900 + "]" * 900], ids=["objects", "lists"])
def test_a_record_that_is_nested_too_deep_is_rejected_alone(deep: str):
    table = table_of(parse_json(f'[{{"id": "1"}}, {{"id": "2", "x": {deep}}}]'))
    assert table.column("id").to_pylist() == ["1", "2"]
    assert table.column(REJECTED).to_pylist() == [None, "malformed: nested deeper than 100 levels"]
