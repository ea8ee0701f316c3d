"""A table in a CSV file as a database, so that a query of a declaration can read it.

``csv:////folder/readings.csv`` is the URL of a database with the one table ``readings``. The first
line of the file names its columns. The column :data:`ROW` is added: it numbers the rows from 1 in
the order of the file. So the query of a model is the same for a file on a laptop and for the
database of a cluster.

A column whose cells are all integers, or all numbers, has that type; any other column is text. An
empty cell is NULL. Nothing else is interpreted: ``007`` is text, and so is ``n/a``.
"""

import csv
import re
import sqlite3
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Final

from watchkeeper.training import CannotTrainError

SCHEME: Final = "csv"
ROW: Final = "row_id"
DELIMITERS: Final = ",;\t|"
INTEGER: Final = re.compile(r"-?(0|[1-9][0-9]{0,17})")
NUMBER: Final = re.compile(r"[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")

Row = tuple[str, ...]


def read_header(path: Path) -> Row:
    """Return the names of the columns; a column without a name is ``column_<number>``.

    Raises:
        CannotTrainError: the file cannot be read, is empty, or names a column twice.
    """
    lines = _lines(path)
    header = next(lines, None)
    lines.close()
    if header is None:
        raise CannotTrainError(f"{path}: the file is empty; its first line must name the columns")
    names = tuple(name or f"column_{place}" for place, name in enumerate(header, start=1))
    for name in names:
        if [each.lower() for each in names].count(name.lower()) > 1:
            raise CannotTrainError(
                f"{path}: two columns are named {name!r}, apart from upper and lower case; rename "
                "one of them"
            )
    return names


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the cells of each row, without surrounding space; empty lines are left out.

    Raises:
        CannotTrainError: the file cannot be read, or a row has another number of cells.
    """
    columns = len(read_header(path))
    lines = _lines(path)
    next(lines)
    for number, cells in enumerate(lines, start=1):
        if len(cells) != columns:
            raise CannotTrainError(
                f"{path}: row {number} has {len(cells)} cells, and the first line names {columns} "
                "columns; correct the row"
            )
        yield cells


def connect(path: Path) -> sqlite3.Connection:
    """Return a database with the table, in a temporary file that SQLite removes at the end.

    Raises:
        CannotTrainError: the file cannot be used, see :func:`read_rows`.
    """
    names = read_header(path)
    types = _types(path, len(names))
    columns = [f"{quoted(name)} {kind}" for name, kind in zip(names, types, strict=True)]
    numbered = ROW not in (name.lower() for name in names)
    if numbered:
        columns.insert(0, f"{ROW} INTEGER PRIMARY KEY")
    places = ", ".join("?" * len(columns))
    connection = sqlite3.connect("", check_same_thread=False)
    table = quoted(path.stem)
    connection.execute(f"CREATE TABLE {table} ({', '.join(columns)})")
    connection.executemany(
        f"INSERT INTO {table} VALUES ({places})",  # noqa: S608 - the name is quoted
        (
            ((number,) if numbered else ()) + tuple(cell or None for cell in cells)
            for number, cells in enumerate(read_rows(path), start=1)
        ),
    )
    connection.commit()
    return connection


def quoted(name: str) -> str:
    """Return a name as an identifier of SQL."""
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def _types(path: Path, columns: int) -> list[str]:
    """Return the type of each column, from all its cells."""
    types = ["INTEGER"] * columns
    undecided = set(range(columns))
    for cells in read_rows(path):
        for place in sorted(undecided):
            cell = cells[place]
            if not cell:
                continue
            if types[place] == "INTEGER" and not INTEGER.fullmatch(cell):
                types[place] = "REAL"
            if types[place] == "REAL" and not NUMBER.fullmatch(cell):
                types[place] = "TEXT"
                undecided.remove(place)
    return types


def _lines(path: Path) -> Generator[Row, None, None]:
    """Yield the cells of each line that is not empty."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            delimiter = max(DELIMITERS, key=re.sub(r'"[^"]*"', "", first).count)
            reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True, strict=True)
            for cells in reader:
                if len(cells) > 1 or any(cells):
                    yield tuple(cell.strip() for cell in cells)
    except OSError as error:
        raise CannotTrainError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CannotTrainError(
            f"{path}: the file is not text in UTF-8 (byte {error.start}); convert it, for example "
            "with iconv"
        ) from error
    except csv.Error as error:
        raise CannotTrainError(f"{path}: line {reader.line_num}: {error}") from error
