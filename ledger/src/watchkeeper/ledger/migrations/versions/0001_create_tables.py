"""Create the tables of predictions, labels, spools, reports, episodes, attempts and events."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables that do not exist: MariaDB commits each one, and a try may be repeated."""
    op.create_table(
        "attempts",
        sa.Column("run", sa.String(length=63), nullable=False),
        sa.Column("episode", sa.String(length=80), nullable=True),
        sa.Column("model", sa.String(length=30), nullable=False),
        sa.Column("trigger", sa.String(length=255), nullable=False),
        sa.Column("time", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("run"),
        if_not_exists=True,
    )
    op.create_table(
        "drift_reports",
        sa.Column("model", sa.String(length=30), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("window_end", sa.Float(precision=53), nullable=False),
        sa.Column("window_start", sa.Float(precision=53), nullable=False),
        sa.Column("drifted", sa.Boolean(), nullable=False),
        sa.Column("report", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("model", "version", "window_end"),
        if_not_exists=True,
    )
    op.create_table(
        "episodes",
        sa.Column("id", sa.String(length=80), nullable=False),
        sa.Column("model", sa.String(length=30), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=24), nullable=False),
        sa.Column("onset", sa.Float(precision=53), nullable=False),
        sa.Column("opened", sa.Float(precision=53), nullable=False),
        sa.Column("changed", sa.Float(precision=53), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        if_not_exists=True,
    )
    _add_index("episodes_by_model", "episodes", ["model", "opened"])
    op.create_table(
        "events",
        sa.Column("id", sa.String(length=160), nullable=False),
        sa.Column("model", sa.String(length=30), nullable=False),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("time", sa.Float(precision=53), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        if_not_exists=True,
    )
    _add_index("events_by_model", "events", ["model", "time"])
    op.create_table(
        "labels",
        sa.Column("prediction", sa.String(length=32), nullable=False),
        sa.Column("row", sa.Integer(), nullable=False),
        sa.Column("model", sa.String(length=30), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("value", sa.Float(precision=53), nullable=False),
        sa.Column("time", sa.Float(precision=53), nullable=False),
        sa.Column("client", sa.String(length=255), nullable=False),
        sa.PrimaryKeyConstraint("prediction", "row"),
        if_not_exists=True,
    )
    _add_index("labels_by_version", "labels", ["model", "version", "time"])
    op.create_table(
        "predictions",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("model", sa.String(length=30), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("protocol", sa.String(length=8), nullable=False),
        sa.Column("client", sa.String(length=255), nullable=False),
        sa.Column("time", sa.Float(precision=53), nullable=False),
        sa.Column("latency", sa.Float(precision=53), nullable=False),
        sa.Column("status", sa.String(length=32), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("inputs", sa.JSON(), nullable=False),
        sa.Column("outputs", sa.JSON(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("flags", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        if_not_exists=True,
    )
    _add_index("predictions_by_version", "predictions", ["model", "version", "time"])
    op.create_table(
        "spools",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("model", sa.String(length=30), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("shipped_until", sa.Float(precision=53), nullable=False),
        sa.Column("lost", sa.BigInteger(), nullable=False),
        sa.Column("closed", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        if_not_exists=True,
    )


def _add_index(name: str, table: str, columns: list[str]) -> None:
    if name not in {i["name"] for i in sa.inspect(op.get_bind()).get_indexes(table)}:
        op.create_index(name, table, columns)
