"""State beside the mark, parts of shards, absence from a full refresh; rows are counted at the commit."""

from alembic import op

revision = "0002"
down_revision = "0001"

_STATEMENTS = (
    """
    alter table identity.sources
        add column state text,
        add column state_settings text,
        add column state_stored_at timestamptz,
        add column not_before timestamptz
    """,
    "alter table identity.records add column absent_since_load bigint",
    "alter table identity.loads add column source_count bigint",
    """
    alter table identity.load_parts
        add column shard int not null default 0,
        add column conflicting bigint not null default 0,
        alter column fields set default '{}',
        drop constraint load_parts_pkey,
        add primary key (load_id, shard, part)
    """,
    # Loads that failed after the last commit are counted by the next one.
    """
    update identity.sources s set row_count = row_count - (
        select coalesce(sum(p.inserted), 0) from identity.load_parts p join identity.loads l using (load_id)
        where l.source_name = s.source_name and l.load_id > coalesce(
            (select max(c.load_id) from identity.loads c where c.source_name = s.source_name and c.status = 'committed'), 0))
    """,
)


def upgrade() -> None:
    """Add columns; widen the key of the parts."""
    for statement in _STATEMENTS:
        op.execute(statement)
