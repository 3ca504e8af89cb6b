"""Credentials that tokens are got with: whose they are, how they stand, when they were used; and the connects under way."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add columns and a table. What stands in the clear tells of a credential; with none of it can anybody sign in."""
    op.execute(
        """
        alter table identity.credentials
            alter column status set default 'ok',
            add column vendor text,
            add column source_type text,
            add column account text,
            add column account_id text,
            add column scopes text[] not null default '{}',
            add column reason text,
            add column valid_until timestamptz,
            add column expires_at timestamptz,
            add column asked_at timestamptz,
            add column refreshed_at timestamptz,
            add column last_used_at timestamptz
        """
    )
    op.execute("update identity.credentials set status = 'ok' where status = 'active'")
    op.execute(
        """
        create table identity.grants_begun (
            digest bytea primary key,
            key_id text not null,
            nonce bytea not null,
            ciphertext bytea not null,
            begun_at timestamptz not null default statement_timestamp()
        )
        """
    )
