"""One read: choose the window, read the source, land what it yields, and count.

Knows nothing of ops, so the command line and the tests run the same code.
"""

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field

import pandas as pd

from identity_pipeline.connectors.base import Connector
from identity_pipeline.core import cursor
from identity_pipeline.core.cursor import CursorFilter
from identity_pipeline.core.errors import ConfigurationError, SchemaChanged
from identity_pipeline.core.failpoint import reached
from identity_pipeline.core.fieldmap import FieldMap
from identity_pipeline.core.text import cast_all_utf8
from identity_pipeline.core.window import ReadContext, Window
from identity_pipeline.orchestration.boundary import redact
from identity_pipeline.orchestration.sources import Source
from identity_pipeline.store import ledger
from identity_pipeline.store.landing import Landing
from identity_pipeline.store.ledger import Load, Mark, ReadSummary

_SAY_EVERY = 5.0


@dataclass(frozen=True)
class RunOptions:
    """What one run may choose: see the read op's config."""

    cursor_after: str | None = None
    full_refresh: bool = False
    objects: tuple[str, ...] = ()
    limit: int | None = None

    @property
    def partial(self) -> bool:
        """True if the run reads less than its window, so that the mark must stay where it is."""
        return bool(self.objects or self.limit)


@dataclass
class Reading:
    """Reads one source once. ``published`` is the mark that Dagster's metadata show."""

    source: Source
    connector: Connector
    url: str
    landing: Landing
    fingerprint: str
    published: Mark | None = None
    choices: RunOptions = field(default_factory=RunOptions)
    log: Callable[[str], None] = print

    def window(self, context: ReadContext, versions: dict[str, str]) -> tuple[Window, Mark | None]:
        """The window of this load, and the mark it starts from.

        Raises:
            ConfigurationError: the override is not a value of the cursor's type.
        """
        source, choices = self.source, self.choices
        if choices.full_refresh:
            versions = {}
        if source.cursor is None:
            if choices.cursor_after:
                raise ConfigurationError(f"{source.name}: cursor_after was given, but the source has no cursor_column")
            return Window(None, None, None, choices.full_refresh, choices.objects, choices.limit, versions, context), None
        kind, column = source.cursor
        name = source.cursor_column
        start = None
        held = ledger.mark(self.url, source.name)
        marks = [m for m in (self.published, held) if m is not None and (m.column, m.type) == (name, kind)]
        if len(marks) == 2:
            start = Mark(name or "", kind, cursor.lower_of(kind, marks[0].after, marks[1].after) or "")
        overlap = column.overlap if source.cursor_overlap is None else source.cursor_overlap
        if choices.full_refresh:
            lower = None
        elif choices.cursor_after:
            lower = cursor.canonical(kind, choices.cursor_after)
        elif start is not None:
            lower = cursor.subtract_overlap(kind, start.after, overlap)
        else:
            lower = source.cursor_after and cursor.canonical(kind, source.cursor_after)
        return Window(name, kind, lower, choices.full_refresh, choices.objects, choices.limit, versions, context), start

    def run(self, run_id: str) -> tuple[Load, ReadSummary]:
        """Open a load, read and land it.

        Raises:
            PipelineError: the read failed; the load is closed as failed and nothing of it stays.
        """
        state = ledger.state(self.url, self.source.name)
        same_rules = state["mapping"] == self.fingerprint
        context = ReadContext(log=self.log)
        window, start = self.window(context, state["versions"] if same_rules else {})
        if state["mapping"] and not same_rules and window.incremental:
            context.warn(
                "the mapping (or the normaliser) changed: records that are not read again keep what the old one made of them "
                "until a full refresh"
            )
        load = ledger.open_load(
            self.url, self.source.name, self.source.source_type, run_id,
            full_refresh=window.full_refresh, before=start, log=self.log,
        )  # fmt: skip
        self.log(f"load {load.load_id}: {_told(window)}")
        with ledger.closing(self.url, load, shown=self._shown), ledger.hold(self.url, load):
            reached("read")
            self.landing.remove_others(self.source.name, load.load_id)
            summary = self._land(load, window, start)
            self._check_fields(state["fields"], summary)
        reached("landed")
        return load, summary

    def _shown(self, text: str) -> str:
        return redact(text, self.connector.secrets())

    def _leaps(self, window: Window, start: Mark | None) -> bool:
        """True if the run was told to begin beyond the mark: what lies between would be lost if the mark followed."""
        kind, lower = window.cursor_type, window.lower
        if kind is None or lower is None or start is None or not self.choices.cursor_after:
            return False
        return cursor.lower_of(kind, start.after, lower) != lower

    def _land(self, load: Load, window: Window, start: Mark | None) -> ReadSummary:
        started = said = time.monotonic()
        context, limit = window.context, window.limit
        rows = CursorFilter(window, self.connector.cursor_reading())
        read = 0
        # The read is closed at once when something here fails: the source's session must not wait for the traceback to go.
        with self.landing.writer(self.source.name, load.load_id) as writer, closing(_closable(self.connector.read(window))) as batches:
            for raw in batches:
                batch = raw if limit is None else raw.head(limit - read)
                read += len(batch)
                writer.write(rows.apply(cast_all_utf8(batch)))
                if time.monotonic() - said >= _SAY_EVERY:
                    said = time.monotonic()
                    self.log(f"load {load.load_id}: {read:,} records read, {read / (said - started):,.0f} a second")
                if limit is not None and read >= limit:
                    break
        if rows.null_cursor and window.cursor_column:
            context.warn(f"{rows.null_cursor} records have no readable {window.cursor_column}: they are loaded whenever they are read")
        if rows.beyond:
            context.warn(f"{rows.beyond} records are dated after the source's own time: they are loaded, the mark does not follow them")
        partial = self.choices.partial
        if self._leaps(window, start):
            context.warn("cursor_after lies beyond the mark: the mark stays, so that the next load reads what lies between")
            partial = True
        seconds = time.monotonic() - started
        self.log(f"load {load.load_id}: {read:,} records read and landed in {seconds:.1f} s, {rows.filtered:,} filtered")
        return ReadSummary(
            parts=writer.parts,
            records_read=read,
            filtered=rows.filtered,
            null_cursor=rows.null_cursor,
            cursor_column=window.cursor_column,
            cursor_type=window.cursor_type,
            candidate=None if partial else rows.mark,
            bytes_read=context.bytes_read,
            pages=context.pages,
            requests=context.requests,
            throttled_seconds=round(context.throttled_seconds, 3),
            seconds_read=round(seconds, 3),
            files={} if self.choices.limit else context.files,
            fields=list(writer.fields),
            warnings=[self._shown(warning) for warning in context.warnings],
            mapping=self.fingerprint,
            partial=partial,
        )

    def _check_fields(self, before: list[str], summary: ReadSummary) -> None:
        """Refuse a table or file that lost a mapped field: its values would be overwritten with nothing."""
        if self.connector.group not in {"sql", "files"} or not summary.records_read or self.choices.full_refresh or not summary.fields:
            return
        field_map: FieldMap = self.source.field_map
        gone = [name for name in field_map.source_fields() if name in before and name not in summary.fields]
        for names in self.source.mapping.values():
            wanted = [names] if isinstance(names, str) else names
            if not set(wanted) & set(summary.fields):
                gone += wanted
        if gone:
            raise SchemaChanged(
                f"{self.source.name}: the mapped field {gone[0]!r} is not in the source (any more), "
                f"which has {', '.join(summary.fields[:30])}: nothing was merged; "
                "mend the source or its `mapping:`, or accept the loss with one full refresh"
            )


def _closable(batches: Iterator[pd.DataFrame]) -> Generator[pd.DataFrame]:
    yield from batches


def _told(window: Window) -> str:
    if window.full_refresh:
        return "full refresh, reads everything and marks what is gone"
    if window.cursor_column is None:
        return "reads everything (no cursor_column)"
    if window.lower is None:
        return f"first load by {window.cursor_column}, reads everything"
    return f"reads {window.cursor_column} >= {window.lower}"
