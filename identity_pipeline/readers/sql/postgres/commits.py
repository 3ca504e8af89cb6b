"""Late commits: rows that become visible below the mark, because a row's time or number is older than its commit.

A transaction that began before a read looked and commits after it brings rows whose cursor the mark
may have passed. Two ways close that:

- The snapshot. A read keeps ``pg_snapshot_xmin`` of its own snapshot; the next one asks, besides the
  window, for every row whose ``xmin`` is not older. Whatever commits after a snapshot has an id at or
  above its xmin, subtransactions and prepared ones too, so nothing is lost whatever the cursor is
  and whatever the role may see. No index serves it: 1,000,000 rows (121 MB) take 0.2 s where the
  window alone takes 1 ms by an index and 0.5 to 0.9 s without one.
- Holding back. The mark stays behind the start of every open transaction. It costs nothing, but it
  needs a role that sees them (pg_read_all_stats), a cursor that is a time, the primary, no prepared
  transaction (its start is not known), and rows that are written here.

Small tables are always read by snapshot, large ones where holding back is not known to be right,
huge ones and what has no row versions of its own (a view, a foreign table) never: if nothing holds
the mark back there, the load warns.

A row shows 32 bits of its id. They are widened to the largest id below the reading snapshot's xmax
that ends in them. The true id is one of those, so a frozen row of an earlier epoch may be read once
too often, and no new one is ever taken for old.
"""

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, LiteralString

from identity_pipeline.core.window import Window
from identity_pipeline.readers.sql.catalog import Table
from identity_pipeline.readers.sql.cursor import FollowedColumn
from identity_pipeline.readers.sql.engine import Look
from identity_pipeline.readers.sql.postgres.session import Connection

SMALL = 2**30
"""Bytes of a table that is scanned without a thought: some seconds."""
HUGE = 16 * 2**30
"""Bytes beyond which a table is never scanned for late commits: minutes."""

# A transaction that has not written yet has no id, and its rows will carry its start all the same.
_WRITERS = """
    SELECT now() AS now,
           least(now(), min(xact_start) FILTER (WHERE backend_xid IS NOT NULL)) AS writing,
           least(now(), min(xact_start)) AS open,
           pg_has_role('pg_read_all_stats', 'USAGE') AS sees_all,
           pg_is_in_recovery() AS standby,
           EXISTS (SELECT FROM pg_prepared_xacts WHERE database = current_database()) AS prepared,
           pg_snapshot_xmin(pg_current_snapshot())::text AS xmin, pg_snapshot_xmax(pg_current_snapshot())::text AS xmax,
           has_function_privilege('pg_control_system()', 'EXECUTE')
               AND has_function_privilege('pg_control_checkpoint()', 'EXECUTE') AS identifiable
    FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type IS DISTINCT FROM 'autovacuum worker'
"""
_CLUSTER = """
    SELECT system_identifier::text AS cluster, timeline_id AS timeline FROM pg_control_system(), pg_control_checkpoint()
"""
# All that is read under this name: a table, its partitions and heirs. Only a heap keeps the ids of
# transactions; what a subscription, a refresh or another server writes was begun where nobody here sees it.
_STORAGE = """
    WITH RECURSIVE tree(oid, relkind, relam, readable) AS (
        SELECT c.oid, c.relkind, c.relam, has_column_privilege(c.oid, (-2)::int2, 'SELECT')
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = %s
        UNION
        SELECT c.oid, c.relkind, c.relam, true
        FROM tree JOIN pg_inherits i ON i.inhparent = tree.oid JOIN pg_class c ON c.oid = i.inhrelid
    )
    SELECT coalesce(sum(pg_relation_size(tree.oid)), 0)::int8 AS bytes,
           coalesce(max(pg_relation_size(tree.oid)), 0)::int8 AS largest, current_setting('block_size')::int AS page,
           coalesce(bool_and(relkind = 'p' OR relkind IN ('r', 'm') AND amname = 'heap'), false) AS versioned,
           coalesce(bool_and(readable), false) AS readable,
           coalesce(bool_and(relkind IN ('r', 'p', 'v')), false)
               AND NOT EXISTS (SELECT FROM pg_subscription_rel JOIN tree t ON t.oid = srrelid) AS written_here
    FROM tree LEFT JOIN pg_am a ON a.oid = relam
"""
_NEWEST: LiteralString = "(SELECT pg_snapshot_xmax(pg_current_snapshot())::text::int8)"
_AGE: LiteralString = "(SELECT pg_snapshot_xmax(pg_current_snapshot())::text::int8 - current_setting('identity.since')::int8)"


