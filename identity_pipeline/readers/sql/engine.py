"""What a database must be able to do for its tables to be read."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import pyarrow as pa

from identity_pipeline.core.window import Window
from identity_pipeline.readers.sql.catalog import Table
from identity_pipeline.readers.sql.cursor import FollowedColumn
from identity_pipeline.readers.sql.identifier import Dialect


@dataclass(frozen=True)
class Look:
    """What a session sees of other writers before a read.

    ``clock`` is the server's time, ``settled`` that or the start of an open transaction, which may
    still bring rows of then: the mark does not pass it. ``state`` is text for the next read to continue from.
    ``since`` stands for an earlier look, in the engine's own terms: what was committed after it is
    asked for too. ``whole`` says that the earlier look cannot be continued and everything must be
    read. ``warnings`` hold no values of records.
    """

    clock: datetime
    settled: datetime
    state: str | None = None
    since: str | None = None
    whole: bool = False
    warnings: tuple[str, ...] = ()


class Session(Protocol):
    """A session that can only read, means one thing by each value, and gives up in finite time."""

    def server(self) -> str:
        """What answers: address, product, version, how the wire is protected. For a connection test."""
        ...

    def role(self) -> str:
        """As whom we are signed in, and what is wrong with that role. For a connection test."""
        ...

    def table(self, name: tuple[str, ...]) -> Table | None:
        """The table or view of exactly this full name, with all columns, from the catalog; None if there is none.

        Raises:
            PermissionDenied: what it is in may not be used.
        """
        ...

    def tables(self, name: tuple[str, ...]) -> Iterable[tuple[str, ...]]:
        """Full names of what the user may read, those of the schema of ``name`` first."""
        ...

    def look(self, table: Table, followed: FollowedColumn | None, window: Window) -> Look:
        """The server's time, and how rows that are committed late are not missed. Before :meth:`stream`."""
        ...

    def maximum(self, table: Table, followed: FollowedColumn) -> str | None:
        """The largest value of an ``int`` or ``text`` column, as canonical text; None if there is none."""
        ...

    def stream(self, table: Table, followed: FollowedColumn | None, window: Window, since: str | None = None) -> Iterator[pa.Table]:
        """The rows from the window's lower bound on, those that have no cursor value, and those committed ``since``.

        They come as one snapshot, in no order, each value in canonical text. A batch is at most some
        50,000 rows or 64 MB; PostgreSQL and MySQL are quickest with 10,000 and 20,000.
        """
        ...


class Engine(Protocol):
    """A database server and how to sign in to it."""

    @property
    def dialect(self) -> Dialect:
        """How the engine writes a table's name."""
        ...

    def open(self) -> AbstractContextManager[Session]:
        """A session for as long as the context is open.

        The call judges all settings and asks for the secret; nothing is sent before the context is
        entered. What fails inside it leaves as a PipelineError, by who must act, without the server's
        own words: they may hold values.

        Raises:
            ConfigurationError: a setting is refused.
            CredentialError: there is no secret, or the server does not accept it.
        """
        ...
