"""Names: what is tidied away, and where a full name is split."""

import re
import sys
import unicodedata

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from identity_pipeline.normalise import name


def column(*texts: str | None) -> pa.Array:
    return pa.array(texts, pa.string())


@pytest.mark.parametrize(
    ("text", "tidied"),
    [
        ("  Ann   Smith ", "Ann Smith"),
        ("Ann\u00a0Smith\u3000", "Ann Smith"),
        ("Ann\r\n\tSmith", "Ann Smith"),
        ("Jo\u0308rg", "J\u00f6rg"),
        ("\u202eAnn\u202c Smith\u200f", "Ann Smith"),
        ("An\u200bn\ufeff", "Ann"),
        ("A\u200cn\u200dn", "Ann"),
        ("Ann\U000e0041", "Ann"),
        ("Ann\x07", "Ann"),
        ("Zoë", "Zoë"),
        ("", None),
        ("   ", None),
        ("\u200b \u2060", None),
        (None, None),
    ],
)
def test_free_text_is_one_visible_line(text: str | None, tidied: str | None):
    assert name.clean(column(text)).to_pylist() == [tidied]


def test_what_is_taken_for_tidy_by_columns_is():
    """Each character stays as it is, and none joins the one before it."""
    every = [chr(code) for code in range(sys.maxunicode + 1)]
    stay = {c for c in every if re.match(f"[{name.STAYS}]", c)}
    assert len(stay) > 32_000
    assert [c for c in sorted(stay) if name.tidy(c) != c or unicodedata.combining(c)] == []
    pairs = [parts for c in every if len(parts := unicodedata.decomposition(c).split()) == 2 and not parts[0].startswith("<")]
    assert {chr(int(second, 16)) for _, second in pairs} & stay == set()


@settings(deadline=None)
@given(st.lists(st.text(max_size=30) | st.none(), max_size=20))
def test_columns_and_single_texts_are_tidied_alike(texts: list[str | None]):
    assert name.clean(column(*texts)).to_pylist() == [None if text is None else name.tidy(text) for text in texts]


@settings(deadline=None)
@given(st.text(max_size=40))
def test_tidied_text_stays_itself(text: str):
    tidied = name.tidy(text)
    assert tidied is None or name.tidy(tidied) == tidied


def test_a_tidy_column_is_not_copied():
    clean = column("Ann", None, "Smith & Co.")
    assert name.clean(clean) is clean


@pytest.mark.parametrize(
    ("full_name", "first", "last"),
    [
        ("Ann Smith", "Ann", "Smith"),
        ("Ann Mary Smith", "Ann Mary", "Smith"),
        ("Smith, Ann", "Ann", "Smith"),
        ("van der Berg, Jan", "Jan", "van der Berg"),
        ("Ludwig van Beethoven", "Ludwig", "van Beethoven"),
        ("Vincent Van Gogh", "Vincent", "Van Gogh"),
        ("Maria de la Cruz", "Maria", "de la Cruz"),
        ("José Ortega y Gasset", "José", "Ortega y Gasset"),
        ("Van Morrison", "Van", "Morrison"),
        ("von Trapp", None, "von Trapp"),
        ("Ben Al Smith", "Ben Al", "Smith"),
        ("John E Smith", "John E", "Smith"),
        ("Yo-Yo Ma", "Yo-Yo", "Ma"),
        ("Dr. Jane Doe", "Jane", "Doe"),
        ("Doe, Dr. Jane", "Jane", "Doe"),
        ("Herr Prof. Dr. Max Planck", "Max", "Planck"),
        ("Martin King Jr.", "Martin", "King"),
        ("Jane Doe, PhD", "Jane", "Doe"),
        ("Doe, Jane, MD", "Jane", "Doe"),
        ("Don Johnson", "Don", "Johnson"),
        ("Phil Collins", "Phil", "Collins"),
        ("Dr. Smith", None, None),
        ("Madonna", None, None),
        ("Acme, Inc.", None, None),
        ("Acme Trading Ltd", None, None),
        ("ann@acme.com", None, None),
        ("Ann & Bob Smith", None, None),
        ("Ann Smith (Sales)", None, None),
        ("Agent 007", None, None),
        ("山田 太郎", None, None),
        ("김 철수", None, None),
        ("a, b, c", None, None),
        (",", None, None),
        ("Smith,", None, None),
    ],
)
def test_a_full_name_is_split_where_that_is_certain_enough(full_name: str, first: str | None, last: str | None):
    assert name.parts(full_name) == (first, last)
    nothing = column(None)
    assert [c.to_pylist() for c in name.complete(column(full_name), nothing, nothing)] == [[full_name], [first], [last]]


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(["Ann", "Bob", "Smith", "van", "Dr", "Ltd", "Jr", "Ma", "de", "O'Neil", "x", "y", "Group", ","]), max_size=4
    ).map(" ".join)
)
def test_the_two_word_columns_are_split_as_single_names_are(full_name: str):
    tidied = name.clean(column(full_name))
    nothing = column(None)
    _, first, last = name.complete(tidied, nothing, nothing)
    text = tidied[0].as_py()
    assert (first[0].as_py(), last[0].as_py()) == ((None, None) if text is None else name.parts(text))


def test_a_record_with_a_part_is_not_split():
    full, first, last = name.complete(column("Ann Mary Smith", "Ann Smith"), column("Ann", None), column(None, "Smythe"))
    assert (full.to_pylist(), first.to_pylist(), last.to_pylist()) == (["Ann Mary Smith", "Ann Smith"], ["Ann", None], [None, "Smythe"])


def test_a_full_name_is_made_of_the_parts_when_there_is_none():
    full, _, _ = name.complete(
        column(None, None, None, None, "A. Smith"), column("Ann", "Ann", None, None, "Ann"), column("Smith", None, "Smith", None, "Smith")
    )
    assert full.to_pylist() == ["Ann Smith", "Ann", "Smith", None, "A. Smith"]
