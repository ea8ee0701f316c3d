"""Bad requests are refused and recorded; the error names the column and the rule."""

import json
import queue
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest
import sample_version
from conftest import HTTP, Server
from tritonclient.grpc import service_pb2 as pb
from waiting import wait_for
from wire import METHOD, Given, Reply, call, grpc_message, http_body, post, send, tensors

from watchkeeper.core.record import Prediction
from watchkeeper.core.spool import segment_path, segments, written_part

JSON = {"content-type": "application/json"}


def valid() -> dict[str, Any]:
    return msgspec.json.decode(http_body(tensors(sample_version.rows(2)), False)[0])


def column(body: dict[str, Any], name: str) -> dict[str, Any]:
    return next(given for given in body["inputs"] if given["name"] == name)


def change(name: str, **fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda body: column(body, name).update(fields)


def drop(name: str, field: str) -> Callable[[dict[str, Any]], None]:
    return lambda body: column(body, name).pop(field)


def parameters_for_data(name: str, parameters: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    def spoil(body: dict[str, Any]) -> None:
        del column(body, name)["data"]
        column(body, name)["parameters"] = parameters

    return spoil


def without(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda body: body["inputs"].remove(column(body, name))


def twice(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda body: body["inputs"].append(column(body, name))


def add(**tensor: Any) -> Callable[[dict[str, Any]], None]:
    return lambda body: body["inputs"].append(tensor)


def top(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda body: body.update(fields)


def refused(server: Server, reply: Reply, status: int | str, *words: str) -> None:
    """The reply has this status and these words, no traceback, and a record with the same error."""
    assert reply.status == status, reply
    for word in words:
        assert word in reply.error, reply.error
    assert "Traceback" not in reply.error
    record = server.last()
    assert isinstance(record, Prediction)
    assert record.error == reply.error
    assert record.status != "OK"
    assert not record.outputs


BODIES: dict[str, tuple[Callable[[dict[str, Any]], Any], tuple[str, ...]]] = {
    "missing column": (without("vibration"), ("'vibration'", "missing")),
    "no columns": (top(inputs=[]), ("'grade'", "missing")),
    "extra column": (add(name="x", shape=[2], datatype="FP64", data=[1, 2]), ("'x'", "unknown")),
    "duplicate column": (twice("vibration"), ("'vibration'", "twice")),
    "text for a number": (change("vibration", data=["7", "8"]), ("'vibration'", "str")),
    "NaN as text": (change("vibration", data=["NaN", 1]), ("'vibration'", "str")),
    "number for a category": (change("grade", data=[1, 2]), ("'grade'", "int")),
    "null": (change("vibration", data=[None, 1]), ("'vibration'", "null")),
    "bool": (change("vibration", data=[True, 1]), ("'vibration'", "bool")),
    "object": (change("vibration", data=[{}, 1]), ("'vibration'", "object")),
    "data is a number": (change("vibration", data=7), ("'vibration'", "flat list")),
    "data is null": (change("vibration", data=None), ("'vibration'", "flat list")),
    "nested data": (change("vibration", data=[[1], [2]]), ("'vibration'", "array")),
    **{
        f"shape [2, 1] and data {data}": (
            change("vibration", shape=[2, 1], data=data),
            ("'vibration'", "data is not a"),
        )
        for data in (
            *([[1], [2, 3]], [[1], []], [[1], 2], [1, [2]], [[1, 2]], [[], []], [[]]),
            *([[[1]], [[2]]], [["1"], [2]], [[1], [True]], [{}, [1]]),
        )
    },
    "shape [2, 1] and one nested row": (
        change("vibration", shape=[2, 1], data=[[1]]),
        ("'vibration'", "has 1 values, but its shape says 2"),
    ),
    "nested null": (
        change("vibration", shape=[2, 1], data=[[1], [None]]),
        ("'vibration'", "row 1 is missing", "not nullable"),
    ),
    "no data": (drop("vibration", "data"), ("'vibration'", "no data")),
    "too few values": (change("vibration", data=[1.0]), ("'vibration'", "1 values", "says 2")),
    "too many values": (change("vibration", data=[1, 2, 3]), ("'vibration'", "3 values", "says 2")),
    "unequal lengths": (
        change("vibration", data=[1.0], shape=[1]),
        ("'vibration'", "1 rows", "has 2"),
    ),
    "shape negative": (change("vibration", shape=[-2]), ("'vibration'", "shape")),
    "shape zero": (change("vibration", shape=[0], data=[]), ("'vibration'", "shape")),
    "shape empty": (change("vibration", shape=[]), ("'vibration'", "shape")),
    "shape [2, 2]": (
        change("vibration", shape=[2, 2], data=[1, 2, 3, 4]),
        ("'vibration'", "shape"),
    ),
    "shape [1, 2]": (change("vibration", shape=[1, 2]), ("'vibration'", "shape")),
    "shape of three": (change("vibration", shape=[2, 1, 1]), ("'vibration'", "shape")),
    "shape enormous": (change("vibration", shape=[10**18]), ("'vibration'", "says")),
    "shape with a fraction": (change("vibration", shape=[2.5]), ("shape",)),
    "shape is text": (change("vibration", shape="2"), ("shape",)),
    "no shape": (drop("vibration", "shape"), ("shape",)),
    "no datatype": (drop("vibration", "datatype"), ("datatype",)),
    "no name": (drop("vibration", "name"), ("name",)),
    "unknown datatype": (
        change("vibration", datatype="FP128"),
        ("'vibration'", "FP128", "not know"),
    ),
    "datatype BOOL": (change("vibration", datatype="BOOL"), ("'vibration'", "BOOL", "takes")),
    "datatype FP16 in a column of integers": (
        change("strokes", datatype="FP16"),
        ("'strokes'", "FP16"),
    ),
    "too large for FP16": (
        change("vibration", datatype="FP16", data=[1.0, 65520.0]),
        ("'vibration'", "row 1 is inf"),
    ),
    "BYTES for a number": (
        change("vibration", datatype="BYTES", data=["1", "2"]),
        ("'vibration'", "BYTES"),
    ),
    "FP64 for a category": (change("grade", datatype="FP64", data=[1, 2]), ("'grade'", "FP64")),
    "FP64 for an integer": (change("strokes", datatype="FP64"), ("'strokes'", "FP64")),
    "a fraction in INT64": (change("strokes", data=[1.5, 2]), ("'strokes'", "float")),
    "300 in INT8": (change("vibration", datatype="INT8", data=[300, 1]), ("'vibration'", "INT8")),
    "-1 in UINT64": (
        change("vibration", datatype="UINT64", data=[-1, 1]),
        ("'vibration'", "UINT64"),
    ),
    "2^64 in INT64": (change("strokes", data=[2**64, 1]), ("'strokes'", "INT64")),
    "2^63 for an INT64 column": (
        change("strokes", datatype="UINT64", data=[2**63, 1]),
        ("'strokes'", "INT64"),
    ),
    "2^53 + 1 for an FP64 column": (
        change("running_hours", datatype="INT64", data=[2**53 + 1, 1]),
        ("'running_hours'", "2^53"),
    ),
    "1e39 in FP32": (
        change("running_hours", datatype="FP32", data=[1e39, 1]),
        ("'running_hours'", "finite"),
    ),
    "below the range": (change("vibration", data=[1, -3]), ("'vibration'", "row 1", "-3", "mm/s")),
    "above the range": (change("vibration", data=[201, 1]), ("'vibration'", "row 0", "201", "200")),
    "unknown category": (change("grade", data=["L", "X"]), ("'grade'", "row 1", "'X'", "L, M, H")),
    "category in lower case": (change("grade", data=["l", "M"]), ("'grade'", "row 0")),
    "empty category": (change("grade", data=["", "M"]), ("'grade'", "row 0")),
    "unknown output": (top(outputs=[{"name": "x"}]), ("'x'", "unknown")),
    "output named twice": (top(outputs=[{"name": "failure"}] * 2), ("once",)),
    "output without a name": (top(outputs=[{}]), ("name",)),
    "outputs is text": (top(outputs="failure"), ("outputs",)),
    "id is a number": (top(id=5), ("id",)),
    "id is a list": (top(id=["a"]), ("id",)),
    "inputs is an object": (top(inputs={}), ("inputs",)),
    "inputs is null": (top(inputs=None), ("inputs",)),
    "an input is a list": (top(inputs=[[]]), ("inputs",)),
    "parameters is a list": (top(parameters=[]), ("parameters",)),
    "binary_data_output is text": (
        top(parameters={"binary_data_output": "yes"}),
        ("true or false",),
    ),
    "binary_data_output is a number": (
        top(parameters={"binary_data_output": 1}),
        ("'binary_data_output'", "true or false"),
    ),
    "binary_data of an output is text": (
        top(outputs=[{"name": "failure", "parameters": {"binary_data": "true"}}]),
        ("output 'failure'", "'binary_data'", "true or false"),
    ),
    "parameters of an output are a list": (
        top(outputs=[{"name": "failure", "parameters": []}]),
        ("parameters",),
    ),
    "parameters of an input are text": (change("vibration", parameters="x"), ("parameters",)),
    "the request is about a number": (top(parameters={"subject": 17}), ("'subject'",)),
    "name is a number": (add(name=5, shape=[1], datatype="FP64", data=[1]), ("name",)),
    "datatype is null": (change("vibration", datatype=None), ("datatype",)),
    "shape is null": (change("vibration", shape=None), ("shape",)),
    "shape holds a bool": (change("vibration", shape=[True]), ("shape",)),
    "shape beyond 64 bits": (change("vibration", shape=[2**64]), ("'vibration'", "says")),
    "3.0 in INT64": (change("strokes", data=[3.0, 2]), ("'strokes'", "float")),
    "binary data announced, none there": (
        parameters_for_data("vibration", {"binary_data_size": 16}),
        ("'vibration'", "Inference-Header-Content-Length"),
    ),
    "shared memory": (
        parameters_for_data("vibration", {"shared_memory_region": "r"}),
        ("'vibration'", "shared_memory_region"),
    ),
    "classification": (
        top(outputs=[{"name": "failure", "parameters": {"classification": 2}}]),
        ("'failure'", "classification"),
    ),
}


@pytest.mark.parametrize("case", BODIES)
def test_body_that_breaks_the_contract_is_refused(server: Server, case: str) -> None:
    spoil, words = BODIES[case]
    body = valid()
    spoil(body)
    refused(server, post(server, msgspec.json.encode(body), JSON), 400, *words)


def doubled(old: bytes, new: bytes) -> bytes:
    assert old in VALID
    return VALID.replace(old, new, 1)


VALID = msgspec.json.encode(valid())
TEXTS = {
    "empty": b"",
    "inputs twice": VALID[:-1] + b',"inputs":[]}',
    "data twice": doubled(b'"data":', b'"data":[9,9],"data":'),
    "data twice, once with an escape": doubled(b'"data":', b'"d\\u0061ta":[9,9],"data":'),
    "data twice, once with a space": doubled(b'"data":', b'"data" :[9,9],"data":'),
    "a name twice": doubled(b'"name":', b'"name":"vibration","name":'),
    "an unknown name twice": VALID[:-1] + b',"x":{"a":1,"a":2}}',
    "a parameter twice": VALID[:-1] + b',"parameters":{"subject":"a","subject":"b"}}',
    "no JSON": b"hello",
    "cut": msgspec.json.encode(valid())[:-5],
    "trailing text": msgspec.json.encode(valid()) + b"}",
    "a list": b"[]",
    "a number": b"7",
    "null": b"null",
    "no UTF-8": msgspec.json.encode(valid()).replace(b'"vibration"', b'"t\xff\xfe"'),
    "no UTF-8 in a category": msgspec.json.encode(valid()).replace(b'["', b'["\xff', 1),
    "a lone surrogate": msgspec.json.encode(valid()).replace(b'"vibration"', b'"\\ud800"'),
    "deep nesting": b'{"inputs":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep nesting in data": msgspec.json.encode(valid()).replace(
        b"[2]", b"[" * 9999 + b"]" * 9999, 1
    ),
    "many digits": b'{"inputs":[{"name":"strokes","shape":[1],"datatype":"INT64","data":['
    + b"9" * 5000
    + b"]}]}",
}


@pytest.mark.parametrize("case", TEXTS)
def test_body_that_is_not_a_request_is_refused(server: Server, case: str) -> None:
    refused(server, post(server, TEXTS[case], JSON), 400)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "-1e400"])
def test_non_finite_number_in_json_is_refused_by_column(server: Server, number: str) -> None:
    body = json.dumps(
        {"inputs": [{**column(valid(), "vibration"), "data": [1, 2]}, *valid()["inputs"]]}
    )
    spoilt = body.replace("[1, 2]", f"[1, {number}]").encode()
    refused(server, post(server, spoilt, JSON), 400, "'vibration'")
    nested = body.replace("[1, 2]", f"[[1], [{number}]]").replace("[2]", "[2, 1]").encode()
    refused(
        server,
        post(server, nested, JSON),
        400,
        "'vibration'",
        "row 1" if "I" in number or number == "NaN" else "",
    )


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain"},
        {"content-type": "application/xml"},
        {"content-type": "multipart/form-data; boundary=x"},
    ],
)
def test_unsupported_content_type_is_refused(server: Server, headers: dict[str, str]) -> None:
    refused(server, post(server, msgspec.json.encode(valid()), headers), 415, "not served")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_are_refused(server: Server, method: str) -> None:
    response = HTTP.request(method, server.infer_url)
    assert response.headers["allow"] == "POST"
    reply = Reply(response.status_code, response.json()["error"], {}, {}, "", "")
    refused(server, reply, 405, method)


