"""The ledger: loads, the lease that keeps one writer on a source, and the authoritative mark.

One writer per source: :func:`open_load` takes the source's lease and a higher fencing token; each
later transaction of that load checks the token (:func:`fenced`), so a process that was thought
dead cannot write over its successor. The lease is alive while its session is connected and has
beaten within :data:`LEASE_SECONDS`. A process that was killed at work is taken over at once; one
that froze, even inside a transaction, or died between two ops, after that time. Nobody has to help.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import psycopg
from psycopg.rows import dict_row

from identity_pipeline.core import cursor
from identity_pipeline.core.errors import AlreadyRunning, ContractBroken, PipelineError, Superseded
from identity_pipeline.core.window import CursorType
from identity_pipeline.store.database import connect

LEASE_SECONDS = 30.0
BALANCE = ("records_read", "inserted", "updated", "unchanged", "duplicates", "quarantined", "filtered")


@dataclass(frozen=True)
class Mark:
    """A high-water mark: ``after`` is canonical text of ``column`` read as ``type``."""

    column: str
    type: CursorType
    after: str


@dataclass(frozen=True)
class Load:
    """A load that was opened: its number, its fencing token and what it is to do."""

    load_id: int
    source_name: str
    source_type: str
    run_id: str
    token: int
    full_refresh: bool = False


@dataclass
class ReadSummary:
    """What the read op found; the commit checks the parts against it."""

    parts: list[int] = field(default_factory=list)
    records_read: int = 0
    filtered: int = 0
    null_cursor: int = 0
    cursor_column: str | None = None
    cursor_type: CursorType | None = None
    candidate: str | None = None
    bytes_read: int = 0
    pages: int = 0
    requests: int = 0
    throttled_seconds: float = 0.0
    seconds_read: float = 0.0
    files: dict[str, str] = field(default_factory=dict)
    fields: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    mapping: str = ""
    partial: bool = False

    def to_json(self) -> dict[str, Any]:
        """As plain values, for handing on between ops."""
        return asdict(self)


def mark(url: str, source_name: str) -> Mark | None:
    """The source's mark in the ledger, None before the first commit."""
    with connect(url, doing="read the mark") as connection:
        row = connection.execute(
            "select cursor_column, cursor_type, cursor_after from identity.sources where source_name = %s and cursor_after is not null",
            (source_name,),
        ).fetchone()
    return Mark(*row) if row else None


def state(url: str, source_name: str) -> dict[str, Any]:
    """What is kept of a source between loads: ``mapping``, ``fields``, ``row_count`` and object ``versions``."""
    with connect(url, doing="read the source's state") as connection:
        row = connection.execute(
            "select mapping, fields, row_count from identity.sources where source_name = %s", (source_name,)
        ).fetchone() or (None, [], 0)
        versions = connection.execute("select object, version from identity.files where source_name = %s", (source_name,)).fetchall()
    return {"mapping": row[0], "fields": row[1], "row_count": row[2], "versions": dict(versions)}


def open_load(
    url: str,
    source_name: str,
    source_type: str,
    run_id: str,
    *,
    full_refresh: bool = False,
    before: Mark | None = None,
    wait: float = LEASE_SECONDS + 5,
    log: Callable[[str], None] = lambda _: None,
) -> Load:
    """Take the source's lease and open a load; loads that died are closed as failed.

    ``before`` is the mark that this load starts from (for the ledger's ``cursor_before``).

    Raises:
        AlreadyRunning: another load is alive and did not end within ``wait`` seconds.
    """
    deadline = time.monotonic() + wait
    told, locked_since = False, None
    while True:
        with connect(url, doing="open a load") as connection:
            connection.execute(
                "insert into identity.sources (source_name, source_type) values (%s, %s) on conflict do nothing",
                (source_name, source_type),
            )
            holder = _holder(connection, source_name, run_id)
            if holder is None:
                lock = "select 1 from identity.sources where source_name = %s for update skip locked"
                if connection.execute(lock, (source_name,)).fetchone():
                    holder = _holder(connection, source_name, run_id)  # somebody may have been faster
                    if holder is None:
                        return _take(connection, source_name, source_type, run_id, full_refresh=full_refresh, before=before)
                else:
                    locked_since = locked_since or time.monotonic()
                    if time.monotonic() - locked_since > LEASE_SECONDS / 10:
                        _break(connection, source_name)
        told_of = f"load {holder[0]} of run {holder[1]}" if holder else "another load"
        if time.monotonic() >= deadline:
            raise AlreadyRunning(f"{source_name}: {told_of} is still at work: wait for it, or cancel that run")
        if not told and holder:
            log(f"waiting for {told_of}, which holds the source")
            told = True
        time.sleep(min(0.5, LEASE_SECONDS / 10))


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


