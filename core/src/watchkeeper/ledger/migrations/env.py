"""Alembic's entry: run the migrations on the engine that the caller gives."""

from alembic import context

from watchkeeper.ledger.tables import metadata

with context.config.attributes["engine"].connect() as connection:
    context.configure(connection=connection, target_metadata=metadata)
    with context.begin_transaction():
        context.run_migrations()
