"""Add the names of labels, so that a row can have a label for each of its truths."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

KEY = ["prediction", "row", "name"]


def upgrade() -> None:
    """Add the column and make it a part of the key, unless a killed migration has done so.

    A release that does not know the column writes and reads the empty name.
    """
    inspector = sa.inspect(op.get_bind())
    column = sa.Column("name", sa.String(63), nullable=False, server_default="")
    known = {found["name"] for found in inspector.get_columns("labels")}
    key = inspector.get_pk_constraint("labels")
    if op.get_bind().dialect.name == "sqlite":
        # SQLite cannot change a key, so the table is written again, in one transaction.
        if "name" not in known:
            named = {"pk": "pk_%(table_name)s"}  # Alembic drops a key by its name
            with op.batch_alter_table("labels", naming_convention=named) as batch:
                batch.add_column(column)
                batch.drop_constraint("pk_labels", type_="primary")
                batch.create_primary_key("pk_labels", KEY)
        return
    if "name" not in known:
        op.add_column("labels", column)
    if key["constrained_columns"] == KEY:
        return
    if op.get_bind().dialect.name == "postgresql":
        names = ", ".join(KEY)
        op.execute(f'ALTER TABLE labels DROP CONSTRAINT "{key["name"]}", ADD PRIMARY KEY ({names})')
    else:
        names = ", ".join(f"`{name}`" for name in KEY)
        op.execute(f"ALTER TABLE labels DROP PRIMARY KEY, ADD PRIMARY KEY ({names})")
