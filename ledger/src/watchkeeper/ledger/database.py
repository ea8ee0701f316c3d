"""The connection to the ledger, and its migrations."""

from contextlib import AbstractContextManager
from pathlib import Path

import alembic.command
import alembic.config
from sqlalchemy import Connection

from watchkeeper.core.folders import make_private
from watchkeeper.ledger.engines import open_engine


class Ledger:
    """One database, opened by its SQLAlchemy URL.

    Every call is one transaction. A database that is down, slow or locked raises ``LedgerError``
    (:mod:`watchkeeper.ledger.errors`) after the time limits in :mod:`watchkeeper.ledger.engines`;
    callers try again later::

        ledger = Ledger("sqlite:///ledger.db")
        for event in history(ledger, "pump-failure"):
            print(event.reason)

    Args:
        url: The URL, for example ``postgresql+psycopg://user:password@host/database``.

    Raises:
        SettingsError: the URL is malformed, or its database is not supported.
    """

    def __init__(self, url: str) -> None:
        self.engine = open_engine(url)
        self._reader = self.engine.execution_options(read_only=True)

    def read(self) -> AbstractContextManager[Connection]:
        """Open a transaction that only reads. It does not wait for writers."""
        return self._reader.begin()

    def write(self) -> AbstractContextManager[Connection]:
        """Open a transaction that writes. It commits at the end of its block."""
        return self.engine.begin()

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def migrate(url: str) -> None:
    """Migrate the tables of a database to this release. Safe to repeat.

    Several processes may migrate at the same time: one does it, the others wait.

    Raises:
        SettingsError: the URL is malformed, or its database is not supported.
        LedgerError: the database does not answer.
    """
    engine = open_engine(url, for_migration=True)
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
