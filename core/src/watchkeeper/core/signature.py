"""The signature of a model: the columns of a request and of its answer."""

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


class Column(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One column of a request, with one value for each row.

    Attributes:
        name: The name of the column.
        datatype: The type of its values; BYTES is text.
        unit: The unit of its values, for example "bar".
        minimum: The smallest value that is physically possible, in ``unit``.
        maximum: The largest value that is physically possible, in ``unit``.
        categories: The possible values of a BYTES column, which must have some.
    """

    name: str
    datatype: Datatype
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    categories: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.datatype == "BYTES") != bool(self.categories):
            raise ValueError(
                f"column {self.name!r}: a BYTES column needs categories, and only a BYTES column"
            )
        if self.datatype == "BYTES" and (self.minimum is not None or self.maximum is not None):
            raise ValueError(f"column {self.name!r}: a BYTES column has no minimum or maximum")


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
