"""The files of any store that changed, one after the other, and the connection test over them."""

import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC
from typing import Literal

import pyarrow as pa

from identity_pipeline.core.check import CheckStep
from identity_pipeline.core.file_version import FileVersion
from identity_pipeline.core.window import Window
from identity_pipeline.readers.check import check_steps
from identity_pipeline.readers.files.csv import Dialect, read_csv
from identity_pipeline.readers.files.listing import Listing
from identity_pipeline.readers.files.store import Entry, Store
from identity_pipeline.readers.files.taking import Spooled, Taking, in_turn
from identity_pipeline.readers.http.retry import Retry

MAX_BYTES = 50_000_000
"""Bytes of one file, unpacked."""
RETRY_BUDGET = 900.0
"""Seconds that failed downloads of one file and the waits between them may take together."""
ATTEMPTS = 5
GATHERED_ROWS, GATHERED_BYTES = 5_000, 2**22
"""What is read of small files is handed on once it is so much."""


Contents = Literal["changes", "everything"]
FILE_FIELDS = ("_file", "_file_version", "_file_modified")
"""Fields that say of a record which file it stands in."""


@dataclass(frozen=True)
class Reading:
    """How the files of a store are read.

    ``rules`` is whatever decides beside ``dialect`` what becomes of a file's bytes; where it changes,
    they are read again. ``contents`` says what a file holds: ``changes``, so that what stands in none is
    not gone for that; or ``everything``, so that only the file modified last is read, and what it does
    not hold is gone. None leaves that to the load. ``file_fields`` adds :data:`FILE_FIELDS` to each record.
    A file has at most ``max_bytes`` bytes, unpacked; failed downloads of one and the waits between them
    take at most ``retry_budget`` seconds.
    """

    dialect: Dialect
    rules: str = ""
    contents: Contents | None = None
    file_fields: bool = False
    max_bytes: int = MAX_BYTES
    retry_budget: float = RETRY_BUDGET

    @property
    def fingerprint(self) -> str:
        """A short text that changes whenever the same bytes would be read otherwise."""
        whole = ("everything",) if self.contents == "everything" else ()
        return hashlib.sha256(repr((self.dialect, self.rules, self.file_fields, *whole)).encode()).hexdigest()[:16]


def read_files(store: Store, reading: Reading, window: Window) -> Iterator[pa.Table]:
    """Batches of the records of all CSV files that changed, every column text.

    Which files are read, their versions alone decide: where the window follows from the mark, no record
    of a version that was not read before is left out. Where a person chose its lower bound, that holds.

    Raises:
        PipelineError: as :func:`changed_files` and :func:`~identity_pipeline.readers.files.csv.read_csv` raise it.
    """
    window.context.asked_below = window.by_mark
    with closing(store), closing(changed_files(store, reading, window)) as files:
        tables = (
            _told_of(table, found.entry) if reading.file_fields else table
            for found in files
            for table in read_csv(found.file, reading.dialect, window.context, name=found.entry.name, charset=found.charset)
        )
        yield from tables if window.limit is not None else _gathered(tables)


def changed_files(store: Store, reading: Reading, window: Window) -> Generator[Spooled]:
    """The files that are not the same as when ``window.files`` was noted; those that ``window.objects`` names in any case.

    Once the caller has asked for the next file, the version of the one before stands in ``context.files``.

    Raises:
        LimitExceeded: more than ``max_bytes`` bytes, unpacked or as stored.
        PipelineError: as the store raises it, after every attempt.
    """
    context, rules = window.context, reading.fingerprint
    retry = Retry(context, reading.retry_budget, ATTEMPTS)
    everything = reading.contents == "everything"
    listing = Listing(store, window, rules, retry, newest_only=everything)
    lower = None if window.by_mark else window.lower
    context.sweeps = None if reading.contents is None else False
    # what a person asked to leave out is not gone for that; and files that he named are not the whole truth
    whole = everything and lower is None and not window.objects
    noted = "" if everything and window.objects else rules
    entries = listing.changed()
    takings = (Taking(store, entry, listing.known(entry).version, reading.max_bytes) for entry in entries)
    # a sample wants the first file only
    with closing(in_turn(takings, 1 if window.limit is not None or len(entries) < 2 else store.at_once)) as turns:
        for taking in turns:
            entry, known = taking.entry, listing.known(taking.entry)
            found = retry(taking)
            if found is None:
                context.files_unchanged += 1
                context.log(f"{entry.name}: unchanged, left out")
                continue
            with found.file:
                version = FileVersion(
                    found.entry.version, found.entry.size, found.entry.modified, found.sha256, noted, window.cursor_column, lower
                )
                # Where only the content shows a change, its hash is the truth: servers give the same bytes another tag.
                if not entry.version and found.sha256 == known.sha256:
                    if version.version != known.version:
                        context.files[entry.name] = replace(known, version=version.version)
                    context.files_unchanged += 1
                    context.log(f"{entry.name}: the same bytes, left out")
                    continue
                yield found
            context.files[entry.name] = version
            context.sweeps = whole or context.sweeps
    if context.files_unchanged:
        context.log(f"{context.files_unchanged:,} files are as they were when they were read, and left out")


def unread(store: Store, reading: Reading, window: Window) -> list[Entry]:
    """The files that a load of this window would read; with ``window.limit`` those of the first page that holds any.

    Raises:
        PipelineError: as the store raises it, after every attempt.
    """
    retry = Retry(window.context, reading.retry_budget, ATTEMPTS)
    with closing(store):
        return Listing(store, window, reading.fingerprint, retry, newest_only=reading.contents == "everything").changed()


def _gathered(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The tables, small ones of the same columns put together: to filter one and to look it up costs as much as a hundred files' rows."""
    waiting, rows, size = list[pa.Table](), 0, 0
    for table in tables:
        if waiting and table.schema != waiting[0].schema:
            yield pa.concat_tables(waiting).combine_chunks()
            waiting, rows, size = [], 0, 0
        waiting.append(table)
        rows, size = rows + table.num_rows, size + table.nbytes
        if rows >= GATHERED_ROWS or size >= GATHERED_BYTES:
            yield pa.concat_tables(waiting).combine_chunks() if len(waiting) > 1 else table
            waiting, rows, size = [], 0, 0
    if waiting:
        yield pa.concat_tables(waiting).combine_chunks()


def _told_of(table: pa.Table, entry: Entry) -> pa.Table:
    """``table`` with :data:`FILE_FIELDS`; fields of the file that are called so are ``_file_2`` and so on."""
    table = table.rename_columns([f"{name}_2" if name in FILE_FIELDS else name for name in table.column_names])
    modified = entry.modified and entry.modified.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    for name, value in zip(FILE_FIELDS, (entry.name, entry.version, modified), strict=True):
        table = table.append_column(name, pa.repeat(pa.scalar(value, pa.string()), table.num_rows))
    return table


def check(sample: Callable[[], Iterator[pa.Table]]) -> Iterator[CheckStep]:
    """The steps reach, authenticate, permission and sample, up to the first that fails.

    ``sample`` begins a full read.
    """

    def found() -> str:
        first = next(sample(), None)
        if first is None or not first.num_rows:
            return "no records there yet"
        return f"{first.num_rows:,} records of {first.num_columns} fields in the first batch"

    return check_steps(found, reach="the store answers", authenticate="it asks for no other credential", permission="the file may be read")
