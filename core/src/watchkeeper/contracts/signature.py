"""The signature of a model: which columns a request has and which an answer has."""

from typing import Literal

import msgspec

Datatype = Literal["FP64", "INT64", "BYTES"]


class Column(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One input column, one value a row.

    ``minimum`` and ``maximum`` bound the values that make physical sense, in ``unit``;
    ``categories`` lists the values of a BYTES column.
    """

    name: str
    datatype: Datatype
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    categories: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.datatype == "BYTES") != bool(self.categories):
            raise ValueError(f"column {self.name!r}: only BYTES columns have categories, and must")
        if self.datatype == "BYTES" and (self.minimum is not None or self.maximum is not None):
            raise ValueError(f"column {self.name!r}: a BYTES column has no minimum or maximum")


class Output(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One output column, one value a row."""

    name: str
    datatype: Datatype
    categories: tuple[str, ...] = ()


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All columns of a request and of its answer, in order."""

    inputs: tuple[Column, ...]
    outputs: tuple[Output, ...]

    def accepts_all_of(self, other: "Signature") -> list[str]:
        """Say why a client of ``other`` could not call this one; empty when it could.

        A version that production's clients cannot call is a new model, not a new version.
        """
        problems: list[str] = []
        mine = {column.name: column for column in self.inputs}
        for theirs in other.inputs:
            column = mine.pop(theirs.name, None)
            if column is None:
                problems.append(f"input {theirs.name!r} is gone")
            elif column.datatype != theirs.datatype:
                problems.append(
                    f"input {theirs.name!r} was {theirs.datatype}, is {column.datatype}"
                )
            elif not set(theirs.categories) <= set(column.categories):
                problems.append(f"input {theirs.name!r} lost categories")
            elif _narrower(column, theirs):
                problems.append(f"input {theirs.name!r} has a narrower range")
        problems += [f"input {name!r} is new and required" for name in mine]
        outputs = {output.name: output.datatype for output in self.outputs}
        problems += [
            f"output {theirs.name!r} is gone or changed its datatype"
            for theirs in other.outputs
            if outputs.get(theirs.name) != theirs.datatype
        ]
        return problems


def _narrower(new: Column, old: Column) -> bool:
    below, above = float("-inf"), float("inf")
    return (below if new.minimum is None else new.minimum) > (
        below if old.minimum is None else old.minimum
    ) or (above if new.maximum is None else new.maximum) < (
        above if old.maximum is None else old.maximum
    )
