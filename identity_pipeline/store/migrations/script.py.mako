"""${message}."""

from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    """Additive only: the version before must keep running beside this one."""
    ${upgrades if upgrades else "op.execute('')"}