def _break(connection: psycopg.Connection, source_name: str) -> None:
    """End the session of a process that lost its lease and still holds the source: it froze inside a transaction."""
    connection.execute(
        """
        select pg_terminate_backend(l.pid) from identity.sources s
        join pg_locks l on l.locktype = 'transactionid' and l.transactionid = s.xmax and l.granted and l.mode = 'ExclusiveLock'
        where s.source_name = %s and l.pid <> pg_backend_pid()
        """,
        (source_name,),
    )


def _take(
    connection: psycopg.Connection, source_name: str, source_type: str, run_id: str, *, full_refresh: bool, before: Mark | None
) -> Load:
    row = connection.execute(
        """
        update identity.sources set token = token + 1, source_type = %s, updated_at = clock_timestamp()
        where source_name = %s returning token, cursor_after
        """,
        (source_type, source_name),
    ).fetchone()
    assert row is not None  # noqa: S101 - inserted and locked by the caller
    connection.execute(
        """
        update identity.loads set status = 'failed', finished_at = clock_timestamp(), error_code = 'died',
               error = 'the run ended before its commit; the load after it repeats its work'
        where source_name = %s and status = 'running'
        """,
        (source_name,),
    )
    load = connection.execute(
        """
        insert into identity.loads (source_name, source_type, run_id, token, full_refresh, cursor_column, cursor_type, cursor_before,
                                    mark_before)
        values (%s, %s, %s, %s, %s, %s, %s, %s, %s) returning load_id
        """,
        (
            source_name, source_type, run_id, row[0], full_refresh,
            before and before.column, before and before.type, before and before.after, row[1],
        ),
    ).fetchone()  # fmt: skip
    assert load is not None  # noqa: S101 - returning
    connection.execute(
        """
        insert into identity.leases (source_name, load_id, run_id) values (%s, %s, %s)
        on conflict (source_name) do update set load_id = excluded.load_id, run_id = excluded.run_id,
            backend_pid = null, backend_start = null, heartbeat_at = clock_timestamp()
        """,
        (source_name, load[0], run_id),
    )
    return Load(load[0], source_name, source_type, run_id, row[0], full_refresh)


def fenced(connection: psycopg.Connection, load: Load) -> None:
    """Lock the source for this transaction and make sure that no newer load took it over.

    Raises:
        Superseded: one did.
    """
    row = connection.execute("select token from identity.sources where source_name = %s for update", (load.source_name,)).fetchone()
    if row is None or row[0] != load.token:
        newest = connection.execute("select max(load_id) from identity.loads where source_name = %s", (load.source_name,)).fetchone()
        raise Superseded(
            f"{load.source_name}: load {load.load_id} was superseded by load {newest and newest[0]}: nothing is lost and nothing was "
            "overwritten; look at the newer run, or materialize again"
        )


