"""Tokens of the web server's API, as hashes."""

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add a table."""
    op.execute(
        """
        create table identity.tokens (
            name text collate "C" primary key,
            digest bytea not null unique,
            role text not null check (role in ('viewer', 'operator')),
            created_at timestamptz not null default statement_timestamp(),
            expires_at timestamptz not null,
            last_used_at timestamptz
        )
        """
    )