def committed_since(xmin: LiteralString = "xmin", newest: LiteralString = _NEWEST, age: LiteralString = _AGE) -> LiteralString:
    """A condition, true for a row whose id is not older than ``newest`` by more than ``age``.

    ``newest`` must be the xmax of the very snapshot that shows the row. Ids below 3 are no
    transaction's: such a row was always there.
    """
    return f"({xmin}::text::int8 >= 3 AND ({newest} - {xmin}::text::int8) % 4294967296 <= {age})"


@dataclass(frozen=True)
class Snapshot:
    """What a read keeps for the next one. ``held`` says that its mark stayed behind all that was open."""

    cluster: str
    timeline: int
    xmin: int
    xmax: int
    held: bool

    def __str__(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, text: str | None) -> "Snapshot | None":
        """The snapshot that was kept; None if there is none that can be read."""
        try:
            kept = json.loads(text or "{}")
            return cls(str(kept["cluster"]), int(kept["timeline"]), int(kept["xmin"]), int(kept["xmax"]), kept["held"] is True)
        except (ValueError, TypeError, KeyError):
            return None

    def continues(self, kept: "Snapshot", *, standby: bool) -> bool:
        """True if ids count on from ``kept``: the same cluster, not set back. A standby may lag behind another."""
        return (self.cluster, self.timeline) == (kept.cluster, kept.timeline) and (standby or self.xmax >= kept.xmax)


def look(connection: Connection, table: Table, followed: FollowedColumn | None, window: Window) -> Look:
    """How this read, and the next one, do not miss what is committed late."""
    writers = connection.execute(_WRITERS).fetchone() or {}
    if followed is None:
        return Look(writers["now"], writers["now"])
    storage = stored(connection, table)
    cluster = writers["identifiable"] and connection.execute(_CLUSTER).fetchone()
    scannable = bool(cluster) and storage["versioned"] and storage["readable"] and storage["bytes"] <= HUGE
    small = scannable and storage["bytes"] <= SMALL
    holds = writers["sees_all"] and not writers["standby"] and not writers["prepared"] and storage["written_here"]
    held = holds and followed.kind not in {"int", "text"}
    # A reader that stays open for days would hold back the mark for days: only where nothing else helps.
    clock: datetime = writers["now"]
    settled: datetime = writers["open"] if held and not small else writers["writing"]
    warnings = () if held or scannable else (_unprotected(table, followed, writers, storage),)
    if not scannable:
        return Look(clock, settled, warnings=warnings)
    assert cluster  # noqa: S101 - scannable
    now = Snapshot(**cluster, xmin=int(writers["xmin"]), xmax=int(writers["xmax"]), held=held and not small)
    kept = None if window.lower is None else Snapshot.of(window.state)
    if kept is None or (kept.held and not small):
        return Look(clock, settled, str(now))
    if now.continues(kept, standby=writers["standby"]):
        return Look(clock, settled, str(now), since=str(kept.xmin))
    moved = f"{table} is on another server than at the last load, or that was restored: it is read whole"
    return Look(clock, settled, str(now), whole=True, warnings=(moved,))


def stored(connection: Connection, table: Table) -> dict[str, Any]:
    """How a table is stored, with its partitions and heirs.

    That is ``bytes`` of all, those of the ``largest`` one and of a ``page``; whether all of it is ``versioned``, with system columns
    that are ``readable``, and ``written_here``.
    """
    return connection.execute(_STORAGE, table.name).fetchone() or {}


def _unprotected(table: Table, followed: FollowedColumn, writers: dict[str, Any], storage: dict[str, Any]) -> str:
    if storage["versioned"] and not storage["readable"] and storage["bytes"] <= HUGE:
        remedy = f"GRANT SELECT ON {table} (the table, not single columns) TO the user of the connection"
    elif storage["written_here"] and not writers["standby"] and not writers["sees_all"] and followed.kind not in {"int", "text"}:
        remedy = "GRANT pg_read_all_stats TO the user of the connection"
    else:
        remedy = "read the table itself instead of a view, if it is one, or load with full_refresh now and then"
    overlap = "" if followed.kind == "text" else ", or set an overlap as long as the longest transaction"
    return f"{table}: a row that is committed long after the {followed.name} it carries can be missed: {remedy}{overlap}"
