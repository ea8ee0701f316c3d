"""The contract: what a request must be before the model sees any of it.

Nothing is guessed. A request has exactly the columns of the signature, each with a datatype
that its column takes without loss, the same number of rows, and values that are finite, in
range and known; only what the version's policy allows is answered in spite of its range.
"""

from collections.abc import Container, Mapping, Sequence
from itertools import chain

import msgspec
import numpy as np
from numpy.typing import NDArray

from watchkeeper.contracts.answer import AnswerPolicy, Columns, outputs_of
from watchkeeper.contracts.signature import Column, Output, Signature
from watchkeeper.serving.refusals import Refused
from watchkeeper.serving.tensors import DATATYPES, INTEGERS, Array, ContentsError, Tensor, Values

_ACCEPTED = {"FP64": ("FP64", "FP32", *INTEGERS), "INT64": INTEGERS, "BYTES": ("BYTES",)}
MAX_SUBJECT = 255
# Parameters of other servers that change what an answer means: ignoring them would be guessing.
_UNSERVED = ("shared_memory_region", "classification")
# Trees of scikit-learn compute in FP32: what it cannot hold has no answer that could be checked.
_LARGEST = float(np.finfo(np.float32).max)
_DTYPES = {"FP64": np.dtype(np.float64), "INT64": np.dtype(np.int64), "BYTES": np.dtype(object)}
_EXACT = 2**53  # beyond it, FP64 no longer holds every integer


class Checked(msgspec.Struct, frozen=True, gc=False):
    """Columns as the model wants them, each of shape (rows,), and what was out of range."""

    columns: dict[str, Values]
    rows: int
    flags: list[str]


class Contract:
    """The signature of a version, made checkable."""

    def __init__(self, signature: Signature, scores: tuple[str, ...], policy: AnswerPolicy) -> None:
        self._rules = {column.name: _Rule(column) for column in signature.inputs}
        self._names = ", ".join(self._rules)
        self._outputs = {output.name: output for output in outputs_of(scores, policy)}
        self._flags_allowed = policy.out_of_range == "flag"

    def check(self, tensors: Sequence[Tensor]) -> Checked:
        """Turn the tensors of a request into columns.

        Raises:
            Refused: a rule is broken; the message names the column and the rule.
        """
        found: dict[str, Values] = {}
        flags: list[str] = []
        rows = 0
        for tensor in tensors:
            name = tensor.name
            rule = self._rules.get(name)
            if rule is None:
                raise Refused(f"column {name!r}: unknown; the columns are {self._names}")
            if name in found:
                raise Refused(f"column {name!r}: given twice")
            try:
                values = rule.read(tensor)
            except ContentsError as error:
                raise Refused(f"column {name!r}: {error}") from error
            if found and len(values) != rows:
                first = next(iter(found))
                raise Refused(f"column {name!r}: has {len(values)} rows, but {first!r} has {rows}")
            rows = len(values)
            found[name] = values
            if not rule.holds(values):
                complaint, finite = rule.complaint(values)
                if not (finite and self._flags_allowed):
                    raise Refused(f"column {name!r}: {complaint}")
                flags.append(f"column {name!r}: {complaint}")
        if len(found) < len(self._rules):
            missing = next(name for name in self._rules if name not in found)
            raise Refused(f"column {missing!r}: missing; the columns are {self._names}")
        return Checked(found, rows, flags)

    def columns(self, checked: Sequence[Checked]) -> dict[str, list[Values]]:
        """Return of each column what each of the requests has in it."""
        return {name: [each.columns[name] for each in checked] for name in self._rules}

    def together(self, columns: Mapping[str, Sequence[Values]]) -> Columns:
        """Put the rows of requests one below the other."""
        return {name: rule.together(columns[name]) for name, rule in self._rules.items()}

    def outputs(self, names: Sequence[str]) -> tuple[Output, ...]:
        """Return the outputs that are asked for by name, in that order; all if none is named."""
        if not names:
            return tuple(self._outputs.values())
        for name in names:
            if name not in self._outputs:
                raise Refused(
                    f"output {name!r}: unknown; the outputs are {', '.join(self._outputs)}"
                )
        if len(set(names)) < len(names):
            raise Refused(f"outputs {list(names)}: each can be asked for once")
        return tuple(self._outputs[name] for name in names)


def check_subject(value: object) -> str:
    """Return the request's parameter ``subject``; who deletes by it must find exactly this text.

    Raises:
        Refused: it is no such text.
    """
    if (
        isinstance(value, str)
        and 1 <= len(value) <= MAX_SUBJECT
        and value.isprintable()
        and value == value.strip()
    ):
        return value
    raise Refused(
        f"parameter 'subject': must be text of 1 to {MAX_SUBJECT} printable characters, "
        "without spaces around it"
    )


