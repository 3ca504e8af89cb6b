"""The read of a load: choose the window, read the source, land what it yields, and count."""

import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from identity_pipeline.core import cursor as cursors
from identity_pipeline.core.cursor import Mark
from identity_pipeline.core.cursor_filter import CursorCounts, apply_cursor_filter
from identity_pipeline.core.errors import ContractBroken, PipelineError, RateLimited
from identity_pipeline.core.failpoint import reached
from identity_pipeline.core.load_spec import LoadSpec
from identity_pipeline.core.pace import Pace
from identity_pipeline.core.redaction import Redactor
from identity_pipeline.core.text import Batch, cast_all_utf8
from identity_pipeline.core.window import ReadContext, Window
from identity_pipeline.loading.fields import Fields, check_cursor
from identity_pipeline.loading.spec import Reader, RunOptions, Target, departed, fingerprint, known_files
from identity_pipeline.loading.start import Start, start_of
from identity_pipeline.store import lease, ledger
from identity_pipeline.store.ledger import ReadSummary, SourceState
from identity_pipeline.store.load import Load
from identity_pipeline.store.pace import SharedPace
from identity_pipeline.store.sieve import MAX_ROWS, Sieve

_REPORT_EVERY = 5.0
_UNKNOWN_WAIT = 3_600.0
"""Seconds until a source is asked again that gives up without saying for how long."""
_LONGEST_WAIT = 7 * 86_400.0


@dataclass(frozen=True)
class Read:
    """What a read hands on: the load that it opened and what it found. ``summary.parts`` are its landed parts."""

    load: Load
    summary: ReadSummary


