"""The requests: for each server in the form that is cheapest for it, and a check of its answer."""

import ssl
import struct
from pathlib import Path
from typing import Any

import grpc
import httpx
import msgspec
import numpy as np
from mlserver.grpc import dataplane_pb2 as pb

from watchkeeper.bench.model import FEATURES, NAMES, Model, Numbers
from watchkeeper.bench.servers import Server

METHOD = "/inference.GRPCInferenceService/ModelInfer"
_TOLERANCE = 1e-6
# The datatypes of scores: XGBoost answers in FP32.
_DTYPES = {"FP64": "<f8", "FP32": "<f4"}
_FIELDS = {"FP64": "fp64_contents", "FP32": "fp32_contents"}


class Case(msgspec.Struct, frozen=True):
    """One request for one server. Its body is in a file."""

    server: str
    model: Model
    protocol: str
    path: str
    headers: dict[str, str]
    file: Path

    @property
    def body(self) -> bytes:
        """The body as it goes over the wire."""
        return self.file.read_bytes()


def create_case(server: Server, model: Model, encoding: str, rows: Numbers, folder: Path) -> Case:
    """Write the body for a server.

    Args:
        server: The server.
        model: What it serves.
        encoding: "json" or "binary" over HTTP, "typed" or "raw" over gRPC.
        rows: The input, of shape (rows, features).
        folder: Where the file is written.
    """
    peer = server.name in ("mlserver-sklearn", "fastapi")
    protocol = "http" if encoding in ("json", "binary") else "grpc"
    method = model.head.method if peer else ""  # which output of a peer is wanted
    path = f"/v2/models/{model.name}/infer" if protocol == "http" else METHOD
    headers = {"content-type": "application/json"}
    if server.name == "fastapi":
        path, body = "/predict", msgspec.json.encode({"rows": rows.tolist()})
    elif protocol == "grpc":
        headers = {"content-type": "application/grpc", "te": "trailers"}
        message = _message(model.name, _tensors(rows, peer), encoding == "raw", method)
        content = message.SerializeToString()
        body = b"\0" + struct.pack(">I", len(content)) + content
    elif encoding == "binary":
        body, length = _binary(rows)
        headers = {"content-type": "application/octet-stream"}
        headers["inference-header-content-length"] = str(length)
    else:
        inputs = [
            {"name": name, "shape": list(v.shape), "datatype": "FP64", "data": v.ravel().tolist()}
            for name, v in _tensors(rows, peer)
        ]
        outputs = {"outputs": [{"name": method}]} if peer else {}
        body = msgspec.json.encode({"inputs": inputs, **outputs})
    file = folder / f"{server.name}.{encoding}.{len(rows)}"
    file.write_bytes(body)
    return Case(server.name, model, protocol, path, headers, file)


def check(server: Server, case: Case, expected: Numbers) -> None:
    """Send a request once and check the answer.

    Raises:
        RuntimeError: The answer differs from the pipeline's.
    """
    if case.protocol == "grpc":
        with _channel(server) as channel:
            answered = channel.unary_unary(METHOD)(case.body[5:], timeout=30)
        got = _scores_of_message(pb.ModelInferResponse.FromString(answered), case.model)
    else:
        trusted = ssl.create_default_context(cafile=server.authority)
        with httpx.Client(verify=trusted, timeout=30) as client:
            answer = client.post(server.url + case.path, content=case.body, headers=case.headers)
        answer.raise_for_status()
        got = _scores(answer.json(), case.model)
    if server.name.endswith("constant"):
        expected = np.array([0.5])
    if server.name == "mlserver-sklearn":  # all values in one tensor, those of both classes too
        got = got.reshape(len(expected), -1)
        got = got[:, -1] if case.model.scores == 1 else got
    if got.shape != expected.shape or np.abs(got - expected).max() > _TOLERANCE:
        raise RuntimeError(f"{case.file.name}: {got[:3]} instead of {expected[:3]}")


def _channel(server: Server) -> grpc.Channel:
    address = f"127.0.0.1:{server.grpc}"
    if server.authority is None:
        return grpc.insecure_channel(address)
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(server.authority.read_bytes()))


def _tensors(rows: Numbers, peer: bool) -> list[tuple[str, Numbers]]:
    if peer:
        return [("predict", rows)]
    return [(name, rows[:, place]) for place, name in enumerate(NAMES)]


def _message(name_: str, tensors: list[tuple[str, Numbers]], raw: bool, method: str) -> Any:
    message = pb.ModelInferRequest(model_name=name_)
    for name, values in tensors:
        tensor = message.inputs.add(name=name, datatype="FP64", shape=values.shape)
        if raw:
            message.raw_input_contents.append(values.tobytes())
        else:
            tensor.contents.fp64_contents.extend(values.ravel().tolist())
    if method:
        message.outputs.add(name=method)
    return message


def _binary(rows: Numbers) -> tuple[bytes, int]:
    size = {"binary_data_size": 8 * len(rows)}
    inputs = [
        {"name": name, "shape": [len(rows)], "datatype": "FP64", "parameters": size}
        for name in NAMES
    ]
    head = msgspec.json.encode({"inputs": inputs})
    return head + b"".join(rows[:, n].tobytes() for n in range(FEATURES)), len(head)


def _scores(answer: dict[str, Any], model: Model) -> Numbers:
    if "outputs" not in answer:
        return np.array(answer["scores"])
    return _joined([np.array(each["data"]) for each in answer["outputs"][: model.scores]])


def _scores_of_message(answer: Any, model: Model) -> Numbers:
    outputs = list(answer.outputs)[: model.scores]
    if answer.raw_output_contents:
        raw = zip(
            outputs, answer.raw_output_contents, strict=False
        )  # further outputs are no scores
        return _joined([np.frombuffer(x, _DTYPES[output.datatype]) for output, x in raw])
    return _joined([np.array(getattr(x.contents, _FIELDS[x.datatype])) for x in outputs])


def _joined(outputs: list[Numbers]) -> Numbers:
    """Return outputs of shape (rows,) as one array of shape (rows,) or (rows, scores)."""
    return outputs[0] if len(outputs) == 1 else np.stack(outputs, axis=1)
