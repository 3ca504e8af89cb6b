"""Taking files out of a store: each whole, in their order, the next ones on their way while one is read.

A thread makes the first attempt at a file ahead of its turn. What comes of it, a failure too, is told
when it is the file's turn; all further attempts, and the waits before them, are then the caller's.
"""

import time
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import BinaryIO

from identity_pipeline.core.errors import LimitExceeded, SourceRejected, SourceUnavailable, TruncatedBody
from identity_pipeline.readers.files.spool import spool
from identity_pipeline.readers.files.store import Content, Entry, Replaced, Store
from identity_pipeline.readers.http.retry import Transient
from identity_pipeline.readers.http.session import Scope

AHEAD = 32
"""Files that are taken ahead of their turn, at most."""
AHEAD_BYTES = 8 * 2**20
"""Bytes that they have together, as the store lists them, at most: a larger file is begun when it is its turn."""


@dataclass(frozen=True)
class Spooled:
    """One file: ``file`` is at its start, unpacked, and closed after its turn."""

    entry: Entry
    file: BinaryIO
    sha256: str
    charset: str | None


@dataclass
class Taking:
    """Attempts to take one file of at most ``max_bytes`` bytes. Each one after a file was replaced goes for what stands there by then."""

    store: Store
    entry: Entry
    known: str
    max_bytes: int
    _begun: Future[Spooled | None] | None = field(default=None, repr=False)
    _failed_at: float = 0.0

    @property
    def size(self) -> int:
        """Bytes to expect."""
        return AHEAD_BYTES if self.entry.size is None else self.entry.size

    def __call__(self) -> Spooled | None:
        """The file, None if its version is still ``known``. The first attempt may have been made already.

        Raises:
            PipelineError: this attempt failed.
            Transient: likewise.
        """
        if self._begun is None:
            return self._take()
        try:
            found = self._begun.result()
        except Transient as error:
            self._begun = None
            raise error.after(time.monotonic() - self._failed_at) from None
        except Exception:
            self._begun = None
            raise
        self._begun = None
        return found

    def begin(self, pool: ThreadPoolExecutor, scope: Scope) -> None:
        """Have the first attempt made by a thread, until ``scope`` ends."""
        self._begun = pool.submit(self._take_within, scope)

    def let_go(self) -> None:
        """Close what was taken for nothing. The thread has ended."""
        begun, self._begun = self._begun, None
        if begun is not None and not begun.cancelled() and begun.exception() is None and (found := begun.result()):
            found.file.close()

    def _take_within(self, scope: Scope) -> Spooled | None:
        with scope.entered():
            try:
                return self._take()
            finally:
                self._failed_at = time.monotonic()

    def _take(self) -> Spooled | None:
        found = None
        try:
            with self.store.open(self.entry, self.known) as content:
                found = None if content is None else self._spooled(content)
        except BaseException as error:
            if found is not None:  # the time was over with its last byte
                found.file.close()
            if isinstance(error, Replaced):
                self.entry = self._again(error)
            raise
        return found

    def _again(self, error: Replaced) -> Entry:
        entry = self.store.stat(self.entry.name)
        if entry is None:
            raise SourceUnavailable(
                f"{self.entry.name} was removed after it was listed: nothing was merged; the next load lists anew", exhausted=True
            ) from error
        return entry

    def _spooled(self, content: Content) -> Spooled:
        name, limit = self.entry.name, self.max_bytes
        try:
            if content.size is not None and content.size > limit:
                raise LimitExceeded(f"it holds {content.size:,} bytes, the limit is {limit:,}")
            file, sha256 = spool(content.chunks, limit)
        except LimitExceeded as error:
            raise LimitExceeded(f"{name}: {error}: export less, or raise max_bytes") from None
        except TruncatedBody as error:
            raise error.reworded(f"{name}: {error}: try again later") from None
        except SourceRejected as error:
            raise error.reworded(f"{name}: {error}") from None
        entry = replace(self.entry, version=content.version or self.entry.version, size=content.size or self.entry.size)
        return Spooled(entry, file, sha256, content.charset)


def in_turn(takings: Iterable[Taking], at_once: int) -> Generator[Taking]:
    """The takings in their order; those that follow are begun by up to ``at_once`` threads.

    Once the generator is closed, nothing of it is under way any more.
    """
    if at_once < 2:
        yield from takings
        return
    scope, begun, held = Scope(), deque[Taking](), 0
    pool = ThreadPoolExecutor(at_once, thread_name_prefix="files")
    coming = iter(takings)
    following = next(coming, None)
    try:
        while following or begun:
            while following and len(begun) < AHEAD and (not begun or held + following.size <= AHEAD_BYTES):
                following.begin(pool, scope)
                begun.append(following)
                held += following.size
                following = next(coming, None)
            yield begun[0]
            held -= begun.popleft().size
    finally:
        scope.end()
        pool.shutdown(cancel_futures=True)
        for taking in begun:
            taking.let_go()