def test_head_request_is_refused_without_a_body(server: Server) -> None:
    response = HTTP.head(server.infer_url)
    assert (response.status_code, response.content) == (405, b"")
    assert "HEAD" in server.last().error


NAN, INFINITY = struct.pack("<d", float("nan")), struct.pack("<d", float("inf"))
BINARY: dict[str, tuple[Callable[[bytes], bytes], tuple[str, ...]]] = {
    "cut": (lambda tail: tail[:-1], ("end 1 bytes after the body",)),
    "gone": (lambda _: b"", ("'grade'", "after the body")),
    "too long": (lambda tail: tail + b"x", ("1 bytes of binary data belong to no column",)),
    "a huge text": (lambda tail: struct.pack("<I", 10**9) + tail[4:], ("'grade'", "middle")),
    "no UTF-8": (lambda tail: tail[:4] + b"\xff" + tail[5:], ("'grade'", "UTF-8")),
    "NaN": (lambda tail: tail[:10] + NAN + tail[18:], ("'inlet_pressure'", "finite")),
    "infinity": (lambda tail: tail[:10] + INFINITY + tail[18:], ("'inlet_pressure'", "finite")),
}


@pytest.mark.parametrize("case", BINARY)
def test_wrong_binary_data_is_refused(server: Server, case: str) -> None:
    spoil, words = BINARY[case]
    body, headers = http_body(tensors(sample_version.rows(2)), True)
    length = int(headers["inference-header-content-length"])
    refused(server, post(server, body[:length] + spoil(body[length:]), headers), 400, *words)


