"""Writing rows that have a name: a second write, or one of another process, changes nothing."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Table, and_, insert, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from watchkeeper.ledger.database import Ledger

T = TypeVar("T")
CHUNK: Final = 200  # ids in one IN (...), below the limit of every database
TRIES: Final = 5
TEXT_LENGTH: Final = 4000  # characters of an error or a reason that are stored
CONFLICTS: Final = ("40001", "40P01")  # PostgreSQL: serialization failure, deadlock
MYSQL_CONFLICTS: Final = (1020, 1213)  # record has changed since it was read, deadlock


def insert_once(connection: Connection, table: Table, values: Mapping[str, Any]) -> bool:
    """Insert a row, unless a row with its primary key exists.

    Returns:
        True if the row is new.
    """
    key = and_(*(column == values[column.name] for column in table.primary_key))
    existing = select(*table.primary_key).where(key)
    if connection.execute(existing).first():
        return False
    try:
        with connection.begin_nested():
            connection.execute(insert(table).values(**values))
    except IntegrityError:
        if connection.execute(existing).first():
            return False  # another process was a moment faster
        raise
    return True


def upsert(connection: Connection, table: Table, values: Mapping[str, Any]) -> None:
    """Insert a row, or update the row with its primary key."""
    if not insert_once(connection, table, values):
        key = and_(*(column == values[column.name] for column in table.primary_key))
        connection.execute(update(table).where(key).values(**values))


def run_transaction(ledger: Ledger, work: Callable[[Connection], T]) -> T:
    """Run ``work`` in a transaction, and again if another transaction conflicts with it.

    Raises:
        SQLAlchemyError: the ledger does not answer, or conflicts do not end; nothing is stored.
    """
    for left in reversed(range(TRIES)):
        try:
            with ledger.write() as connection:
                return work(connection)
        except DBAPIError as error:
            if not left or not _is_conflict(error):
                raise
    raise AssertionError("the last try returns or raises")


def _is_conflict(error: DBAPIError) -> bool:
    if isinstance(error, IntegrityError):
        return True
    cause = error.orig
    if getattr(cause, "sqlstate", None) in CONFLICTS:
        return True
    return bool(cause is not None and cause.args and cause.args[0] in MYSQL_CONFLICTS)


def chunks(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Split values into parts that fit into one ``IN``."""
    return (values[start : start + CHUNK] for start in range(0, len(values), CHUNK))


def fit_text(text: str, length: int) -> str:
    """Shorten a text to the length of its column. PostgreSQL stores no NUL, so it is replaced."""
    return text.replace("\0", "\ufffd")[:length]


def group_by(rows: Iterable[T], key: Callable[[T], str]) -> dict[str, list[T]]:
    """Group rows by their key; keys and rows keep their order."""
    found: dict[str, list[T]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return found
