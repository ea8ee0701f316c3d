"""Add the content of the version that a spool belongs to."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the column, unless a killed migration has added it already."""
    found = sa.inspect(op.get_bind()).get_columns("spools")
    if "digest" not in {column["name"] for column in found}:
        op.add_column("spools", sa.Column("digest", sa.String(64)))
