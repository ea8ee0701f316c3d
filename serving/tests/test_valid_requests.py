import functools
import struct
import uuid
from pathlib import Path

import numpy as np
import pytest
import sample_version
from conftest import HTTP, KEY, Server
from wire import ENCODINGS, Given, call, grpc_message, http_body, post, send, tensors

from watchkeeper.core.head import Head
from watchkeeper.core.prediction_id import verify
from watchkeeper.core.record import Prediction
from watchkeeper.core.signature import Column, Signature
from watchkeeper.pipeline import load
from watchkeeper.serving.contract import Contract
from watchkeeper.serving.errors import RequestError
from watchkeeper.serving.tensors import RawContents, Tensor

HEAD = Head("score", "score.skops", "predict_proba")
pipelines = functools.cache(load)


def offline(version: Path, columns: dict[str, list]) -> dict[str, list]:
    pipeline = pipelines(version)
    arrays = {c.name: c.array(columns[c.name]) for c in pipeline.manifest.signature.inputs}
    return {name: values.tolist() for name, values in pipeline.answer(arrays).items()}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("number", [1, 2, 1024])
def test_every_encoding_has_the_answer_of_the_pipeline(
    server: Server, version: Path, encoding: str, number: int
) -> None:
    columns = sample_version.rows(number, seed=number)
    reply = send(server, encoding, tensors(columns))
    expected = offline(version, columns)
    assert reply.status in (200, "OK"), reply.error
    assert list(reply.outputs) == list(expected)
    assert np.allclose(
        reply.outputs[sample_version.SCORE], expected[sample_version.SCORE], atol=1e-6
    )
    assert reply.outputs["failure"] == expected["failure"]
    assert reply.outputs["risk_level"] == expected["risk_level"]
    assert reply.version == reply.parameters["version"] == "7"
    assert reply.id == reply.parameters["prediction_id"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_answer_is_recorded_before_it_arrives(server: Server, encoding: str) -> None:
    columns = sample_version.rows(3, seed=5)
    reply = send(server, encoding, tensors(columns), id="mine")
    prediction = verify(KEY.encode(), sample_version.MODEL, reply.parameters["prediction_id"])
    (record,) = [
        r for r in server.records() if isinstance(r, Prediction) and r.id == prediction.request
    ]
    assert reply.id == "mine"
    assert record.status == "OK"
    assert record.rows == 3
    assert record.inputs == columns
    assert record.outputs == reply.outputs
    assert record.protocol == ("http" if encoding in ("json", "binary") else "grpc")
    assert 0 < record.latency < 5
    assert abs(record.time - prediction.time) < 0.002


NUMERIC = ("FP32", "FP16", "BF16", "INT64", "INT32", "INT16", "UINT64", "UINT32", "UINT16")
WITHOUT_FIELD = ("FP16", "BF16")  # the protocol has no typed contents for them


@pytest.mark.parametrize(
    ("encoding", "datatype"),
    [(e, d) for e in ENCODINGS for d in NUMERIC if e != "typed" or d not in WITHOUT_FIELD],
)
def test_float_column_accepts_every_numeric_datatype(
    server: Server, encoding: str, datatype: str
) -> None:
    columns = {**sample_version.rows(2), "flow": [1400, 1600]}
    exact = send(server, encoding, tensors(columns))
    given = [
        Given(t.name, datatype if t.name == "flow" else t.datatype, t.values, [2, 1])
        for t in tensors(columns)
    ]
    reply = send(server, encoding, given)
    assert reply.status in (200, "OK"), reply.error
    assert reply.outputs == exact.outputs


@pytest.mark.parametrize("datatype", WITHOUT_FIELD)
def test_datatype_without_typed_contents_needs_raw_contents(server: Server, datatype: str) -> None:
    message = grpc_message(tensors(sample_version.rows(2)), False)
    next(t for t in message.inputs if t.name == "flow").datatype = datatype
    reply = call(server, message.SerializeToString())
    assert reply.status == "INVALID_ARGUMENT"
    assert f"column 'flow': {datatype} has no typed contents; send raw contents" in reply.error


@pytest.mark.parametrize("datatype", WITHOUT_FIELD)
def test_every_number_of_16_bits_is_widened_without_loss(datatype: str) -> None:
    bits = np.arange(2**16, dtype="<u2")
    if datatype == "FP16":
        numbers = np.array(struct.unpack("<65536e", bits.tobytes()))
    else:
        numbers = np.array(struct.unpack("<65536f", (bits.astype("<u4") << 16).tobytes()))
    finite = np.isfinite(numbers)
    contract = Contract(Signature((Column("x", "FP64"),), ()), (HEAD,), sample_version.POLICY)

    def check(some: np.ndarray) -> np.ndarray:
        tensor = Tensor("x", datatype, [len(some)], RawContents(some.tobytes()))
        return np.asarray(contract.check([tensor]).columns["x"])

    assert check(bits[finite]).tobytes() == numbers[finite].tobytes()
    for each in bits[~finite]:
        with pytest.raises(RequestError, match="finite"):
            check(np.array([each]))


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("number", [1, 2, 5, 1024])
def test_nested_data_have_the_answer_of_flat_data(
    server: Server, encoding: str, number: int
) -> None:
    given = tensors(sample_version.rows(number, seed=number))
    nested = [each._replace(shape=[number, 1], nested=True) for each in given]
    reply = send(server, encoding, nested)
    assert reply.status in (200, "OK"), reply.error
    assert reply.outputs == send(server, "json", given).outputs


@pytest.mark.parametrize("space", [b"", b" ", b"\n\t "])
def test_space_in_nested_data_means_nothing(server: Server, space: bytes) -> None:
    given = [t._replace(shape=[2, 1], nested=True) for t in tensors(sample_version.rows(2))]
    body = http_body(given, False)[0]
    spaced = b"".join(
        space + body[n : n + 1] if body[n] in b"[]," else body[n : n + 1] for n in range(len(body))
    )
    assert post(server, spaced).outputs == post(server, body).outputs != {}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_requested_outputs_are_returned_in_order(server: Server, encoding: str) -> None:
    reply = send(
        server, encoding, tensors(sample_version.rows(1)), outputs=["risk_level", "failure"]
    )
    assert list(reply.outputs) == ["risk_level", "failure"]


def test_columns_may_come_in_any_order(server: Server) -> None:
    given = tensors(sample_version.rows(4))
    assert send(server, "json", given[::-1]).outputs == send(server, "json", given).outputs


def test_binary_and_json_outputs_in_one_answer(server: Server) -> None:
    body, headers = http_body(tensors(sample_version.rows(2)), False)
    outputs = (
        b',"outputs":[{"name":"failure","parameters":{"binary_data":true}},{"name":"risk_level"}]}'
    )
    response = HTTP.post(server.infer_url, content=body[:-1] + outputs, headers=headers)
    length = int(response.headers["inference-header-content-length"])
    assert len(response.content) == length + 16
    assert b'"data"' in response.content[:length]


def test_content_types_of_pandas_are_ignored(server: Server) -> None:
    body, headers = http_body(tensors(sample_version.rows(2)), False)
    plain = post(server, body, headers)
    dressed = body.replace(b'"BYTES"', b'"BYTES","parameters":{"content_type":"str"}')
    dressed = dressed[:-1] + b',"parameters":{"content_type":"pd","headers":{"a":"b"}}}'
    assert post(server, dressed, headers).outputs == plain.outputs


def test_version_in_the_path_is_accepted(server: Server) -> None:
    body, headers = http_body(tensors(sample_version.rows(1)), False)
    path = f"/v2/models/{sample_version.MODEL}/versions/7/infer"
    assert post(server, body, headers, path).status == 200
    message = grpc_message(tensors(sample_version.rows(1)), False)
    message.model_version = "7"
    assert call(server, message.SerializeToString()).status == "OK"


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_request_id_and_attempt_come_from_the_gateway(server: Server, protocol: str) -> None:
    request = uuid.uuid4()
    headers = {
        "x-request-id": str(request),
        "x-envoy-attempt-count": "2",
        "x-watchkeeper-client": "line 4",
    }
    given = tensors(sample_version.rows(1))
    if protocol == "http":
        body, more = http_body(given, False)
        reply = post(server, body, {**headers, **more})
    else:
        message = grpc_message(given, False).SerializeToString()
        reply = call(server, message, tuple(headers.items()))
    record = next(r for r in server.records() if isinstance(r, Prediction) and r.id == request.hex)
    assert reply.parameters["prediction_id"].startswith(request.hex)
    assert (record.attempt, record.client) == (2, "line 4")


def test_user_agent_is_the_client_name_by_default(server: Server) -> None:
    body, headers = http_body(tensors(sample_version.rows(1)), False)
    post(server, body, {**headers, "user-agent": "u" * 300})
    assert server.last().client == "u" * 255
