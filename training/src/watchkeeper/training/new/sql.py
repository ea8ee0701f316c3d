"""Expressions of the query in a declaration."""

from collections.abc import Iterable, Mapping

from watchkeeper.training.table_file import quoted


def literal(cell: str) -> str:
    """Return a text as a literal of SQL."""
    doubled = cell.replace("'", "''")
    return f"'{doubled}'"


def case_of(column: str, values: Mapping[str, str]) -> str:
    """Return a value, an expression, for each cell of a column."""
    cases = " ".join(f"WHEN {literal(cell)} THEN {value}" for cell, value in values.items())
    return f"CASE {quoted(column)} {cases} END"


def without(column: str, missing: Iterable[str]) -> str:
    """Return a column in which some cells are empty."""
    cells = ", ".join(map(literal, missing))
    if not cells:
        return quoted(column)
    return f"CASE WHEN {quoted(column)} IN ({cells}) THEN NULL ELSE {quoted(column)} END"
