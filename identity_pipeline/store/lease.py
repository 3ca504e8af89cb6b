"""The lease: one writer per source, and a successor for one that died.

A load takes its source's lease together with a higher fencing token. Each transaction of the load
checks the token when it begins and holds it still, with :func:`fenced`, for the moment of its
commit: what was thought dead cannot write over its successor, and no merge keeps others of its load
waiting.

The lease is alive while the session of its heartbeat is connected and has beaten within
:data:`LEASE_SECONDS`. A process that was killed is taken over at once, one that froze after that
time. The take-over ends the sessions of the load that lost, frozen ones too, which would hold locks
otherwise. Nobody has to help.
"""

import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.util import Finalize
from typing import Literal

import psycopg

from identity_pipeline.core.errors import AlreadyRunning, PipelineError, Superseded, TargetUnavailable
from identity_pipeline.store.database import connect
from identity_pipeline.store.load import Load

LEASE_SECONDS = 30.0

_OPENER, _LOAD = 0x1DE17178, 0x1DE17179
"""Advisory locks that a transaction marks itself with: as the one that takes a source, as work of a load."""
_LOCKS = {None: "", "share": "for share", "update": "for no key update"}


# -- Taking -------------------------------------------------------------------------------------


@contextmanager
def free(
    url: str, source_name: str, source_type: str, run_id: str, *, wait: float, log: Callable[[str], None]
) -> Iterator[psycopg.Connection]:
    """A transaction in which the source is locked and no other run's lease on it is alive.

    Raises:
        AlreadyRunning: another load is alive and did not end within ``wait`` seconds.
    """
    deadline = time.monotonic() + wait
    reported, locked_since = False, None
    while True:
        with connect(url, doing="open a load") as connection:
            connection.execute(
                "insert into identity.sources (source_name, source_type) values (%s, %s) on conflict do nothing",
                (source_name, source_type),
            )
            holder = _holder(connection, source_name, run_id)
            if holder is None:
                lock = "select 1 from identity.sources where source_name = %s for no key update skip locked"
                if connection.execute(lock, (source_name,)).fetchone():
                    connection.execute("select pg_advisory_xact_lock_shared(%s::int, %s::int)", (_OPENER, _number(source_name)))
                    holder = _holder(connection, source_name, run_id)  # somebody may have been faster
                    if holder is None:
                        yield connection
                        return
                else:
                    locked_since = locked_since or time.monotonic()
                    if time.monotonic() - locked_since > LEASE_SECONDS / 10:
                        _end_sessions(connection, source_name)
            if holder is not None:
                locked_since = None
        who = f"load {holder[0]} of run {holder[1]}" if holder else "another load"
        if time.monotonic() >= deadline:
            raise AlreadyRunning(f"{source_name}: {who} is still at work: wait for it, or cancel that run")
        if not reported and holder:
            log(f"waiting for {who}, which holds the source")
            reported = True
        time.sleep(min(0.5, LEASE_SECONDS / 10))


def take(connection: psycopg.Connection, load: Load) -> None:
    """Give the lease to ``load``, whose token is the source's newest, and end what loads before it still have open."""
    connection.execute(
        """
        insert into identity.leases (source_name, load_id, run_id) values (%s, %s, %s)
        on conflict (source_name) do update set load_id = excluded.load_id, run_id = excluded.run_id,
            backend_pid = null, backend_start = null, heartbeat_at = clock_timestamp()
        """,
        (load.source_name, load.load_id, load.run_id),
    )
    _end_sessions(connection, load.source_name)


def _number(source_name: str) -> int:
    return zlib.crc32(source_name.encode()) - 2**31


def _holder(connection: psycopg.Connection, source_name: str, run_id: str) -> tuple[int, str] | None:
    """Load and run of the living lease that another run has on the source."""
    connection.execute("select pg_stat_clear_snapshot()")
    return connection.execute(
        """
        select l.load_id, l.run_id from identity.leases l
        where l.source_name = %s and l.run_id <> %s
          and l.heartbeat_at > clock_timestamp() - make_interval(secs => %s)
          and (l.backend_pid is null or exists (
              select 1 from pg_stat_activity a where a.pid = l.backend_pid and a.backend_start = l.backend_start))
        """,
        (source_name, run_id, LEASE_SECONDS),
    ).fetchone()


def _end_sessions(connection: psycopg.Connection, source_name: str) -> None:
    """End the other transactions that work for the source. Only where no living load has it: theirs cannot commit any more."""
    connection.execute(
        """
        select pg_terminate_backend(k.pid) from pg_locks k
        where k.locktype = 'advisory' and k.objsubid = 2 and k.pid <> pg_backend_pid()
          and k.database = (select oid from pg_database where datname = current_database())
          and (k.classid = %(opener)s::bigint::oid and k.objid = (%(number)s::bigint & 4294967295)::oid
               or k.classid = %(load)s::bigint::oid and exists (
                   select 1 from identity.loads l where l.source_name = %(source)s and l.load_id = k.objid::bigint))
        """,
        {"opener": _OPENER, "load": _LOAD, "number": _number(source_name), "source": source_name},
    )


