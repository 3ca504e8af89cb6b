"""The files of any store that changed, one after the other, and the connection test over them."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import BinaryIO

import pyarrow as pa

from identity_pipeline.core.check import CheckStep
from identity_pipeline.core.errors import LimitExceeded, TruncatedBody
from identity_pipeline.core.window import Window
from identity_pipeline.readers.check import check_steps
from identity_pipeline.readers.files.csv import Dialect, read_csv
from identity_pipeline.readers.files.spool import spool
from identity_pipeline.readers.files.state import FileState
from identity_pipeline.readers.files.store import Content, Entry, Store
from identity_pipeline.readers.http.retry import Retry

MAX_BYTES = 50_000_000
"""Bytes of one file, unpacked."""
RETRY_BUDGET = 900.0
"""Seconds that failed downloads of one file and the waits between them may take together."""
ATTEMPTS = 5


@dataclass(frozen=True)
class Spooled:
    """One changed file: ``file`` is at its start, unpacked, and closed after its turn."""

    name: str
    file: BinaryIO
    sha256: str
    version: str
    charset: str | None


def read_files(
    store: Store, dialect: Dialect, window: Window, *, rules: str = "", max_bytes: int = MAX_BYTES, retry_budget: float = RETRY_BUDGET
) -> Iterator[pa.Table]:
    """Batches of the records of all CSV files that changed, every column text.

    ``rules`` is whatever decides beside ``dialect`` how a file is read; see :func:`changed_files`.

    Raises:
        PipelineError: as :func:`changed_files` and :func:`~identity_pipeline.readers.files.csv.read_csv` raise it.
    """
    for found in changed_files(store, window, rules=repr((dialect, rules)), max_bytes=max_bytes, retry_budget=retry_budget):
        yield from read_csv(found.file, dialect, window.context, name=found.name, charset=found.charset)


def changed_files(
    store: Store, window: Window, *, rules: str = "", max_bytes: int = MAX_BYTES, retry_budget: float = RETRY_BUDGET
) -> Iterator[Spooled]:
    """The files that are not the same as when ``window.files`` was noted; those that ``window.objects`` names in any case.

    Other ``rules`` read the same content again. Once the caller has asked for the next file, the
    state of the one before stands in ``context.files``; that of an unchanged one stands there too.

    Raises:
        LimitExceeded: more than ``max_bytes`` bytes, unpacked or as stored.
        PipelineError: as the store raises it, after every attempt.
    """
    context, rules = window.context, hashlib.sha256(rules.encode()).hexdigest()[:16]
    retry = Retry(context, retry_budget, ATTEMPTS)
    entries = map(store.stat, window.objects) if window.objects else store.list()
    for entry in entries:
        before = FileState.of(window.files.get(entry.name))
        known = before if before.covers(window, rules) else FileState()
        found = None
        if not known.version or entry.version != known.version:
            found = retry(partial(_spooled, store, entry, known.version, max_bytes))
        if found is None:
            context.files[entry.name] = known.text
            context.log(f"{entry.name}: unchanged since {known.since or 'the last load'}, left out")
            continue
        with found.file:
            if found.sha256 == known.sha256:  # a version may change without the content: the hash is the truth
                context.files[entry.name] = replace(known, version=found.version).text
                context.log(f"{entry.name}: the same bytes since {known.since or 'the last load'}, left out")
                continue
            yield found
        since = context.source_time.isoformat(timespec="seconds") if context.source_time else ""
        context.files[entry.name] = FileState(found.sha256, found.version, rules, window.cursor_column, window.lower, since).text


def _spooled(store: Store, entry: Entry, known: str, max_bytes: int) -> Spooled | None:
    """The file, None if its version is still ``known``."""
    with store.open(entry, known) as content:
        return None if content is None else _taken(entry, content, max_bytes)


def _taken(entry: Entry, content: Content, max_bytes: int) -> Spooled:
    try:
        if content.size is not None and content.size > max_bytes:
            raise LimitExceeded(f"it holds {content.size:,} bytes, the limit is {max_bytes:,}")
        file, sha256 = spool(content.chunks, max_bytes)
    except LimitExceeded as error:
        raise LimitExceeded(f"{entry.name}: {error}: export less, or raise max_bytes") from None
    except TruncatedBody as error:
        raise TruncatedBody(f"{entry.name}: {error}: try again later") from None
    return Spooled(entry.name, file, sha256, content.version or entry.version, content.charset)


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
