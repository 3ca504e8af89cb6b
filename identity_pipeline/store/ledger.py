"""The ledger: loads, and what is kept of a source between them: its mark and the state beside it.

A load is opened with the source's lease (:mod:`store.lease`) and is committed once every part of it
is merged, or not at all. Its commit is what moves the mark.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from identity_pipeline.core import cursor as cursors
from identity_pipeline.core.balance import BALANCE
from identity_pipeline.core.cursor import CursorType, Mark
from identity_pipeline.core.errors import ConfigurationError, ContractBroken, PipelineError, Superseded
from identity_pipeline.core.file_version import FileVersion
from identity_pipeline.store import files, lease
from identity_pipeline.store.database import connect
from identity_pipeline.store.landing import LandedPart, Part
from identity_pipeline.store.load import Load
from identity_pipeline.store.sweep import sweep


@dataclass
class ReadSummary:
    """What the read found; the commit checks the parts against it.

    ``unchanged`` and ``duplicates`` are records that the read itself settled, so that no part holds
    them. ``candidate`` is the mark that the read leads to; ``mark_may_fall`` says that it counts even
    if it is lower than the present one, or None. ``state`` is what the source handed out to continue
    from, ``settings`` the fingerprint of what was read with it. ``files`` are those that were read,
    ``sweeps`` says whether what was not seen is gone (None: as for any full refresh). ``partial`` reads
    leave mark and state as they are.
    """

    parts: list[LandedPart] = field(default_factory=list)
    records_read: int = 0
    filtered: int = 0
    unchanged: int = 0
    duplicates: int = 0
    null_cursor: int = 0
    source_count: int | None = None
    cursor_column: str | None = None
    cursor_type: CursorType | None = None
    candidate: str | None = None
    mark_may_fall: bool = False
    state: str | None = field(default=None, repr=False)
    settings: str = ""
    sweeps: bool | None = None
    bytes_read: int = 0
    pages: int = 0
    requests: int = 0
    throttled_seconds: float = 0.0
    seconds_read: float = 0.0
    files: dict[str, FileVersion] = field(default_factory=dict)
    fields: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    mapping: str = ""
    partial: bool = False


@dataclass(frozen=True)
class SourceState:
    """What is kept of a source between loads.

    ``mapping`` is the fingerprint of the rules it was last merged by, ``files`` the version of each file
    that was read. ``settings`` is the fingerprint of what was read, None where an older version did not
    store it. ``state`` is the source's own continuation: it is secret, and valid only with this ``mark``
    and these settings. ``not_before`` is when the source may be asked again.
    """

    mark: Mark | None = None
    mapping: str | None = None
    fields: tuple[str, ...] = ()
    row_count: int = 0
    files: dict[str, FileVersion] = field(default_factory=dict)
    state: str | None = field(default=None, repr=False)
    settings: str | None = None
    not_before: datetime | None = None

    def reads_other(self, settings: str) -> bool:
        """True if something else is to be read now than what was: neither the mark nor the files tell what is known of it."""
        return self.settings is not None and self.settings != settings


def state(url: str, source_name: str) -> SourceState:
    """What is kept of a source; nothing before its first commit."""
    with connect(url, doing="read the source's state") as connection:
        row = connection.execute(
            """
            select cursor_column, cursor_type, cursor_after, mapping, fields, row_count, state, state_settings, not_before
            from identity.sources where source_name = %s
            """,
            (source_name,),
        ).fetchone()
        versions = files.known(connection, source_name)
    if row is None:
        return SourceState()
    column, kind, after, mapping, fields, row_count, *continuation = row
    mark = None if after is None else Mark(column, kind, after)
    return SourceState(mark, mapping, tuple(fields), row_count, versions, *continuation)


# -- Opening and closing ------------------------------------------------------------------------


def open_load(
    url: str,
    source_name: str,
    source_type: str,
    run_id: str,
    *,
    full_refresh: bool = False,
    before: Mark | None = None,
    wait: float | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> Load:
    """Take the source's lease and open a load; loads that died are closed as failed.

    ``before`` is the mark that this load starts from (for the ledger's ``cursor_before``). ``wait``
    is how many seconds a living load is waited for, by default somewhat longer than a lease lasts.

    Raises:
        AlreadyRunning: another load is alive and did not end in that time.
    """
    wait = lease.LEASE_SECONDS + 5 if wait is None else wait
    with lease.free(url, source_name, source_type, run_id, wait=wait, log=log) as connection:
        connection.execute(
            """
            update identity.loads set status = 'failed', finished_at = clock_timestamp(), error_code = 'died',
                   error = 'the run ended before its commit; the load after it repeats its work'
            where source_name = %s and status = 'running'
            """,
            (source_name,),
        )
        row = connection.execute(
            """
            with source as (
                update identity.sources set token = token + 1, source_type = %(source_type)s, updated_at = clock_timestamp()
                where source_name = %(source_name)s returning *
            )
            insert into identity.loads (source_name, source_type, run_id, token, full_refresh, cursor_column, cursor_type, cursor_before,
                                        mark_before)
            select source_name, source_type, %(run_id)s, token, %(full_refresh)s, %(column)s, %(type)s, %(before)s, cursor_after
            from source returning load_id, token
            """,
            {
                "source_name": source_name, "source_type": source_type, "run_id": run_id, "full_refresh": full_refresh,
                "column": before and before.column, "type": before and before.type, "before": before and before.after,
            },
        ).fetchone()  # fmt: skip
        assert row is not None  # noqa: S101 - the source is there and locked
        load = Load(row[0], source_name, source_type, run_id, row[1], full_refresh)
        lease.take(connection, load)
        return load


def resume(url: str, load: Load) -> None:
    """Open a failed load again that a retry continues, if no newer load took the source over.

    The lease goes to ``load.run_id``, which is a new one when the run was executed again from its
    failure. A load that is committed stays closed.

    Raises:
        Superseded: one did.
    """
    with connect(url, doing="resume a load") as connection:
        lease.fenced(connection, load, lock="update")
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


@contextmanager
def closing(url: str, load: Load, *, retried: bool = False, redact: Callable[[str], str] = str) -> Iterator[None]:
    """Close the load as failed if the body fails. ``redact`` takes secrets out of the message.

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
            code, message = "interrupted", "the run was cancelled; the load after it repeats its work"
        if not (retried and isinstance(error, PipelineError) and error.retryable):
            with suppress(PipelineError):  # the database itself may be what failed
                fail(url, load, code, redact(message))
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
        lease.release(connection, load)
    lease.stop(url, load)


def postpone(url: str, source_name: str, until: datetime) -> None:
    """Note that the source is not to be asked before ``until``. A committed load takes the note back."""
    with connect(url, doing="postpone the next load") as connection:
        connection.execute("update identity.sources set not_before = %s where source_name = %s", (until, source_name))


def postponed(url: str) -> dict[str, datetime]:
    """Of each source that is not to be asked now: when it may be."""
    with connect(url, doing="look which sources may be asked") as connection:
        rows = connection.execute("select source_name, not_before from identity.sources where not_before > clock_timestamp()").fetchall()
    return dict(rows)


@dataclass(frozen=True)
class LastLoad:
    """The newest load of a source, however it ended."""

    load_id: int
    status: str
    finished_at: datetime | None


def read_all_next(url: str, names: Sequence[str]) -> None:
    """Let the next load of these sources begin at the start: they are to read something else than what the marks tell of."""
    with connect(url, doing="take back where the next loads begin") as connection:
        connection.execute("update identity.sources set state_settings = '' where source_name = any(%s)", (list(names),))


def last_load(url: str, source_name: str) -> LastLoad | None:
    """The newest load of a source; None before its first."""
    with connect(url, doing="look at the last load") as connection:
        row = connection.execute(
            "select load_id, status, finished_at from identity.loads where source_name = %s order by load_id desc limit 1", (source_name,)
        ).fetchone()
    return LastLoad(*row) if row else None


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


# -- The commit ---------------------------------------------------------------------------------


def commit(
    url: str,
    load: Load,
    summary: ReadSummary,
    *,
    seen: Iterator[list[str]] | None = None,
    max_deleted_share: float = 0.2,
    whole: bool = True,
) -> dict[str, Any]:
    """Close a load whose parts are all merged and advance the source's mark, with the state beside it.

    ``seen`` yields every external id of a read that shows what is gone: what it does not hold is marked deleted,
    unless that were more than ``max_deleted_share`` of the source's rows or nothing was seen.
    ``whole`` says that the read is known to have been whole; if not, an id has to be absent from two
    full refreshes in a row. A load that is committed already is returned as it is, so this can be
    repeated.

    Returns:
        The load's row of the ledger, with ``row_count``.

    Raises:
        Superseded: a newer load has the source, or the mark moved meanwhile.
        ContractBroken: a part is missing, or the counts do not balance.
    """
    with connect(url, doing="commit the load") as connection:
        row = _commit(connection, load, summary, seen, max_deleted_share, whole=whole)
    lease.stop(url, load)
    return row


def _commit(
    connection: psycopg.Connection,
    load: Load,
    summary: ReadSummary,
    seen: Iterator[list[str]] | None,
    max_deleted_share: float,
    *,
    whole: bool,
) -> dict[str, Any]:
    lease.fenced(connection, load, lock="update")
    row = _row(connection, load)
    if row["status"] == "committed":
        return row
    parts = _parts(connection, load, summary)
    # What a count's name is in one of the three places is its name in all: a part, the read, the ledger.
    totals = {name: sum(part.get(name, 0) for part in parts) + getattr(summary, name, 0) for name in BALANCE}
    if sum(totals.values()) != summary.records_read:
        raise ContractBroken(
            f"{load.source_name}: the counts do not balance ({summary.records_read} read, but "
            f"{' + '.join(f'{count} {name}' for name, count in totals.items())}); the mark stays where it was: please report this"
        )
    deleted, warnings = sum(part["deleted"] for part in parts), list(summary.warnings)
    if conflicting := sum(part["conflicting"] for part in parts):
        warnings.append(
            f"{conflicting} records have the id of another one, other content, and no newer cursor value: one of each id stays; check "
            "that the id is unique in the source, and not rounded"
        )
    _absorb(connection, load)
    if seen is not None:
        swept = sweep(connection, load, seen, max_deleted_share, whole=whole)
        deleted += swept.deleted
        warnings += [swept.warning] if swept.warning else []
    values = totals | {
        "parts": len(parts),
        "records_read": summary.records_read,
        "deleted": deleted,
        "valid_identifiers": sum(part["valid_identifiers"] for part in parts),
        "seconds_merge": sum(part["seconds"] for part in parts),
        "warnings": warnings,
        "cursor_after": _advance(connection, load, summary, row["mark_before"]),
    }
    as_read = ("null_cursor", "source_count", "bytes_read", "pages", "requests", "throttled_seconds", "seconds_read",
               "cursor_column", "cursor_type")  # fmt: skip
    _close(connection, load, values | {name: getattr(summary, name) for name in as_read})
    files.remember(connection, load, summary.files)
    lease.release(connection, load)
    return _row(connection, load)


def _row(connection: psycopg.Connection, load: Load) -> dict[str, Any]:
    with connection.cursor(row_factory=dict_row) as cur:
        row = cur.execute(
            "select l.*, s.row_count from identity.loads l join identity.sources s using (source_name) where l.load_id = %s",
            (load.load_id,),
        ).fetchone()
    if row is None:
        raise PipelineError(f"{load.source_name}: load {load.load_id} is not in the ledger: materialize again from the start")
    return row


def _parts(connection: psycopg.Connection, load: Load, summary: ReadSummary) -> list[dict[str, Any]]:
    """The counts of all parts, which are those that were landed."""
    with connection.cursor(row_factory=dict_row) as cur:
        parts = cur.execute("select * from identity.load_parts where load_id = %s", (load.load_id,)).fetchall()
    if {Part(part["shard"], part["part"]) for part in parts} != {landed.part for landed in summary.parts}:
        raise ContractBroken(
            f"{load.source_name}: {len(parts)} of {len(summary.parts)} parts are merged, so the mark stays where it was: "
            "materialize again (a run retried from failure can lose steps; a new run does not)"
        )
    return parts


def _absorb(connection: psycopg.Connection, load: Load) -> None:
    """Point what was merged in the source at its survivor, now that every record of the load is written.

    What loads that failed since the last commit found counts too: their survivors are unchanged now.
    """
    connection.execute(
        """
        update identity.records r set merged_into = m.winner, changed_at = statement_timestamp(), load_id = %(load)s
        from (
            select distinct on (loser) loser, winner
            from identity.load_parts p join identity.loads l using (load_id), unnest(p.survivors, p.absorbed)
                with ordinality as pair(winner, loser, place)
            where l.source_name = %(source)s and l.load_id > coalesce(
                (select max(c.load_id) from identity.loads c where c.source_name = %(source)s and c.status = 'committed'), 0)
            order by loser, load_id desc, shard desc, part desc, place desc
        ) m
        where r.source_name = %(source)s and r.external_id = m.loser and r.merged_into is distinct from m.winner
        """,
        {"load": load.load_id, "source": load.source_name},
    )


def _close(connection: psycopg.Connection, load: Load, values: dict[str, Any]) -> None:
    """Write ``values`` into the load's row, and count what the source has gained since its last commit.

    Loads that failed in between count too: what they merged stays.
    """
    connection.execute(
        """
        update identity.sources s set not_before = null, row_count = row_count + (
            select coalesce(sum(p.inserted), 0) from identity.load_parts p join identity.loads l using (load_id)
            where l.source_name = s.source_name and l.load_id > coalesce(
                (select max(c.load_id) from identity.loads c where c.source_name = s.source_name and c.status = 'committed'), 0))
        where source_name = %s
        """,
        (load.source_name,),
    )
    columns = sql.SQL(", ").join(sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder(name)) for name in values)
    connection.execute(
        sql.SQL(
            "update identity.loads set status = 'committed', finished_at = clock_timestamp(), error_code = null, error = null, {} "
            "where load_id = %(load_id)s"
        ).format(columns),
        values | {"load_id": load.load_id},
    )


