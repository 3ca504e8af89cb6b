"""The raw record as JSON: whatever a text holds, it comes back as it was."""

import json

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from identity_pipeline.core.text import SANITISED
from identity_pipeline.store.raw import raw_json

TEXTS = st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]), max_size=12))


def table(rows: list[dict[str, str | None]]) -> pa.Table:
    names = list(rows[0])
    return pa.table({name: pa.array([row[name] for row in rows], pa.string()) for name in names})


@given(st.lists(st.fixed_dictionaries({"id": TEXTS, 'a "quoted"\\ name\n': TEXTS, "Größe": TEXTS}), min_size=1, max_size=8))
def test_any_text_comes_back(rows: list[dict[str, str | None]]) -> None:
    assert [json.loads(text) for text in raw_json(table(rows)).to_pylist()] == rows


def test_every_control_character_comes_back() -> None:
    rows = [{"id": chr(n), "other": f"a{chr(n)}\\{chr(n)}b"} for n in range(0x80)]
    assert [json.loads(text) for text in raw_json(table(rows)).to_pylist()] == rows


def test_a_slice_and_several_chunks_are_read_as_their_own_rows() -> None:
    rows = [{"id": str(n), "note": f'"{n}"' if n % 2 else None} for n in range(20)]
    chunked = pa.concat_tables([table(rows[:7]), table(rows[7:])]).slice(5, 9)
    assert [json.loads(text) for text in raw_json(chunked).to_pylist()] == rows[5:14]


def test_the_note_of_escaped_fields_stands_only_where_there_is_one() -> None:
    plain = table([{"id": "1", SANITISED: None}, {"id": "2", SANITISED: None}])
    assert raw_json(plain).to_pylist() == ['{"id":"1"}', '{"id":"2"}']
    noted = raw_json(table([{"id": "1", SANITISED: "id"}])).to_pylist()
    assert [json.loads(text) for text in noted] == [{"id": "1", SANITISED: "id"}]