@pytest.mark.parametrize("said", ["0", "-1", "10", "100000", "1e3", "9" * 30, "²", ""])
def test_wrong_json_length_is_refused(server: Server, said: str) -> None:
    body, headers = http_body(tensors(sample_version.rows(2)), True)
    wrong = {**headers, "inference-header-content-length": said.encode("latin-1")}
    refused(server, post(server, body, wrong), 400)


@pytest.mark.parametrize("size", ["16", -1, True, 1.5, 10**12])
def test_wrong_binary_data_size_is_refused(server: Server, size: Any) -> None:
    body = valid()
    drop("vibration", "data")(body)
    change("vibration", parameters={"binary_data_size": size})(body)
    head = msgspec.json.encode(body)
    headers = {"inference-header-content-length": str(len(head))}
    refused(server, post(server, head + b"x" * 16, headers), 400, "'vibration'")


def test_data_together_with_binary_data_size_is_refused(server: Server) -> None:
    body = valid()
    change("vibration", parameters={"binary_data_size": 16})(body)
    head = msgspec.json.encode(body)
    headers = {"inference-header-content-length": str(len(head))}
    refused(server, post(server, head + b"x" * 16, headers), 400, "'vibration'", "both")


WRONG_NUMBERS: dict[str, tuple[Given, tuple[str, ...]]] = {
    "too few": (Given("vibration", "FP64", [1.0], [2]), ("'vibration'",)),
    "too many": (Given("vibration", "FP64", [1.0, 2.0, 3.0], [2]), ("'vibration'",)),
    "other rows": (Given("vibration", "FP64", [1.0]), ("'vibration'", "rows")),
    "shape [2, 2]": (Given("vibration", "FP64", [1.0, 2.0], [2, 2]), ("'vibration'", "shape")),
    "negative shape": (Given("vibration", "FP64", [1.0, 2.0], [-2]), ("'vibration'", "shape")),
    "NaN": (Given("vibration", "FP64", [float("nan"), 1.0]), ("'vibration'", "finite")),
    "infinity": (
        Given("running_hours", "FP64", [float("inf"), 1.0]),
        ("'running_hours'", "finite"),
    ),
    "unknown category": (Given("grade", "BYTES", ["L", "Q"]), ("'grade'", "'Q'")),
    "text cut in two": (Given("grade", "BYTES", ["L"], [2]), ("'grade'",)),
    "one text too many": (Given("grade", "BYTES", ["L", "M", "H"], [2]), ("'grade'",)),
    "out of range": (Given("vibration", "FP64", [1.0, 999.0]), ("'vibration'", "999")),
    "beyond 2^53": (Given("running_hours", "UINT64", [2**60, 1]), ("'running_hours'", "2^53")),
    "BYTES for a number": (Given("vibration", "BYTES", ["1", "2"]), ("'vibration'", "BYTES")),
}


