"""Add the mark of synthetic requests."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the column, unless a killed migration has added it already."""
    known = {column["name"] for column in sa.inspect(op.get_bind()).get_columns("predictions")}
    if "synthetic" not in known:
        op.add_column(
            "predictions",
            sa.Column("synthetic", sa.Boolean(), nullable=False, server_default=sa.false()),
        )
