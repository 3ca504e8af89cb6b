"""Pace kept in the identity database: one limit for all runs that share an account of a source."""

import hashlib
from contextlib import ExitStack
from typing import Self

import psycopg

from identity_pipeline.store.database import connect, failures

_FORGET = "1 day"


class SharedPace:
    """Gives requests their turn among all processes that load into this database. A context manager; see :class:`core.pace.Pace`.

    A limit's name holds a secret: it is kept under a digest, keyed by what tells this server from others.
    """

    def __init__(self, url: str) -> None:
        self._url, self._stack = url, ExitStack()
        self._connection: psycopg.Connection | None = None
        self._key = b""

    def __enter__(self) -> Self:
        """Nothing is opened before the first turn."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self._stack.close()
        self._connection = None

    def turn(self, limit: str, interval: float) -> float:
        """Seconds until the next request may go.

        Raises:
            TargetUnavailable: the database went away.
        """
        row = self._execute(
            """
            insert into identity.paces as p (digest, next_at) values (%(digest)s, clock_timestamp() + %(seconds)s * interval '1 second')
            on conflict (digest) do update set next_at = greatest(p.next_at, clock_timestamp()) + %(seconds)s * interval '1 second'
            returning greatest(0, extract(epoch from next_at - clock_timestamp())::float8 - %(seconds)s)
            """,
            limit,
            interval,
        )
        return row[0] if row else 0.0

    def rest(self, limit: str, seconds: float) -> None:
        """Let no further request go for so long.

        Raises:
            TargetUnavailable: the database went away.
        """
        self._execute(
            """
            insert into identity.paces as p (digest, next_at) values (%(digest)s, clock_timestamp() + %(seconds)s * interval '1 second')
            on conflict (digest) do update set
                next_at = greatest(p.next_at, clock_timestamp() + %(seconds)s * interval '1 second')
            returning 0.0
            """,
            limit,
            seconds,
        )

    def refused(self, limit: str, seconds: float) -> None:
        """Let nobody else ask for so long."""
        self.rest(limit, seconds)

    def _execute(self, statement: str, limit: str, seconds: float) -> tuple[float] | None:
        connection = self._connection or self._open()
        digest = hashlib.blake2b(limit.encode(), key=self._key, digest_size=16).digest()
        with failures("keep to the source's limit"):
            return connection.execute(statement.encode(), {"digest": digest, "seconds": seconds}).fetchone()

    def _open(self) -> psycopg.Connection:
        connection = self._stack.enter_context(connect(self._url, doing="keep to the source's limit", autocommit=True))
        connection.execute("set synchronous_commit to off")  # what a crash forgets is a fraction of a second
        row = connection.execute("select system_identifier::text from pg_control_system()").fetchone()
        self._key = (row[0] if row else "").encode()
        connection.execute(f"delete from identity.paces where next_at < clock_timestamp() - interval '{_FORGET}'".encode())
        self._connection = connection
        return connection
