"""A source whose batches a test gives: they pass landing, merge and commit as in a run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import psycopg
import pyarrow as pa
from psycopg.rows import dict_row

from identity_pipeline import normalise
from identity_pipeline.core.cursor import CursorFilter
from identity_pipeline.core.fieldmap import FieldMap
from identity_pipeline.core.text import cast_all_utf8, to_table
from identity_pipeline.core.window import CursorType, Window
from identity_pipeline.store import ledger
from identity_pipeline.store.landing import Landing
from identity_pipeline.store.ledger import Load, Mark, ReadSummary
from identity_pipeline.store.merge import PartCounts, Rules, Versions, merge_part

Record = dict[str, Any]

FIELDS = FieldMap(
    external_id=("id",),
    email=("email",),
    phone=("phone",),
    full_name=("name",),
    deleted_at=("deleted_at",),
    deleted_when=(("archived", "true"),),
    merged_into=("merged_into",),
    absorbed=("absorbed",),
)


def table(records: list[Record]) -> pa.Table:
    """Records as one batch of text, the way a read lands them."""
    names = list(dict.fromkeys(name for record in records for name in record))
    return to_table(cast_all_utf8(pd.DataFrame({n: pd.Series([r.get(n) for r in records], dtype=object) for n in names})))


@dataclass
class Contacts:
    """One source of its own, by default with the cursor ``at``."""

    url: str
    landing: Landing
    name: str
    cursor: tuple[str, CursorType] | None = ("at", "timestamp")
    fields: FieldMap = FIELDS

    def without_cursor(self) -> "Contacts":
        """The same source, read as a whole each time."""
        return replace(self, cursor=None)

    @property
    def rules(self) -> Rules:
        """What its merge goes by."""
        return Rules(
            self.fields,
            lambda records: normalise.canonicalise(records, self.fields),
            normalise.fingerprint(self.fields),
            Versions(*self.cursor) if self.cursor else None,
        )

    @property
    def mark(self) -> Mark | None:
        """Its mark in the ledger."""
        return ledger.mark(self.url, self.name)

    def open(self, run_id: str = "run", *, full_refresh: bool = False, **how: Any) -> Load:
        """Open a load."""
        return ledger.open_load(self.url, self.name, "csv_url", run_id, full_refresh=full_refresh, before=self.mark, **how)

    def merge(self, load: Load, *batches: list[Record], part: int = 0, whole: Sequence[list[Record]] = ()) -> PartCounts:
        """Merge one part. ``whole`` is what the load holds in all."""

        def columns(names: list[str]) -> Iterator[pa.Table]:
            for landed in map(table, whole):
                yield landed.select([name for name in landed.column_names if name in names])

        return merge_part(self.url, load, part, map(table, batches), self.rules, whole=columns)

    def summary(self, *parts: list[Record], **values: Any) -> ReadSummary:
        """What a read of these parts would have told."""
        column, kind = self.cursor or (None, None)
        rows = CursorFilter(Window(column, kind))
        for part in parts:
            rows.apply(cast_all_utf8(pd.DataFrame(part)))
        counted = {"parts": [len(p) for p in parts], "records_read": sum(map(len, parts)), "candidate": rows.mark, "mapping": "m"}
        return ReadSummary(**{"cursor_column": column, "cursor_type": kind, **counted, **values})

    def commit(self, load: Load, summary: ReadSummary, **how: Any) -> dict[str, Any]:
        """Commit a load."""
        return ledger.commit(self.url, load, summary, **how)

    def load(self, *parts: list[Record], full_refresh: bool = False, run_id: str = "run", **how: Any) -> dict[str, Any]:
        """A whole load; each argument is one part. A full refresh has seen what the parts hold."""
        load = self.open(run_id, full_refresh=full_refresh)
        for number, part in enumerate(parts):
            self.merge(load, part, part=number, whole=parts)
        seen: Iterator[list[str]] | None = iter([[str(r["id"]) for r in p] for p in parts]) if full_refresh else None
        return self.commit(load, self.summary(*parts), seen=seen, **how)

    def query(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        """What the database answers."""
        with psycopg.connect(self.url, row_factory=dict_row) as connection:
            return connection.execute(statement.encode(), values).fetchall()

    def rows(self) -> dict[str, dict[str, Any]]:
        """The stored records by external id."""
        found = self.query("select * from identity.records where source_name = %s", self.name)
        assert len({r["external_id"] for r in found}) == len(found)
        return {row["external_id"]: row for row in found}

    def names(self) -> dict[str, str | None]:
        """Names by external id."""
        return {external_id: row["full_name"] for external_id, row in self.rows().items()}

    def quarantined(self) -> list[dict[str, Any]]:
        """Its quarantine."""
        return self.query("select * from identity.quarantine where source_name = %s order by quarantine_id", self.name)


def balance(line: dict[str, Any] | PartCounts) -> dict[str, int]:
    """The counts of a load or a part that are not zero, without the records read."""
    names = ("inserted", "updated", "unchanged", "duplicates", "quarantined", "filtered", "deleted")
    values = line if isinstance(line, dict) else vars(line)
    return {name: values[name] for name in names if values.get(name)}
