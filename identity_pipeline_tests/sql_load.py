"""A load of a table as the pipeline makes it, without a store: of any database."""

from contextlib import closing
from dataclasses import dataclass, replace

from identity_pipeline.core.cursor import Cursor, CursorType, Reading
from identity_pipeline.core.cursor_filter import CursorCounts, apply_cursor_filter
from identity_pipeline.core.window import ReadContext, Window
from identity_pipeline.readers.sql.table import SqlTable


@dataclass
class Load:
    """One load as the pipeline makes it: read, filter, mark."""

    records: list[dict]
    mark: str | None
    filtered: int
    context: ReadContext

    @property
    def ids(self) -> set[str]:
        """What was loaded."""
        return {record["id"] for record in self.records}


def load(table: SqlTable, column: str, cursor_type: CursorType, lower: str | None = None, state: str | None = None) -> Load:
    """Load what ``table`` has from ``lower`` on; ``state`` is what the load before kept."""
    cursor = Cursor(column, cursor_type, Reading(table.timezone))
    window, counts, records = Window(cursor, lower, state=state), CursorCounts(), []
    with closing(table.read(window)) as batches:
        for batch in batches:
            shown = replace(window, lower=None) if window.context.asked_below else window
            records += apply_cursor_filter(batch, shown, counts).to_pylist()
    return Load(records, counts.mark(cursor), counts.filtered, window.context)
