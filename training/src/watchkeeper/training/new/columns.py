"""Which columns of a table a request can have, and what each of them may hold."""

import math
import re
from typing import Final

import msgspec

from watchkeeper.core.signature import Column, Datatype
from watchkeeper.training import CannotTrainError
from watchkeeper.training.new.findings import ColumnFindings
from watchkeeper.training.new.sql import case_of, without
from watchkeeper.training.table_file import quoted

CATEGORIES: Final = 30  # the most categories of a text column
ROWS_PER_CATEGORY: Final = 10  # a text in fewer rows is rare
IDENTIFIER: Final = frozenset(
    {"id", "ids", "uid", "udi", "uuid", "guid", "key", "nr", "no", "number", "index", "serial"}
)
MLFLOW_TYPES: Final[dict[str, Datatype]] = {
    "double": "FP64",
    "float": "FP64",
    "long": "INT64",
    "integer": "INT64",
    "boolean": "BOOL",
    "string": "BYTES",
}
BOOLEAN: Final = {"true": "1", "false": "0"}
COVERED: Final = 0.8  # share of the rows that the frequent texts of a column have
UNIT: Final = re.compile(r"^(.*\S)\s*[\[(]([^\])]{1,20})[\])]$")


class Kept(msgspec.Struct, frozen=True):
    """A request column, the expression of the query that reads it, and notes for the reader."""

    column: Column
    expression: str
    notes: tuple[str, ...] = ()


def useless(column: ColumnFindings) -> str:
    """Return why a column is not one of a request; "" if it can be."""
    if not column.filled:
        return "all its cells are empty"
    if column.is_constant:
        return f"all its cells are {next(iter(column.values))!r}"
    return _useless_numbers(column) if column.is_numeric else _useless_text(column)


def _useless_numbers(column: ColumnFindings) -> str:
    if column.large.count:
        return f"integers of 2^53 and more lose digits in a model ({column.large})"
    if column.is_integer and column.is_unique and words_of(column.name) & IDENTIFIER:
        return "it is an identifier: nearly every row has a value of its own"
    return ""


def _useless_text(column: ColumnFindings) -> str:
    if column.is_time:
        return (
            "it holds times; compute what matters of them, such as an age, in the query, or "
            "declare a TIMESTAMP and compute it in the features"
        )
    if _is_boolean(column) or _categories(column):
        return ""
    distinct = len(column.values)
    what = f"it is text with {'more than ' * column.more_values}{distinct} different values"
    if column.is_unique:
        return f"{what}, one for nearly every row"
    return (
        f"{what}; if it names what a row is about, such as a machine, add it to the query and "
        f"declare split=Split(group={column.name!r})"
    )


def _is_boolean(column: ColumnFindings) -> bool:
    return {cell.lower() for cell in column.values} == set(BOOLEAN)


def _categories(column: ColumnFindings) -> list[str]:
    """Return the texts that are categories: all, or those of most rows; none if there are few."""
    distinct = len(column.values)
    if distinct <= CATEGORIES and ROWS_PER_CATEGORY * distinct <= column.filled:
        return sorted(column.values)
    common = [
        (cell, count)
        for cell, count in column.values.most_common(CATEGORIES)
        if count >= ROWS_PER_CATEGORY
    ]
    covered = sum(count for _, count in common)
    return sorted(cell for cell, _ in common) if covered >= COVERED * column.filled else []


def keep_input(name: str, kind: str, column: ColumnFindings | None) -> Kept:
    """Return the request column for an input of a version, from the table's column of its name."""
    if column is None:
        raise CannotTrainError(
            f"the version takes the column {name!r}, which the table does not have; name its "
            "columns as the version does"
        )
    if kind not in MLFLOW_TYPES:
        raise CannotTrainError(f"the version takes the column {name!r} as {kind}, not as a number")
    found, datatype = keep(column, name), MLFLOW_TYPES[kind]
    if (datatype == "BYTES") != bool(found.column.categories):
        has = "numbers" if column.is_numeric else "text"
        raise CannotTrainError(f"the version takes {name!r} as {kind}, and the table has {has}")
    if datatype == "BOOL" and column.values.keys() <= {"0", "1"} and not column.empty.count:
        return msgspec.structs.replace(found, column=Column(name, "BOOL"))
    if datatype == "FP64" and found.column.datatype == "INT64":
        return msgspec.structs.replace(
            found, column=msgspec.structs.replace(found.column, datatype="FP64")
        )
    return found


