"""The operational database: opened when it is needed, its errors told in words."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from watchkeeper.training import CannotTrainError, SourceUnavailableError

_CONNECT_SECONDS = 10
_LOCK_SECONDS = 30
ANSWER_SECONDS = 1800  # for one statement; the first aggregation of a long past takes a while
_UNKNOWN_COLUMN = 1054  # of MySQL and MariaDB, whose driver calls it operational


class DisturbedError(SourceUnavailableError):
    """Another transaction came first; this one was rolled back and may be tried again."""


@contextmanager
def transaction(url: str, purpose: str) -> Iterator[Connection]:
    """Open a connection and a transaction on it, committed when the block ends without an error.

    Raises:
        CannotTrainError: the URL is none, there is no such file, or the database refuses what it
            is asked; the message begins with the URL, without its password, and ``purpose``.
        SourceUnavailableError: it does not answer.
        DisturbedError: the transaction collided with another one, or waited too long for it.
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
        if _collided(error):
            raise DisturbedError(f"{where}: {_cause(error)}") from error
        kind = SourceUnavailableError if _did_not_answer(error) else CannotTrainError
        raise kind(f"{where}: {_cause(error)}") from error
    except SQLAlchemyError as error:
        raise CannotTrainError(f"{where}: {error}") from error
    finally:
        engine.dispose()


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
        parsed.get_dialect()
    except (SQLAlchemyError, ImportError) as error:
        raise CannotTrainError(f"WATCHKEEPER_SOURCE_URL is no SQLAlchemy URL: {error}") from error
    if parsed.get_backend_name() == "sqlite" and not Path(parsed.database or "").is_file():
        # SQLite would make an empty database of that name.
        shown = parsed.render_as_string(hide_password=True)
        raise CannotTrainError(f"{shown}: there is no such database; see WATCHKEEPER_SOURCE_URL")
    return parsed


def _engine(parsed: URL) -> Engine:
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        return create_engine(parsed, connect_args={"timeout": _LOCK_SECONDS})
    limits: dict[str, dict[str, Any]] = {
        "postgresql": {"connect_timeout": _CONNECT_SECONDS},
        "mysql": {"connect_timeout": _CONNECT_SECONDS, "read_timeout": ANSWER_SECONDS},
    }
    # The rows that a statement reads stay free for those who write them: in MySQL's default
    # isolation an INSERT … SELECT would lock them.
    connect_args = limits.get(backend, {})
    engine = create_engine(parsed, isolation_level="READ COMMITTED", connect_args=connect_args)
    if parsed.get_driver_name() == "psycopg":

        @event.listens_for(engine, "do_connect")
        def on_connect(_dialect: object, _record: object, given: Any, named: Any) -> Any:
            from watchkeeper.ledger.bounded import bounded_connection  # noqa: PLC0415 - a driver

            return bounded_connection(ANSWER_SECONDS).connect(*given, **named)

    return engine


def _collided(error: DBAPIError) -> bool:
    """Tell a duplicate key (SQLSTATE 23…), a serialization failure or a deadlock (40…)."""
    original: Any = error.orig
    code = original.args[0] if original and original.args else None
    state = str(getattr(original, "sqlstate", "") or "")
    name = str(getattr(original, "sqlite_errorname", ""))
    return (
        state in ("23505", "40001", "40P01")
        or code in (1062, 1205, 1213)
        or name.startswith(("SQLITE_BUSY", "SQLITE_CONSTRAINT_PRIMARYKEY", "SQLITE_CONSTRAINT_UNI"))
    )


def _did_not_answer(error: DBAPIError) -> bool:
    """Tell a database that is at fault from a statement that is."""
    original: Any = error.orig
    if getattr(original, "sqlite_errorname", "") == "SQLITE_ERROR":
        return False  # SQLite calls a missing table operational, too
    if original and original.args and original.args[0] == _UNKNOWN_COLUMN:
        return False
    return error.connection_invalidated or isinstance(error, OperationalError)


def _cause(error: DBAPIError) -> str:
    return str(error.orig or error).strip()
