"""Bodies of the V2 protocol over HTTP: JSON, or JSON followed by binary tensors.

In the binary tensor data extension, the header ``Inference-Header-Content-Length`` contains the
length of the JSON. The data of every tensor with the parameter ``binary_data_size`` follows the
JSON, in order.
"""

import json
import math
import re
from typing import Any

import msgspec

from watchkeeper.serving.contract import refuse_unsupported
from watchkeeper.serving.duplicate_names import refuse_duplicate_names
from watchkeeper.serving.errors import RequestError
from watchkeeper.serving.request import Answer, Codec, Request
from watchkeeper.serving.tensors import (
    Contents,
    JsonContents,
    NoContents,
    RawContents,
    Tensor,
    to_bytes,
)

# A body, and the header Inference-Header-Content-Length if the request has it.
Body = tuple[bytes, str | None]
# An encoded answer, and the length of its JSON if binary tensors follow.
EncodedAnswer = tuple[bytes, int | None]

_ABSENT = msgspec.Raw()
# A text, which may not end, or NaN in a list with what is before it.
_NAN = re.compile(rb'"(?:[^"\\]|\\.)*+"?|([\[,]\s*+)NaN(?=\s*+[,\]])', re.DOTALL)


class _Input(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    data: msgspec.Raw = _ABSENT
    parameters: dict[str, Any] | None = None


class _RequestedOutput(msgspec.Struct):
    name: str
    parameters: dict[str, Any] | None = None


class _InferenceRequest(msgspec.Struct):
    inputs: list[_Input]
    id: str | None = None
    outputs: list[_RequestedOutput] | None = None
    parameters: dict[str, Any] | None = None


class _LenientInput(msgspec.Struct):
    name: str
    data: list[Any] = []


class _LenientRequest(msgspec.Struct):
    inputs: list[_LenientInput]


class _Output(msgspec.Struct, omit_defaults=True):
    name: str
    shape: tuple[int, ...]
    datatype: str
    data: list[Any] | None = None
    parameters: dict[str, Any] | None = None


class _InferenceResponse(msgspec.Struct):
    model_name: str
    model_version: str
    id: str
    parameters: dict[str, str]
    outputs: list[_Output]


_decoder = msgspec.json.Decoder(_InferenceRequest)
_encoder = msgspec.json.Encoder()


class HttpCodec(Codec[Body, EncodedAnswer]):
    """Decodes bodies and encodes answers of one version."""

    def __init__(self, model: str, version: int) -> None:
        self._model, self._version = model, str(version)

    def decode(self, body: Body) -> Request:
        """Read a body.

        Raises:
            RequestError: The body does not have the form of an inference request.
        """
        head, tail = _split(*body)
        head, request = _read(head)
        refuse_duplicate_names(head, _count_names(request))
        parameters = request.parameters or {}
        outputs: list[str] = []
        binary_outputs: dict[str, bool] = {}
        for output in request.outputs or ():
            outputs.append(output.name)
            if output.parameters:
                owner = f"output {output.name!r}"
                refuse_unsupported(output.parameters, owner)
                if "binary_data" in output.parameters:
                    binary = _flag(output.parameters, "binary_data", owner)
                    binary_outputs[output.name] = binary
        return Request(
            _tensors(request.inputs, tail),
            outputs,
            parameters.get("subject", msgspec.UNSET),
            request.id or "",
            _flag(parameters, "binary_data_output", "the request") if parameters else False,
            binary_outputs,
        )

    def encode(self, answer: Answer, request: Request) -> EncodedAnswer:
        """Write an answer in the form that the request asks for."""
        outputs: list[_Output] = []
        tail: list[bytes] = []
        for output in answer.outputs:
            if request.binary_outputs.get(output.name, request.binary):
                raw = to_bytes(answer.columns[output.name], output.datatype)
                tail.append(raw)
                contents: dict[str, Any] = {"parameters": {"binary_data_size": len(raw)}}
            else:
                contents = {"data": answer.lists[output.name]}
            outputs.append(_Output(output.name, (answer.rows,), output.datatype, **contents))
        parameters = {"version": self._version, "prediction_id": answer.prediction_id}
        if answer.flags:
            parameters["flags"] = "; ".join(answer.flags)
        head = _encoder.encode(
            _InferenceResponse(
                self._model,
                self._version,
                request.id or answer.prediction_id,
                parameters,
                outputs,
            )
        )
        return (b"".join((head, *tail)), len(head)) if tail else (head, None)


def _read(head: bytes) -> tuple[bytes, _InferenceRequest]:
    """Read JSON, in which a value may be NaN: JSON does not have it, but many languages write it.

    Returns:
        The JSON with null instead of NaN, and the request.
    """
    try:
        return head, _decoder.decode(head)
    except msgspec.ValidationError as error:
        raise RequestError(f"the body is not an inference request: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        with_null = _NAN.sub(
            lambda found: found[0] if found[1] is None else found[1] + b"null", head
        )
        if with_null != head:
            return _read(with_null)
        reason = _infinite_number(head) or f"the body is not valid JSON: {error}"
        raise RequestError(reason) from error


def _infinite_number(head: bytes) -> str | None:
    """Find Infinity, which many languages write although JSON does not have it."""
    try:
        inputs = msgspec.convert(json.loads(head), _LenientRequest).inputs
    except (ValueError, RecursionError):
        return None
    for each in inputs:
        for row, given in enumerate(each.data):
            value = given[0] if isinstance(given, list) and given else given
            if isinstance(value, float) and math.isinf(value):
                return f"column {each.name!r}: row {row} is {value}; it must be a finite number"
    return None


def _count_names(request: _InferenceRequest) -> int:
    """Count the names of all JSON objects in a body that leaves out what is empty."""
    count = 1 + (request.id is not None)
    for parameters in (request.parameters, *(o.parameters for o in request.outputs or ())):
        count += 0 if parameters is None else 1 + len(parameters)
    if request.outputs is not None:
        count += 1 + len(request.outputs)
    for each in request.inputs:
        count += 3 + (each.data is not _ABSENT)
        if each.parameters is not None:
            count += 1 + len(each.parameters)
    return count


def _split(body: bytes, json_length: str | None) -> tuple[bytes, memoryview | None]:
    """Split a body into JSON and binary data."""
    if json_length is None:
        return body, None
    if not json_length.isdecimal() or len(json_length) > 12 or int(json_length) > len(body):
        raise RequestError(
            f"Inference-Header-Content-Length {json_length[:20]!r} must be the length of the JSON "
            f"in a body of {len(body)} bytes"
        )
    end = int(json_length)
    return body[:end], memoryview(body)[end:]


def _tensors(inputs: list[_Input], tail: memoryview | None) -> list[Tensor]:
    """Connect each input with its data in the JSON or in the binary data."""
    tensors: list[Tensor] = []
    start = 0
    for each in inputs:
        size = None
        if each.parameters:  # most inputs have none
            column = f"column {each.name!r}"
            refuse_unsupported(each.parameters, column)
            size = each.parameters.get("binary_data_size")
        contents: Contents
        if size is None:
            # `null` is not accepted either; the contract refuses it with the number of rows.
            contents = NoContents() if each.data is _ABSENT else JsonContents(each.data)
        elif bytes(each.data):
            raise RequestError(f"{column}: has both data and binary_data_size; send one of them")
        elif tail is None:
            raise RequestError(
                f"{column}: has binary_data_size, but without the header "
                "Inference-Header-Content-Length there is no binary data"
            )
        elif not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise RequestError(f"{column}: binary_data_size must be a number of bytes")
        elif start + size > len(tail):
            raise RequestError(
                f"{column}: its {size} bytes of binary data end {start + size - len(tail)} bytes "
                "after the body"
            )
        else:
            contents = RawContents(tail[start : start + size])
            start += size
        tensors.append(Tensor(each.name, each.datatype, each.shape, contents))
    if tail is not None and start < len(tail):
        raise RequestError(f"{len(tail) - start} bytes of binary data belong to no column")
    return tensors


def _flag(parameters: dict[str, Any], name: str, owner: str) -> bool:
    value = parameters.get(name, False)
    if not isinstance(value, bool):
        raise RequestError(f"{owner}: parameter {name!r} must be true or false")
    return value
