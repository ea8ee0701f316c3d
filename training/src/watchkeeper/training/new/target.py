"""The task of a model, from the column with the truth, and its part of the declaration.

Two different values make a binary task. Up to :data:`CLASSES` texts or whole numbers are classes.
Other numbers make a regression. Without such a column, the task is to find unusual rows.
"""

from typing import Final, Protocol

import msgspec

from watchkeeper.training import CannotTrainError
from watchkeeper.training.new.findings import ColumnFindings
from watchkeeper.training.new.sql import case_of, literal, without
from watchkeeper.training.table_file import quoted

POSITIVE: Final = frozenset(
    {"1", "true", "t", "yes", "y", "positive", "fail", "failed", "failure", "fault", "bad"}
)
CLASSES: Final = 10
ROWS_PER_CLASS: Final = 20
BELOW_VOTES: Final = 0.001
FOREST: Final = ("depth", "leaf")


class Target(Protocol):
    """A truth: how the query reads it, and the lines of the declaration that depend on it."""

    @property
    def column(self) -> str:
        """Its column in the table."""

    @property
    def truth(self) -> str:
        """The expression of the query."""

    @property
    def estimator(self) -> str:
        """The class of scikit-learn that fits it."""

    @property
    def settings(self) -> tuple[str, ...]:
        """The parameters of the estimator that people may set, beside the number of trees."""

    @property
    def limits(self) -> str:
        """The argument of the gate that has the limit."""

    @property
    def limit(self) -> tuple[str, float]:
        """What the gate measures, and the limit of it."""

    def note(self, name: str) -> str:
        """Return what is not certain about a truth with this name; "" if everything is."""

    def head(self, name: str) -> tuple[str, str]:
        """Return the score of a truth with this name, and more arguments of its head."""

    def answer(self, name: str) -> "Answer | None":
        """Return its part of the answer; None if the task makes all of it."""


class Answer(msgspec.Struct, frozen=True):
    """A label and a risk level of an answer, as code, and a note for the reader.

    ``risk`` may be empty.
    """

    note: str
    label: str
    risk: str


class Binary(msgspec.Struct, frozen=True):
    """Two values: ``positive`` are the cells that mean 1, ``negative`` those that mean 0.

    ``share`` is the share of 1. ``is_certain`` says whether the meaning is.
    """

    column: str
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    share: float
    is_certain: bool
    estimator: str = "RandomForestClassifier"
    settings: tuple[str, ...] = FOREST
    limits: str = "floors"
    limit: tuple[str, float] = ("roc_auc", 0.6)

    @property
    def truth(self) -> str:
        """The column if its cells are 0 and 1, or else a case for each cell."""
        cells = (*self.positive, *self.negative)
        if all(_as_number(cell) in (0.0, 1.0) for cell in cells):
            return quoted(self.column)
        outcomes = dict.fromkeys(self.positive, "1") | dict.fromkeys(self.negative, "0")
        return case_of(self.column, outcomes)

    def note(self, name: str) -> str:
        """Return which cells mean 1, if it is a guess."""
        if self.is_certain:
            return ""
        positive, negative = (", ".join(map(repr, c)) for c in (self.positive, self.negative))
        return f"CHECK: {name} is 1 for {positive} and 0 for {negative}."

    def head(self, name: str) -> tuple[str, str]:
        """Return the name of the probability."""
        return f"{name}_probability", ""

    def answer(self, name: str) -> Answer:
        """Return a label, and a risk level: MEDIUM from the average on, HIGH in the upper half."""
        share = min(max(self.share, 0.011), 0.489)
        # Votes of 100 trees are often multiples of 0.01, where rounding could decide.
        medium = round(share, 2) - BELOW_VOTES
        high = round((1 + medium) / 2, 2) - BELOW_VOTES
        score, _ = self.head(name)
        return Answer(
            f"CHECK: in the table, {name} is 1 in {self.share:.1%} of the rows.",
            f'Label("{name}", "{score}", threshold=0.499)',
            f'Risk("{score}", medium={medium:.3f}, high={high:.3f})',
        )


class Multiclass(msgspec.Struct, frozen=True):
    """Classes: the cells of each class, by its name; ``numbers`` says whether they are numbers."""

    column: str
    classes: dict[str, tuple[str, ...]]
    numbers: bool
    estimator: str = "RandomForestClassifier"
    settings: tuple[str, ...] = FOREST
    limits: str = "floors"

    @property
    def truth(self) -> str:
        """The column, or a case for each cell if a class is written in several ways."""
        if self.numbers or all(cells == (name,) for name, cells in self.classes.items()):
            return quoted(self.column)
        names = {cell: literal(name) for name, cells in self.classes.items() for cell in cells}
        return case_of(self.column, names)

    @property
    def limit(self) -> tuple[str, float]:
        """A floor in the middle between chance and certainty, but closer to chance."""
        return "balanced_accuracy", round(1 / len(self.classes) + 0.1, 2)

    def note(self, name: str) -> str:
        """Return that numbers may be no classes."""
        if not self.numbers:
            return ""
        return (
            f'CHECK: the numbers of {name} are names of classes; declare task="regression" if '
            "their distances have a meaning."
        )

    def head(self, name: str) -> tuple[str, str]:
        """Return the name of the class, and the classes."""
        listed = ", ".join(f'"{each}"' for each in self.classes)
        return f"{name}_class", f"classes=({listed})"

    def answer(self, name: str) -> None:
        """Return nothing: the class is an output without a policy."""


