"""Add superseded attempts, gaps, subjects, deletions and removals."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

SECONDS = sa.Float(precision=53)


def upgrade() -> None:
    """Add tables and columns; what a killed migration has added already stays."""
    # MySQL and MariaDB commit every statement, so a part may exist after a failed try.
    known = sa.inspect(op.get_bind()).get_table_names()
    tables = {
        "superseded": (
            sa.Column("id", sa.String(32), primary_key=True),
            sa.Column("attempt", sa.Integer(), primary_key=True, autoincrement=False),
            sa.Column("version", sa.Integer(), primary_key=True, autoincrement=False),
            sa.Column("model", sa.String(30), nullable=False),
            sa.Column("protocol", sa.String(8), nullable=False),
            sa.Column("client", sa.String(255), nullable=False),
            sa.Column("time", SECONDS, nullable=False),
            sa.Column("latency", SECONDS, nullable=False),
            sa.Column("status", sa.String(32), nullable=False),
            sa.Column("error", sa.Text()),
            sa.Column("subject", sa.String(255), nullable=False),
        ),
        "gaps": (
            sa.Column("spool", sa.String(32), primary_key=True),
            sa.Column("segment", sa.Integer(), primary_key=True, autoincrement=False),
            sa.Column("position", sa.BigInteger(), primary_key=True, autoincrement=False),
            sa.Column("model", sa.String(30), nullable=False),
            sa.Column("version", sa.Integer(), nullable=False),
            sa.Column("kind", sa.String(8), nullable=False),
            sa.Column("protocol", sa.String(8), nullable=False),
            sa.Column("count", sa.BigInteger(), nullable=False),
            sa.Column("since", SECONDS, nullable=False),
            sa.Column("until", SECONDS, nullable=False),
        ),
        "deletions": (
            sa.Column("id", sa.String(32), primary_key=True),
            sa.Column("model", sa.String(30), nullable=False),
            sa.Column("subject", sa.String(255), nullable=False),
            sa.Column("requested", SECONDS, nullable=False),
            sa.Column("finished", SECONDS),
            sa.Column("predictions", sa.BigInteger(), nullable=False),
            sa.Column("superseded", sa.BigInteger(), nullable=False),
            sa.Column("labels", sa.BigInteger(), nullable=False),
        ),
        "removals": (
            sa.Column("model", sa.String(30), primary_key=True),
            sa.Column("day", sa.String(10), primary_key=True),
            sa.Column("predictions", sa.BigInteger(), nullable=False),
            sa.Column("superseded", sa.BigInteger(), nullable=False),
            sa.Column("labels", sa.BigInteger(), nullable=False),
            sa.Column("gaps", sa.BigInteger(), nullable=False),
        ),
    }
    for name, columns in tables.items():
        if name not in known:
            op.create_table(name, *columns)
    _add_column(
        "predictions", sa.Column("subject", sa.String(255), nullable=False, server_default="")
    )
    _add_column("spools", sa.Column("seen", SECONDS, nullable=False, server_default="0"))
    _add_index("predictions", "predictions_by_time", "model", "time")
    _add_index("predictions", "predictions_by_subject", "model", "subject")
    _add_index("labels", "labels_by_time", "model", "time")
    _add_index("superseded", "superseded_by_version", "model", "version", "time")
    _add_index("superseded", "superseded_by_time", "model", "time")
    _add_index("superseded", "superseded_by_subject", "model", "subject")
    _add_index("gaps", "gaps_by_model", "model", "since")
    _add_index("deletions", "deletions_by_model", "model", "finished")
    _compare_exactly()


def _add_column(table: str, column: sa.Column[str] | sa.Column[float]) -> None:
    if column.name not in {c["name"] for c in sa.inspect(op.get_bind()).get_columns(table)}:
        op.add_column(table, column)


def _add_index(table: str, name: str, *columns: str) -> None:
    if name not in {i["name"] for i in sa.inspect(op.get_bind()).get_indexes(table)}:
        op.create_index(name, table, list(columns))


def _compare_exactly() -> None:
    """Let texts differ by case, accent and trailing blanks, as they do on the other databases."""
    dialect = op.get_bind().dialect
    if dialect.name not in ("mysql", "mariadb"):
        return
    # Both of them compare without padding; each knows only its own name for that.
    collation = "utf8mb4_nopad_bin" if dialect.is_mariadb else "utf8mb4_0900_bin"  # type: ignore[attr-defined]
    for table in sa.inspect(op.get_bind()).get_table_names():
        if table != "alembic_version":
            op.execute(
                f"ALTER TABLE `{table}` CONVERT TO CHARACTER SET utf8mb4 COLLATE {collation}"
            )
