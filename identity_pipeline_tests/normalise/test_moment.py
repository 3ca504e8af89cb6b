"""Moments: texts as instants in UTC."""

from datetime import UTC, datetime

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from identity_pipeline.core.cursor import INSTANT, instants
from identity_pipeline.normalise import moment


def read(*texts: str | None) -> list[datetime | None]:
    found = moment.moments(pa.array(texts, pa.string()))
    assert found.type == INSTANT
    return found.to_pylist()


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2026-04-13T10:20:30Z", datetime(2026, 4, 13, 10, 20, 30, tzinfo=UTC)),
        ("2026-04-13 10:20:30", datetime(2026, 4, 13, 10, 20, 30, tzinfo=UTC)),
        (" 2026-04-13T10:20:30.123456Z ", datetime(2026, 4, 13, 10, 20, 30, 123456, tzinfo=UTC)),
        ("2026-04-13T10:20:30.1234567Z", datetime(2026, 4, 13, 10, 20, 30, 123456, tzinfo=UTC)),
        ("2026-04-13T10:20:30.5", datetime(2026, 4, 13, 10, 20, 30, 500000, tzinfo=UTC)),
        ("2026-04-13T10:20:30+02:00", datetime(2026, 4, 13, 8, 20, 30, tzinfo=UTC)),
        ("2026-04-13T10:20:30-0330", datetime(2026, 4, 13, 13, 50, 30, tzinfo=UTC)),
        ("2026-04-13", datetime(2026, 4, 13, tzinfo=UTC)),
        ("1712345678", datetime(2024, 4, 5, 19, 34, 38, tzinfo=UTC)),
        ("1712345678901", datetime(2024, 4, 5, 19, 34, 38, 901000, tzinfo=UTC)),
        ("0000-00-00 00:00:00", None),
        ("0000-01-01T00:00:00Z", None),
        ("0001-01-01T00:00:00+01:00", None),
        ("9999-12-31T23:59:59-01:00", None),
        ("2026-02-30T00:00:00Z", None),
        ("2026-04-13T25:00:00Z", None),
        ("01/02/2026", None),
        ("May 2026", None),
        ("12", None),
        ("171234567", None),
        ("١٧١٢٣٤٥٦٧٨", None),
        ("", None),
        (None, None),
    ],
)
def test_only_what_is_certain_is_a_moment(text: str | None, instant: datetime | None):
    assert read(text) == [instant]
    assert read(text, "2026-04-13T10:20:30Z")[0] == instant
    assert read(text, "1712345678", "2026-04-13T10:20:30+02:00")[0] == instant


times = st.one_of(
    st.datetimes().map(datetime.isoformat),
    st.datetimes(timezones=st.timezones()).map(datetime.isoformat),
    st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,7})?Z?", fullmatch=True),
    st.text("0123456789-:TZ+. ", max_size=27),
)


@settings(deadline=None)
@given(st.lists(times, min_size=1, max_size=10))
def test_the_quick_path_agrees_with_the_cursor_on_iso_times(texts: list[str]):
    for text in texts:
        if not text.strip().isdigit():
            expected = instants(pa.array([text], pa.string())).cast(pa.int64())[0].as_py()
            inside = expected is not None and moment._FIRST.value <= expected <= moment._LAST.value
            assert moment.moments(pa.array([text], pa.string())).cast(pa.int64())[0].as_py() == (expected if inside else None)


@settings(deadline=None)
@given(st.lists(times | st.text(max_size=20), max_size=8))
def test_a_moment_does_not_depend_on_its_neighbours(texts: list[str]):
    assert read(*texts) == [read(text)[0] for text in texts]


@pytest.mark.parametrize(
    ("text", "hour"),
    [("2026-07-01T12:00:00", 10), ("2026-07-01 12:00", 10), ("2026-07-01T12:00:00Z", 12), ("2026-07-01T12:00:00+09:00", 3)],
)
def test_a_time_without_a_zone_is_one_of_the_source(text: str, hour: int):
    for texts in ([text], [text, "2026-07-01T12:00:00Z"], [text, "2026-07-01T12:00:00"]):
        assert moment.moments(pa.array(texts), "Europe/Berlin")[0].as_py() == datetime(2026, 7, 1, hour, tzinfo=UTC)
