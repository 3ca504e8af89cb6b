"""Each part keeps which records were merged in the source: they are applied at the commit."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add two columns, of one length in each row."""
    op.execute(
        """
        alter table identity.load_parts
            add column survivors text[] not null default '{}',
            add column absorbed text[] not null default '{}'
        """
    )
