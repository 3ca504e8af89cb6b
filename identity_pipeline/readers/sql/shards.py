"""Shards: one read over several connections, each of which takes the next piece of the table as it is done with its last.

A database divides a table into pieces, of which every row is in exactly one, and says how a further
session of the same snapshot is opened. A connection that cannot be had is done without: the
others take its pieces. One that fails while it reads ends the read, and all others with it.
"""

import os
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from queue import Empty, Full, Queue, SimpleQueue
from typing import Any

import pyarrow as pa

from identity_pipeline.core.errors import PipelineError
from identity_pipeline.core.window import ReadContext, Window

MOST = 8
"""Connections of one read."""
OPENS_WITHIN = 20.0
"""Seconds within which one connection has to be open: a pooler may keep all waiting for a session that is not given back."""
_POLL = 0.1

Piece = tuple[Any, Any]
"""Where a piece begins, and where it ends: that is the beginning of the next one. None is the table's own end."""
Wire = Callable[[int], AbstractContextManager[None]]
"""Watches the socket of this number for as long as the context is open, so that it can be broken off."""
Reading = Callable[[Piece, Window], Iterator[pa.Table]]
"""Reads one piece, and counts what it does in the window's context."""
Opening = Callable[[Wire], AbstractContextManager[Reading]]
"""Opens a session."""


class _Stopped(Exception):
    """The read is over; nobody takes what would come."""


@dataclass
class _Shared:
    """What the threads of a read share: pieces that nobody has taken, what was found, sockets at work; and how far it is."""

    window: Window
    todo: SimpleQueue[Piece | None]
    found: Queue[pa.Table | ReadContext | BaseException | str]
    stop: threading.Event = field(default_factory=threading.Event)
    wires: set[socket.socket] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)
    opened: int = 0
    refused: int = 0
    done: int = 0

    def batches(self, pieces: int, lines: int) -> Iterator[pa.Table]:
        """What the threads find, until all pieces are done, or no connection is had."""
        until = time.monotonic() + OPENS_WITHIN
        while self.done < pieces and self.refused < lines:
            try:
                item = self.found.get(timeout=None if self.opened else max(until - time.monotonic(), 0))
            except Empty:
                return
            if isinstance(item, pa.Table):
                yield item
            else:
                self._note(item)

    def _note(self, item: ReadContext | BaseException | str) -> None:
        context = self.window.context
        if isinstance(item, BaseException):
            raise item
        if item == _OPENED:
            self.opened += 1
        elif isinstance(item, str):
            self.refused += 1
            context.log(f"read over one connection less: {item}")
        else:
            self.done += 1
            context.requests += item.requests
            context.pages += item.pages
            context.bytes_read += item.bytes_read

    def work(self, opening: Opening) -> None:
        """Take pieces until there are none."""
        opened = False
        try:
            with opening(self.watched) as read:
                self.put(_OPENED)
                opened = True
                while not self.stop.is_set() and (piece := self.todo.get()) is not None:
                    window = replace(self.window, context=ReadContext())
                    with closing(_closable(read(piece, window))) as batches:
                        for batch in batches:
                            self.put(batch)
                    self.put(window.context)
        except _Stopped:
            pass
        except BaseException as error:  # noqa: BLE001 - whoever reads gets it
            with suppress(_Stopped):
                self.put(str(error) if isinstance(error, PipelineError) and not opened else error)

    def put(self, item: pa.Table | ReadContext | BaseException | str) -> None:
        """Hand something on once there is room for it."""
        while not self.stop.is_set():
            with suppress(Full):
                return self.found.put(item, timeout=_POLL)
        raise _Stopped

    @contextmanager
    def watched(self, number: int) -> Iterator[None]:
        """Know of a socket for as long as the context is open."""
        # a number of our own: that of the driver may be another connection's once it is closed
        wire = socket.socket(fileno=os.dup(number))
        with self.lock:
            self.wires.add(wire)
        try:
            if self.stop.is_set():
                raise _Stopped
            yield
        finally:
            with self.lock:
                self.wires.discard(wire)
                wire.close()

    def break_off(self) -> None:
        """End whatever a session waits for. The server notices as it sends the next rows."""
        self.stop.set()
        with self.lock:
            for wire in self.wires:
                with suppress(OSError):  # the server was faster
                    wire.shutdown(socket.SHUT_RDWR)


_OPENED = "opened"


def side_by_side(window: Window, pieces: Sequence[Piece], openings: Sequence[Opening]) -> Generator[pa.Table, None, bool]:
    """Yield the rows of all pieces, in no order; at most one batch waits for each connection, and one in it.

    Returns:
        False if no connection could be opened: then nothing was read.

    Raises:
        Exception: what a connection failed with.
    """
    shared, lines = _Shared(window, SimpleQueue(), Queue(len(openings))), len(openings)
    for piece in (*pieces, *[None] * lines):
        shared.todo.put(piece)
    threads = [threading.Thread(target=shared.work, args=(opening,), name="shard", daemon=True) for opening in openings]
    try:
        for thread in threads:
            thread.start()
        yield from shared.batches(len(pieces), lines)
    finally:
        if shared.done < len(pieces) or shared.opened + shared.refused < lines:
            shared.break_off()
        for thread in threads:
            thread.join()
    return shared.opened > 0


def _closable(batches: Iterator[pa.Table]) -> Generator[pa.Table]:
    yield from batches
