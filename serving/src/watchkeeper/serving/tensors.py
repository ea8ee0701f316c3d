"""Tensors of the V2 protocol: from each encoding to a flat array, and back to bytes.

A tensor keeps its contents encoded until the contract has checked name, datatype and shape. Then
the contents are read for exactly the number of rows in the shape, [rows] or [rows, 1].
"""

import re
import struct
from collections.abc import Sequence
from itertools import chain
from typing import Any, Protocol

import ml_dtypes
import msgspec
import numpy as np
from numpy.typing import NDArray

from watchkeeper.core.signature import MISSING_TEXT

Array = NDArray[Any]
# A few values stay a list, because creating an array takes longer than using the list.
Values = list[Any] | Array
_MAX_LIST = 4

FLOATS = ("FP64", "FP32", "FP16", "BF16")
INTEGERS = ("INT64", "INT32", "INT16", "INT8", "UINT64", "UINT32", "UINT16", "UINT8")
WIRE_DTYPES: dict[str, np.dtype[Any]] = {
    "FP64": np.dtype("<f8"),
    "FP32": np.dtype("<f4"),
    "FP16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    **{name: np.dtype(name.lower()).newbyteorder("<") for name in INTEGERS},
    "BOOL": np.dtype(np.uint8),
}
DATATYPES = {*WIRE_DTYPES, "BYTES"}  # of the protocol

_LENGTH = struct.Struct("<I")
_Decoders = dict[str, msgspec.json.Decoder[Any]]
_FLAT: _Decoders = {
    **dict.fromkeys(FLOATS, msgspec.json.Decoder(list[float])),
    **dict.fromkeys(INTEGERS, msgspec.json.Decoder(list[int])),
    "BYTES": msgspec.json.Decoder(list[str]),
    "BOOL": msgspec.json.Decoder(list[bool]),
}
_NESTED: _Decoders = {
    **dict.fromkeys(FLOATS, msgspec.json.Decoder(list[tuple[float]])),
    **dict.fromkeys(INTEGERS, msgspec.json.Decoder(list[tuple[int]])),
    "BYTES": msgspec.json.Decoder(list[tuple[str]]),
    "BOOL": msgspec.json.Decoder(list[tuple[bool]]),
}
_FLAT_OR_NULL: _Decoders = {
    **dict.fromkeys(FLOATS, msgspec.json.Decoder(list[float | None])),
    **dict.fromkeys(INTEGERS, msgspec.json.Decoder(list[int | None])),
    "BYTES": msgspec.json.Decoder(list[str | None]),
    "BOOL": msgspec.json.Decoder(list[bool | None]),
}
_NESTED_OR_NULL: _Decoders = {
    **dict.fromkeys(FLOATS, msgspec.json.Decoder(list[tuple[float | None]])),
    **dict.fromkeys(INTEGERS, msgspec.json.Decoder(list[tuple[int | None]])),
    "BYTES": msgspec.json.Decoder(list[tuple[str | None]]),
    "BOOL": msgspec.json.Decoder(list[tuple[bool | None]]),
}
_MISSING: dict[str, float | str] = {**dict.fromkeys(FLOATS, float("nan")), "BYTES": MISSING_TEXT}
_NESTED_START = re.compile(rb"\[\s*\[")
_FIELDS = {
    "FP64": "fp64_contents",
    "FP32": "fp32_contents",
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
    "BYTES": "bytes_contents",
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT32", "INT16", "INT8"), "int_contents"),
    **dict.fromkeys(("UINT32", "UINT16", "UINT8"), "uint_contents"),
}


class ContentsError(ValueError):
    """The contents do not fit datatype or shape. The message names the rule, not the column."""


class Contents(Protocol):
    """The encoded contents of a tensor."""

    def read(self, datatype: str, shape: Sequence[int], *, nullable: bool = False) -> Values:
        """Decode the contents.

        Args:
            datatype: The datatype of the tensor.
            shape: [rows] or [rows, 1].
            nullable: Whether JSON may contain null, which becomes NaN or the empty text. In other
                encodings values are missing in these forms already.

        Returns:
            The values, of shape (rows,): numbers in their datatype, text as ``str``. A few
            values of FP64 or text may be a list.

        Raises:
            ContentsError: Type or number of the values is wrong.
        """


class Tensor(msgspec.Struct, frozen=True, gc=False):
    """One tensor of a request. Nothing is checked yet."""

    name: str
    datatype: str
    shape: Sequence[int]
    contents: Contents


class NoContents:
    """A tensor without contents."""

    def read(self, datatype: str, shape: Sequence[int], *, nullable: bool = False) -> Values:  # noqa: ARG002 - the interface
        """Raise ContentsError."""
        raise ContentsError(f"has no data; {shape[0]} values of {datatype} are expected")


