"""Bodies of the V2 protocol over HTTP: JSON, and JSON followed by binary tensors.

The binary tensor data extension: the header ``Inference-Header-Content-Length`` tells where the
JSON ends; every tensor with the parameter ``binary_data_size`` has its data behind it, in order.
"""

import json
import math
from typing import Any

import msgspec

from watchkeeper.serving.contract import check_subject, refuse_unserved
from watchkeeper.serving.dataplane import Answer, Request
from watchkeeper.serving.refusals import Refused
from watchkeeper.serving.repeated import refuse_repeated
from watchkeeper.serving.tensors import (
    Contents,
    JsonContents,
    Missing,
    RawContents,
    Tensor,
    to_bytes,
)

_NONE = msgspec.Raw()


class _Input(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    data: msgspec.Raw = _NONE
    parameters: dict[str, Any] | None = None


class _RequestedOutput(msgspec.Struct):
    name: str
    parameters: dict[str, Any] | None = None


class _Body(msgspec.Struct):
    inputs: list[_Input]
    id: str | None = None
    outputs: list[_RequestedOutput] | None = None
    parameters: dict[str, Any] | None = None


class _LooseInput(msgspec.Struct):
    name: str
    data: list[Any] = []


class _Loose(msgspec.Struct):
    inputs: list[_LooseInput]


class _Output(msgspec.Struct, omit_defaults=True):
    name: str
    shape: tuple[int, ...]
    datatype: str
    data: list[Any] | None = None
    parameters: dict[str, Any] | None = None


class _Answer(msgspec.Struct):
    model_name: str
    model_version: str
    id: str
    parameters: dict[str, str]
    outputs: list[_Output]


class Wanted(msgspec.Struct, frozen=True, gc=False):
    """How the client wants its answer: its own id, and which outputs in binary."""

    id: str
    binary: bool
    binary_of: dict[str, bool]


_decoder = msgspec.json.Decoder(_Body)
_encoder = msgspec.json.Encoder()


def decode(body: bytes, json_length: str | None) -> tuple[Request, Wanted]:
    """Read a body; ``json_length`` is the header of the binary extension, None without it.

    Raises:
        Refused: the body has not the form of an inference request.
    """
    head, tail = _split(body, json_length)
    try:
        request = _decoder.decode(head)
    except msgspec.ValidationError as error:
        raise Refused(f"the body is no inference request: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(_not_a_number(head) or f"the body is not valid JSON: {error}") from error
    refuse_repeated(head, _names(request))
    outputs = request.outputs or []
    parameters = request.parameters or {}
    asked = {
        output.name: _flag(output.parameters, "binary_data", f"output {output.name!r}")
        for output in outputs
        if output.parameters and "binary_data" in output.parameters
    }
    for output in outputs:
        refuse_unserved(output.parameters or (), f"output {output.name!r}")
    binary = _flag(parameters, "binary_data_output", "the request") if parameters else False
    subject = check_subject(parameters["subject"]) if "subject" in parameters else ""
    return (
        Request(_tensors(request.inputs, tail), [output.name for output in outputs], subject),
        Wanted(request.id or "", binary, asked),
    )


def encode(answer: Answer, wanted: Wanted, model: str, version: str) -> tuple[bytes, int | None]:
    """Write an answer; returns the body and, if it has binary tensors, the length of its JSON."""
    outputs: list[_Output] = []
    tail: list[bytes] = []
    for output in answer.outputs:
        if wanted.binary_of.get(output.name, wanted.binary):
            raw = to_bytes(answer.columns[output.name], output.datatype)
            tail.append(raw)
            described: dict[str, Any] = {"parameters": {"binary_data_size": len(raw)}}
        else:
            described = {"data": answer.lists[output.name]}
        outputs.append(_Output(output.name, (answer.rows,), output.datatype, **described))
    parameters = {"version": version, "prediction_id": answer.prediction_id}
    if answer.flags:
        parameters["flags"] = "; ".join(answer.flags)
    head = _encoder.encode(
        _Answer(model, version, wanted.id or answer.prediction_id, parameters, outputs)
    )
    return (b"".join((head, *tail)), len(head)) if tail else (head, None)


def _not_a_number(head: bytes) -> str | None:
    """Find the NaN or Infinity that many languages write as if JSON had them."""
    try:
        inputs = msgspec.convert(json.loads(head), _Loose).inputs
    except (ValueError, RecursionError):
        return None
    for given in inputs:
        for row, value in enumerate(given.data):
            if isinstance(value, float) and not math.isfinite(value):
                return f"column {given.name!r}: row {row} is {value}; it must be a finite number"
    return None


def _names(request: _Body) -> int:
    """Count the names of JSON objects, as clients write them that leave out what is empty."""
    count = 1 + (request.id is not None)
    for parameters in (request.parameters, *(o.parameters for o in request.outputs or ())):
        count += 0 if parameters is None else 1 + len(parameters)
    if request.outputs is not None:
        count += 1 + len(request.outputs)
    for given in request.inputs:
        count += 3 + (given.data is not _NONE)
        if given.parameters is not None:
            count += 1 + len(given.parameters)
    return count


def _split(body: bytes, json_length: str | None) -> tuple[bytes, memoryview | None]:
    if json_length is None:
        return body, None
    if not json_length.isdecimal() or len(json_length) > 12 or int(json_length) > len(body):
        raise Refused(
            f"Inference-Header-Content-Length {json_length[:20]!r} must be the length of the JSON "
            f"in a body of {len(body)} bytes"
        )
    end = int(json_length)
    return body[:end], memoryview(body)[end:]


def _tensors(inputs: list[_Input], tail: memoryview | None) -> list[Tensor]:
    tensors: list[Tensor] = []
    at = 0
    for given in inputs:
        size = None
        if given.parameters:  # most have none, and nothing is to be said about them
            column = f"column {given.name!r}"
            refuse_unserved(given.parameters, column)
            size = given.parameters.get("binary_data_size")
        contents: Contents
        if size is None:
            # null is no data either, and the contract says so with the rows that are missing
            contents = Missing() if given.data is _NONE else JsonContents(given.data)
        elif bytes(given.data):
            raise Refused(f"{column}: has both data and binary_data_size; one of them is too much")
        elif tail is None:
            raise Refused(
                f"{column}: has binary_data_size, but without the header "
                "Inference-Header-Content-Length there is no binary data"
            )
        elif not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise Refused(f"{column}: binary_data_size must be a number of bytes")
        elif at + size > len(tail):
            raise Refused(
                f"{column}: its {size} bytes of binary data end {at + size - len(tail)} bytes "
                "after the body"
            )
        else:
            contents = RawContents(tail[at : at + size])
            at += size
        tensors.append(Tensor(given.name, given.datatype, given.shape, contents))
    if tail is not None and at < len(tail):
        raise Refused(f"{len(tail) - at} bytes of binary data belong to no column")
    return tensors


def _flag(parameters: dict[str, Any] | None, name: str, owner: str) -> bool:
    value = (parameters or {}).get(name, False)
    if not isinstance(value, bool):
        raise Refused(f"{owner}: parameter {name!r} must be true or false")
    return value
