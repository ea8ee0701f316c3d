"""${message}."""

from alembic import op
import sqlalchemy as sa

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    """Add tables and columns. Remove only what the previous release does not use."""
    ${upgrades if upgrades else "pass"}
