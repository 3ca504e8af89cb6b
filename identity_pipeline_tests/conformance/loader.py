"""A loader: one source on a harness and the identity database, loaded as a run loads it.

Every load through it is searched for the harness's secrets and contacts, whatever the test is about.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from identity_pipeline.connectors.base import Connector
from identity_pipeline.core.balance import BALANCE
from identity_pipeline.core.cursor import Mark
from identity_pipeline.core.errors import OperatorError, PipelineError
from identity_pipeline.core.window import ReadContext, Window
from identity_pipeline.declarations.opened import Opened, opened
from identity_pipeline.declarations.source import Source
from identity_pipeline.loading.load import load
from identity_pipeline.loading.spec import RunOptions, Target
from identity_pipeline.store.landing import Landing
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
    load before, which take no time. ``held`` are the contacts that the source shows, ``known`` the
    external ids of all that it ever showed, with the suite's.
    """

    harness: Harness
    database: psycopg.Connection
    url: str
    landing: Landing
    name: str = field(default_factory=lambda: f"source_{uuid4().hex[:12]}")
    declared: dict[str, Any] = field(default_factory=dict)
    naps: list[float] = field(default_factory=list)
    held: list[Contact] = field(default_factory=list)
    known: dict[str, str] = field(default_factory=dict)
    heard: Heard = field(default_factory=Heard)
    wiped: bool = False

    # the source

    def show(self, *contacts: Contact) -> None:
        """Let the source hold exactly these contacts."""
        self.held = list(contacts)
        self.known |= {self.harness.external_id(c.id): c.id for c in contacts}
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

    def opened(self) -> Opened:
        """The source as a run opens it: judged as declared, then with what it names looked up."""
        source = Source.model_validate(self.declaration)
        source.check()
        return opened(source, lambda: self.url)

    def connector(self) -> Connector:
        """The connector as a run gets it."""
        return self.opened().connector

    # loads

    def wipe(self) -> None:
        """Let the next load find no mark in Dagster's metadata, as after the asset was wiped."""
        self.wiped = True

    def load(self, **choices: Any) -> dict[str, Any]:
        """One load, from the read to the commit; its row of the ledger."""
        self.naps.clear()
        self.heard.lines.clear()
        source = self.opened()
        root = logging.getLogger()
        level = root.level
        root.setLevel(logging.DEBUG)
        root.addHandler(self.heard)
        try:
            row = self._run(source, RunOptions(**choices))
        except Exception as error:
            self.search(str(error), repr(error))
            raise
        finally:
            root.removeHandler(self.heard)
            root.setLevel(level)
        self.wiped = False
        self.search(str(row))
        assert row["records_read"] == sum(row[name] for name in BALANCE), "the load does not balance"
        return row

    def _run(self, source: Opened, options: RunOptions) -> dict[str, Any]:
        # Without the redaction of the ops' boundary: a connector must not need it.
        return load(
            source.spec,
            source.connector,
            Target(self.url, self.landing),
            uuid4().hex,
            options=options,
            published=None if self.wiped else self._mark(),
            log=self.heard.lines.append,
            redactor=source.redactor,
        )

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

    def batches(self, window: Window | None = None) -> list[Any]:
        """What the connector yields for ``window``, by default for all."""
        return list(self.connector().read(window or Window(context=ReadContext(log=self.heard.lines.append))))

    # what came of them

    def rows(self) -> dict[str, Row]:
        """The source's rows of ``identity.records``, by the suite's ids, with their place in the table (``xmin``, ``ctid``)."""
        statement = "select *, xmin::text, ctid::text from identity.records where source_name = %s order by external_id"
        with self.database.cursor(row_factory=dict_row) as cursor:
            found = cursor.execute(statement, (self.name,)).fetchall()
        return {self.known.get(str(row["external_id"]), str(row["external_id"])): row for row in found}

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

    def traces(self) -> list[str]:
        """The tables of the identity database that know this source."""
        tables = self.database.execute(
            "select table_name from information_schema.columns where table_schema = 'identity' and column_name = 'source_name'"
        ).fetchall()
        query = sql.SQL("select exists (select from identity.{} where source_name = %s)")
        return [t for (t,) in tables if self.database.execute(query.format(sql.Identifier(t)), (self.name,)).fetchone() == (True,)]

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
