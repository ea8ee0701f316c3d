"""Sends requests in the four encodings to a server and decodes the answers."""

import functools
from typing import Any, NamedTuple

import grpc
import msgspec
import numpy as np
import sample_version
from conftest import HTTP, Server
from tritonclient.grpc import service_pb2 as pb

from watchkeeper.serving.tensors import WIRE_DTYPES, to_bytes

ENCODINGS = ("json", "binary", "typed", "raw")
FIELDS = {
    "FP64": "fp64_contents",
    "FP32": "fp32_contents",
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
    "BYTES": "bytes_contents",
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT32", "INT16", "INT8"), "int_contents"),
    **dict.fromkeys(("UINT32", "UINT16", "UINT8"), "uint_contents"),
}
METHOD = "/inference.GRPCInferenceService/ModelInfer"


class Given(NamedTuple):
    """One tensor of a request; ``nested`` in JSON means one list per row.

    None is a missing value: null in JSON, NaN or the empty text in the other encodings.
    """

    name: str
    datatype: str
    values: list[Any]
    shape: list[int] | None = None
    nested: bool = False


class Reply(NamedTuple):
    """``status`` is the HTTP status or the name of the gRPC code."""

    status: int | str
    error: str
    outputs: dict[str, list[Any]]
    parameters: dict[str, str]
    id: str
    version: str


def tensors(columns: dict[str, list[Any]]) -> list[Given]:
    return [Given(c.name, c.datatype, columns[c.name]) for c in sample_version.COLUMNS]


def filled(given: Given) -> list[Any]:
    missing = "" if given.datatype == "BYTES" else float("nan")
    return [missing if value is None else value for value in given.values]


def raw(given: Given) -> bytes:
    dtype = object if given.datatype == "BYTES" else WIRE_DTYPES[given.datatype]
    return to_bytes(np.array(filled(given), dtype=dtype), given.datatype)


def json_data(given: Given) -> list[Any]:
    return [[value] for value in given.values] if given.nested else given.values


def send(server: Server, encoding: str, given: list[Given], **more: Any) -> Reply:
    """Send a request; ``more`` are fields of the body: id, outputs, parameters."""
    if encoding in ("json", "binary"):
        body, headers = http_body(given, encoding == "binary", **more)
        return post(server, body, headers)
    return call(server, grpc_message(given, encoding == "raw", **more).SerializeToString())


def http_body(
    given: list[Given],
    binary: bool,
    *,
    id: str | None = None,  # noqa: A002
    outputs: list[str] | None = None,
    parameters: dict[str, str] | None = None,
) -> tuple[bytes, dict[str, str]]:
    body: dict[str, Any] = {"inputs": []}
    if parameters or binary:
        body["parameters"] = dict(parameters or {})
    tail = b""
    for each in given:
        tensor: dict[str, Any] = {
            "name": each.name,
            "datatype": each.datatype,
            "shape": [len(each.values)] if each.shape is None else each.shape,
        }
        if binary:
            part = raw(each)
            tensor["parameters"] = {"binary_data_size": len(part)}
            tail += part
        else:
            tensor["data"] = json_data(each)
        body["inputs"].append(tensor)
    if id is not None:
        body["id"] = id
    if outputs is not None:
        body["outputs"] = [{"name": name} for name in outputs]
    if not binary:
        return msgspec.json.encode(body), {"content-type": "application/json"}
    body["parameters"]["binary_data_output"] = True
    head = msgspec.json.encode(body)
    return head + tail, {
        "content-type": "application/octet-stream",
        "inference-header-content-length": str(len(head)),
    }


def grpc_message(
    given: list[Given],
    as_raw: bool,
    *,
    id: str | None = None,  # noqa: A002
    outputs: list[str] | None = None,
    parameters: dict[str, str] | None = None,
) -> Any:
    message = pb.ModelInferRequest(model_name=sample_version.MODEL, id=id or "")
    for each in given:
        tensor = message.inputs.add(name=each.name, datatype=each.datatype)
        tensor.shape.extend([len(each.values)] if each.shape is None else each.shape)
        if as_raw:
            message.raw_input_contents.append(raw(each))
        else:
            values = [v.encode() if isinstance(v, str) else v for v in filled(each)]
            getattr(tensor.contents, FIELDS[each.datatype]).extend(values)
    for name in outputs or []:
        message.outputs.add(name=name)
    for name, value in (parameters or {}).items():
        message.parameters[name].string_param = value
    return message


def post(
    server: Server, body: bytes, headers: dict[str, Any] | None = None, path: str | None = None
) -> Reply:
    url = server.infer_url if path is None else server.url + path
    response = HTTP.post(url, content=body, headers=headers or {})
    length = response.headers.get("inference-header-content-length")
    head = response.content if length is None else response.content[: int(length)]
    decoded = msgspec.json.decode(head)
    if response.status_code != 200:
        assert list(decoded) == ["error"], decoded
        return Reply(response.status_code, decoded["error"], {}, {}, "", "")
    tail = b"" if length is None else response.content[int(length) :]
    outputs = {}
    for output in decoded["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            outputs[output["name"]] = output["data"]
        else:
            outputs[output["name"]] = from_raw(tail[:size], output["datatype"])
            tail = tail[size:]
    assert not tail
    return Reply(200, "", outputs, decoded["parameters"], decoded["id"], decoded["model_version"])


def call(server: Server, message: bytes, metadata: tuple[tuple[str, str], ...] = ()) -> Reply:
    try:
        answered = infer_method(server.grpc_port)(message, metadata=metadata, timeout=60)
    except grpc.RpcError as error:
        return Reply(error.code().name, error.details(), {}, {}, "", "")
    response = pb.ModelInferResponse.FromString(answered)
    outputs = {}
    for number, output in enumerate(response.outputs):
        if response.raw_output_contents:
            values = from_raw(response.raw_output_contents[number], output.datatype)
        else:
            values = list(getattr(output.contents, FIELDS[output.datatype]))
            if output.datatype == "BYTES":
                values = [value.decode() for value in values]
        outputs[output.name] = values
        assert list(output.shape) == [len(values)]
    parameters = {name: value.string_param for name, value in response.parameters.items()}
    return Reply("OK", "", outputs, parameters, response.id, response.model_version)


@functools.cache
def infer_method(port: int) -> Any:
    """A shared connection, because connecting takes longer than the call."""
    return grpc.insecure_channel(f"127.0.0.1:{port}").unary_unary(METHOD)


def from_raw(content: bytes, datatype: str) -> list[Any]:
    if datatype != "BYTES":
        return np.frombuffer(content, WIRE_DTYPES[datatype]).tolist()
    values = []
    while content:
        length = int.from_bytes(content[:4], "little")
        values.append(content[4 : 4 + length].decode())
        content = content[4 + length :]
    return values