@contextmanager
def hold(url: str, load: Load) -> Iterator[None]:
    """Keep the lease of ``load`` alive while the body runs, from a thread with its own connection."""
    done = threading.Event()
    first = threading.Event()

    def beat() -> None:
        while not done.is_set():
            with suppress(PipelineError), connect(url, doing="lease", autocommit=True) as connection:
                while True:
                    connection.execute(
                        """
                        update identity.leases l set heartbeat_at = clock_timestamp(), backend_pid = a.pid, backend_start = a.backend_start
                        from pg_stat_activity a where a.pid = pg_backend_pid() and l.source_name = %s and l.load_id = %s
                        """,
                        (load.source_name, load.load_id),
                    )
                    first.set()
                    if done.wait(LEASE_SECONDS / 5):
                        connection.execute(
                            """
                            update identity.leases set heartbeat_at = clock_timestamp(), backend_pid = null, backend_start = null
                            where source_name = %s and load_id = %s
                            """,
                            (load.source_name, load.load_id),
                        )
                        return
            first.set()
            done.wait(1)

    thread = threading.Thread(target=beat, name=f"lease {load.source_name}", daemon=True)
    thread.start()
    first.wait(LEASE_SECONDS / 3)
    try:
        yield
    finally:
        done.set()
        thread.join(5)


@contextmanager
def closing(url: str, load: Load, *, retried: bool = False, shown: Callable[[str], str] = str) -> Iterator[None]:
    """Close the load as failed if the body fails. ``shown`` takes secrets out of the message.

    ``retried`` says that the body is tried again where the error allows it: the load then stays open.
    """
    try:
        yield
    except BaseException as error:
        if isinstance(error, PipelineError):
            code, message = error.code, str(error)
        elif isinstance(error, Exception):
            code, message = "unexpected", f"unexpected {type(error).__name__}: the run's log says where"
        else:
            code, message = "cancelled", "the run was cancelled; the load after it repeats its work"
        if not (retried and isinstance(error, PipelineError) and error.retryable):
            with suppress(PipelineError):  # the database itself may be what failed
                fail(url, load, code, shown(message))
        raise


def fail(url: str, load: Load, code: str, message: str) -> None:
    """Close a load as failed and give its lease back. A newer load's lease is left alone."""
    with connect(url, doing="close a failed load") as connection:
        connection.execute(
            """
            update identity.loads set status = 'failed', finished_at = clock_timestamp(), error_code = %s, error = %s
            where load_id = %s and status <> 'committed'
            """,
            (code, message, load.load_id),
        )
        connection.execute("delete from identity.leases where source_name = %s and load_id = %s", (load.source_name, load.load_id))


