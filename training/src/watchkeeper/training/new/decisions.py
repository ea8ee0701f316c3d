"""From the findings to a declaration: truths, the order of the rows, and the request columns.

Every decision that the table does not prove is a note beside it in the declaration, which begins
with ``CHECK``.
"""

import keyword
import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from watchkeeper.training import CannotTrainError
from watchkeeper.training.new.columns import (
    IDENTIFIER,
    UNIT,
    Kept,
    keep,
    keep_input,
    useless,
    words_of,
)
from watchkeeper.training.new.findings import ColumnFindings
from watchkeeper.training.new.target import Target, choose
from watchkeeper.training.table_file import ROW

FEWEST_ROWS: Final = 60


class Dropped(msgspec.Struct, frozen=True):
    """A column of the table that the model does not use, and why."""

    source: str
    reason: str


class Truth(msgspec.Struct, frozen=True):
    """What a model predicts, and the name under which clients send it."""

    name: str
    target: Target


class Decisions(msgspec.Struct, frozen=True):
    """A declaration: ``row_id`` orders the rows, the first of the truths has the main head.

    Without a truth, the model finds unusual rows.
    """

    row_id: str
    truths: tuple[Truth, ...]
    kept: tuple[Kept, ...]
    dropped: tuple[Dropped, ...]
    findings: tuple[str, ...]


def decide(
    columns: list[ColumnFindings],
    targets: Sequence[str],
    *,
    has_row_numbers: bool,
    inputs: Mapping[str, str] | None = None,
) -> Decisions:
    """Decide about every column of a table.

    Args:
        columns: the findings.
        targets: the columns with the truths, as in the table or as names of this declaration.
        has_row_numbers: the rows are numbered in the column :data:`ROW`, as those of a file are.
        inputs: the columns that a version of MLflow takes, by name with MLflow's type; empty for
            all of the table, and None if the model is fitted here.

    Raises:
        CannotTrainError: a target is missing or fits no task, the table is too small, no column
            orders the rows, or no column is left.
    """
    names = _names([column.name for column in columns])
    if inputs is not None:  # requests have the columns by the names that the version knows
        names |= {
            c.name: c.name
            for c in columns
            if c.name in inputs or (not inputs and c.name not in targets)
        }
    truths = [_truth(target, columns, names) for target in targets]
    for place, truth in enumerate(truths):
        if truth in truths[:place]:
            raise CannotTrainError(f"--target {targets[place]}: it is given twice")
    rows = columns[0].rows
    if rows < FEWEST_ROWS:
        raise CannotTrainError(
            f"the table has {rows} rows; {FEWEST_ROWS} are the least from which something can be "
            "learned and checked"
        )
    chosen = tuple(Truth(names[truth.name], choose(truth)) for truth in truths)
    row_id = _row_id(columns, has_row_numbers=has_row_numbers)
    others = [column for column in columns if column not in (*truths, row_id)]
    kept, dropped = _inputs(others, inputs) if inputs else _useful(others, names)
    if not kept:
        reasons = "; ".join(f"{each.source}: {each.reason}" for each in dropped)
        raise CannotTrainError(f"no column is left for a request: {reasons or 'there is none'}")
    return Decisions(
        row_id=row_id.name if row_id else ROW,
        truths=chosen,
        kept=tuple(kept),
        dropped=tuple(dropped),
        findings=(
            *_renamed(names),
            *(
                line
                for column in columns
                if column is not row_id
                for line in _report(column, is_truth=column in truths)
            ),
        ),
    )


def _truth(target: str, columns: list[ColumnFindings], names: Mapping[str, str]) -> ColumnFindings:
    for column in columns:
        if target in (column.name, names[column.name]):
            return column
    raise CannotTrainError(
        f"--target {target}: the table has no such column; its columns are "
        f"{', '.join(column.name for column in columns)}"
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
    if found := next((c for c in rising if words_of(c.name) & IDENTIFIER), None):
        return found
    if has_row_numbers:
        return None
    # A query without an order returns rows in any order, so uniqueness is all that can be seen.
    unique = [c for c in columns if c.is_integer and c.is_unique and not c.empty.count]
    if found := next((c for c in unique if words_of(c.name) & IDENTIFIER), None):
        return found
    raise CannotTrainError(
        "no column orders the rows; the table needs an integer column whose values rise in time, "
        "with a name such as 'id'"
    )


def _useful(
    columns: list[ColumnFindings], names: dict[str, str]
) -> tuple[list[Kept], list[Dropped]]:
    """Return which columns a model can use, and which it cannot."""
    reasons = {column.name: useless(column) for column in columns}
    return (
        [keep(each, names[each.name]) for each in columns if not reasons[each.name]],
        [Dropped(name, reason) for name, reason in reasons.items() if reason],
    )


def _inputs(
    columns: list[ColumnFindings], inputs: Mapping[str, str]
) -> tuple[list[Kept], list[Dropped]]:
    """Return the columns that a version takes, in its order, and all others."""
    known = {column.name: column for column in columns}
    return (
        [keep_input(name, kind, known.get(name)) for name, kind in inputs.items()],
        [Dropped(x, "the version of MLflow does not take it") for x in known if x not in inputs],
    )


def _renamed(names: dict[str, str]) -> list[str]:
    changed = [(header, name) for header, name in names.items() if header != name]
    if not changed:
        return []
    header, name = changed[0]
    count = "1 column is" if len(changed) == 1 else f"{len(changed)} columns are"
    return [f"{count} renamed for requests, such as {header!r} to {name!r}"]


def _report(column: ColumnFindings, *, is_truth: bool) -> list[str]:
    """Return what people should know about a column, one sentence for each."""
    where, lines = f"column {column.name!r}", []
    if not is_truth and (reason := useless(column)):
        return [f"{where} is dropped: {reason}"]
    what = "rows without a truth are left out" if is_truth else "a missing value"
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
