"""When the next request of each limit of a source may go, for all runs that share it."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add a table. It holds digests of credentials and times; losing it costs nothing."""
    op.execute("create table identity.paces (digest bytea primary key, next_at timestamptz not null)")