@pytest.mark.parametrize("encoding", ["binary", "typed", "raw"])
@pytest.mark.parametrize("case", WRONG_NUMBERS)
def test_wrong_contents_are_refused_in_every_encoding(
    server: Server, encoding: str, case: str
) -> None:
    spoilt, words = WRONG_NUMBERS[case]
    given = [spoilt if t.name == spoilt.name else t for t in tensors(sample_version.rows(2))]
    expected = 400 if encoding == "binary" else "INVALID_ARGUMENT"
    refused(server, send(server, encoding, given), expected, *words)


def message(as_raw: bool = False) -> Any:
    return grpc_message(tensors(sample_version.rows(2)), as_raw)


def contents_in(field: str, values: list[Any]) -> Any:
    spoilt = message()
    vibration = next(tensor for tensor in spoilt.inputs if tensor.name == "vibration")
    vibration.contents.Clear()
    getattr(vibration.contents, field).extend(values)
    return spoilt


def contents_in_two() -> Any:
    spoilt = message()
    spoilt.inputs[1].contents.fp32_contents.extend([1.0, 2.0])
    return spoilt


def raw_contents(change: Callable[[Any], Any]) -> Any:
    spoilt = message(as_raw=True)
    change(spoilt)
    return spoilt


def no_bytes() -> Any:
    spoilt = message()
    spoilt.inputs[0].contents.bytes_contents[0] = b"\xff\xfe"
    return spoilt


