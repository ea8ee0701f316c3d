"""Tensors as the V2 protocol carries them, and how each encoding becomes a flat array.

A tensor keeps its contents as they came until the contract has checked name, datatype and
shape; only then are they read, for exactly the number of rows that the shape claims.
"""

import struct
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
# A few values stay the list that they came as: NumPy takes longer to begin than they do.
Values = list[Any] | Array
FEW = 4

INTEGERS = ("INT64", "INT32", "INT16", "INT8", "UINT64", "UINT32", "UINT16", "UINT8")
DTYPES: dict[str, np.dtype[Any]] = {
    "FP64": np.dtype("<f8"),
    "FP32": np.dtype("<f4"),
    **{name: np.dtype(name.lower()).newbyteorder("<") for name in INTEGERS},
}
DATATYPES = {*DTYPES, "BYTES", "BOOL", "FP16", "BF16"}  # all that the protocol knows

_LENGTH = struct.Struct("<I")
_FLOATS = msgspec.json.Decoder(list[float])
_DECODERS: dict[str, msgspec.json.Decoder[Any]] = {
    "FP64": _FLOATS,
    "FP32": _FLOATS,
    "BYTES": msgspec.json.Decoder(list[str]),
    **dict.fromkeys(INTEGERS, msgspec.json.Decoder(list[int])),
}
_FIELDS = {
    "FP64": "fp64_contents",
    "FP32": "fp32_contents",
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
    "BYTES": "bytes_contents",
    **dict.fromkeys(("INT32", "INT16", "INT8"), "int_contents"),
    **dict.fromkeys(("UINT32", "UINT16", "UINT8"), "uint_contents"),
}


class ContentsError(ValueError):
    """The contents are not what datatype and shape claim; says the rule, not the column."""


class Contents(Protocol):
    """The contents of a tensor in one of the encodings."""

    def read(self, datatype: str, rows: int) -> Values:
        """Return the values, of shape (rows,): numbers by their datatype, text as str objects.

        Up to FEW values that are FP64 or text may be a list.

        Raises:
            ContentsError: they are of another type or number.
        """


class Tensor(msgspec.Struct, frozen=True, gc=False):
    """One named tensor of a request; the shape is as the client gave it."""

    name: str
    datatype: str
    shape: Sequence[int]
    contents: Contents


class Missing:
    """No contents at all."""

    def read(self, datatype: str, rows: int) -> Values:
        """Refuse."""
        raise ContentsError(f"has no data, where {rows} values of {datatype} are expected")


class JsonContents(msgspec.Struct, frozen=True, gc=False):
    """A flat JSON list."""

    raw: msgspec.Raw

    def read(self, datatype: str, rows: int) -> Values:
        """Decode strictly: no text for a number, no number for text, no null, bool or nesting."""
        try:
            values = _DECODERS[datatype].decode(self.raw)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise ContentsError(f"data is no flat list of {datatype}: {error}") from error
        return _array(values, datatype, rows)


class RawContents(msgspec.Struct, frozen=True, gc=False):
    """Little-endian bytes, row by row; text with a length of four bytes before each value."""

    raw: bytes | memoryview

    def read(self, datatype: str, rows: int) -> Values:
        """Take the bytes as they are, if they are exactly as many as they must be."""
        if datatype == "BYTES":
            return _array(_split(bytes(self.raw), rows), datatype, rows)
        dtype = DTYPES[datatype]
        if len(self.raw) != rows * dtype.itemsize:
            raise ContentsError(
                f"binary data has {len(self.raw)} bytes, where {rows} values of {datatype} have "
                f"{rows * dtype.itemsize}"
            )
        return np.frombuffer(self.raw, dtype)


class TypedContents(msgspec.Struct, frozen=True, gc=False):
    """The repeated fields of a gRPC tensor."""

    contents: Any

    def read(self, datatype: str, rows: int) -> Values:
        """Take the one field that belongs to the datatype."""
        field = _FIELDS[datatype]
        filled = self.contents.ListFields()
        if len(filled) != 1 or filled[0][0].name != field:
            found = " and ".join(descriptor.name for descriptor, _ in filled) or "nothing"
            raise ContentsError(f"{datatype} belongs in {field} alone, found {found}")
        values = filled[0][1]
        if datatype == "BYTES":
            return _array([_text(value) for value in values], datatype, rows)
        return _array(values[:], datatype, rows)  # a list: NumPy is slow with other sequences


def to_bytes(values: Array, datatype: str) -> bytes:
    """Encode values of shape (rows,) for the binary extension and for raw gRPC contents."""
    if datatype != "BYTES":
        return values.astype(DTYPES[datatype], copy=False).tobytes()
    encoded = [text.encode() for text in values.tolist()]
    return b"".join(part for text in encoded for part in (_LENGTH.pack(len(text)), text))


def _array(values: list[Any], datatype: str, rows: int) -> Values:
    if len(values) != rows:
        raise ContentsError(f"has {len(values)} values, but its shape says {rows}")
    if rows <= FEW and datatype in ("FP64", "BYTES"):
        return values
    if datatype == "BYTES":
        return np.array(values, dtype=object)
    try:
        if datatype == "FP64":
            return np.array(values, dtype=np.float64)
        if datatype != "FP32":
            return np.array(values, dtype=DTYPES[datatype])
        with np.errstate(over="ignore"):  # what FP32 cannot hold becomes infinite: refused later
            return np.array(values, dtype=DTYPES[datatype])
    except (OverflowError, ValueError) as error:
        raise ContentsError(f"holds a value that {datatype} cannot: {error}") from error


def _split(raw: bytes, rows: int) -> list[str]:
    values: list[str] = []
    at = 0
    while at < len(raw) and len(values) < rows:
        if at + 4 > len(raw) or at + 4 + (length := _LENGTH.unpack_from(raw, at)[0]) > len(raw):
            raise ContentsError(f"binary data ends in the middle of value {len(values)}")
        values.append(_text(raw[at + 4 : at + 4 + length]))
        at += 4 + length
    if at < len(raw):
        raise ContentsError(f"binary data goes on after the {rows} values of the shape")
    return values


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise ContentsError(f"holds text that is no UTF-8: {error}") from error
