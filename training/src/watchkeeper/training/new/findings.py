"""What the cells of one column are: numbers, texts, and what is unusual in them.

Only counts, examples and extremes are kept, so a table may be larger than the memory.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Final

import msgspec

from watchkeeper.training.table_file import INTEGER, NUMBER
from watchkeeper.training.usable import EXACT, MAX_FLOAT

INFINITE: Final = re.compile(r"[+-]?inf(inity)?", re.IGNORECASE)
KEPT: Final = 10_000  # distinct values of a column that are counted
NUMERIC: Final = 0.9  # share of the cells that makes a column one of numbers
MOST_WORDS: Final = 20  # distinct cells that are no numbers, in a column of numbers
UNIQUE: Final = 0.95  # share of rows with a value of their own


class Example(msgspec.Struct):
    """How many cells are alike in something, and the first of them."""

    count: int = 0
    cell: str = ""
    row: int = 0

    def add(self, cell: str, row: int) -> None:
        """Count a cell."""
        if not self.count:
            self.cell, self.row = cell, row
        self.count += 1

    def __str__(self) -> str:
        """Return the number and the example for people."""
        cells = "1 cell" if self.count == 1 else f"{self.count} cells"
        shown = f"{self.cell[:40]!r} in row {self.row}" if self.cell else f"row {self.row}"
        return f"{cells}, such as {shown}"


class ColumnFindings(msgspec.Struct):
    """The findings of one column.

    ``values`` counts its distinct cells, of which at most :data:`KEPT` are kept. ``whole`` are
    integers that are written as ``3.0``. ``large`` are integers that floating point would round.
    ``times`` are dates and times.
    """

    name: str
    rows: int = 0
    integers: int = 0
    numbers: int = 0
    minimum: float = float("inf")
    maximum: float = float("-inf")
    empty: Example = msgspec.field(default_factory=Example)
    whole: Example = msgspec.field(default_factory=Example)
    infinite: Example = msgspec.field(default_factory=Example)
    large: Example = msgspec.field(default_factory=Example)
    text: Example = msgspec.field(default_factory=Example)
    times: int = 0
    rising: bool = True
    values: Counter[str] = msgspec.field(default_factory=Counter)
    more_values: bool = False

    def add(self, cell: str) -> None:
        """Add the cell of the next row."""
        self.rows += 1
        if not cell:
            self.empty.add(cell, self.rows)
            self.rising = False
            return
        if cell in self.values or len(self.values) < KEPT:
            self.values[cell] += 1
        else:
            self.more_values = True
        if NUMBER.fullmatch(cell) and abs(number := float(cell)) <= MAX_FLOAT:
            self._add_number(cell, number)
        elif INFINITE.fullmatch(cell) or NUMBER.fullmatch(cell):
            self.infinite.add(cell, self.rows)
        else:
            self.text.add(cell, self.rows)
            self.times += _is_time(cell)

    def _add_number(self, cell: str, number: float) -> None:
        self.numbers += 1
        is_integer = bool(INTEGER.fullmatch(cell))
        self.integers += is_integer
        if not is_integer and number == int(number):
            self.whole.add(cell, self.rows)
        if is_integer and abs(number) >= EXACT:
            self.large.add(cell, self.rows)
        self.rising = self.rising and is_integer and number > self.maximum
        self.minimum, self.maximum = min(self.minimum, number), max(self.maximum, number)

    @property
    def filled(self) -> int:
        """The number of cells that are not empty."""
        return self.rows - self.empty.count

    @property
    def is_numeric(self) -> bool:
        """Whether the column holds numbers; some cells may hold one of a few words instead."""
        readable = self.numbers + self.infinite.count
        return (
            self.numbers > 0
            and readable >= NUMERIC * self.filled
            and len(self.unreadable) <= MOST_WORDS
        )

    @property
    def is_integer(self) -> bool:
        """Whether all its numbers are written as integers."""
        return self.is_numeric and self.integers == self.numbers

    @property
    def is_time(self) -> bool:
        """Whether it holds dates or times."""
        return self.filled > 0 and self.times == self.filled

    @property
    def is_constant(self) -> bool:
        """Whether all its cells are equal."""
        return len(self.values) <= 1 and not self.more_values

    @property
    def is_unique(self) -> bool:
        """Whether nearly every row has a value of its own."""
        counted = sum(self.values.values())
        return counted > 1 and len(self.values) >= UNIQUE * counted

    @property
    def unreadable(self) -> tuple[str, ...]:
        """The distinct cells that are no numbers, infinite ones too."""
        return tuple(
            cell
            for cell in self.values
            if not NUMBER.fullmatch(cell) or abs(float(cell)) > MAX_FLOAT
        )


def describe(columns: Iterable[str], rows: Iterator[tuple[str, ...]]) -> list[ColumnFindings]:
    """Describe each column of a table."""
    found = [ColumnFindings(name) for name in columns]
    for row in rows:
        for column, cell in zip(found, row, strict=True):
            column.add(cell)
    return found


def _is_time(cell: str) -> bool:
    try:
        datetime.fromisoformat(cell)
    except ValueError:
        return False
    return True
