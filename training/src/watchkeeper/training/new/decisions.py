"""From the findings to a declaration: which columns a request has, and what each of them may hold.

Every decision that the table does not prove is a note beside it in the declaration, which begins
with ``CHECK``.
"""

import keyword
import math
import re
from collections.abc import Mapping
from typing import Final

import msgspec

from watchkeeper.core.signature import Column, Datatype
from watchkeeper.training import CannotTrainError
from watchkeeper.training.new.findings import ColumnFindings
from watchkeeper.training.new.target import Target, choose
from watchkeeper.training.table_file import ROW

CATEGORIES: Final = 30  # a text column with more distinct values is not one of categories
ROWS_PER_CATEGORY: Final = 10
FEWEST_ROWS: Final = 60
IDENTIFIER: Final = frozenset(
    {"id", "ids", "uid", "udi", "uuid", "guid", "key", "nr", "no", "number", "index", "serial"}
)
MLFLOW_TYPES: Final[dict[str, Datatype]] = {
    "double": "FP64",
    "float": "FP64",
    "long": "INT64",
    "integer": "INT64",
    "string": "BYTES",
}
UNIT: Final = re.compile(r"^(.*\S)\s*[\[(]([^\])]{1,20})[\])]$")


class Kept(msgspec.Struct, frozen=True):
    """A request column, its column in the table, and notes for the reader.

    ``missing`` are cells that the query turns into empty ones.
    """

    column: Column
    source: str
    notes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


class Dropped(msgspec.Struct, frozen=True):
    """A column of the table that the model does not use, and why."""

    source: str
    reason: str


class Decisions(msgspec.Struct, frozen=True):
    """A declaration: ``row_id`` orders the rows, ``target_name`` is the name of the truth."""

    row_id: str
    target: Target
    target_name: str
    kept: tuple[Kept, ...]
    dropped: tuple[Dropped, ...]
    findings: tuple[str, ...]


def decide(
    columns: list[ColumnFindings],
    target: str,
    *,
    has_row_numbers: bool,
    inputs: Mapping[str, str] | None = None,
) -> Decisions:
    """Decide about every column of a table.

    Args:
        columns: the findings.
        target: the column with the truth, as in the table or as a name of this declaration.
        has_row_numbers: the rows are numbered in the column :data:`ROW`, as those of a file are.
        inputs: the columns that a version of MLflow takes, by name with MLflow's type; empty for
            all of the table, and None if the model is fitted here.

    Raises:
        CannotTrainError: the target is missing or not of two kinds, the table is too small, no
            column orders the rows, or no column is left.
    """
    names = _names([column.name for column in columns])
    if inputs is not None:  # requests have the columns by the names that the version knows
        names |= {
            c.name: c.name for c in columns if c.name in inputs or (not inputs and c.name != target)
        }
    truth = next((c for c in columns if target in (c.name, names[c.name])), None)
    if truth is None:
        raise CannotTrainError(
            f"--target {target}: the table has no such column; its columns are "
            f"{', '.join(column.name for column in columns)}"
        )
    if truth.rows < FEWEST_ROWS:
        raise CannotTrainError(
            f"the table has {truth.rows} rows; {FEWEST_ROWS} are the least from which something "
            "can be learned and checked"
        )
    chosen = choose(truth)
    row_id = _row_id(columns, has_row_numbers=has_row_numbers)
    others = [column for column in columns if column not in (truth, row_id)]
    kept, dropped = _inputs(others, inputs) if inputs else _useful(others, names)
    if not kept:
        reasons = "; ".join(f"{each.source}: {each.reason}" for each in dropped)
        raise CannotTrainError(f"no column is left for a request: {reasons or 'there is none'}")
    return Decisions(
        row_id=row_id.name if row_id else ROW,
        target=chosen,
        target_name=names[truth.name],
        kept=tuple(kept),
        dropped=tuple(dropped),
        findings=(
            *_renamed(names),
            *(line for c in columns if c is not row_id for line in _report(c, truth)),
        ),
    )


def _names(headers: list[str]) -> dict[str, str]:
    """Return a name for each column: lower-case letters, digits and ``_``."""
    names: dict[str, str] = {}
    for header in headers:
        match = UNIT.match(header)
        name = re.sub(r"[^a-z0-9]+", "_", (match[1] if match else header).lower()).strip("_")
        if not name or name[0].isdigit() or keyword.iskeyword(name):
            name = f"column_{name}".rstrip("_")
        known, place = name, 2
        while name in names.values():
            name, place = f"{known}_{place}", place + 1
        names[header] = name
    return names


def _row_id(columns: list[ColumnFindings], *, has_row_numbers: bool) -> ColumnFindings | None:
    """Return the column that orders the rows; None for the numbers of the rows of a file."""
    rising = [c for c in columns if c.rising and c.is_integer and not c.large.count]
    if found := next((c for c in rising if _words(c.name) & IDENTIFIER), None):
        return found
    if has_row_numbers:
        return None
    # A query without an order returns rows in any order, so uniqueness is all that can be seen.
    unique = [c for c in columns if c.is_integer and c.is_unique and not c.empty.count]
    if found := next((c for c in unique if _words(c.name) & IDENTIFIER), None):
        return found
    raise CannotTrainError(
        "no column orders the rows; the table needs an integer column whose values rise in time, "
        "with a name such as 'id'"
    )


