"""The cursor filter: what is dated ahead of the source is worth a warning only when it is far ahead."""

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from identity_pipeline.core.cursor import ISO, Cursor
from identity_pipeline.core.cursor_filter import CursorCounts, apply_cursor_filter
from identity_pipeline.core.window import ReadContext, Window

NOW = datetime(2026, 4, 13, 8, tzinfo=UTC)
CURSOR = Cursor("updated", "timestamp", ISO, in_records=True)


@pytest.mark.parametrize(
    ("ahead", "counted"), [(timedelta(seconds=-1), 0), (timedelta(seconds=1), 0), (timedelta(hours=23), 0), (timedelta(hours=25), 1)]
)
def test_what_a_busy_source_writes_during_the_read_is_not_counted_as_from_the_future(ahead: timedelta, counted: int):
    window, counts = Window(CURSOR, context=ReadContext(source_time=NOW)), CursorCounts()
    records = pa.table({"updated": ["2026-04-13T07:00:00Z", (NOW + ahead).isoformat(), None]})
    assert apply_cursor_filter(records, window, counts).num_rows == 3
    assert counts.beyond == counted
    assert counts.mark(CURSOR) == ("2026-04-13T07:59:59Z" if ahead < timedelta(0) else "2026-04-13T07:00:00Z")