def keep(column: ColumnFindings, name: str) -> Kept:
    """Return the request column for a column of the table."""
    if column.is_numeric:
        return _keep_number(column, name)
    return (_keep_boolean if _is_boolean(column) else _keep_text)(column, name)


def _keep_boolean(column: ColumnFindings, name: str) -> Kept:
    expression = case_of(
        column.name, {cell: BOOLEAN[cell.lower()] for cell in sorted(column.values)}
    )
    if not column.empty.count:
        return Kept(Column(name, "BOOL"), expression)
    return Kept(
        Column(name, "FP64", minimum=0.0, maximum=1.0, nullable=True),
        expression,
        (*_nullability(column), "1 is true and 0 is false; BOOL has no missing value."),
    )


def _keep_text(column: ColumnFindings, name: str) -> Kept:
    categories = _categories(column) or sorted(column.values)
    others = len(column.values) - len(categories)
    note = "CHECK: a request with another category is refused."
    if others:
        note = (
            f"CHECK: {others} more texts are rare. A request with one of them, or with a new one, "
            "is answered, and the features take it as none of the categories."
        )
    return Kept(
        Column(
            name,
            "BYTES",
            categories=tuple(categories),
            nullable=column.empty.count > 0,
            unseen="accept" if others else "refuse",
        ),
        quoted(column.name),
        (*_nullability(column), note),
    )


def _keep_number(column: ColumnFindings, name: str) -> Kept:
    unit = UNIT.match(column.name)
    nullable = _without_value(column) > 0
    datatype: Datatype = "INT64" if column.is_integer and not nullable else "FP64"
    notes = []
    if column.whole.count and column.whole.count + column.integers == column.numbers:
        notes.append("CHECK: all are whole numbers, some written as 3.0; INT64 would refuse 3.5.")
    if column.is_integer and len(column.values) <= CATEGORIES:
        notes.append(f"CHECK: only {len(column.values)} different values; are they categories?")
    if column.is_unique and column.is_integer:
        notes.append("CHECK: nearly every row has a value of its own; remove an identifier.")
    minimum, maximum = _limits(column)
    notes.insert(0, f"In the table: {column.minimum:g} to {column.maximum:g}.")
    return Kept(
        Column(
            name,
            datatype,
            unit=unit[2] if unit else "",
            minimum=minimum,
            maximum=maximum,
            nullable=nullable,
        ),
        without(column.name, column.unreadable),
        (*notes, *_nullability(column)),
    )


def _without_value(column: ColumnFindings) -> int:
    """Return how many cells become missing values: empty ones, and those that are no numbers."""
    return column.empty.count + (column.text.count + column.infinite.count) * column.is_numeric


def _nullability(column: ColumnFindings) -> list[str]:
    if not (without := _without_value(column)):
        return []
    note = (
        f"CHECK: {without} of {column.rows} rows have no value, so a request may lack it, too. "
        "Without nullable, such rows are left out of training, and such requests are refused."
    )
    whole = "They are integers; INT64 has no missing value."
    return [note, whole] if column.is_integer else [note]


def _limits(column: ColumnFindings) -> tuple[float, float]:
    """Return a range that is about twice as wide as the column, with round limits."""
    low, high = column.minimum, column.maximum
    reach = max(high - low, abs(low), abs(high))
    return (
        0.0 if low >= 0 else -_rounded_up(max(-low, reach)),
        0.0 if high <= 0 else _rounded_up(2 * high if low >= 0 else high + reach),
    )


def _rounded_up(number: float) -> float:
    """Round up to one digit: 0.33 to 0.4, 1234 to 2000."""
    size = 10.0 ** math.floor(math.log10(number))
    return float(f"{math.ceil(number / size) * size:.1g}")


def words_of(name: str) -> set[str]:
    """Return the words of a name in lower case, also those of camel case."""
    return set(re.findall(r"[a-z0-9]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower()))