@dataclass
class _Reading:
    """One read at work."""

    spec: LoadSpec
    reader: Reader
    target: Target
    options: RunOptions
    stored: SourceState
    log: Callable[[str], None]
    redactor: Redactor
    pace: Pace
    warnings: list[str] = field(default_factory=list)

    def land(self, load: Load, start: Start) -> ReadSummary:
        """Read and land; once more if the source broke its contract on the way, or its clock is behind the mark."""
        window = self._window(start)
        self.log(f"load {load.load_id}: {described(window)}")
        try:
            return self._land_once(load, start, window)
        except _ClockBehind as behind:
            window = self._window(start, lower=behind.lower)
        except ContractBroken as error:
            self.log(f"load {load.load_id}: reading once more from the start: {self.redactor.redact(str(error))}")
            window = self._window(start, again=True)
        return self._land_once(load, start, window, again=True)

    def _window(self, start: Start, lower: str | None = None, *, again: bool = False) -> Window:
        """The window; ``again`` without the state, which may be what the source does not accept any more."""
        start = replace(start, lower=lower or start.lower, state=None if again else start.state)
        return window_of(
            self.spec, self.stored, start, self.options, ReadContext(log=self.log, warnings=list(self.warnings), pace=self.pace)
        )

    def _land_once(self, load: Load, start: Start, window: Window, *, again: bool = False) -> ReadSummary:
        spec, context, limit = self.spec, window.context, window.limit
        started = reported = time.monotonic()
        counts, read, sieve = CursorCounts(), 0, self._sieve()
        fields = Fields(spec, self.stored.fields, self.options.accepts_loss)
        # The read is closed at once when something here fails: the source's session must not wait for the traceback to go.
        with (
            self.target.landing.writer(spec.source_name, load.load_id) as writer,
            closing(closable(self.reader.read(window))) as batches,
        ):
            for batch in batches:
                self._check_clock(start, window, again=again)
                records = cast_all_utf8(batch)
                fields.batch(records.column_names, window)
                if limit is not None:
                    records = records.slice(0, limit - read)
                kept = apply_cursor_filter(records, window, counts, departed(spec))
                if sieve is not None:
                    kept = sieve.split(kept, read, writer.note)
                read += records.num_rows
                writer.write(kept)
                if time.monotonic() - reported >= _REPORT_EVERY:
                    reported = time.monotonic()
                    self.log(f"load {load.load_id}: {read:,} records read, {read / (reported - started):,.0f} a second")
                if limit is not None and read >= limit:
                    break
            self._check_clock(start, window, again=again)
            check_whole(spec, window, read)
        check_cursor(spec, counts)
        fields.end(writer.fields, window)
        self._warn(start, window, counts)
        # A file that was left out as unchanged has shown no field.
        looked = bool(writer.fields) if context.files or context.files_unchanged else not window.incremental
        if not read and self.stored.row_count and looked:
            context.warn(
                f"the source is empty: it gave no record, and {self.stored.row_count:,} are stored; they stay as they are, unless a full "
                "refresh finds them gone"
            )
        partial = self.options.partial or start.leaps
        seconds = time.monotonic() - started
        self.log(f"load {load.load_id}: {read:,} records read and landed in {seconds:.1f} s, {counts.filtered:,} filtered")
        return ReadSummary(
            parts=writer.parts,
            records_read=read,
            filtered=counts.filtered,
            unchanged=sieve.unchanged if sieve else 0,
            duplicates=sieve.duplicates if sieve else 0,
            null_cursor=counts.null_cursor,
            cursor_column=window.cursor_column,
            cursor_type=window.cursor_type,
            candidate=None if partial else self._candidate(start, window, counts),
            mark_may_fall=start.may_fall or self._source_ends_below(start, window, counts),
            source_count=context.source_count,
            bytes_read=context.bytes_read,
            pages=context.pages,
            requests=context.requests,
            throttled_seconds=round(context.throttled_seconds, 3),
            seconds_read=round(seconds, 3),
            files={} if self.options.limit else context.files,
            sweeps=context.sweeps,
            fields=list(writer.fields),
            warnings=[self.redactor.redact(warning) for warning in context.warnings],
            mapping=fingerprint(spec),
            state=context.state,
            # A part of what the changed settings ask for: the next load still has to read the rest.
            settings=self.stored.settings or "" if self.options.cursor_after and self.stored.reads_other(spec.settings) else spec.settings,
            partial=partial,
        )

    def _sieve(self) -> Sieve | None:
        """What holds back the records that are stored as they are, where of two versions the later one in the stream stays."""
        spec, stored = self.spec, self.stored
        if stored.mapping != fingerprint(spec) or spec.order != "oldest_first" or not 0 < stored.row_count <= MAX_ROWS:
            return None
        column = spec.cursor and spec.cursor.column
        return Sieve(self.target.url, spec.source_name, spec.field_map, fingerprint(spec), column, stored.row_count)

    def _check_clock(self, start: Start, window: Window, *, again: bool) -> None:
        """Begin again from the source's own time if that is behind the mark: its clock was set back."""
        now, cursor = window.context.source_clock, self.spec.cursor
        if again or now is None or cursor is None or cursor.type != "timestamp" or start.mark is None or self.options.cursor_after:
            return
        clock = cursors.instant_text(now)
        # Within the overlap nothing is missed: servers behind one address differ by seconds.
        if window.lower is None or cursors.lower_of("timestamp", clock, window.lower) == window.lower:
            return
        self.warnings.append(
            f"the source's clock ({clock}) is behind the mark ({start.mark.after}): this load reads from the clock on; "
            "if the clock is right, a full refresh finds what was written meanwhile"
        )
        raise _ClockBehind(cursors.subtract_overlap("timestamp", clock, self.spec.overlap))

    def _candidate(self, start: Start, window: Window, counts: CursorCounts) -> str | None:
        """The mark that this read leads to."""
        cursor, now = self.spec.cursor, window.context.source_clock
        if cursor is None:
            return None
        if not cursor.in_records:  # only the request knows it: all up to the start of the read was asked for
            settled = window.context.source_time
            return cursors.instant_text(settled) if settled else None
        if window.context.source_maximum is not None:
            return window.context.source_maximum
        seen = counts.mark(cursor)
        if seen is None and self.options.cursor_after:
            return start.lower
        clock = cursors.instant_text(now) if now and cursor.type == "timestamp" else None
        if start.mark and clock and cursors.lower_of("timestamp", clock, start.mark.after) == clock:
            return cursors.higher_of("timestamp", seen, clock)  # follow the source's time, not the mark
        return seen

    def _source_ends_below(self, start: Start, window: Window, counts: CursorCounts) -> bool:
        """True if a whole look at the source shows that nothing lies at or above the mark: it was too high."""
        cursor, now = self.spec.cursor, window.context.source_clock
        if cursor is None or start.mark is None or self.options.partial or not cursor.in_records:
            return False
        if cursor.type == "timestamp":
            return now is not None and cursors.lower_of("timestamp", cursors.instant_text(now), start.mark.after) != start.mark.after
        maximum = window.context.source_maximum
        seen = maximum or counts.mark(cursor)
        looked_at_all = maximum is not None or (counts.seen > 0 and counts.filtered > 0)
        lower = seen is not None and seen != start.mark.after and cursors.lower_of(cursor.type, seen, start.mark.after) == seen
        if looked_at_all and lower and maximum is None:  # whoever asked for a maximum has said so
            window.context.warn(f"nothing in the source reaches the mark {start.mark.after}: the mark goes back to {seen}")
        return looked_at_all and lower

    def _warn(self, start: Start, window: Window, counts: CursorCounts) -> None:
        context = window.context
        if counts.null_cursor and window.cursor_column:
            context.warn(f"{counts.null_cursor} records have no readable {window.cursor_column}: they are loaded whenever they are read")
        if counts.beyond:
            context.warn(f"{counts.beyond} records are dated after the source's own time: they are loaded, the mark does not follow them")
        if start.leaps:
            context.warn("cursor_after lies beyond the mark: the mark stays, so that the next load reads what lies between")


