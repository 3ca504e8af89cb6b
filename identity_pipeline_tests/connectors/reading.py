"""A connector read as a load reads it, every batch cast to text and cut at the window; and loaded into a store."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import psycopg
import pyarrow as pa
from psycopg.rows import dict_row

from identity_pipeline.connectors.base import Connector, Secret
from identity_pipeline.core.cursor_filter import CursorCounts, apply_cursor_filter
from identity_pipeline.core.load_spec import LoadSpec
from identity_pipeline.core.secret import Env, StoredToken
from identity_pipeline.core.text import Batch, cast_all_utf8
from identity_pipeline.core.window import ReadContext, Window
from identity_pipeline.loading.load import load
from identity_pipeline.loading.spec import RunOptions, Target
from identity_pipeline.store import ledger


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


@dataclass
class Loads:
    """The loads of one source, which ``connector`` reads by ``column``, into a store. No wait takes any time."""

    target: Target
    connector: Connector
    column: str | None = None
    mapping: Mapping[str, str] = field(default_factory=dict)

    def read(self, window: Window) -> Iterator[Batch]:
        """As the connector does."""
        window.context.sleep = lambda _: None
        yield from self.connector.read(window)

    def load(self, **options: Any) -> dict[str, Any]:
        """One load, from the mark of the one before; its row of the ledger."""
        known = self.connector.cursor_columns
        column = known.get(self.column) or known["*"] if self.column else None
        spec = LoadSpec(
            "crm",
            self.connector.source_type(),
            self.connector.field_map.override(self.mapping),
            self.connector.cursor(self.column, column.type or "timestamp") if self.column and column else None,
            self.connector.order,
            column.overlap if column else 0,
            mapped=tuple((name,) for name in self.mapping.values()),
            settings="as declared",
            whole=self.connector.reads_whole,
            snapshot=self.connector.reads_snapshot,
        )
        published = ledger.state(self.target.url, "crm").mark
        return load(spec, self, self.target, "run", options=RunOptions(**options), published=published, log=lambda _: None)

    def rows(self) -> dict[str, dict[str, Any]]:
        """The rows of the identity table by external id."""
        with psycopg.connect(self.target.url, row_factory=dict_row) as connection:
            return {row["external_id"]: row for row in connection.execute("select * from identity.records").fetchall()}

    def live(self) -> set[str]:
        """The ids of the rows that are not deleted."""
        return {name for name, row in self.rows().items() if row["deleted_at"] is None}
