"""Patterns of file names."""

import pytest

from identity_pipeline.readers.files.glob import Glob

NAMES = {
    "a": "a.csv", "b": "exports/b.csv", "c": "exports/2026/c.csv", "S": "_SUCCESS", "C": "exports/_committed_1",
    "x": "exports/.contacts.csv.Xa3", "d": "_tmp/d.csv", "e": "exports/.git/e.csv", "f": "exports/_spark/2026/f.csv",
    "g": "exports_old/g.csv", "h": "exports//h.csv", "+": "a_b/c.d.csv",
}  # fmt: skip


@pytest.mark.parametrize(
    ("prefix", "pattern", "meant"),
    [
        ("", "**", "abcgh+"),
        ("", "**/*.csv", "abcgh+"),
        ("", "*", "a"),
        ("", "?.csv", "a"),
        ("", "[!b]*", "a"),
        ("", "_*", "S"),
        ("", "**/_*", "SC"),
        ("", "_*/**", "d"),
        ("", "**/_*/**", "df"),
        ("", "**/.*", "x"),
        ("", "**/.*/*.csv", "e"),
        ("exports/", "**", "bch"),
        ("exports/", "_*/**", "f"),
        ("exports/_", "**", "Cf"),
        ("exports", "**", "bcgh"),
        ("exports", "*/*.csv", "bg"),
        ("a", "**", "a+"),
        ("a", "**/*.csv", "a+"),
        ("exports/", "_committed_1", "C"),
        ("none/", "**", ""),
    ],
)
def test_a_pattern_means_hidden_names_only_where_it_begins_so_itself(prefix: str, pattern: str, meant: str) -> None:
    names = Glob(prefix, pattern)
    assert {sign for sign, name in NAMES.items() if names.matches(name)} == set(meant)


@pytest.mark.parametrize(
    ("prefix", "pattern", "folder", "hidden"),
    [
        ("", "**", "exports", False),
        ("", "**", ".ssh", True),
        ("", "**", "a/_tmp", True),
        ("", "**/_*", "a/_tmp", False),
        ("", "**/_*", "a/.git", True),
        ("_drop/", "**", "_drop", False),
        ("_drop/", "**", "_drop/_tmp", True),
        ("exports/_2026", "**", "exports/_2026-07", False),
    ],
)
def test_a_hidden_folder_is_looked_into_only_where_it_may_be_meant(prefix: str, pattern: str, folder: str, hidden: bool) -> None:
    assert Glob(prefix, pattern).hides(folder) is hidden