def _advance(connection: psycopg.Connection, load: Load, summary: ReadSummary, found: str | None) -> str | None:
    """Move the mark from where this load ``found`` it, and put the state beside it. Where the mark is now."""
    row = connection.execute(
        "select cursor_column, cursor_type, cursor_after from identity.sources where source_name = %s", (load.source_name,)
    ).fetchone()
    assert row is not None  # noqa: S101 - locked by the caller
    column, kind, after = row
    held = after if (column, kind) == (summary.cursor_column, summary.cursor_type) else None
    if summary.partial:
        return held
    target = None
    if summary.cursor_type is not None:
        target = summary.candidate if summary.mark_may_fall else _higher(summary.cursor_type, held, summary.candidate)
    moved = connection.execute(
        """
        update identity.sources set cursor_column = %s, cursor_type = %s, cursor_after = %s, mapping = %s,
            state = %s, state_settings = %s, state_stored_at = case when %s then clock_timestamp() end,
            fields = case when %s::text[] = '{}' then fields else %s::text[] end, updated_at = clock_timestamp()
        where source_name = %s and token = %s and cursor_after is not distinct from %s
        """,
        (
            summary.cursor_column, summary.cursor_type, target, summary.mapping,
            summary.state, summary.settings, summary.state is not None,
            summary.fields, summary.fields, load.source_name, load.token, found,
        ),
    ).rowcount  # fmt: skip
    if moved != 1:
        raise Superseded(f"{load.source_name}: the mark moved while load {load.load_id} was at work: nothing is lost; materialize again")
    return target


def _higher(kind: CursorType, held: str | None, candidate: str | None) -> str | None:
    try:
        return cursors.higher_of(kind, held, candidate)
    except ConfigurationError:  # somebody wrote into the table: what is not a value of the cursor is no mark
        return candidate
