"""Transactions on the operational database, with errors that users understand."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, StaticPool, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from watchkeeper.training import CannotTrainError, SourceUnavailableError, table_file

_CONNECT_SECONDS = 10
_LOCK_SECONDS = 30
ANSWER_SECONDS = 1800  # for one statement; the first aggregation of a long history is slow
_UNKNOWN_COLUMN = 1054  # MySQL and MariaDB; the driver raises an OperationalError for it


class ConflictError(SourceUnavailableError):
    """Another transaction came first; this one was rolled back and can be tried again."""


@contextmanager
def transaction(url: str, purpose: str) -> Iterator[Connection]:
    """Open a connection with a transaction, and commit when the block ends without an error.

    Args:
        url: SQLAlchemy URL of the database, or of a table in a file, see
            :mod:`watchkeeper.training.table_file`. Nothing is written into the file.
        purpose: for error messages, which read "<url without password>: cannot <purpose>: …".

    Raises:
        CannotTrainError: the URL is invalid, the file does not exist, or the database refuses the
            statement.
        SourceUnavailableError: the database does not answer.
        ConflictError: the transaction collided with another one, or waited too long for a lock.
    """
    parsed = _parse(url)
    where = f"{parsed.render_as_string(hide_password=True)}: cannot {purpose}"
    engine = _engine(parsed)
    try:
        try:
            connection = engine.connect()
        except OperationalError as error:
            raise SourceUnavailableError(f"{where}: {_cause(error)}") from error
        with connection, connection.begin():
            yield connection
    except DBAPIError as error:
        if _is_conflict(error):
            raise ConflictError(f"{where}: {_cause(error)}") from error
        kind = SourceUnavailableError if _did_not_answer(error) else CannotTrainError
        raise kind(f"{where}: {_cause(error)}") from error
    except SQLAlchemyError as error:
        raise CannotTrainError(f"{where}: {error}") from error
    finally:
        engine.dispose()


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
        if parsed.drivername == table_file.SCHEME:
            return parsed
        parsed.get_dialect()
    except (SQLAlchemyError, ImportError) as error:
        raise CannotTrainError(
            f"WATCHKEEPER_SOURCE_URL is not a SQLAlchemy URL: {error}"
        ) from error
    if parsed.get_backend_name() == "sqlite" and not Path(parsed.database or "").is_file():
        # SQLite would create an empty database.
        where = parsed.render_as_string(hide_password=True)
        raise CannotTrainError(f"{where}: there is no such database; see WATCHKEEPER_SOURCE_URL")
    return parsed


def _engine(parsed: URL) -> Engine:
    if parsed.drivername == table_file.SCHEME:
        table = table_file.connect(Path(parsed.database or ""))
        return create_engine("sqlite://", creator=lambda: table, poolclass=StaticPool)
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        return create_engine(parsed, connect_args={"timeout": _LOCK_SECONDS})
    limits: dict[str, dict[str, Any]] = {
        "postgresql": {"connect_timeout": _CONNECT_SECONDS},
        "mysql": {"connect_timeout": _CONNECT_SECONDS, "read_timeout": ANSWER_SECONDS},
    }
    # In MySQL's default isolation level an INSERT … SELECT locks the rows that it reads, and
    # would block whoever writes them.
    connect_args = limits.get(backend, {})
    engine = create_engine(parsed, isolation_level="READ COMMITTED", connect_args=connect_args)
    if parsed.get_driver_name() == "psycopg":

        @event.listens_for(engine, "do_connect")
        def on_connect(_dialect: object, _record: object, given: Any, named: Any) -> Any:
            # It imports the driver, which is only needed here.
            from watchkeeper.ledger import postgresql_timeout  # noqa: PLC0415

            timeout = postgresql_timeout.connection_with_timeout(ANSWER_SECONDS)
            return timeout.connect(*given, **named)

    return engine


def _is_conflict(error: DBAPIError) -> bool:
    """Whether the error is a duplicate key, a serialization failure, a deadlock or a lock wait.

    Or two transactions created the same table: PostgreSQL checks IF NOT EXISTS before it creates.
    """
    original: Any = error.orig
    code = original.args[0] if original and original.args else None
    state = str(getattr(original, "sqlstate", "") or "")
    name = str(getattr(original, "sqlite_errorname", ""))
    return (
        state in ("23505", "40001", "40P01", "42710", "42P07")
        or code in (1062, 1205, 1213)
        or name.startswith(("SQLITE_BUSY", "SQLITE_CONSTRAINT_PRIMARYKEY", "SQLITE_CONSTRAINT_UNI"))
    )


def _did_not_answer(error: DBAPIError) -> bool:
    """Whether the database is at fault, rather than the statement."""
    original: Any = error.orig
    if getattr(original, "sqlite_errorname", "") == "SQLITE_ERROR":
        return False  # SQLite raises an OperationalError for a missing table, too
    if original and original.args and original.args[0] == _UNKNOWN_COLUMN:
        return False
    return error.connection_invalidated or isinstance(error, OperationalError)


def _cause(error: DBAPIError) -> str:
    return str(error.orig or error).strip()
