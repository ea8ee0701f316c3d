"""The signature of a model: the columns of a request and of its answer.

A missing value of a nullable column has one form for each datatype, from the request to the frame
that a pipeline gets: NaN for numbers, and the empty text :data:`MISSING_TEXT` for text. In JSON,
such as requests, records and examples, it may also be null.
"""

from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

Columns = dict[str, NDArray[Any]]
"""Values by the name of their column, each of shape (rows,)."""

Datatype = Literal["FP64", "INT64", "BYTES"]
"""The datatype of a column, in the words of the V2 inference protocol; BYTES is text."""

DTYPES: Final[dict[Datatype, np.dtype[Any]]] = {
    "FP64": np.dtype(np.float64),
    "INT64": np.dtype(np.int64),
    "BYTES": np.dtype(object),  # each element is a str
}
"""The numpy type of each datatype."""

MISSING_TEXT: Final = ""
"""The missing value of a nullable BYTES column."""


class Column(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One column of a request, with one value for each row.

    Attributes:
        name: The name of the column.
        datatype: The type of its values; BYTES is text.
        unit: The unit of its values, for example "bar".
        minimum: The smallest value that is physically possible, in ``unit``.
        maximum: The largest value that is physically possible, in ``unit``.
        categories: The possible values of a BYTES column, which must have some.
        nullable: Whether values may be missing. INT64 has no missing value.
    """

    name: str
    datatype: Datatype
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    categories: tuple[str, ...] = ()
    nullable: bool = False

    def __post_init__(self) -> None:
        if (self.datatype == "BYTES") != bool(self.categories):
            raise ValueError(
                f"column {self.name!r}: a BYTES column needs categories, and only a BYTES column"
            )
        if self.datatype == "BYTES" and (self.minimum is not None or self.maximum is not None):
            raise ValueError(f"column {self.name!r}: a BYTES column has no minimum or maximum")
        if self.nullable and self.datatype == "INT64":
            raise ValueError(
                f"column {self.name!r}: INT64 has no missing value, so it cannot be nullable; "
                "declare FP64, which represents integers up to 2^53"
            )
        if self.nullable and MISSING_TEXT in self.categories:
            raise ValueError(
                f"column {self.name!r}: the empty text is the missing value of a nullable BYTES "
                "column, so it is no category; remove it from the categories"
            )

    def array(self, values: Sequence[Any]) -> NDArray[Any]:
        """Return the values of a request in JSON as an array of shape (rows,).

        Raises:
            TypeError, ValueError: a value is not of the datatype.
        """
        if self.datatype == "BYTES":
            values = [MISSING_TEXT if value is None else value for value in values]
        return np.array(values, dtype=DTYPES[self.datatype])  # None becomes NaN

    def missing(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """Return which values, of shape (rows,), are missing."""
        if self.datatype == "BYTES":
            return np.asarray(self.nullable & (values == MISSING_TEXT), dtype=bool)
        missing: NDArray[np.bool_] = np.isnan(values.astype(np.float64))
        return missing

    def listed(self, values: NDArray[Any]) -> list[Any]:
        """Return an array of values as JSON has them: null for a missing value."""
        missing = self.missing(values).tolist()
        return [
            None if gone else value for gone, value in zip(missing, values.tolist(), strict=True)
        ]

    def knows(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """Return which values, of shape (rows,), are categories, or missing where they may be."""
        missing = self.missing(values)
        if not self.categories:
            return ~missing | self.nullable
        known = [value in self.categories for value in values.tolist()]
        return np.asarray(missing | np.array(known, dtype=bool), dtype=bool)


def missing_name(column: str) -> str:
    """Return the name of the feature that says whether a nullable column has no value."""
    return f"{column}: missing"


class Output(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One column of an answer, with one value for each row."""

    name: str
    datatype: Datatype
    categories: tuple[str, ...] = ()


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All columns of a request and of its answer, in order."""

    inputs: tuple[Column, ...]
    outputs: tuple[Output, ...]

    def incompatibilities(self, other: "Signature") -> list[str]:
        """Return why clients of another signature cannot use this one; empty if they can.

        A candidate must accept every request that production accepts, and return its outputs. A
        version that does not is a new model.

        Args:
            other: The signature that clients use now.
        """
        problems: list[str] = []
        new = {column.name: column for column in self.inputs}
        for old in other.inputs:
            column = new.pop(old.name, None)
            if column is None:
                problems.append(f"input {old.name!r} is gone")
            elif column.datatype != old.datatype:
                problems.append(f"input {old.name!r} was {old.datatype}, is {column.datatype}")
            elif not set(old.categories) <= set(column.categories):
                problems.append(f"input {old.name!r} lost categories")
            elif old.nullable and not column.nullable:
                problems.append(f"input {old.name!r} is no longer nullable")
            elif _narrower(column, old):
                problems.append(f"input {old.name!r} has a narrower range")
        problems += [f"input {name!r} is new and required" for name in new]
        outputs = {output.name: output for output in self.outputs}
        for wanted in other.outputs:
            output = outputs.get(wanted.name)
            if output is None or output.datatype != wanted.datatype:
                problems.append(f"output {wanted.name!r} is gone or changed its datatype")
            elif output.categories[: len(wanted.categories)] != wanted.categories:
                # Labels are stored by the place of their class.
                problems.append(
                    f"output {wanted.name!r} has other categories: new ones come after the old "
                    f"ones, {', '.join(wanted.categories)}"
                )
        return problems


def _narrower(new: Column, old: Column) -> bool:
    below, above = float("-inf"), float("inf")
    return (below if new.minimum is None else new.minimum) > (
        below if old.minimum is None else old.minimum
    ) or (above if new.maximum is None else new.maximum) < (
        above if old.maximum is None else old.maximum
    )
