"""The connection to the ledger, and its migrations."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import alembic.command
import alembic.config
from sqlalchemy import Connection, create_engine, event, make_url
from sqlalchemy.engine import Engine

BUSY_SECONDS = 10


class Ledger:
    """One database, reached by its SQLAlchemy URL.

    Every call is one transaction; errors of the database come out as
    ``sqlalchemy.exc.SQLAlchemyError``, and callers hold what they have and try again.
    """

    def __init__(self, url: str) -> None:
        self.engine = _engine(url)
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
    """Bring the tables of the database at ``url`` to this release; harmless when they are."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    config = alembic.config.Config()
    # Alembic reads "%" as the beginning of a placeholder.
    migrations = str(Path(__file__).parent / "migrations").replace("%", "%%")
    config.set_main_option("script_location", migrations)
    engine = config.attributes["engine"] = _engine(url)
    try:
        alembic.command.upgrade(config, "head")
    finally:
        engine.dispose()


def _engine(url: str) -> Engine:
    backend = make_url(url).get_backend_name()
    if backend != "sqlite":
        return create_engine(
            url,
            hide_parameters=True,
            pool_pre_ping=True,
            pool_size=2,
            max_overflow=2,
            pool_timeout=10,
        )
    # A connection stays open: closing the last one makes SQLite write its whole log back.
    engine = create_engine(
        url, pool_size=1, hide_parameters=True, connect_args={"timeout": BUSY_SECONDS}
    )

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: object) -> None:
        # Several processes write: readers must not block them, and a transaction must
        # take its lock at once, or two that read before they write would deadlock.
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        only_reads = connection.get_execution_options().get("read_only", False)
        connection.exec_driver_sql("BEGIN" if only_reads else "BEGIN IMMEDIATE")

    return engine