class JsonContents(msgspec.Struct, frozen=True, gc=False):
    """A JSON list: flat, or nested as the shape [rows, 1] says."""

    raw: msgspec.Raw

    def read(self, datatype: str, shape: Sequence[int], *, nullable: bool = False) -> Values:
        """Decode strictly: no conversion between text and number, no bool, null where allowed."""
        nested = len(shape) == 2 and _NESTED_START.match(self.raw)
        may_be_null = nullable and datatype in _MISSING
        if may_be_null:
            decoders = _NESTED_OR_NULL if nested else _FLAT_OR_NULL
        else:
            decoders = _NESTED if nested else _FLAT
        try:
            values = decoders[datatype].decode(self.raw)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            form = f"{list(shape)} list" if nested else "flat list"
            reason = f"data is not a {form} of {datatype}: {error}"
            row = _first_null((_NESTED_OR_NULL if nested else _FLAT_OR_NULL)[datatype], self.raw)
            if row is not None:
                rule = (
                    f"{datatype} has no missing value, send a floating-point datatype"
                    if nullable
                    else "it must have a value, because the column is not nullable"
                )
                reason = f"row {row} is missing; {rule}"
            raise ContentsError(reason) from error
        if nested:
            values = list(chain(*values))
        if may_be_null and None in values:
            missing = _MISSING[datatype]
            values = [missing if value is None else value for value in values]
        return _to_values(values, datatype, shape[0])


class RawContents(msgspec.Struct, frozen=True, gc=False):
    """Little-endian bytes, row by row. Four bytes before each text contain its length."""

    raw: bytes | memoryview

    def read(self, datatype: str, shape: Sequence[int], *, nullable: bool = False) -> Values:  # noqa: ARG002 - the interface
        """View the bytes as an array, if their number is right; split texts."""
        rows = shape[0]
        if datatype == "BYTES":
            return _to_values(_split_texts(bytes(self.raw), rows), datatype, rows)
        dtype = WIRE_DTYPES[datatype]
        if len(self.raw) != rows * dtype.itemsize:
            raise ContentsError(
                f"binary data has {len(self.raw)} bytes, but {rows} values of {datatype} have "
                f"{rows * dtype.itemsize}"
            )
        values = np.frombuffer(self.raw, dtype)
        if datatype == "BOOL" and values.max(initial=0) > 1:
            row = int(np.flatnonzero(values > 1)[0])
            raise ContentsError(f"row {row} is the byte {values[row]}; BOOL is 0 or 1")
        return values


class TypedContents(msgspec.Struct, frozen=True, gc=False):
    """The repeated fields of a gRPC tensor."""

    contents: Any

    def read(self, datatype: str, shape: Sequence[int], *, nullable: bool = False) -> Values:  # noqa: ARG002 - the interface
        """Read the field of the datatype, which must be the only one with contents."""
        field = _FIELDS.get(datatype)
        if field is None:
            raise ContentsError(f"{datatype} has no typed contents; send raw contents")
        filled = self.contents.ListFields()
        if len(filled) != 1 or filled[0][0].name != field:
            found = " and ".join(descriptor.name for descriptor, _ in filled) or "nothing"
            raise ContentsError(f"{datatype} belongs in {field} alone, found {found}")
        values = filled[0][1]
        if datatype == "BYTES":
            return _to_values([_text(value) for value in values], datatype, shape[0])
        return _to_values(
            values[:], datatype, shape[0]
        )  # a list: NumPy is slow with other sequences


def to_bytes(values: Array, datatype: str) -> bytes:
    """Encode values of shape (rows,) for binary data over HTTP and for raw contents in gRPC."""
    if datatype != "BYTES":
        return values.astype(WIRE_DTYPES[datatype], copy=False).tobytes()
    encoded = [text.encode() for text in values.tolist()]
    return b"".join(part for text in encoded for part in (_LENGTH.pack(len(text)), text))


def _first_null(decoder: msgspec.json.Decoder[Any], raw: msgspec.Raw) -> int | None:
    """Return the row of the first null in a list in which nothing else is wrong."""
    try:
        values = decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return next((n for n, value in enumerate(values) if value is None or value == (None,)), None)


def _to_values(values: list[Any], datatype: str, rows: int) -> Values:
    if len(values) != rows:
        raise ContentsError(f"has {len(values)} values, but its shape says {rows}")
    if rows <= _MAX_LIST and datatype in ("FP64", "BYTES"):
        return values
    if datatype == "BYTES":
        return np.array(values, dtype=object)
    try:
        if datatype == "FP64":
            return np.array(values, dtype=np.float64)
        if datatype in INTEGERS or datatype == "BOOL":
            return np.array(values, dtype=WIRE_DTYPES[datatype])
        with np.errstate(over="ignore"):  # becomes infinite; the contract refuses it
            return np.array(values, dtype=WIRE_DTYPES[datatype])
    except (OverflowError, ValueError) as error:
        raise ContentsError(
            f"contains a value that {datatype} cannot represent: {error}"
        ) from error


def _split_texts(raw: bytes, rows: int) -> list[str]:
    values: list[str] = []
    at = 0
    while at < len(raw) and len(values) < rows:
        if at + 4 > len(raw) or at + 4 + (length := _LENGTH.unpack_from(raw, at)[0]) > len(raw):
            raise ContentsError(f"binary data ends in the middle of value {len(values)}")
        values.append(_text(raw[at + 4 : at + 4 + length]))
        at += 4 + length
    if at < len(raw):
        raise ContentsError(f"binary data continues after the {rows} values of the shape")
    return values


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise ContentsError(f"contains text that is not UTF-8: {error}") from error
