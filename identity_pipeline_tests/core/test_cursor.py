"""Cursor values: what is an instant, in whichever form a source writes it, and what is not."""

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from identity_pipeline.core.cursor import Reading, aligned, canonical, higher_of, instants, keys, lower_of, subtract_overlap

NOON = datetime(2026, 4, 13, 12, tzinfo=UTC)


def read(text: str, **reading: Any) -> datetime | None:
    return instants(pa.array([text]), Reading(**reading))[0].as_py()


@pytest.mark.parametrize(
    "text",
    [
        "2026-04-13T12:00:00Z", "2026-04-13 12:00:00+00", "2026-04-13T14:00:00+02:00", "1776081600", "1776081600.0", "1776081600000",
        "1776081600000000", " 1776081600 ",
    ],
)  # fmt: skip
def test_one_instant_in_every_form_that_can_be_nothing_else(text: str):
    assert read(text) == NOON


@pytest.mark.parametrize("text", ["01/02/2026", "20260413", "171234567", "12", "-1", "", "noon", "2026-13-01", "1" * 30])
def test_what_could_be_something_else_is_no_instant(text: str):
    assert read(text) is None


@pytest.mark.parametrize(("text", "unit"), [("12", "s"), ("12000", "ms"), ("12000000", "us"), ("12.0", "s")])
def test_a_unit_that_is_declared_reads_small_numbers_too(text: str, unit):
    assert read(text, unit=unit) == datetime(1970, 1, 1, 0, 0, 12, tzinfo=UTC)


def test_fractions_of_an_epoch_are_kept_and_cut_never_rounded_up():
    assert read("1776081600.1234569") == NOON.replace(microsecond=123456)
    assert read("1776081600123.9") == NOON.replace(microsecond=123900)


def test_numbers_beyond_64_bits_compare_with_small_ones():
    big, small = keys("int", pa.array([str(10**20)])), keys("int", pa.array(["5"]))
    one, other = aligned(big, small)
    assert one.type == other.type
    assert (higher_of("int", str(10**20), "5"), lower_of("int", str(10**20), "5")) == (str(10**20), "5")


def test_an_overlap_is_seconds_or_numbers_and_nothing_for_text():
    assert subtract_overlap("timestamp", "2026-04-13T12:00:00Z", 600) == "2026-04-13T11:50:00Z"
    assert subtract_overlap("int", "700", 600) == "100"
    assert subtract_overlap("text", "b", 600) == "b"


@pytest.mark.parametrize("text", ["2026-04-13T14:00:00+02:00", "1776081600"])
def test_what_a_person_gives_becomes_canonical(text: str):
    assert canonical("timestamp", text) == "2026-04-13T12:00:00Z"
