"""What is kept of a file stands in columns: size and time as listed, hash, how it was read."""

from alembic import op

revision = "0006"
down_revision = "0005"

_STATEMENTS = (
    """
    alter table identity.files
        add column size bigint,
        add column modified timestamptz,
        add column sha256 text not null default '',
        add column rules text not null default '',
        add column cursor_column text,
        add column cursor_lower text
    """,
    # Until now they stood as JSON in place of the version.
    r"""
    update identity.files set
        sha256 = coalesce(version::jsonb ->> 'sha256', ''), rules = coalesce(version::jsonb ->> 'rules', ''),
        cursor_column = version::jsonb ->> 'column', cursor_lower = version::jsonb ->> 'lower',
        version = coalesce(version::jsonb ->> 'version', '')
    where version like '{%'
    """,
)


def upgrade() -> None:
    """Add columns and fill them."""
    for statement in _STATEMENTS:
        op.execute(statement)