def commit(
    url: str,
    load: Load,
    summary: ReadSummary,
    *,
    seen: Iterator[list[str]] | None = None,
    max_deleted_share: float = 0.2,
) -> dict[str, Any]:
    """Close a load whose parts are all merged and advance the source's mark.

    ``seen`` yields every external id of a full refresh: what it does not hold is marked deleted,
    unless that were more than ``max_deleted_share`` of the source's rows or nothing was seen.
    A load that is committed already is returned as it is, so this can be repeated.

    Returns:
        The load's line of the ledger, with ``row_count``.

    Raises:
        Superseded: a newer load has the source, or the mark moved meanwhile.
        ContractBroken: a part is missing, or the counts do not balance.
    """
    with connect(url, doing="commit the load") as connection:
        fenced(connection, load)
        line = _line(connection, load)
        if line["status"] == "committed":
            return line
        sums = connection.execute(
            """
            select count(*), coalesce(array_agg(part order by part), '{}'), coalesce(sum(records), 0), coalesce(sum(inserted), 0),
                   coalesce(sum(updated), 0), coalesce(sum(unchanged), 0), coalesce(sum(duplicates), 0), coalesce(sum(quarantined), 0),
                   coalesce(sum(deleted), 0), coalesce(sum(valid_identifiers), 0), coalesce(sum(seconds), 0)
            from identity.load_parts where load_id = %s
            """,
            (load.load_id,),
        ).fetchone()
        assert sums is not None  # noqa: S101 - an aggregate has a row
        if sums[1] != list(range(len(summary.parts))):
            raise ContractBroken(
                f"{load.source_name}: {sums[0]} of {len(summary.parts)} parts are merged, so the mark stays where it was: "
                "materialize again (a run retried from failure can lose steps; a new run does not)"
            )
        records, inserted, updated, unchanged, duplicates, quarantined, deleted = map(int, sums[2:9])
        if records != inserted + updated + unchanged + duplicates + quarantined or summary.records_read != records + summary.filtered:
            raise ContractBroken(
                f"{load.source_name}: the counts do not balance (read {summary.records_read}, filtered {summary.filtered}, "
                f"merged {records} as "
                f"{inserted} + {updated} + {unchanged} + {duplicates} + {quarantined}); the mark stays where it was: please report this"
            )
        warnings = list(summary.warnings)
        if load.full_refresh and seen is not None:
            marked, warning = _mark_unseen(connection, load, seen, max_deleted_share)
            deleted += marked
            warnings += [warning] if warning else []
        after = _advance(connection, load, summary)
        connection.execute(
            """
            update identity.loads set status = 'committed', finished_at = clock_timestamp(), parts = %(parts)s,
                records_read = %(records_read)s, inserted = %(inserted)s, updated = %(updated)s, unchanged = %(unchanged)s,
                duplicates = %(duplicates)s, quarantined = %(quarantined)s, filtered = %(filtered)s, deleted = %(deleted)s,
                null_cursor = %(null_cursor)s, bytes_read = %(bytes_read)s, pages = %(pages)s, requests = %(requests)s,
                throttled_seconds = %(throttled)s, seconds_read = %(seconds_read)s, seconds_merge = %(seconds_merge)s,
                valid_identifiers = %(valid)s, warnings = %(warnings)s, cursor_column = %(column)s, cursor_type = %(type)s,
                cursor_after = %(after)s, error_code = null, error = null
            where load_id = %(load_id)s
            """,
            {
                "parts": len(summary.parts), "records_read": summary.records_read, "inserted": inserted, "updated": updated,
                "unchanged": unchanged, "duplicates": duplicates, "quarantined": quarantined, "filtered": summary.filtered,
                "deleted": deleted, "null_cursor": summary.null_cursor, "bytes_read": summary.bytes_read, "pages": summary.pages,
                "requests": summary.requests, "throttled": summary.throttled_seconds, "seconds_read": summary.seconds_read,
                "seconds_merge": float(sums[10]), "valid": int(sums[9]), "warnings": warnings, "column": summary.cursor_column,
                "type": summary.cursor_type, "after": after, "load_id": load.load_id,
            },
        )  # fmt: skip
        with connection.cursor() as cur:
            cur.executemany(
                """
                insert into identity.files (source_name, object, version, load_id) values (%s, %s, %s, %s)
                on conflict (source_name, object) do update set version = excluded.version, load_id = excluded.load_id,
                    read_at = statement_timestamp()
                """,
                [(load.source_name, name, version, load.load_id) for name, version in summary.files.items()],
            )
        connection.execute("delete from identity.leases where source_name = %s and load_id = %s", (load.source_name, load.load_id))
        return _line(connection, load)


def _advance(connection: psycopg.Connection, load: Load, summary: ReadSummary) -> str | None:
    """Move the mark by compare-and-set: never back, only from where this load found it."""
    row = connection.execute(
        "select cursor_column, cursor_type, cursor_after from identity.sources where source_name = %s", (load.source_name,)
    ).fetchone()
    found = connection.execute("select mark_before from identity.loads where load_id = %s", (load.load_id,)).fetchone()
    assert row is not None  # noqa: S101 - locked by fenced()
    assert found is not None  # noqa: S101 - the load is open
    column, kind, after = row
    if summary.cursor_column is None or summary.cursor_type is None:
        target = None
    elif (column, kind) == (summary.cursor_column, summary.cursor_type):
        target = cursor.higher_of(kind, after, summary.candidate)
    else:
        target = summary.candidate
    moved = connection.execute(
        """
        update identity.sources set cursor_column = %s, cursor_type = %s, cursor_after = %s, mapping = coalesce(%s, mapping),
            updated_at = clock_timestamp(),
            fields = case when %s::text[] = '{}' then fields else %s::text[] end
        where source_name = %s and token = %s and cursor_after is not distinct from %s
        """,
        (
            summary.cursor_column, summary.cursor_type, target, None if summary.partial else summary.mapping,
            summary.fields, summary.fields,
            load.source_name, load.token, found[0],
        ),
    ).rowcount  # fmt: skip
    if moved != 1:
        raise Superseded(f"{load.source_name}: the mark moved while load {load.load_id} was at work: nothing is lost; materialize again")
    return target


