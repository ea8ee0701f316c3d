"""The connection to the ledger, and its migrations."""

from contextlib import AbstractContextManager
from pathlib import Path

import alembic.command
import alembic.config
from sqlalchemy import Connection

from watchkeeper.contracts.folders import make_private
from watchkeeper.ledger.engines import open_engine


class Ledger:
    """One database, reached by its SQLAlchemy URL.

    Every call is one transaction; errors of the database come out as
    ``sqlalchemy.exc.SQLAlchemyError``, and callers hold what they have and try again. A database
    that is down, slow or locked is such an error too, after the time-outs of ``engines``.
    """

    def __init__(self, url: str) -> None:
        """Raises SettingsError: no ledger is kept at such a URL."""
        self.engine = open_engine(url)
        self._reader = self.engine.execution_options(read_only=True)

    def read(self) -> AbstractContextManager[Connection]:
        """Open a transaction that only reads, and so waits for no writer."""
        return self._reader.begin()

    def begin(self) -> AbstractContextManager[Connection]:
        """Open a transaction that writes; it commits at the end of its block."""
        return self.engine.begin()

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def migrate(url: str) -> None:
    """Bring the tables of the database at ``url`` to this release; harmless when they are.

    Several may do so at once: one works, and the others find it done.
    """
    engine = open_engine(url, patient=True)
    if engine.dialect.name == "sqlite" and engine.url.database:
        make_private(Path(engine.url.database).parent)
    config = alembic.config.Config()
    # Alembic reads "%" as the beginning of a placeholder.
    migrations = str(Path(__file__).parent / "migrations").replace("%", "%%")
    config.set_main_option("script_location", migrations)
    config.attributes["engine"] = engine
    try:
        alembic.command.upgrade(config, "head")
    finally:
        engine.dispose()
