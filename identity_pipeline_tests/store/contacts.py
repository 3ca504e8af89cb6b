"""A source whose batches a test gives: they pass landing, merge and commit as in a run."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import psycopg
import pyarrow as pa
from psycopg.rows import dict_row

from identity_pipeline import normalise
from identity_pipeline.core.cursor import Cursor, Mark, Order
from identity_pipeline.core.cursor_filter import CursorCounts, apply_cursor_filter
from identity_pipeline.core.fieldmap import FieldMap
from identity_pipeline.core.text import table_of
from identity_pipeline.core.window import Window
from identity_pipeline.store import ledger
from identity_pipeline.store.batch import Rules
from identity_pipeline.store.landing import LandedPart, Landing, Part
from identity_pipeline.store.ledger import Load, ReadSummary, SourceState
from identity_pipeline.store.merge import PartCounts, merge_part
from identity_pipeline.store.recency import Recency

Record = dict[str, Any]
AT = Cursor("at", "timestamp")

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


def people(*ids: str, at: str = "2026-01-01T00:00:00Z", name: str = "Ann") -> list[Record]:
    """Records that differ by their ids only."""
    return [{"id": external_id, "name": name, "at": at} for external_id in ids]


@dataclass
class Contacts:
    """One source of its own, by default with the cursor ``at``."""

    url: str
    landing: Landing
    name: str
    cursor: Cursor | None = AT
    fields: FieldMap = FIELDS
    order: Order = "oldest_first"

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
            Recency(self.cursor, self.order),
        )

    @property
    def state(self) -> SourceState:
        """What the ledger keeps of it."""
        return ledger.state(self.url, self.name)

    @property
    def mark(self) -> Mark | None:
        """Its mark in the ledger."""
        return self.state.mark

    def open(self, run_id: str = "run", *, full_refresh: bool = False, **how: Any) -> Load:
        """Open a load."""
        return ledger.open_load(self.url, self.name, "csv_url", run_id, full_refresh=full_refresh, before=self.mark, **how)

    def merge(
        self, load: Load, *batches: list[Record], part: int = 0, shard: int = 0, whole: Mapping[Part, list[Record]] | None = None
    ) -> PartCounts:
        """Merge one part. ``whole`` is what the load holds in all, by default only this part."""
        here = Part(shard, part)
        held = {here: [record for batch in batches for record in batch]} if whole is None else whole

        def columns(names: list[str]) -> Iterator[tuple[Part, pa.Table]]:
            for each, landed in sorted(held.items()):
                table = table_of(landed)
                yield each, table.select([name for name in table.column_names if name in names])

        return merge_part(self.url, load, here, map(table_of, batches), self.rules, whole=columns)

    def summary(self, *parts: list[Record], **values: Any) -> ReadSummary:
        """What a read of these parts would have reported."""
        window, counts = Window(self.cursor), CursorCounts()
        for part in parts:
            apply_cursor_filter(table_of(part), window, counts)
        counted = {
            "parts": [LandedPart(Part(0, number), len(part)) for number, part in enumerate(parts)],
            "records_read": sum(map(len, parts)),
            "candidate": counts.mark(self.cursor) if self.cursor else None,
            "mapping": "m",
        }
        return ReadSummary(**{"cursor_column": window.cursor_column, "cursor_type": window.cursor_type, **counted, **values})

    def commit(self, load: Load, summary: ReadSummary, **how: Any) -> dict[str, Any]:
        """Commit a load."""
        return ledger.commit(self.url, load, summary, **how)

    def load(
        self,
        *parts: list[Record],
        full_refresh: bool = False,
        summary: Mapping[str, Any] | None = None,
        merged: Sequence[int] | None = None,
        **how: Any,
    ) -> dict[str, Any]:
        """A whole load; each argument is one part. A full refresh has seen what the parts hold.

        ``summary`` are values of the read's summary, ``merged`` is the order in which the parts are merged.
        """  # fmt: skip
        load = self.open(full_refresh=full_refresh)
        whole = {Part(0, number): part for number, part in enumerate(parts)}
        for number in range(len(parts)) if merged is None else merged:
            self.merge(load, parts[number], part=number, whole=whole)
        seen: Iterator[list[str]] | None = iter([[str(r["id"]) for r in p] for p in parts]) if full_refresh else None
        return self.commit(load, self.summary(*parts, **(summary or {})), seen=seen, **how)

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


def balance(row: dict[str, Any] | PartCounts) -> dict[str, int]:
    """The counts of a load or a part that are not zero, without the records read."""
    names = (*ledger.BALANCE, "deleted")
    values = row if isinstance(row, dict) else vars(row)
    return {name: values[name] for name in names if values.get(name)}


def leases(contacts: Contacts) -> list[dict[str, Any]]:
    """Its lease."""
    return contacts.query("select * from identity.leases where source_name = %s", contacts.name)


def status(contacts: Contacts, load_id: int) -> tuple[str, str | None]:
    """Status and error of a load."""
    [row] = contacts.query("select status, error_code from identity.loads where load_id = %s", load_id)
    return row["status"], row["error_code"]


def wait_until(holds: Callable[[], bool], seconds: float = 30) -> None:
    """Wait for what has to come to pass."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)
