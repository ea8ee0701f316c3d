"""The table that a project is made from: a CSV file, or a table of a database."""

import re
from codecs import BOM_UTF8
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.sql.compiler import RESERVED_WORDS

from watchkeeper.training import CannotTrainError, table_file
from watchkeeper.training.database import transaction

CHUNK = 10_000


class Table(msgspec.Struct, frozen=True):
    """The columns of a table and its rows as text, "" where a cell is empty.

    ``findings`` say what is unusual in the form of the table, one sentence each.
    """

    where: str
    columns: tuple[str, ...]
    rows: Iterator[tuple[str, ...]]
    findings: tuple[str, ...] = ()


@contextmanager
def open_file(path: Path) -> Iterator[Table]:
    """Open a CSV file.

    Raises:
        CannotTrainError: the file cannot be used, see :mod:`watchkeeper.training.table_file`.
    """
    yield Table(str(path), table_file.read_header(path), table_file.read_rows(path), _form(path))


@contextmanager
def open_database(url: str, table: str) -> Iterator[Table]:
    """Open a table of a database.

    Raises:
        CannotTrainError: the URL is invalid, or the database has no such table.
        SourceUnavailableError: the database does not answer.
    """
    with transaction(url, f"read the table {table}") as connection:
        schema = inspect(connection)
        known = [*schema.get_table_names(), *schema.get_view_names()]
        if table not in known:
            raise CannotTrainError(
                f"--table {table}: there is no such table; tables and views are: "
                f"{', '.join(sorted(known)) or 'none'}"
            )
        quoted = connection.dialect.identifier_preparer.quote(table)
        query = text(f"SELECT * FROM {quoted}")  # noqa: S608 - the name is quoted
        result = connection.execution_options(stream_results=True, yield_per=CHUNK).execute(query)
        rows = (tuple(_cell(value) for value in row) for row in result)
        yield Table(table, tuple(result.keys()), rows)


def is_plain(name: str) -> bool:
    """Return whether a name needs no quotation marks in SQL."""
    return name.isidentifier() and name.lower() not in RESERVED_WORDS


def without_password(url: str) -> str | None:
    """Return a URL if it contains no password, and else None."""
    return None if make_url(url).password else url


def _form(path: Path) -> tuple[str, ...]:
    """Return what is unusual in the first line of a file that can be read."""
    with path.open("rb") as file:
        line = file.readline()
    found = []
    if line.startswith(BOM_UTF8):
        found.append("the file begins with a byte-order mark, which is left out")
    names = re.split(
        f"[{re.escape(table_file.DELIMITERS)}]", line.decode("utf-8-sig").rstrip("\r\n")
    )
    if spaced := [name for name in names if name != name.strip()]:
        around = "1 header has spaces around it"
        if len(spaced) > 1:
            around = f"{len(spaced)} headers have spaces around them"
        found.append(f"{around}, which are left out, such as {spaced[0]!r}")
    return tuple(found)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return str(int(value)) if isinstance(value, bool) else str(value).strip()
