"""Add digests and request ids of forgotten subjects, and an index of events by their kind."""

import hashlib

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add tables and columns; what a killed migration has added already stays."""
    found = sa.inspect(op.get_bind())
    if not found.has_table("forgotten"):
        dialect = op.get_bind().dialect
        exact = "utf8mb4_nopad_bin" if getattr(dialect, "is_mariadb", False) else "utf8mb4_0900_bin"
        op.create_table(
            "forgotten",
            sa.Column("id", sa.String(32), primary_key=True),
            sa.Column("model", sa.String(30), nullable=False),
            sa.Column("time", sa.Float(precision=53), nullable=False),
            mysql_charset="utf8mb4",
            mysql_collate=exact,
            mariadb_charset="utf8mb4",
            mariadb_collate=exact,
        )
    if "digest" not in {c["name"] for c in found.get_columns("deletions")}:
        op.add_column(
            "deletions", sa.Column("digest", sa.String(64), nullable=False, server_default="")
        )
    _fill_digests()
    for table, name, columns in (
        ("forgotten", "forgotten_by_time", ["model", "time"]),
        ("deletions", "deletions_by_digest", ["model", "digest"]),
        ("events", "events_by_kind", ["model", "kind", "time"]),
    ):
        if name not in {i["name"] for i in sa.inspect(op.get_bind()).get_indexes(table)}:
            op.create_index(name, table, columns)


def _fill_digests() -> None:
    """Fill the digests of pending deletions. The subjects of finished ones are not known."""
    names = ("id", "model", "subject", "digest")
    d = sa.table("deletions", *(sa.column(name, sa.String) for name in names))
    pending = sa.select(d.c.id, d.c.model, d.c.subject).where(d.c.subject != "", d.c.digest == "")
    for row in op.get_bind().execute(pending).all():
        digest = hashlib.sha256(f"{row.model}\0{row.subject}".encode()).hexdigest()
        op.execute(d.update().where(d.c.id == row.id).values(digest=digest))