def refuse_unserved(parameters: Container[str], owner: str) -> None:
    """Refuse parameters of an input or output that are not served here.

    Raises:
        Refused: there is one; the message names it.
    """
    for name in _UNSERVED:
        if name in parameters:
            raise Refused(f"{owner}: parameter {name!r} is not served here")


class _Rule:
    """What one column takes."""

    def __init__(self, column: Column) -> None:
        self.column = column
        self._own = column.datatype
        self._dtype = _DTYPES[column.datatype]
        self._accepted = _ACCEPTED[column.datatype]
        self._categories = frozenset(column.categories)
        # NaN and the infinities are outside of every range: one comparison finds all of them.
        self._low = -_LARGEST if column.minimum is None else max(-_LARGEST, column.minimum)
        self._high = _LARGEST if column.maximum is None else min(_LARGEST, column.maximum)

    def read(self, tensor: Tensor) -> Values:
        """Check datatype and shape, then read the values as the model wants them."""
        datatype, shape = tensor.datatype, tensor.shape
        if datatype not in self._accepted:
            known = "" if datatype in DATATYPES else ", which the protocol does not know"
            raise ContentsError(
                f"its datatype is {datatype!r}{known}; it takes {', '.join(self._accepted)}"
            )
        dimensions = len(shape)
        if not 1 <= dimensions <= 2 or shape[0] < 1 or (dimensions == 2 and shape[1] != 1):
            raise ContentsError(
                f"shape {list(shape)[:9]} must be [rows] or [rows, 1] with at least one row"
            )
        values = tensor.contents.read(datatype, shape[0])
        if datatype == self._own:
            return values
        return self._numbers(np.asarray(values), datatype)

    def together(self, parts: Sequence[Values]) -> Array:
        """Return one array of all the values."""
        if len(parts) == 1:
            return np.asarray(parts[0], dtype=self._dtype)
        if all(isinstance(part, list) for part in parts):
            return np.array(list(chain.from_iterable(parts)), dtype=self._dtype)
        return np.concatenate([np.asarray(part, dtype=self._dtype) for part in parts])

    def _numbers(self, values: Array, datatype: str) -> Array:
        if self.column.datatype == "INT64":
            if datatype == "UINT64" and values.max() > np.iinfo(np.int64).max:
                raise ContentsError(f"{values.max()} does not fit into INT64")
            return values.astype(np.int64, copy=False)
        if datatype in ("INT64", "UINT64") and (values.max() > _EXACT or values.min() < -_EXACT):
            raise ContentsError("holds an integer beyond ±2^53, which FP64 cannot hold exactly")
        return values.astype(np.float64, copy=False)

    def holds(self, values: Values) -> bool:
        """Tell whether all values are in range, or known."""
        if self._categories:
            return self._categories.issuperset(
                values if isinstance(values, list) else values.tolist()
            )
        if isinstance(values, list):
            low, high = self._low, self._high
            for value in values:  # noqa: SIM110 - a generator costs more than the few values do
                if not low <= value <= high:
                    return False
            return True
        if len(values) == 1:
            return bool(self._low <= values.item() <= self._high)
        return bool(self._low <= values.min() and values.max() <= self._high)

    def complaint(self, given: Values) -> tuple[str, bool]:
        """Say which value is the first one outside, and whether all are at least finite."""
        values = np.asarray(given, dtype=self._dtype)
        if self._categories:
            outside = np.array([value not in self._categories for value in values.tolist()])
            return _located(
                values, outside, f"must be one of {', '.join(self.column.categories)}"
            ), True
        finite = np.abs(values) <= _LARGEST
        if not finite.all():
            rule = f"must be a finite number of at most {_LARGEST:.2g} in size"
            return _located(values, ~finite, rule), False
        outside = (values < self._low) | (values > self._high)
        rule = f"must be {self._range()} {self.column.unit}".rstrip()
        return _located(values, outside, rule), True

    def _range(self) -> str:
        low, high = self.column.minimum, self.column.maximum
        if low is not None and high is not None:
            return f"from {low:.15g} to {high:.15g}"
        return f"at most {high:.15g}" if low is None else f"at least {low:.15g}"


def _located(values: Array, outside: NDArray[np.bool_], rule: str) -> str:
    rows = np.flatnonzero(outside)
    value = values[rows[0]]
    shown = repr(value[:40]) if isinstance(value, str) else f"{value:.15g}"
    if isinstance(value, np.integer):
        shown = str(value)
    more = f", and {len(rows) - 1} more rows" if len(rows) > 1 else ""
    return f"row {rows[0]} is {shown}{more}; it {rule}"
