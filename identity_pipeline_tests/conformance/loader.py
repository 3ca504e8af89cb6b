"""A loader: one source on a harness and the identity database, loaded as a run loads it.

Every load through it is searched for the harness's secrets and contacts, whatever the test is about.
"""

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import psycopg
import pytest
from psycopg.rows import dict_row

from identity_pipeline.connectors.base import Connector
from identity_pipeline.core.errors import OperatorError, PipelineError
from identity_pipeline.core.window import ReadContext, Window
from identity_pipeline.orchestration.ops import _seen, part_values, rules
from identity_pipeline.orchestration.reading import Reading, RunOptions
from identity_pipeline.orchestration.sources import Source
from identity_pipeline.store import ledger
from identity_pipeline.store.landing import Landing
from identity_pipeline.store.ledger import Mark
from identity_pipeline.store.merge import merge_part
from identity_pipeline_tests.conformance.harness import PERSONAL, Contact, Harness

E = TypeVar("E", bound=PipelineError)
Row = dict[str, Any]


class Heard(logging.Handler):
    """Keeps all that any logger says, at every level."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one line."""
        self.lines.append(record.getMessage() + (str(record.exc_info) if record.exc_info else ""))


@dataclass
class Loader:
    """``name`` is new for each test, so that tests share a database.

    ``declared`` are fields of the declaration that a test changes. ``naps`` are the waits of the
    load before, which take no time. ``held`` are the contacts that the source shows.
    """

    harness: Harness
    database: psycopg.Connection
    url: str
    landing: Landing
    name: str = field(default_factory=lambda: f"source_{uuid4().hex[:12]}")
    declared: dict[str, Any] = field(default_factory=dict)
    naps: list[float] = field(default_factory=list)
    held: list[Contact] = field(default_factory=list)
    heard: Heard = field(default_factory=Heard)

    # the source

    def show(self, *contacts: Contact) -> None:
        """Let the source hold exactly these contacts."""
        self.held = list(contacts)
        self.harness.show(self.held)

    def add(self, *contacts: Contact) -> None:
        """Let the source hold these contacts too; those of the same id are replaced."""
        new = {c.id for c in contacts}
        self.show(*(c for c in self.held if c.id not in new), *contacts)

    @property
    def declaration(self) -> dict[str, Any]:
        """The source as it would stand in YAML."""
        cursor = (
            {"cursor_column": self.harness.cursor_column, "cursor_type": self.harness.cursor_type} if self.harness.cursor_column else {}
        )
        return {"name": self.name, "source_type": self.harness.source_type(), "config": self.harness.config, **cursor, **self.declared}

    def connector(self) -> Connector:
        """The connector as a run gets it: judged as declared, then with the values that ``{env: …}`` names."""
        source = Source.model_validate(self.declaration)
        source.resource()
        values = {n: os.environ[v["env"]] if isinstance(v, dict) else v for n, v in source.config.items()}
        return source.connector(**values)

    # loads

    def load(self, **choices: Any) -> dict[str, Any]:
        """One load, from the read to the commit; its line of the ledger."""
        self.naps.clear()
        self.heard.lines.clear()
        source, connector = Source.model_validate(self.declaration), self.connector()
        root = logging.getLogger()
        level = root.level
        root.setLevel(logging.DEBUG)
        root.addHandler(self.heard)
        try:
            line = self._run(source, connector, RunOptions(**choices))
        except Exception as error:
            self.search(str(error), repr(error))
            raise
        finally:
            root.removeHandler(self.heard)
            root.setLevel(level)
        self.search(str(line))
        parts = ("inserted", "updated", "unchanged", "duplicates", "quarantined", "filtered")
        assert line["records_read"] == sum(line[part] for part in parts), "the load does not balance"
        return line

    def _run(self, source: Source, connector: Connector, choices: RunOptions) -> dict[str, Any]:
        values = part_values(source, connector.cursor_reading())
        load, summary = Reading(
            source=source,
            connector=connector,
            url=self.url,
            landing=self.landing,
            fingerprint=values["fingerprint"],
            published=self._mark(),
            choices=choices,
            log=self.heard.lines.append,
        ).run(uuid4().hex)
        for number in range(len(summary.parts)):
            merge_part(self.url, load, number, self.landing.tables(self.name, load.load_id, number), rules(values))
        line = ledger.commit(self.url, load, summary, seen=_seen(self.landing, load, summary, source))
        self.landing.remove(self.name, load.load_id)
        return line

    def fail(self, kind: type[E] = PipelineError, **choices: Any) -> E:
        """A load that has to fail with ``kind``, changing no record and no mark and leaving nothing landed."""
        before = self.rows(), self.mark
        with pytest.raises(kind) as caught:
            self.load(**choices)
        assert (self.rows(), self.mark) == before, "a failed load changed something"
        line = self._one("select * from identity.loads where source_name = %s order by load_id desc limit 1")
        assert (line["status"], line["error_code"]) == ("failed", caught.value.code)
        left = [path for path in Path(self.landing.url).rglob("*") if path.is_file()]
        assert not left, "a failed load left what it had landed"
        assert ": " in str(caught.value) or not isinstance(caught.value, OperatorError), "the message does not say what to do"
        return caught.value

    def frames(self, window: Window | None = None) -> list[Any]:
        """What the connector yields for ``window``, by default for all."""
        return list(self.connector().read(window or Window(context=ReadContext(log=self.heard.lines.append))))

    # what came of them

    def rows(self) -> dict[str, Row]:
        """The source's rows of ``identity.records``, by the suite's ids, with their place in the table (``xmin``, ``ctid``)."""
        ours = {self.harness.external_id(c.id): c.id for c in self.held}
        statement = "select *, xmin::text, ctid::text from identity.records where source_name = %s order by external_id"
        with self.database.cursor(row_factory=dict_row) as cursor:
            found = cursor.execute(statement, (self.name,)).fetchall()
        return {ours.get(str(row["external_id"]), str(row["external_id"])): row for row in found}

    def live(self) -> set[str]:
        """The suite's ids of the rows that are not deleted."""
        return {name for name, row in self.rows().items() if row["deleted_at"] is None}

    @property
    def mark(self) -> str | None:
        """The mark in the ledger."""
        found = self._mark()
        return found and found.after

    def _mark(self) -> Mark | None:
        found = self.database.execute(
            "select cursor_column, cursor_type, cursor_after from identity.sources where source_name = %s and cursor_after is not null",
            (self.name,),
        ).fetchone()
        return Mark(*found) if found else None

    def quarantined(self) -> list[Row]:
        """The source's records in quarantine."""
        with self.database.cursor(row_factory=dict_row) as cursor:
            return cursor.execute("select * from identity.quarantine where source_name = %s", (self.name,)).fetchall()

    def _one(self, statement: str) -> Row:
        with self.database.cursor(row_factory=dict_row) as cursor:
            found = cursor.execute(statement.encode(), (self.name,)).fetchone()
        assert found is not None
        return found

    # what nobody may see

    def search(self, *texts: str) -> None:
        """Search the texts, all that was logged, and what the ledger and the quarantine show, for what must not be there."""
        told = [{k: v for k, v in row.items() if k not in {"raw", "external_id"}} for row in self.quarantined()]
        with self.database.cursor(row_factory=dict_row) as cursor:
            told += cursor.execute("select * from identity.loads where source_name = %s", (self.name,)).fetchall()
        searched(self.harness, [*texts, *self.heard.lines, json.dumps(told, default=str)])


def searched(harness: Harness, texts: Sequence[str], *, personal: bool = True) -> None:
    """Fail if a secret of ``harness``, or a part of a contact, stands in one of ``texts``."""
    for text in texts:
        for hidden in (*harness.canaries, *(PERSONAL if personal else ())):
            assert hidden not in text, f"{hidden!r} is shown: …{text[max(0, text.find(hidden) - 80) : text.find(hidden)]}…"
