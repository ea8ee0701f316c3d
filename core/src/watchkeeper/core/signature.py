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

from watchkeeper.core.timestamps import DECIMALS, seconds, text

Columns = dict[str, NDArray[Any]]
"""Values by the name of their column, each of shape (rows,)."""

Datatype = Literal["FP64", "FP32", "INT64", "INT32", "BOOL", "BYTES", "TIMESTAMP"]
"""The datatype of a column, in the words of the V2 inference protocol; BYTES is text.

A TIMESTAMP travels as BYTES, see :mod:`watchkeeper.core.timestamps`.
"""

DTYPES: Final[dict[Datatype, np.dtype[Any]]] = {
    "FP64": np.dtype(np.float64),
    "FP32": np.dtype(np.float64),  # of values that are rounded to 32 bits
    "INT64": np.dtype(np.int64),
    "INT32": np.dtype(np.int64),
    "BOOL": np.dtype(np.int64),  # 0 and 1
    "BYTES": np.dtype(object),  # each element is a str
    "TIMESTAMP": np.dtype(np.float64),  # seconds since 1970
}
"""The numpy type of the values that a pipeline gets, by the datatype of the column."""

_LIMITS: Final[dict[Datatype, tuple[float, float]]] = {
    "INT32": (-(2.0**31), 2.0**31 - 1),
    "BOOL": (0.0, 1.0),
}

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
        nullable: Whether values may be missing. INT64, INT32 and BOOL have no missing value.
        unseen: What happens to a text that is no category: the request is refused, or the pipeline
            gets it, which must know what to do with it.
    """

    name: str
    datatype: Datatype
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    categories: tuple[str, ...] = ()
    nullable: bool = False
    unseen: Literal["refuse", "accept"] = "refuse"

    def __post_init__(self) -> None:
        if (self.datatype == "BYTES") != bool(self.categories):
            raise ValueError(
                f"column {self.name!r}: a BYTES column needs categories, and only a BYTES column"
            )
        if self.datatype in ("BYTES", "BOOL", "TIMESTAMP") and (
            self.minimum is not None or self.maximum is not None
        ):
            raise ValueError(
                f"column {self.name!r}: a {self.datatype} column has no minimum or maximum"
            )
        if self.nullable and self.is_integer:
            raise ValueError(
                f"column {self.name!r}: {self.datatype} has no missing value, so it cannot be "
                "nullable; declare FP64, which represents integers up to 2^53"
            )
        if self.unseen == "accept" and self.datatype != "BYTES":
            raise ValueError(f"column {self.name!r}: only a BYTES column accepts unseen categories")
        if self.nullable and MISSING_TEXT in self.categories:
            raise ValueError(
                f"column {self.name!r}: the empty text is the missing value of a nullable BYTES "
                "column, so it is no category; remove it from the categories"
            )

    @property
    def wire(self) -> str:
        """The datatype of its values in requests."""
        return "BYTES" if self.datatype == "TIMESTAMP" else self.datatype

    @property
    def is_integer(self) -> bool:
        """Whether a pipeline gets integers."""
        return DTYPES[self.datatype].kind == "i"

    @property
    def limits(self) -> tuple[float | None, float | None]:
        """The smallest and the largest value, declared or of the datatype; None is no limit."""
        low, high = _LIMITS.get(self.datatype, (None, None))
        low = low if self.minimum is None else self.minimum
        high = high if self.maximum is None else self.maximum
        if self.datatype == "FP32":  # as exact as the values, so that the limit itself is within
            low, high = (x if x is None else float(np.float32(x)) for x in (low, high))
        return low, high

    def array(self, values: Sequence[Any]) -> NDArray[Any]:
        """Return values of a request or a record in JSON as an array of shape (rows,).

        Raises:
            TypeError, ValueError: a value is not of the datatype.
        """
        if self.datatype == "BYTES":
            values = [MISSING_TEXT if value is None else value for value in values]
        elif self.datatype == "TIMESTAMP":  # a record has numbers
            values = [seconds(x) if isinstance(x, str) and x else x or None for x in values]
        return self.rounded(np.array(values, dtype=DTYPES[self.datatype]))  # None becomes NaN

    def rounded(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return values, of shape (rows,), as exact as the datatype represents them."""
        if self.datatype == "FP32":
            with np.errstate(over="ignore", invalid="ignore"):  # too large becomes infinite
                return values.astype(np.float32).astype(np.float64)
        if self.datatype == "TIMESTAMP":
            return np.round(values, DECIMALS)
        return values

    def missing(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """Return which values, of shape (rows,), are missing."""
        if self.datatype == "BYTES":
            return np.asarray(self.nullable & (values == MISSING_TEXT), dtype=bool)
        missing: NDArray[np.bool_] = np.isnan(values.astype(np.float64))
        return missing

    def listed(self, values: NDArray[Any]) -> list[Any]:
        """Return an array of values as JSON has them: null for a missing value."""
        listed = values.astype(bool).tolist() if self.datatype == "BOOL" else values.tolist()
        if self.datatype == "TIMESTAMP":
            listed = [None if np.isnan(value) else text(value) for value in listed]
        missing = self.missing(values).tolist()
        return [None if gone else value for gone, value in zip(missing, listed, strict=True)]

    def knows(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """Return which values, of shape (rows,), are categories, or missing where they may be."""
        missing = self.missing(values)
        if not self.categories:
            return ~missing | self.nullable
        if self.unseen == "accept":
            return np.ones(len(values), dtype=bool)
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
            elif lost := _lost(column, old):
                problems.append(f"input {old.name!r} {lost}")
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


def _lost(new: Column, old: Column) -> str:
    """Return which values of a column are no longer accepted; "" if all are."""
    if new.datatype != old.datatype:
        return f"was {old.datatype}, is {new.datatype}"
    if old.nullable and not new.nullable:
        return "is no longer nullable"
    if new.unseen == "refuse" and old.unseen == "accept":
        return "no longer accepts unseen categories"
    if new.unseen == "refuse" and not set(old.categories) <= set(new.categories):
        return "lost categories"
    return "has a narrower range" if _narrower(new, old) else ""


def _narrower(new: Column, old: Column) -> bool:
    below, above = float("-inf"), float("inf")
    return (below if new.minimum is None else new.minimum) > (
        below if old.minimum is None else old.minimum
    ) or (above if new.maximum is None else new.maximum) < (
        above if old.maximum is None else old.maximum
    )