class Regression(msgspec.Struct, frozen=True):
    """A number; ``missing`` are cells that are none."""

    column: str
    missing: tuple[str, ...]
    estimator: str = "RandomForestRegressor"
    settings: tuple[str, ...] = FOREST
    limits: str = "floors"
    limit: tuple[str, float] = ("r2", 0.2)

    @property
    def truth(self) -> str:
        """The column, without cells that are no numbers."""
        return without(self.column, self.missing)

    def note(self, name: str) -> str:  # noqa: ARG002 - a number is a number
        """Return nothing."""
        return ""

    def head(self, name: str) -> tuple[str, str]:
        """Return the name of the number, and the level of its interval."""
        return f"predicted_{name}", 'task="regression", interval=0.9'

    def answer(self, name: str) -> None:
        """Return nothing: the interval is an output without a policy."""


class Anomaly(msgspec.Struct, frozen=True):
    """No truth: how usual a row is."""

    column: str = ""
    truth: str = ""
    estimator: str = "IsolationForest"
    settings: tuple[str, ...] = ("unusual",)
    limits: str = "max_label_rate"
    limit: tuple[str, float] = ("unusual", 0.1)

    def note(self, name: str) -> str:  # noqa: ARG002 - there is no truth
        """Return nothing."""
        return ""

    def head(self, name: str) -> tuple[str, str]:  # noqa: ARG002
        """Return the name of the score."""
        return "normality", ""

    def answer(self, name: str) -> Answer:  # noqa: ARG002
        """Return a label for rows that are less usual than nearly all of the table."""
        return Answer(
            "CHECK: normality is negative for a share of the table that the parameter unusual has.",
            'Label("unusual", "normality", threshold=-1e-6, side="below")',
            "",
        )


def choose(column: ColumnFindings) -> Target:
    """Return the task of a column.

    Raises:
        CannotTrainError: it does not fit a task.
    """
    kinds: dict[str, list[str]] = {}
    for cell in column.values:
        number = _as_number(cell)
        kinds.setdefault(cell.lower() if number is None else f"{number:g}", []).append(cell)
    counts = {kind: sum(column.values[cell] for cell in cells) for kind, cells in kinds.items()}
    if len(kinds) == 2 and not column.more_values:
        return _binary(column, kinds, counts)
    discrete = column.is_integer or not column.is_numeric
    if discrete and 2 < len(kinds) <= CLASSES and not column.more_values:
        return _multiclass(column, kinds, counts)
    if column.is_numeric and len(kinds) > 2:
        return Regression(column.name, column.unreadable)
    some = ", ".join(repr(kind) for kind in list(kinds)[:5]) or "nothing"
    more = f" and {len(kinds) - 5} more" if len(kinds) > 5 else ""
    raise CannotTrainError(
        f"--target {column.name}: a truth has two values, numbers, or up to {CLASSES} classes, and "
        f"this column has {some}{more}; name another column, or make one"
    )


def _binary(column: ColumnFindings, kinds: dict[str, list[str]], counts: dict[str, int]) -> Binary:
    known = [kind for kind in kinds if kind in POSITIVE]
    rarer = min(kinds, key=lambda kind: counts[kind])
    positive = known[0] if len(known) == 1 else rarer
    (negative,) = (kind for kind in kinds if kind != positive)
    return Binary(
        column=column.name,
        positive=tuple(kinds[positive]),
        negative=tuple(kinds[negative]),
        share=counts[positive] / sum(counts.values()),
        is_certain=len(known) == 1,
    )


def _multiclass(
    column: ColumnFindings, kinds: dict[str, list[str]], counts: dict[str, int]
) -> Multiclass:
    if rare := [kind for kind, count in counts.items() if count < ROWS_PER_CLASS]:
        raise CannotTrainError(
            f"--target {column.name}: class {rare[0]!r} has {counts[rare[0]]} rows, and a class "
            f"needs {ROWS_PER_CLASS}; join it with another one, or leave its rows out"
        )
    numbers = all(_as_number(kind) is not None for kind in kinds)
    order = sorted(kinds, key=float) if numbers else sorted(kinds)
    named = {kind if numbers else kinds[kind][0]: tuple(kinds[kind]) for kind in order}
    return Multiclass(column.name, named, numbers)


def _as_number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None
