"""The sweep: marks as deleted what a full refresh did not see.

No plan here may depend on statistics: the records may have been filled a moment ago, and a nested
loop over 20,000 of them takes minutes. A set difference is sorted or hashed, whatever is known.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import psycopg

from identity_pipeline.store.load import Load


@dataclass(frozen=True)
class Swept:
    """How many rows were marked as deleted, and what a person should know of those that were not."""

    deleted: int = 0
    warning: str | None = None


def sweep(connection: psycopg.Connection, load: Load, seen: Iterator[list[str]], max_deleted_share: float, *, whole: bool) -> Swept:
    """Mark the rows of the source whose ids are not among ``seen``, unless that were too many or nothing was seen.

    ``whole`` says that the read is known to have been whole: then one absence is enough. Otherwise a
    row is marked when the full refresh before this one did not see it either.
    """
    connection.execute("set local enable_nestloop = off")
    connection.execute('create temp table seen (external_id text collate "C") on commit drop')
    with connection.cursor() as cur, cur.copy("copy pg_temp.seen from stdin") as copy:
        for ids in seen:
            for external_id in ids:
                copy.write_row((external_id,))
    connection.execute(
        """
        create temp table unseen on commit drop as
        select external_id from identity.records where source_name = %s and deleted_at is null and merged_into is null
        except select external_id from pg_temp.seen
        """,
        (load.source_name,),
    )
    connection.execute("analyze pg_temp.seen")
    connection.execute("analyze pg_temp.unseen")
    swept = _mark(connection, load, max_deleted_share, whole=whole)
    connection.execute(
        """
        update identity.records r set absent_since_load = null from pg_temp.seen s
        where r.source_name = %s and r.external_id = s.external_id and r.absent_since_load is not null
        """,
        (load.source_name,),
    )
    connection.execute("set local enable_nestloop to default")
    return swept


def _mark(connection: psycopg.Connection, load: Load, max_deleted_share: float, *, whole: bool) -> Swept:
    counts = connection.execute(
        """
        select (select count(*) from pg_temp.unseen), (select count(*) from pg_temp.seen),
               (select count(*) from identity.records where source_name = %s and deleted_at is null)
        """,
        (load.source_name,),
    ).fetchone()
    assert counts is not None  # noqa: S101 - aggregates
    gone, met, live = counts
    if not gone:
        return Swept()
    if not met or gone > max_deleted_share * live:
        return Swept(
            warning=f"the full refresh did not see {gone} of {live} rows, more than max_deleted_share {max_deleted_share:g} allows: "
            "none was marked deleted; check the source, then raise max_deleted_share of the source for one full refresh"
        )
    deleted = connection.execute(
        """
        update identity.records r set deleted_at = statement_timestamp(), changed_at = statement_timestamp(), record_hash = null,
            load_id = %s
        from pg_temp.unseen u
        where r.source_name = %s and r.external_id = u.external_id and (%s or r.absent_since_load is not null)
        """,
        (load.load_id, load.source_name, whole),
    ).rowcount
    if deleted == gone:
        return Swept(deleted)
    waiting = connection.execute(
        """
        update identity.records r set absent_since_load = %s from pg_temp.unseen u
        where r.source_name = %s and r.external_id = u.external_id and r.deleted_at is null
        """,
        (load.load_id, load.source_name),
    ).rowcount
    return Swept(
        deleted,
        f"the full refresh did not see {waiting} rows for the first time, and the source does not say whether it gave all it has: "
        "they are marked deleted if the next full refresh does not see them either",
    )