def fenced(connection: psycopg.Connection, load: Load, *, lock: Literal["share", "update"] | None = None) -> None:
    """Mark this transaction as work of ``load`` and make sure that no newer load took the source over.

    With ``lock`` none can until the transaction ends: ``share`` beside others of the same load,
    ``update`` alone.

    Raises:
        Superseded: one did.
    """
    connection.execute("select pg_advisory_xact_lock_shared(%s::int, %s::int)", (_LOAD, load.load_id))
    query = f"select token from identity.sources where source_name = %s {_LOCKS[lock]}"
    row = connection.execute(query.encode(), (load.source_name,)).fetchone()
    if row is None or row[0] != load.token:
        newest = connection.execute("select max(load_id) from identity.loads where source_name = %s", (load.source_name,)).fetchone()
        raise Superseded(
            f"{load.source_name}: load {load.load_id} was superseded by load {newest and newest[0]}: nothing is lost and nothing was "
            "overwritten; look at the newer run, or materialize again"
        )


# -- Holding ------------------------------------------------------------------------------------


class _Heartbeat(threading.Thread):
    """Keeps the lease of one load alive until its row is gone, from a connection of its own."""

    def __init__(self, url: str, load: Load) -> None:
        super().__init__(name=f"lease {load.source_name}", daemon=True)
        self.url, self.load = url, load
        self.asked, self.beaten, self.leaving = threading.Event(), threading.Event(), False
        self.at_exit = Finalize(None, self.leave, exitpriority=0)  # atexit does not run in worker processes

    def run(self) -> None:
        with suppress(PipelineError):  # whatever else than an outage it is: who works for the load meets it too
            while not self._beat_while_connected():
                self.asked.wait(1)
        with _GUARD:
            self._forget()
        self.at_exit.cancel()
        self.beaten.set()

    def leave(self) -> None:
        """Leave the lease to whichever process of the run comes next: this one ends in order."""
        self.leaving = True
        self.asked.set()
        self.join(2)

    def _beat_while_connected(self) -> bool:
        """True if there is nothing to keep alive any more, False if the connection was lost."""
        with suppress(TargetUnavailable), connect(self.url, doing="lease", autocommit=True) as connection:
            while True:
                self.asked.clear()
                if self.leaving:
                    self._hand_on(connection)
                    return True
                if not self._beat(connection) and self._unwanted():
                    return True
                self.beaten.set()
                self.asked.wait(LEASE_SECONDS / 5)
        return self.leaving

    def _beat(self, connection: psycopg.Connection) -> bool:
        """False if the load has no lease: it was committed, has failed, or was taken over."""
        beat = """
            update identity.leases l set heartbeat_at = clock_timestamp(), backend_pid = a.pid, backend_start = a.backend_start
            from pg_stat_activity a where a.pid = pg_backend_pid() and l.source_name = %s and l.load_id = %s
        """
        return connection.execute(beat, (self.load.source_name, self.load.load_id)).rowcount > 0

    def _hand_on(self, connection: psycopg.Connection) -> None:
        """Let the lease stand without a session, for as long as a heartbeat lasts."""
        connection.execute(
            """
            update identity.leases set heartbeat_at = clock_timestamp(), backend_pid = null, backend_start = null
            where source_name = %s and load_id = %s and backend_pid = pg_backend_pid()
            """,
            (self.load.source_name, self.load.load_id),
        )

    def _forget(self) -> None:
        if _HEARTBEATS.get((self.url, self.load.load_id)) is self:
            del _HEARTBEATS[self.url, self.load.load_id]

    def _unwanted(self) -> bool:
        """True if nobody asked for a beat since the last one, and from now on nobody can."""
        with _GUARD:
            if self.asked.is_set():  # a failed load is taken up again
                return False
            self._forget()
        return True


_HEARTBEATS: dict[tuple[str, int], _Heartbeat] = {}
_GUARD = threading.Lock()


@contextmanager
def hold(url: str, load: Load) -> Iterator[None]:
    """Let the lease of ``load`` be alive while the body runs and after it, until it is released or lost.

    A daemon thread beats for each load, started by the first call; a further call costs one beat.
    """
    with _GUARD:
        heartbeat = _HEARTBEATS.get((url, load.load_id))
        if heartbeat is None or not heartbeat.is_alive():  # after a fork there is no thread
            heartbeat = _HEARTBEATS[url, load.load_id] = _Heartbeat(url, load)
            heartbeat.start()
        else:
            heartbeat.beaten.clear()
            heartbeat.asked.set()
    heartbeat.beaten.wait(LEASE_SECONDS / 3)
    yield


def release(connection: psycopg.Connection, load: Load) -> None:
    """Give the lease of ``load`` back; its heartbeat ends by itself. A newer load's lease is left alone."""
    connection.execute("delete from identity.leases where source_name = %s and load_id = %s", (load.source_name, load.load_id))


def stop(url: str, load: Load) -> None:
    """End the heartbeat of a load that is closed, and its session with it, now and not at its next beat."""
    with _GUARD:
        heartbeat = _HEARTBEATS.get((url, load.load_id))
    if heartbeat is not None:
        heartbeat.leave()


def running_runs(url: str, within: float) -> set[str]:
    """Ids of the runs whose lease showed a sign of life in the last ``within`` seconds."""
    with connect(url, doing="look for dead runs") as connection:
        rows = connection.execute(
            "select run_id from identity.leases where heartbeat_at > clock_timestamp() - make_interval(secs => %s)", (within,)
        ).fetchall()
    return {run_id for (run_id,) in rows}
