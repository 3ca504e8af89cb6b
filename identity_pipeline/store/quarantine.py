"""The quarantine: records that could not be merged, each with its reason; keeping, showing and settling them."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.store.database import connect
from identity_pipeline.store.load import Load

STATUSES = ("open", "replayed", "discarded")
_SHOWN = """
    quarantine_id, source_name, load_id, external_id, reason, detail, status, seen, first_seen_at, last_seen_at, resolved_at
"""


class Rejected(NamedTuple):
    """A record that cannot be merged: ``reason`` is ``code: detail``, ``raw`` its JSON, ``digest`` the hash of its content."""

    external_id: str | None
    reason: str
    raw: str
    digest: bytes


def keep(connection: psycopg.Connection, load: Load, rejected: Iterable[Rejected]) -> None:
    """Keep records that cannot be merged. One that is seen again is counted, not kept twice.

    A record that someone discarded stays discarded.
    """
    rows = []
    for external_id, reason, raw, digest in rejected:
        code, _, detail = reason.partition(": ")
        named = external_id[:200] if external_id and external_id.strip() else None
        rows.append((load.source_name, load.load_id, named, code, detail, raw, digest))
    with connection.cursor() as cur:
        cur.executemany(
            """
            insert into identity.quarantine (source_name, load_id, external_id, reason, detail, raw, fingerprint)
            values (%s, %s, %s, %s, %s, %s, %s)
            on conflict (source_name, fingerprint) do update set load_id = excluded.load_id, reason = excluded.reason,
                detail = excluded.detail, seen = quarantine.seen + 1, last_seen_at = statement_timestamp(),
                status = case quarantine.status when 'discarded' then 'discarded' else 'open' end
            """,
            rows,
        )


_FURTHER = """(last_seen_at, quarantine_id) < (
    select q.last_seen_at, q.quarantine_id from identity.quarantine q where q.quarantine_id = %s
)"""


def listing(
    url: str,
    source_name: str | None = None,
    *,
    reason: str | None = None,
    status: str | None = None,
    before: int | None = None,
    limit: int | None = None,
) -> list[dict[str, Any]]:
    """Records in quarantine without their raw fields, newest first; those that come after the one of the id ``before``."""
    given = {"source_name": source_name, "reason": reason, "status": status}
    wanted: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    where: list[sql.Composable] = [sql.SQL("{} = %s").format(sql.Identifier(name)) for name in wanted] or [sql.SQL("true")]
    if before is not None:
        where.append(sql.SQL(_FURTHER))
        wanted["before"] = before
    query = sql.SQL("select {} from identity.quarantine where {} order by last_seen_at desc, quarantine_id desc limit %s").format(
        sql.SQL(_SHOWN), sql.SQL(" and ").join(where)
    )
    with connect(url, doing="list the quarantine") as connection, connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query, (*wanted.values(), limit)).fetchall()


def counts(url: str, *, by_reason: bool = False) -> list[dict[str, Any]]:
    """How many records are ``open`` of each source, or of each source and reason."""
    columns = sql.SQL("source_name, reason" if by_reason else "source_name")
    query = sql.SQL("select {0}, count(*) as open from identity.quarantine where status = 'open' group by {0} order by {0}").format(columns)
    with connect(url, doing="count the quarantine") as connection, connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query).fetchall()


def records(url: str, ids: list[int]) -> list[dict[str, Any]]:
    """These records, each with its ``raw`` fields, in the order of ``ids``.

    Raises:
        ConfigurationError: one of them is not there.
    """
    query = sql.SQL("select {}, raw from identity.quarantine where quarantine_id = any(%s)").format(sql.SQL(_SHOWN))
    with connect(url, doing="look into the quarantine") as connection, connection.cursor(row_factory=dict_row) as cursor:
        found = {row["quarantine_id"]: row for row in cursor.execute(query, (ids,))}
    for each in ids:
        if each not in found:
            raise ConfigurationError(f"there is no record {each} in quarantine: `identity-pipeline quarantine list` shows those that are")
    return [found[each] for each in dict.fromkeys(ids)]


def still_open(url: str, ids: list[int]) -> list[dict[str, Any]]:
    """These records, all of them open.

    Raises:
        ConfigurationError: one of them is not there, or is settled already.
    """
    found = records(url, ids)
    for row in found:
        if row["status"] != "open":
            raise ConfigurationError(f"record {row['quarantine_id']} in quarantine is {row['status']} already: nothing was done")
    return found


def discard(url: str, ids: list[int]) -> int:
    """Settle these records as not wanted, all or none. They stay so when the source shows them again unchanged.

    Raises:
        ConfigurationError: one of them is not there, or is settled already.
    """
    still_open(url, ids)
    with connect(url, doing="discard from the quarantine") as connection:
        return connection.execute(
            """
            update identity.quarantine set status = 'discarded', resolved_at = statement_timestamp()
            where quarantine_id = any(%s) and status = 'open'
            """,
            (ids,),
        ).rowcount