def parameter(target: str, name: str) -> Any:
    spoilt = message()
    where = spoilt.inputs[3] if target == "input" else spoilt.outputs.add(name="failure")
    where.parameters[name].int64_param = 2
    return spoilt


MESSAGES: dict[str, tuple[Callable[[], Any], tuple[str, ...]]] = {
    "nothing": (
        lambda: pb.ModelInferRequest(model_name=sample_version.MODEL),
        ("'grade'", "missing"),
    ),
    "contents in another field": (
        lambda: contents_in("fp32_contents", [1.0, 2.0]),
        ("'vibration'", "fp64_contents", "fp32_contents"),
    ),
    "no contents": (lambda: contents_in("fp64_contents", []), ("'vibration'", "nothing")),
    "bool contents": (lambda: contents_in("bool_contents", [True, False]), ("'vibration'", "bool")),
    "contents in two fields": (contents_in_two, ("'inlet_pressure'", "fp32_contents")),
    "bytes that are no text": (no_bytes, ("'grade'", "UTF-8")),
    "one raw contents too few": (
        lambda: raw_contents(lambda m: m.raw_input_contents.pop()),
        ("5 raw contents for 6 inputs",),
    ),
    "one raw contents too many": (
        lambda: raw_contents(lambda m: m.raw_input_contents.append(b"")),
        ("7 raw contents for 6 inputs",),
    ),
    "raw contents cut": (
        lambda: raw_contents(lambda m: m.raw_input_contents.__setitem__(3, b"x" * 15)),
        ("'vibration'", "15 bytes"),
    ),
    "raw and typed contents": (
        lambda: raw_contents(lambda m: m.inputs[3].contents.fp64_contents.append(1.0)),
        ("'vibration'", "both"),
    ),
    "classification": (
        lambda: parameter("output", "classification"),
        ("'failure'", "classification"),
    ),
    "shared memory": (
        lambda: parameter("input", "shared_memory_region"),
        ("'vibration'", "shared_memory_region"),
    ),
    "a tensor without a name": (
        lambda: raw_contents(lambda m: m.inputs[3].ClearField("name")),
        ("''", "unknown"),
    ),
    "a tensor without a datatype": (
        lambda: raw_contents(lambda m: m.inputs[3].ClearField("datatype")),
        ("'vibration'", "datatype is ''"),
    ),
    "a tensor without a shape": (
        lambda: raw_contents(lambda m: m.inputs[3].ClearField("shape")),
        ("'vibration'", "shape []"),
    ),
    "an enormous shape": (
        lambda: raw_contents(lambda m: m.inputs[3].shape.__setitem__(0, 2**62)),
        ("'vibration'", "bytes"),
    ),
    "unknown output": (
        lambda: raw_contents(lambda m: m.outputs.add(name="x")),
        ("'x'", "unknown"),
    ),
}


