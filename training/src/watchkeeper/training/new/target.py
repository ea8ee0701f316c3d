"""The task of a model, from the column with the truth. Today every task is binary."""

from typing import Final

import msgspec

from watchkeeper.training import CannotTrainError
from watchkeeper.training.new.findings import ColumnFindings

POSITIVE: Final = frozenset(
    {"1", "true", "t", "yes", "y", "positive", "fail", "failed", "failure", "fault", "bad"}
)


class Target(msgspec.Struct, frozen=True):
    """A binary truth.

    Attributes:
        column: Its column in the table.
        positive: The cells that mean 1.
        negative: The cells that mean 0.
        share: The share of rows with a truth in which it is 1.
        is_certain: Which cells mean 1 is certain.
    """

    column: str
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    share: float
    is_certain: bool

    @property
    def is_number(self) -> bool:
        """Whether its cells are 0 and 1 already."""
        return all(_as_number(cell) in (0.0, 1.0) for cell in (*self.positive, *self.negative))


def choose(column: ColumnFindings) -> Target:
    """Return the task of a column.

    Raises:
        CannotTrainError: its cells are not of two kinds.
    """
    kinds: dict[str, list[str]] = {}
    for cell in column.values:
        number = _as_number(cell)
        kinds.setdefault(cell.lower() if number is None else f"{number:g}", []).append(cell)
    if len(kinds) != 2 or column.more_values:
        some = ", ".join(repr(kind) for kind in list(kinds)[:5]) or "nothing"
        more = f" and {len(kinds) - 5} more" if len(kinds) > 5 else ""
        raise CannotTrainError(
            f"--target {column.name}: it must have two values, and has {some}{more}; name another "
            "column, or make one with 0 and 1"
        )
    counts = {kind: sum(column.values[cell] for cell in cells) for kind, cells in kinds.items()}
    known = [kind for kind in kinds if kind in POSITIVE]
    rarer = min(kinds, key=lambda kind: counts[kind])
    positive = known[0] if len(known) == 1 else rarer
    (negative,) = (kind for kind in kinds if kind != positive)
    return Target(
        column=column.name,
        positive=tuple(kinds[positive]),
        negative=tuple(kinds[negative]),
        share=counts[positive] / sum(counts.values()),
        is_certain=len(known) == 1,
    )


def _as_number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None
