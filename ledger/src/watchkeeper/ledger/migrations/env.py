"""Run the migrations on the engine of the caller, one caller at a time. Alembic executes this."""

from alembic import context

from watchkeeper.ledger.engines import wait_for_other_migrations
from watchkeeper.ledger.tables import metadata

with context.config.attributes["engine"].begin() as connection:
    wait_for_other_migrations(connection)
    context.configure(connection=connection, target_metadata=metadata)
    context.run_migrations()
