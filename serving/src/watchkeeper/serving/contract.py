"""The contract of a version: what a request must satisfy before the model sees it.

The server never guesses. A request has exactly the columns of the signature. Each column has a
datatype that can be converted without loss, and the same number of rows. Every value is finite, in
range, or one of the categories, or it is missing in a nullable column. Only a value out of range
can be answered anyway, if the version's policy says so.
"""

import math
from collections.abc import Container, Mapping, Sequence
from itertools import chain
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from watchkeeper.core.answer import AnswerPolicy, outputs_of
from watchkeeper.core.head import Head
from watchkeeper.core.signature import DTYPES, MISSING_TEXT, Column, Columns, Output, Signature
from watchkeeper.core.timestamps import seconds
from watchkeeper.serving.errors import RequestError
from watchkeeper.serving.tensors import (
    DATATYPES,
    FLOATS,
    INTEGERS,
    Array,
    ContentsError,
    Tensor,
    Values,
)

MAX_SUBJECT_LENGTH = 255
# The datatypes that a column accepts, by its own datatype.
_ACCEPTED: dict[str, tuple[str, ...]] = {
    "FP64": (*FLOATS, *INTEGERS),
    "FP32": ("FP32", "FP16", "BF16", *INTEGERS),
    "INT64": INTEGERS,
    "INT32": INTEGERS,
    "BOOL": ("BOOL",),
    "BYTES": ("BYTES",),
    "TIMESTAMP": ("BYTES",),
}
# Parameters of other servers that change the meaning of an answer.
_UNSUPPORTED_PARAMETERS = ("shared_memory_region", "classification")
# Trees of scikit-learn compute in FP32. An answer to a larger number could not be checked.
_MAX_FLOAT = float(np.finfo(np.float32).max)
_EXACT_BITS = {"FP64": 53, "FP32": 24}  # they cannot represent every larger integer
_INTEGERS: dict[str, np.iinfo[Any]] = {"INT64": np.iinfo(np.int64), "INT32": np.iinfo(np.int32)}
_MAX_TEXT = 255  # characters of an unseen category


class CheckedColumns(msgspec.Struct, frozen=True, gc=False):
    """The columns of a request that follows the contract.

    Attributes:
        columns: The values of each column, of shape (rows,), in the datatype of the model.
        rows: Number of rows, at least 1.
        flags: One text per column with values out of range.
        outputs: The outputs that the client wants, in order.
    """

    columns: dict[str, Values]
    rows: int
    flags: list[str]
    outputs: tuple[Output, ...]


class Contract:
    """The checks that follow from a version's signature and answer policy."""

    def __init__(self, signature: Signature, heads: tuple[Head, ...], policy: AnswerPolicy) -> None:
        self._rules = {column.name: _ColumnRule(column) for column in signature.inputs}
        self._names = ", ".join(self._rules)
        self._outputs = {output.name: output for output in outputs_of(heads, policy)}
        self._flags_allowed = policy.out_of_range == "flag"

    def check(self, tensors: Sequence[Tensor], outputs: Sequence[str] = ()) -> CheckedColumns:
        """Check a request and read its tensors.

        Args:
            tensors: The inputs of the request.
            outputs: Names of the outputs that the client wants; empty means all.

        Raises:
            RequestError: The request breaks a rule. The message names the column and the rule.
        """
        wanted = self.outputs(outputs)
        found: dict[str, Values] = {}
        flags: list[str] = []
        rows = 0
        for tensor in tensors:
            name = tensor.name
            rule = self._rules.get(name)
            if rule is None:
                raise RequestError(f"column {name!r}: unknown; the columns are {self._names}")
            if name in found:
                raise RequestError(f"column {name!r}: given twice")
            try:
                values = rule.read(tensor)
            except ContentsError as error:
                raise RequestError(f"column {name!r}: {error}") from error
            if found and len(values) != rows:
                first = next(iter(found))
                raise RequestError(
                    f"column {name!r}: has {len(values)} rows, but {first!r} has {rows}"
                )
            rows = len(values)
            found[name] = values
            if not rule.accepts(values):
                violation, finite = rule.violation(values)
                if not (finite and self._flags_allowed):
                    raise RequestError(f"column {name!r}: {violation}")
                flags.append(f"column {name!r}: {violation}")
        if len(found) < len(self._rules):
            missing = next(name for name in self._rules if name not in found)
            raise RequestError(f"column {missing!r}: missing; the columns are {self._names}")
        return CheckedColumns(found, rows, flags, wanted)

    def outputs(self, names: Sequence[str] = ()) -> tuple[Output, ...]:
        """Return the named outputs in the order of the names, or all outputs without a name.

        Raises:
            RequestError: A name is unknown or occurs twice.
        """
        if not names:
            return tuple(self._outputs.values())
        for name in names:
            if name not in self._outputs:
                raise RequestError(
                    f"output {name!r}: unknown; the outputs are {', '.join(self._outputs)}"
                )
        if len(set(names)) < len(names):
            raise RequestError(f"outputs {list(names)}: name each output once")
        return tuple(self._outputs[name] for name in names)

    def columns(self, requests: Sequence[CheckedColumns]) -> dict[str, list[Values]]:
        """Return for each column the values of each request."""
        return {name: [each.columns[name] for each in requests] for name in self._rules}

    def concatenate(self, columns: Mapping[str, Sequence[Values]]) -> Columns:
        """Concatenate the rows of several requests to one array per column."""
        return {name: rule.concatenate(columns[name]) for name, rule in self._rules.items()}