class _ClockBehind(Exception):
    """The source's clock is behind the mark; read again from ``lower`` on."""

    def __init__(self, lower: str) -> None:
        super().__init__(lower)
        self.lower = lower


def window_of(spec: LoadSpec, stored: SourceState, start: Start, options: RunOptions, context: ReadContext) -> Window:
    """What a load asks for that begins at ``start``."""
    context.state = start.state
    files = known_files(spec, stored, options)
    return Window(
        spec.cursor, start.lower, options.full_refresh, options.objects, options.limit, files, start.by_mark, start.state, context
    )


def check_whole(spec: LoadSpec, window: Window, read: int) -> None:
    """Raise if the source said that it has more than the ``read`` records that it gave.

    Raises:
        ContractBroken: it did.
    """
    told = window.context.source_count
    if window.limit is None and told is not None and read < told:
        raise ContractBroken(
            f"{spec.source_name}: the source said that it has {told:,} records and gave {read:,}: nothing was merged; run it again, and if "
            "it stays so, report it"
        )


def read(
    spec: LoadSpec,
    reader: Reader,
    target: Target,
    run_id: str,
    *,
    options: RunOptions | None = None,
    published: Mark | None = None,
    log: Callable[[str], None] = print,
    redactor: Redactor | None = None,
) -> Read:
    """Open a load, read the source and land what it yields.

    Raises:
        PipelineError: the read failed; the load is closed as failed and nothing of it stays.
    """
    options, redactor = options or RunOptions(), redactor or Redactor()
    stored = ledger.state(target.url, spec.source_name)
    check_not_before(spec, stored, options)
    pace = SharedPace(target.url)
    reading = _Reading(spec, reader, target, options, stored, log, redactor, pace)
    start = start_of(spec, stored, published, options, reading.warnings.append)
    if stored.mapping and stored.mapping != fingerprint(spec) and start.lower is not None:
        reading.warnings.append(
            "the mapping (or the normaliser) changed: records that are not read again keep what the old one made of them "
            "until a full refresh"
        )
    load = ledger.open_load(
        target.url, spec.source_name, spec.source_type, run_id, full_refresh=options.full_refresh, before=start.mark, log=log
    )
    with ledger.closing(target.url, load, redact=redactor.redact), lease.hold(target.url, load), pace:
        reached("read")
        target.landing.remove_others(spec.source_name, load.load_id)
        try:
            summary = reading.land(load, start)
        except PipelineError as error:
            raise _postponed(target, spec, error) from None
    reached("landed")
    return Read(load, summary)


def check_not_before(spec: LoadSpec, stored: SourceState, options: RunOptions) -> None:
    """Leave a source alone that wants to be, whoever asks for the load."""
    now, until = datetime.now(UTC), stored.not_before
    if until is not None and now < until and not options.force:
        raise RateLimited(
            f"{spec.source_name}: the source asked us to wait until {_minute(until)}: nothing was asked; run it again then, or now with "
            "--force",
            exhausted=True,
        )


def _postponed(target: Target, spec: LoadSpec, error: PipelineError) -> PipelineError:
    """``error``, with the time from which on the source may be asked again, which every later load keeps to."""
    if error.wait is None:
        return error
    until = datetime.now(UTC) + timedelta(seconds=_UNKNOWN_WAIT if math.isinf(error.wait) else min(error.wait, _LONGEST_WAIT))
    ledger.postpone(target.url, spec.source_name, until)
    return error.reworded(f"{error}; no load asks it before {_minute(until)}, unless with --force")


def _minute(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M UTC")


def closable(batches: Iterator[Batch]) -> Generator[Batch]:
    """Batches whose source can be let go before they end."""
    yield from batches


def described(window: Window) -> str:
    """What a window asks for, in words."""
    if window.full_refresh:
        return "full refresh, reads everything and marks what is gone"
    if window.cursor is None:
        return "reads everything (no cursor_column)"
    if window.lower is None:
        return f"first load by {window.cursor_column}, reads everything"
    return f"reads {window.cursor_column} >= {window.lower}"
