"""Add the live losses of labelled rows, and what has opened an episode."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the table and the column, unless a killed migration has done so."""
    inspector = sa.inspect(op.get_bind())
    if not inspector.has_table("concept_blocks"):
        seconds = sa.Float(53)
        op.create_table(
            "concept_blocks",
            sa.Column("model", sa.String(30), primary_key=True),
            sa.Column("version", sa.Integer, primary_key=True),
            sa.Column("name", sa.String(63), primary_key=True),
            sa.Column("until", seconds, primary_key=True),
            sa.Column("since", seconds, nullable=False),
            sa.Column("rows", sa.Integer, nullable=False),
            sa.Column("labelled", sa.Integer, nullable=False),
            sa.Column("loss", sa.Float(53)),
            sa.Column("skipped", sa.String(255), nullable=False),
        )
    if "cause" not in {column["name"] for column in inspector.get_columns("episodes")}:
        cause = sa.Column("cause", sa.String(24), nullable=False, server_default="data")
        op.add_column("episodes", cause)