@pytest.mark.parametrize("case", MESSAGES)
def test_message_that_breaks_the_contract_is_refused(server: Server, case: str) -> None:
    make, words = MESSAGES[case]
    reply = call(server, make().SerializeToString())
    refused(server, reply, "INVALID_ARGUMENT", *words)


@pytest.mark.parametrize("content", [b"\xff\xff\xff", b"\x0a\xff", b"{}", b"\x0a\x02\xff\xfe"])
def test_bytes_that_are_not_a_message_are_refused(server: Server, content: bytes) -> None:
    refused(server, call(server, content), "INVALID_ARGUMENT", "ModelInferRequest")


@pytest.mark.parametrize(
    "path",
    [
        "/v2/models/another/infer",
        f"/v2/models/{sample_version.MODEL}/versions/8/infer",
        f"/v2/models/{sample_version.MODEL}/versions/07/infer",
        "/v2/models//infer",
    ],
)
def test_unknown_model_or_version_is_not_found_over_http(server: Server, path: str) -> None:
    refused(server, post(server, msgspec.json.encode(valid()), JSON, path), 404, "not served")


def test_unknown_model_or_version_is_not_found_over_grpc(server: Server) -> None:
    for fields in ({"model_name": "another"}, {"model_version": "8"}, {"model_name": ""}):
        spoilt = message()
        for field, value in fields.items():
            setattr(spoilt, field, value)
        refused(server, call(server, spoilt.SerializeToString()), "NOT_FOUND", "not served")


