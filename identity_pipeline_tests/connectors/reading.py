"""A connector read as a load reads it: every batch cast to text and cut at the window."""

from typing import Any

import pandas as pd
import pyarrow as pa

from identity_pipeline.connectors.base import Connector, Secret
from identity_pipeline.core.cursor_filter import CursorCounts, apply_cursor_filter
from identity_pipeline.core.secret import Env, StoredToken
from identity_pipeline.core.text import cast_all_utf8
from identity_pipeline.core.window import ReadContext, Window


def secret(value: str) -> Secret:
    """A secret that is looked up."""
    return Secret.bound(Env("TOKEN"), StoredToken(lambda: value))


def window(connector: Connector, cursor_column: str | None = None, lower: str | None = None, **options: Any) -> Window:
    """A window by that cursor, for ``connector``. No wait takes any time."""
    cursor = None
    if cursor_column is not None:
        column = connector.cursor_columns.get(cursor_column) or connector.cursor_columns["*"]
        cursor = connector.cursor(cursor_column, options.pop("cursor_type", None) or column.type or "timestamp")
    context = options.pop("context", None) or ReadContext(sleep=lambda _: None, log=lambda _: None)
    return Window(cursor, lower, context=context, **options)


def read(connector: Connector, asked: Window) -> tuple[pd.DataFrame, CursorCounts]:
    """All batches of one load as one frame, and what the filter counted."""
    counts = CursorCounts()
    found = [apply_cursor_filter(cast_all_utf8(batch), asked, counts) for batch in connector.read(asked)]
    table = pa.concat_tables(found, promote_options="default") if found else pa.table({"id": pa.array([], pa.string())})
    return table.to_pandas(types_mapper=pd.ArrowDtype), counts