def _mark_unseen(connection: psycopg.Connection, load: Load, seen: Iterator[list[str]], max_deleted_share: float) -> tuple[int, str | None]:
    connection.execute('create temp table seen (external_id text collate "C") on commit drop')
    with connection.cursor() as cur, cur.copy("copy pg_temp.seen from stdin") as copy:
        for ids in seen:
            for external_id in ids:
                copy.write_row((external_id,))
    connection.execute("analyze pg_temp.seen")
    unseen = """
        from identity.records r where r.source_name = %s and r.deleted_at is null and r.merged_into is null
        and not exists (select 1 from pg_temp.seen s where s.external_id = r.external_id)
    """
    counts = connection.execute(
        f"select (select count(*) {unseen}), (select count(*) from identity.records where source_name = %s and deleted_at is null), "
        "(select count(*) from pg_temp.seen)",
        (load.source_name, load.source_name),
    ).fetchone()
    assert counts is not None  # noqa: S101 - aggregates
    gone, live, met = counts
    if not gone:
        return 0, None
    if not met or gone > max_deleted_share * live:
        return 0, (
            f"the full refresh did not see {gone} of {live} rows, more than max_deleted_share {max_deleted_share:g} allows: "
            "none was marked deleted; check the source, then raise max_deleted_share of the source for one full refresh"
        )
    marked = connection.execute(
        f"""
        update identity.records set deleted_at = statement_timestamp(), changed_at = statement_timestamp(), record_hash = null, load_id = %s
        where source_name = %s and external_id in (select r.external_id {unseen})
        """,
        (load.load_id, load.source_name, load.source_name),
    ).rowcount
    return marked, None


def _line(connection: psycopg.Connection, load: Load) -> dict[str, Any]:
    with connection.cursor(row_factory=dict_row) as cur:
        line = cur.execute(
            """
            select l.*, s.row_count from identity.loads l join identity.sources s using (source_name) where l.load_id = %s
            """,
            (load.load_id,),
        ).fetchone()
    if line is None:
        raise PipelineError(f"{load.source_name}: load {load.load_id} is not in the ledger: materialize again from the start")
    return line


def resume(url: str, load: Load) -> None:
    """Open a failed load again that a retry continues, if no newer load took the source over.

    The lease goes to ``load.run_id``, which is a new one when the run was executed again from its
    failure. A load that is committed stays closed.

    Raises:
        Superseded: one did.
    """
    with connect(url, doing="resume a load") as connection:
        fenced(connection, load)
        connection.execute(
            """
            update identity.loads set status = 'running', finished_at = null, error_code = null, error = null
            where load_id = %s and status = 'failed'
            """,
            (load.load_id,),
        )
        connection.execute(
            """
            insert into identity.leases (source_name, load_id, run_id)
            select source_name, load_id, %s from identity.loads where load_id = %s and status = 'running'
            on conflict (source_name) do update set load_id = excluded.load_id, run_id = excluded.run_id
            """,
            (load.run_id, load.load_id),
        )


def committed(url: str, source_name: str, load_id: int, claim: Mark) -> bool:
    """True if that load of the source was committed with this mark."""
    with connect(url, doing="check a materialization") as connection:
        return (
            connection.execute(
                """
                select 1 from identity.loads where load_id = %s and source_name = %s and status = 'committed'
                    and cursor_column = %s and cursor_type = %s and cursor_after = %s
                """,
                (load_id, source_name, claim.column, claim.type, claim.after),
            ).fetchone()
            is not None
        )


def running_runs(url: str, within: float) -> set[str]:
    """Ids of the runs whose lease showed a sign of life in the last ``within`` seconds."""
    with connect(url, doing="look for dead runs") as connection:
        rows = connection.execute(
            "select run_id from identity.leases where heartbeat_at > clock_timestamp() - make_interval(secs => %s)", (within,)
        ).fetchall()
    return {run_id for (run_id,) in rows}
