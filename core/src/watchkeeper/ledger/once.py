"""Storing things that have a name once, whoever else does the same at the same moment."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import Connection, Table, and_, insert, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from watchkeeper.ledger.database import Ledger

T = TypeVar("T")
CHUNK = 200  # ids in one IN (...): below every database's limit
TRIES = 5
COLLISIONS = ("40001", "40P01")  # PostgreSQL: serialization failure, deadlock
MYSQL_COLLISIONS = (1020, 1213)  # record has changed since it was read, deadlock
TEXT = 4000  # characters kept of an error or a reason


def store_new(connection: Connection, table: Table, values: Mapping[str, Any]) -> bool:
    """Insert a row unless one with its primary key is there; return whether it was new."""
    key = and_(*(column == values[column.name] for column in table.primary_key))
    known = select(*table.primary_key).where(key)
    if connection.execute(known).first():
        return False
    try:
        with connection.begin_nested():
            connection.execute(insert(table).values(**values))
    except IntegrityError:
        if connection.execute(known).first():
            return False  # somebody else was faster by a moment
        raise
    return True


def store_latest(connection: Connection, table: Table, values: Mapping[str, Any]) -> None:
    """Insert a row, or replace the one with its primary key."""
    if not store_new(connection, table, values):
        key = and_(*(column == values[column.name] for column in table.primary_key))
        connection.execute(update(table).where(key).values(**values))


def in_one_transaction(ledger: Ledger, work: Callable[[Connection], T]) -> T:
    """Do ``work`` in a transaction, again if another one of the same moment stood in its way."""
    for left in reversed(range(TRIES)):
        try:
            with ledger.begin() as connection:
                return work(connection)
        except DBAPIError as error:
            if not left or not _collided(error):
                raise
    raise AssertionError("the last try returns or raises")


def _collided(error: DBAPIError) -> bool:
    if isinstance(error, IntegrityError):
        return True
    cause = error.orig
    if getattr(cause, "sqlstate", None) in COLLISIONS:
        return True
    return bool(cause is not None and cause.args and cause.args[0] in MYSQL_COLLISIONS)


def chunks(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Cut into pieces that one ``IN`` takes."""
    return (values[start : start + CHUNK] for start in range(0, len(values), CHUNK))


def clean(text: str, length: int) -> str:
    """Cut a text to what its column holds; PostgreSQL takes no NUL."""
    return text.replace("\0", "\ufffd")[:length]


def keyed(rows: Iterable[T], key: Callable[[T], str]) -> dict[str, list[T]]:
    """Group rows by their key, in order."""
    found: dict[str, list[T]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return found