def test_body_over_the_limit_is_refused_unread(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.http_port)) as connection:
        head = f"POST /v2/models/{sample_version.MODEL}/infer HTTP/1.1\r\nhost: x\r\n"
        connection.sendall(f"{head}content-length: {10**12}\r\n\r\n".encode())
        connection.settimeout(60)
        assert b" 413 " in connection.recv(4096)
    assert server.last().status == "RESOURCE_EXHAUSTED"


def test_chunked_body_over_the_limit_is_refused(server: Server) -> None:
    def chunks() -> Any:
        for _ in range(80):
            yield b"x" * 100_000

    response = HTTP.post(server.infer_url, content=chunks(), headers=JSON)
    assert response.status_code == 413
    assert "limit" in response.json()["error"]
    assert server.last().status == "RESOURCE_EXHAUSTED"


@pytest.mark.parametrize("path", ["/v2/repository/index", "/v2", "/nowhere"])
def test_no_path_accepts_a_body_over_the_limit(server: Server, path: str) -> None:
    response = HTTP.post(server.url + path, content=b"x" * (4 * 1024 * 1024 + 1))
    assert response.status_code == 413
    assert list(response.json()) == ["error"]


def test_message_over_the_limit_is_refused(server: Server) -> None:
    reply = call(server, b"x" * (4 * 1024 * 1024 + 1))
    assert reply.status == "RESOURCE_EXHAUSTED"
    wait_for(lambda: server.last().status == "RESOURCE_EXHAUSTED", what="a record of it")
    assert "limit" in server.last().error


def test_call_that_never_sends_its_message_times_out(server: Server) -> None:
    messages: queue.Queue[bytes | None] = queue.Queue()
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        answer = channel.stream_unary(METHOD).future(iter(messages.get, None), timeout=60)
        error = answer.exception(60)
        messages.put(None)
    assert isinstance(error, grpc.RpcError)
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert error.details() == "no message came within 1 seconds"
    assert server.last().status == "DEADLINE_EXCEEDED"


def test_message_over_the_limit_after_decompression_is_refused(server: Server) -> None:
    assert server.process is not None
    with (
        grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}", UNLIMITED) as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        channel.unary_unary(METHOD)(
            bytes(200_000_000), compression=grpc.Compression.Gzip, timeout=60
        )
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    wait_for(lambda: server.last().status == "RESOURCE_EXHAUSTED", what="a record of it")
    assert peak_bytes(server.process.pid) < 600_000_000


UNLIMITED = [("grpc.max_send_message_length", -1)]


def peak_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