def _useless(column: ColumnFindings) -> str:
    """Return why a column is not one of a request; "" if it can be."""
    if not column.filled:
        return "all its cells are empty"
    if column.is_constant:
        return f"all its cells are {next(iter(column.values))!r}"
    return _useless_numbers(column) if column.is_numeric else _useless_text(column)


def _useless_numbers(column: ColumnFindings) -> str:
    if column.large.count:
        return f"integers of 2^53 and more lose digits in a model ({column.large})"
    if column.is_integer and column.is_unique and _words(column.name) & IDENTIFIER:
        return "it is an identifier: nearly every row has a value of its own"
    return ""


def _useless_text(column: ColumnFindings) -> str:
    if column.is_time:
        return "it holds times; compute what matters of them, such as an age, in the query"
    distinct = len(column.values)
    if distinct <= CATEGORIES and ROWS_PER_CATEGORY * distinct <= column.filled:
        return ""
    what = f"it is text with {'more than ' * column.more_values}{distinct} different values"
    if column.is_unique:
        return f"{what}, one for nearly every row"
    return (
        f"{what}; if it names what a row is about, such as a machine, add it to the query and "
        f"declare split=Split(group={column.name!r})"
    )


def _useful(
    columns: list[ColumnFindings], names: dict[str, str]
) -> tuple[list[Kept], list[Dropped]]:
    """Return which columns a model can use, and which it cannot."""
    reasons = {column.name: _useless(column) for column in columns}
    return (
        [_keep(each, names[each.name]) for each in columns if not reasons[each.name]],
        [Dropped(name, reason) for name, reason in reasons.items() if reason],
    )


def _inputs(
    columns: list[ColumnFindings], inputs: Mapping[str, str]
) -> tuple[list[Kept], list[Dropped]]:
    """Return the columns that a version takes, in its order, and all others."""
    known = {column.name: column for column in columns}
    return (
        [_input(name, kind, known.get(name)) for name, kind in inputs.items()],
        [Dropped(x, "the version of MLflow does not take it") for x in known if x not in inputs],
    )


def _input(name: str, kind: str, column: ColumnFindings | None) -> Kept:
    """Return the request column for an input of a version, from the table's column of its name."""
    if column is None:
        raise CannotTrainError(
            f"the version takes the column {name!r}, which the table does not have; name its "
            "columns as the version does"
        )
    if kind not in MLFLOW_TYPES:
        raise CannotTrainError(f"the version takes the column {name!r} as {kind}, not as a number")
    found, datatype = _keep(column, name), MLFLOW_TYPES[kind]
    if (datatype == "BYTES") == column.is_numeric:
        has = "numbers" if column.is_numeric else "text"
        raise CannotTrainError(f"the version takes {name!r} as {kind}, and the table has {has}")
    if datatype == "FP64" and found.column.datatype == "INT64":
        return msgspec.structs.replace(
            found, column=msgspec.structs.replace(found.column, datatype="FP64")
        )
    return found


def _keep(column: ColumnFindings, name: str) -> Kept:
    unit = UNIT.match(column.name)
    if not column.is_numeric:
        return Kept(
            Column(
                name,
                "BYTES",
                categories=tuple(sorted(column.values)),
                nullable=_without_value(column) > 0,
            ),
            column.name,
            (*_nullability(column), "CHECK: a request with another category is refused."),
        )
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
        column.name,
        (*notes, *_nullability(column)),
        missing=column.unreadable,
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


def _renamed(names: dict[str, str]) -> list[str]:
    changed = [(header, name) for header, name in names.items() if header != name]
    if not changed:
        return []
    header, name = changed[0]
    count = "1 column is" if len(changed) == 1 else f"{len(changed)} columns are"
    return [f"{count} renamed for requests, such as {header!r} to {name!r}"]


def _report(column: ColumnFindings, truth: ColumnFindings) -> list[str]:
    """Return what people should know about a column, one sentence for each."""
    where, lines = f"column {column.name!r}", []
    if column is not truth and (reason := _useless(column)):
        return [f"{where} is dropped: {reason}"]
    what = "rows without a truth are left out" if column is truth else "a missing value"
    if column.empty.count:
        lines.append(f"{where}: empty: {column.empty}; {what}")
    if column.is_numeric:
        if column.text.count:
            lines.append(f"{where}: not a number: {column.text}; {what}")
        if column.infinite.count:
            lines.append(f"{where}: infinite or too large: {column.infinite}; {what}")
        if column.whole.count and column.whole.count + column.integers == column.numbers:
            lines.append(f"{where}: integers written as floats: {column.whole}")
    return lines


def _words(name: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower()))
