"""What the ledger says, for people to read: loads, and the last one of each source."""

from typing import Any

from psycopg import sql
from psycopg.rows import dict_row

from identity_pipeline.store.database import connect

_DEAD = """
    select l.load_id, l.source_name, l.run_id, l.started_at, e.heartbeat_at
    from identity.loads l left join identity.leases e using (source_name, load_id)
    where l.status = 'running' and greatest(e.heartbeat_at, l.started_at) < clock_timestamp() - make_interval(secs => %s)
    order by l.load_id
"""


def _rows(url: str, doing: str, query: sql.Composed | str, values: tuple[Any, ...] = ()) -> list[dict[str, Any]]:
    with connect(url, doing=doing) as connection, connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query if isinstance(query, sql.Composed) else query.encode(), values).fetchall()


def loads(
    url: str, source_name: str | None = None, *, run_id: str | None = None, before: int | None = None, limit: int | None = None
) -> list[dict[str, Any]]:
    """Loads, newest first, with every column of the ledger; those before the load of that id."""
    wanted = {name: value for name, value in {"source_name": source_name, "run_id": run_id}.items() if value is not None}
    where = [sql.SQL("(%s::bigint is null or load_id < %s)"), *(sql.SQL("{} = %s").format(sql.Identifier(name)) for name in wanted)]
    query = sql.SQL("select * from identity.loads where {} order by load_id desc limit %s").format(sql.SQL(" and ").join(where))
    return _rows(url, "list the loads", query, (before, before, *wanted.values(), limit))


def latest(url: str) -> dict[str, dict[str, Any]]:
    """Of each source that was ever loaded: its mark, its rows, its last load, and when the last one was committed.

    The state beside the mark is shown to nobody: here are a fingerprint of it and since when it is kept.
    """
    query = """
        select s.source_name, s.cursor_after as mark, s.row_count, l.load_id, l.status, l.started_at, l.finished_at, l.inserted,
               l.updated, l.error, s.state_stored_at,
               left(encode(sha256(convert_to(s.state, 'UTF8')), 'hex'), 12) as state_fingerprint,
               (select max(finished_at) from identity.loads c
                where c.source_name = s.source_name and c.status = 'committed') as committed_at
        from identity.sources s left join lateral (
            select * from identity.loads l where l.source_name = s.source_name order by load_id desc limit 1
        ) l on true
    """
    return {row["source_name"]: row for row in _rows(url, "list the sources", query)}


def sizes(url: str, most: int) -> dict[str, list[int]]:
    """Of each source how many records its last loads inserted or updated, at most so many of them, the oldest first."""
    query = """
        select source_name, array_agg(changed order by load_id) as sizes from (
            select source_name, load_id, inserted + updated as changed,
                   row_number() over (partition by source_name order by load_id desc) as back
            from identity.loads where status = 'committed'
        ) l where back <= %s group by source_name
    """
    return {row["source_name"]: row["sizes"] for row in _rows(url, "list the sources", query, (most,))}


def dead_loads(url: str, after: float) -> list[dict[str, Any]]:
    """Loads that count as running but gave no sign of life for ``after`` seconds."""
    return _rows(url, "look for dead loads", _DEAD, (after,))
