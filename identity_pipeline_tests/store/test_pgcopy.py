"""The binary COPY: whatever is written comes back as it was."""

import json
from collections.abc import Mapping
from datetime import UTC
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from identity_pipeline.core.cursor import INSTANT
from identity_pipeline.store.pgcopy import copy_rows

TABLE = "create temp table kinds (t text, b bytea, i int, l bigint, at timestamptz, xs text[], j jsonb, c text)"
TYPES = {
    "t": pa.string(), "b": pa.binary(), "i": pa.int32(), "l": pa.int64(), "at": INSTANT, "xs": pa.list_(pa.string()), "j": pa.string(),
}  # fmt: skip
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
ROW = st.fixed_dictionaries(
    {
        "t": st.none() | TEXT,
        "b": st.none() | st.binary(max_size=20),
        "i": st.none() | st.integers(-(2**31), 2**31 - 1),
        "l": st.none() | st.integers(-(2**63), 2**63 - 1),
        "at": st.none() | st.datetimes(timezones=st.just(UTC)),
        "xs": st.none() | st.lists(st.none() | TEXT, max_size=4),
        "j": st.none() | st.sampled_from(['{"a": "x"}', "{}", '{"ü": "\\"quoted\\\\ "}']),
    }
)


@pytest.fixture(scope="module")
def there(postgres_url: str):
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("set timezone to UTC")
        connection.execute(TABLE)
        yield connection


def written(there: psycopg.Connection, rows: list[dict[str, Any]], **columns: Any) -> list[tuple[Any, ...]]:
    there.execute("truncate kinds")
    made = {name: pa.array([row[name] for row in rows], kind) for name, kind in TYPES.items()}
    copy_rows(there, "pg_temp.kinds", made | {"c": pa.scalar("constant")} | columns, jsonb=["j"])
    return there.execute("select t, b, i, l, at, xs, j::text, c from kinds").fetchall()


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(ROW, min_size=1, max_size=6))
def test_what_is_written_is_read(there: psycopg.Connection, rows: list[dict[str, Any]]):
    def comparable(row: Mapping[str, Any]) -> list[Any]:
        return [row["xs"] or [] if name == "xs" else row[name] and json.loads(row[name]) if name == "j" else row[name] for name in TYPES]

    found = [dict(zip(TYPES, row, strict=False)) for row in written(there, rows)]
    assert [comparable(row) for row in found] == [comparable(row) for row in rows]


def test_columns_in_slices_and_chunks_are_their_own_rows(there: psycopg.Connection):
    names = pa.chunked_array([["a", "b"], ["c", None, "e"]]).slice(1, 3)
    lists = pa.array([["x"], ["y", "z"], [], None, ["w"]]).slice(1, 3)
    there.execute("truncate kinds")
    copy_rows(there, "pg_temp.kinds", {"t": names, "xs": lists, "l": pa.array([0, 1, 2, 3]).slice(1)})
    assert there.execute("select t, xs, l from kinds").fetchall() == [("b", ["y", "z"], 1), ("c", [], 2), (None, [], 3)]


def test_no_rows_are_no_rows(there: psycopg.Connection):
    there.execute("truncate kinds")
    copy_rows(there, "pg_temp.kinds", {"t": pa.array([], pa.string()), "xs": pa.array([], pa.list_(pa.string()))})
    assert there.execute("select count(*) from kinds").fetchone() == (0,)
