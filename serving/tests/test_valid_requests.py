import functools
import uuid
from pathlib import Path

import a_version
import numpy as np
import pytest
from conftest import HTTP, KEY, Server
from wire import ENCODINGS, Given, call, grpc_message, http_body, post, send, tensors

from watchkeeper.contracts.prediction_id import verify
from watchkeeper.contracts.record import Prediction
from watchkeeper.pipeline import load

pipelines = functools.cache(load)


def offline(version: Path, columns: dict[str, list]) -> dict[str, list]:
    arrays = {
        name: np.array(v, dtype=object if isinstance(v[0], str) else None)
        for name, v in columns.items()
    }
    return {name: values.tolist() for name, values in pipelines(version).answer(arrays).items()}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("number", [1, 2, 1024])
def test_every_encoding_answers_as_the_pipeline_does_offline(
    server: Server, version: Path, encoding: str, number: int
) -> None:
    columns = a_version.rows(number, seed=number)
    reply = send(server, encoding, tensors(columns))
    expected = offline(version, columns)
    assert reply.status in (200, "OK"), reply.error
    assert list(reply.outputs) == list(expected)
    assert np.allclose(reply.outputs[a_version.SCORE], expected[a_version.SCORE], atol=1e-6)
    assert reply.outputs["failure"] == expected["failure"]
    assert reply.outputs["risk_level"] == expected["risk_level"]
    assert reply.version == reply.parameters["version"] == "7"
    assert reply.id == reply.parameters["prediction_id"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_answer_is_recorded_before_it_arrives(server: Server, encoding: str) -> None:
    columns = a_version.rows(3, seed=5)
    reply = send(server, encoding, tensors(columns), id="mine")
    prediction = verify(KEY.encode(), a_version.MODEL, reply.parameters["prediction_id"])
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


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    "datatype", ["FP32", "INT64", "INT32", "INT16", "UINT64", "UINT32", "UINT16"]
)
def test_a_float_column_takes_every_datatype_that_it_can_hold(
    server: Server, encoding: str, datatype: str
) -> None:
    columns = {**a_version.rows(2), "rotational_speed": [1400, 1600]}
    exact = send(server, encoding, tensors(columns))
    given = [
        Given(t.name, datatype if t.name == "rotational_speed" else t.datatype, t.values, [2, 1])
        for t in tensors(columns)
    ]
    reply = send(server, encoding, given)
    assert reply.status in (200, "OK"), reply.error
    assert reply.outputs == exact.outputs


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_requested_outputs_come_alone_and_in_the_order_asked(server: Server, encoding: str) -> None:
    reply = send(server, encoding, tensors(a_version.rows(1)), outputs=["risk_level", "failure"])
    assert list(reply.outputs) == ["risk_level", "failure"]


def test_columns_may_come_in_any_order(server: Server) -> None:
    given = tensors(a_version.rows(4))
    assert send(server, "json", given[::-1]).outputs == send(server, "json", given).outputs


def test_one_output_may_be_binary_and_another_json(server: Server) -> None:
    body, headers = http_body(tensors(a_version.rows(2)), False)
    outputs = (
        b',"outputs":[{"name":"failure","parameters":{"binary_data":true}},{"name":"risk_level"}]}'
    )
    response = HTTP.post(server.infer_url, content=body[:-1] + outputs, headers=headers)
    length = int(response.headers["inference-header-content-length"])
    assert len(response.content) == length + 16
    assert b'"data"' in response.content[:length]


def test_parameters_of_pandas_users_do_not_hurt(server: Server) -> None:
    body, headers = http_body(tensors(a_version.rows(2)), False)
    plain = post(server, body, headers)
    dressed = body.replace(b'"BYTES"', b'"BYTES","parameters":{"content_type":"str"}')
    dressed = dressed[:-1] + b',"parameters":{"content_type":"pd","headers":{"a":"b"}}}'
    assert post(server, dressed, headers).outputs == plain.outputs


def test_the_version_may_be_in_the_path(server: Server) -> None:
    body, headers = http_body(tensors(a_version.rows(1)), False)
    path = f"/v2/models/{a_version.MODEL}/versions/7/infer"
    assert post(server, body, headers, path).status == 200
    message = grpc_message(tensors(a_version.rows(1)), False)
    message.model_version = "7"
    assert call(server, message.SerializeToString()).status == "OK"


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_the_gateway_names_request_and_attempt(server: Server, protocol: str) -> None:
    request = uuid.uuid4()
    headers = {
        "x-request-id": str(request),
        "x-envoy-attempt-count": "2",
        "x-watchkeeper-client": "line 4",
    }
    given = tensors(a_version.rows(1))
    if protocol == "http":
        body, more = http_body(given, False)
        reply = post(server, body, {**headers, **more})
    else:
        message = grpc_message(given, False).SerializeToString()
        reply = call(server, message, tuple(headers.items()))
    record = next(r for r in server.records() if isinstance(r, Prediction) and r.id == request.hex)
    assert reply.parameters["prediction_id"].startswith(request.hex)
    assert (record.attempt, record.client) == (2, "line 4")


def test_the_user_agent_names_a_client_that_does_not(server: Server) -> None:
    body, headers = http_body(tensors(a_version.rows(1)), False)
    post(server, body, {**headers, "user-agent": "u" * 300})
    assert server.last().client == "u" * 255