@pytest.mark.parametrize("how", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_messages_are_answered(server: Server, how: grpc.Compression) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        assert channel.unary_unary(METHOD)(message().SerializeToString(), compression=how)
    assert server.last().status == "OK"


def test_call_without_a_message_is_refused(server: Server) -> None:
    with (
        grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        channel.stream_unary(METHOD)(iter(()), timeout=60)
    reply = Reply(caught.value.code().name, caught.value.details(), {}, {}, "", "")
    refused(server, reply, "INVALID_ARGUMENT", "no message")


def test_call_cancelled_before_its_message_is_recorded(server: Server) -> None:
    sent = threading.Event()

    def messages() -> Iterator[bytes]:
        sent.wait(60)
        yield from ()

    before = len(server.records())
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        call = channel.stream_unary(METHOD).future(messages(), timeout=60)
        # On the same connection: when this is answered, the call has begun.
        channel.unary_unary("/inference.GRPCInferenceService/ServerLive")(b"", timeout=60)
        call.cancel()
        wait_for(lambda: len(server.records()) > before, what="a record of it")
        sent.set()
    assert "went away" in server.last().error


def test_body_that_does_not_arrive_in_time_is_refused(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.http_port)) as connection:
        connection.settimeout(60)
        head = f"POST /v2/models/{sample_version.MODEL}/infer HTTP/1.1\r\nhost: x\r\n"
        connection.sendall(f"{head}content-length: 99\r\n\r\n{{".encode())
        assert b" 408 " in connection.recv(4096)
    assert server.last().status == "DEADLINE_EXCEEDED"


def test_client_that_disconnects_in_the_body_is_recorded(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.http_port)) as connection:
        head = f"POST /v2/models/{sample_version.MODEL}/infer HTTP/1.1\r\nhost: x\r\n"
        connection.sendall(f"{head}content-length: 100\r\n\r\n{{".encode())
    wait_for(lambda: server.last().status == "CANCELLED", what="a record of it")


def test_other_kinds_of_inference_are_not_supported(server: Server) -> None:
    for verb in ("generate", "generate_stream", "infer_stream"):
        path = f"/v2/models/{sample_version.MODEL}/{verb}"
        refused(server, post(server, msgspec.json.encode(valid()), JSON, path), 404, verb)
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        stream = channel.stream_stream(METHOD.replace("ModelInfer", "ModelStreamInfer"))
        with pytest.raises(grpc.RpcError) as caught:
            next(stream(iter([message().SerializeToString()])))
    reply = Reply(caught.value.code().name, caught.value.details(), {}, {}, "", "")
    refused(server, reply, "UNIMPLEMENTED", "streams")


def test_metrics_contain_the_latency_of_every_status(server: Server) -> None:
    def count(protocol: str, status: str) -> float:
        text = HTTP.get(f"http://127.0.0.1:{server.metrics_port}/metrics").text
        labels = f'model="{sample_version.MODEL}",protocol="{protocol}",status="{status}"'
        series = f"_seconds_count{{{labels}"
        return sum(float(line.split()[-1]) for line in text.splitlines() if series in line)

    cases = [("http", "OK"), ("http", "NOT_FOUND"), ("grpc", "OK"), ("grpc", "INVALID_ARGUMENT")]
    before = [count(*case) for case in cases]
    rows = server.metric("watchkeeper_rows_total")
    post(server, msgspec.json.encode(valid()))
    post(server, msgspec.json.encode(valid()), path="/v2/models/x/infer")
    call(server, message().SerializeToString())
    call(server, b"\xff")
    assert [count(*case) for case in cases] == [number + 1 for number in before]
    assert server.metric("watchkeeper_rows_total") == rows + 4
    assert server.metric("watchkeeper_ready") == 1


def test_refused_requests_add_no_series_to_the_metrics(server: Server) -> None:
    for number in range(20):
        post(server, b"", JSON, f"/v2/models/model-{number}/infer")
    text = HTTP.get(f"http://127.0.0.1:{server.metrics_port}/metrics").text
    assert "model-" not in text
    assert f'model="{sample_version.MODEL}"' in text


def test_every_line_of_the_spool_is_a_record(server: Server) -> None:
    for number in segments(server.spool):
        assert written_part(segment_path(server.spool, number).read_bytes())[-1:] in (b"", b"\n")
    kept = server.metric("watchkeeper_records_total") + server.metric("watchkeeper_labels_total")
    assert len(server.records()) == kept