def check_subject(value: object) -> str:
    """Return the parameter ``subject`` if its records can be found again by exactly this text.

    Raises:
        RequestError: It is not a text, is too long, or contains characters that nobody can see.
    """
    if (
        isinstance(value, str)
        and 1 <= len(value) <= MAX_SUBJECT_LENGTH
        and value.isprintable()
        and value == value.strip()
    ):
        return value
    raise RequestError(
        f"parameter 'subject': must be text of 1 to {MAX_SUBJECT_LENGTH} printable characters, "
        "without spaces around it"
    )


def refuse_unsupported(parameters: Container[str], owner: str) -> None:
    """Refuse parameters of an input or output that this server does not support.

    Args:
        parameters: The names of the parameters.
        owner: The input or output, for the message.

    Raises:
        RequestError: There is such a parameter.
    """
    for name in _UNSUPPORTED_PARAMETERS:
        if name in parameters:
            raise RequestError(f"{owner}: parameter {name!r} is not supported by this server")


class _ColumnRule:
    """The checks of one column."""

    def __init__(self, column: Column) -> None:
        self.column = column
        self._datatype = column.datatype
        self._dtype = DTYPES[column.datatype]
        self._accepted = _ACCEPTED[column.datatype]
        # Requests and the model have the same values of these.
        self._is_plain = column.datatype in ("FP64", "INT64", "BYTES")
        self._open = column.unseen == "accept"
        self._nullable = column.nullable
        missing = (MISSING_TEXT,) if column.nullable and column.categories else ()
        self._categories = frozenset((*column.categories, *missing))
        # NaN and infinity are outside of every range, so one comparison finds all of them.
        low, high = column.limits
        self._low = -_MAX_FLOAT if low is None else max(-_MAX_FLOAT, low)
        self._high = _MAX_FLOAT if high is None else min(_MAX_FLOAT, high)

    def read(self, tensor: Tensor) -> Values:
        """Check datatype and shape, then read the values in the datatype of the column.

        Raises:
            ContentsError: The column does not accept the tensor.
        """
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
        values = tensor.contents.read(datatype, shape, nullable=self._nullable)
        if datatype == self._datatype and self._is_plain:
            return values
        if self.column.datatype == "TIMESTAMP":
            return self._times(values)
        return self._convert(np.asarray(values), datatype)

    def concatenate(self, parts: Sequence[Values]) -> Array:
        """Return one array with the values of all parts."""
        if len(parts) == 1:
            return np.asarray(parts[0], dtype=self._dtype)
        if all(isinstance(part, list) for part in parts):
            return np.array(list(chain.from_iterable(parts)), dtype=self._dtype)
        return np.concatenate([np.asarray(part, dtype=self._dtype) for part in parts])

    def _convert(self, values: Array, datatype: str) -> Array:
        """Convert numbers to the datatype of the column, or refuse what it cannot represent."""
        if self.column.is_integer:
            if bounds := _INTEGERS.get(self._datatype):
                for value in (values.max(), values.min()):
                    if not bounds.min <= int(value) <= bounds.max:
                        raise ContentsError(f"{value} does not fit into {self._datatype}")
            return values.astype(np.int64, copy=False)
        bits = _EXACT_BITS[self._datatype]
        if datatype in INTEGERS and (int(values.max()) > 2**bits or int(values.min()) < -(2**bits)):
            raise ContentsError(
                f"contains an integer beyond ±2^{bits}, which {self._datatype} cannot represent "
                "exactly"
            )
        with np.errstate(invalid="ignore"):  # a signalling NaN; the next check refuses it
            return values.astype(np.float64, copy=False)

    def _times(self, values: Values) -> Array:
        """Convert texts to seconds since 1970."""
        found = np.empty(len(values))
        for row, value in enumerate(values):
            if self._nullable and value == MISSING_TEXT:
                found[row] = np.nan
                continue
            try:
                found[row] = seconds(value)
            except ValueError as error:
                raise ContentsError(f"row {row}: {error}") from error
        return found

    def accepts(self, values: Values) -> bool:
        """Return whether all values are in range, are categories, or are missing if they may be."""
        if self._categories:
            texts = values if isinstance(values, list) else values.tolist()
            return self._categories.issuperset(texts) or (
                self._open and all(map(self._is_category, texts))
            )
        if isinstance(values, list):
            low, high = self._low, self._high
            for value in values:
                if not low <= value <= high and not (self._nullable and math.isnan(value)):
                    return False
            return True
        if self._nullable:  # a missing value is neither below nor above
            return not bool(((values < self._low) | (values > self._high)).any())
        if len(values) == 1:
            return bool(self._low <= values.item() <= self._high)
        return bool(self._low <= values.min() and values.max() <= self._high)

    def _is_category(self, text: str) -> bool:
        """Whether a text is a category, or an unseen one that every ledger can store."""
        return text in self._categories or (
            self._open and 1 <= len(text) <= _MAX_TEXT and text.isprintable()
        )

    def violation(self, given: Values) -> tuple[str, bool]:
        """Describe the first value that is not accepted.

        Returns:
            The message, and whether all values are finite: only then a policy may allow them.
        """
        values = np.asarray(given, dtype=self._dtype)
        if self._categories:
            wrong = np.array([not self._is_category(value) for value in values.tolist()])
            rule = f"must be one of {', '.join(self.column.categories)}"
            rule += ", or missing" * self._nullable
            rule += f", or other text of 1 to {_MAX_TEXT} printable characters" * self._open
            return _violation_message(values, wrong, rule), not self._open
        finite = np.abs(values) <= _MAX_FLOAT
        if self._nullable:
            finite |= np.isnan(values)
        if not finite.all():
            rule = f"must be a finite number of at most {_MAX_FLOAT:.2g} in size"
            return _violation_message(values, ~finite, rule), False
        wrong = (values < self._low) | (values > self._high)
        rule = f"must be {self._range()} {self.column.unit}".rstrip()
        return _violation_message(values, wrong, rule), True

    def _range(self) -> str:
        low, high = self.column.limits
        if low is not None and high is not None:
            return f"from {low:.15g} to {high:.15g}"
        return f"at most {high:.15g}" if low is None else f"at least {low:.15g}"


def _violation_message(values: Array, wrong: NDArray[np.bool_], rule: str) -> str:
    rows = np.flatnonzero(wrong)
    value = values[rows[0]]
    shown = repr(value[:40]) if isinstance(value, str) else f"{value:.15g}"
    if isinstance(value, np.integer):
        shown = str(value)
    more = f", and {len(rows) - 1} more rows" if len(rows) > 1 else ""
    return f"row {rows[0]} is {shown}{more}; it {rule}"
