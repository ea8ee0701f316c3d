"""Clients of other projects work with their defaults."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sample_version
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from conftest import HTTP, Server
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import InferenceServerException
from wire import call, http_body, post, send, tensors

from watchkeeper.core.record import Prediction


def inputs(triton: Any, columns: dict[str, list]) -> list[Any]:
    made = []
    for column in sample_version.COLUMNS:
        dtype = object if column.datatype == "BYTES" else None
        values = np.array(columns[column.name], dtype=dtype)
        tensor = triton.InferInput(column.name, [len(values)], column.datatype)
        tensor.set_data_from_numpy(values)
        made.append(tensor)
    return made


@pytest.fixture(params=["http", "grpc"])
def triton(request: pytest.FixtureRequest, server: Server) -> Any:
    module = triton_http if request.param == "http" else triton_grpc
    port = server.http_port if request.param == "http" else server.grpc_port
    client = module.InferenceServerClient(f"127.0.0.1:{port}")
    yield module, client
    client.close()


def test_tritonclient_infers_with_its_defaults(server: Server, triton: Any) -> None:
    module, client = triton
    columns = sample_version.rows(5, seed=9)
    result = client.infer(sample_version.MODEL, inputs(module, columns), request_id="mine")
    expected = send(server, "json", tensors(columns)).outputs
    assert result.as_numpy(sample_version.SCORE).tolist() == expected[sample_version.SCORE]
    assert result.as_numpy("failure").tolist() == expected["failure"]
    assert [level.decode() for level in result.as_numpy("risk_level")] == expected["risk_level"]


def test_tritonclient_gets_requested_outputs(triton: Any) -> None:
    module, client = triton
    wanted = [module.InferRequestedOutput("failure")]
    result = client.infer(
        sample_version.MODEL, inputs(module, sample_version.rows(2)), outputs=wanted
    )
    assert result.as_numpy("failure").shape == (2,)
    assert result.as_numpy("risk_level") is None


def test_tritonclient_gets_the_error_message(triton: Any) -> None:
    module, client = triton
    with pytest.raises(InferenceServerException, match="column 'grade': missing"):
        client.infer(sample_version.MODEL, inputs(module, sample_version.rows(1))[1:])


def test_tritonclient_reads_health_and_metadata(triton: Any) -> None:
    module, client = triton
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(sample_version.MODEL)
    assert client.is_model_ready(sample_version.MODEL, "7")
    as_json = {} if module is triton_http else {"as_json": True}
    assert client.get_server_metadata(**as_json)["name"] == "watchkeeper"
    metadata = client.get_model_metadata(sample_version.MODEL, **as_json)
    found = {tensor["name"]: tensor["datatype"] for tensor in metadata["inputs"]}
    assert found == {column.name: column.datatype for column in sample_version.COLUMNS}
    assert [tensor["name"] for tensor in metadata["outputs"]] == [
        sample_version.SCORE,
        "failure",
        "risk_level",
    ]
    with pytest.raises(InferenceServerException, match="another"):
        client.get_model_metadata("another")


def test_there_is_no_repository_to_read_or_change(triton: Any) -> None:
    module, client = triton
    expected = "is not served" if module is triton_http else "no repository"
    for change in (
        client.get_model_repository_index,
        lambda: client.load_model(sample_version.MODEL),
        lambda: client.unload_model(sample_version.MODEL),
    ):
        with pytest.raises(InferenceServerException, match=expected):
            change()
    assert client.is_model_ready(sample_version.MODEL)


def test_the_server_names_no_other_software(triton: Any) -> None:
    module, client = triton
    found = client.get_server_metadata(**({} if module is triton_http else {"as_json": True}))
    assert (found["name"], found["version"]) == ("watchkeeper", version("watchkeeper-serving"))
    assert version("mlserver") not in str(found)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "path",
    [
        *("/", "/v2/docs", "/v2/docs/dataplane.json", "/openapi.json", "/docs", "/metrics"),
        *("/v2/models/{}/docs", "/v2/models/{}/docs/dataplane.json", "/v2/models/{}/versions"),
        *("/v2/models/{}/versions/7/docs", "/v2/models", "/v2/repository/index", "/invocations"),
    ],
)
def test_no_other_path_is_served(server: Server, method: str, path: str) -> None:
    url = server.url + path.format(sample_version.MODEL)
    response = HTTP.request(method, url, content=b"{}")
    assert response.status_code == 404
    assert f"/v2/models/{sample_version.MODEL}, which may be" in response.json()["error"]


def test_health_bodies_are_those_of_the_kserve_client(server: Server) -> None:
    assert HTTP.get(f"{server.url}/v2/health/live").json() == {"live": True}
    assert HTTP.get(f"{server.url}/v2/health/ready").json() == {"ready": True}
    assert HTTP.get(f"{server.url}/v2/models/{sample_version.MODEL}/ready").json()["ready"] is True
    assert HTTP.get(f"{server.url}/v2/models/another/ready").status_code == 404


def test_metadata_contains_units_ranges_and_categories(server: Server) -> None:
    metadata = HTTP.get(f"{server.url}/v2/models/{sample_version.MODEL}/versions/7").json()
    found = {tensor["name"]: tensor.get("parameters") for tensor in metadata["inputs"]}
    assert found["vibration"] == {"unit": "mm/s", "minimum": 0, "maximum": 200}
    assert found["grade"] == {"categories": ["L", "M", "H"]}
    assert metadata["versions"] == ["7"]


def test_metadata_over_grpc_is_the_same(server: Server) -> None:
    with triton_grpc.InferenceServerClient(f"127.0.0.1:{server.grpc_port}") as client:
        metadata = client.get_model_metadata(sample_version.MODEL)
    # Its parameters are MLServer's addition. Tritonclient's message has none, but that of an
    # input has the same fields in the same places.
    read = pb.ModelInferRequest.InferInputTensor.FromString
    tensors = [read(tensor.SerializeToString()) for tensor in metadata.inputs]
    found = {
        tensor.name: {name: value.string_param for name, value in tensor.parameters.items()}
        for tensor in tensors
    }
    shown = HTTP.get(f"{server.url}/v2/models/{sample_version.MODEL}").json()
    for tensor in shown["inputs"]:
        expected = tensor.get("parameters", {})
        texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in expected.items()}
        for name, text in found[tensor["name"]].items():
            assert text == texts[name] or float(text) == expected[name]
        assert found[tensor["name"]].keys() == expected.keys()
    assert metadata.versions == ["7"]
    assert [list(tensor.shape) for tensor in metadata.inputs] == [[-1]] * len(
        sample_version.COLUMNS
    )


def test_mlserver_variables_have_no_effect(server: Server) -> None:
    headers = {"origin": "http://evil", "accept-encoding": "gzip"}
    response = HTTP.get(f"{server.url}/v2/models/{sample_version.MODEL}", headers=headers)
    assert response.status_code == 200
    assert "access-control-allow-origin" not in response.headers
    assert "content-encoding" not in response.headers


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
@pytest.mark.parametrize("body", [b"", b"{}", b"[", b"\xff", b'{"ready": 5}', b"null"])
def test_no_path_causes_an_internal_error(server: Server, method: str, body: bytes) -> None:
    model = f"/v2/models/{sample_version.MODEL}"
    for path in (
        *("/", "/v2", "/v2/", "/v2/docs", "/v2/models", "/v2/models//", "/openapi.json"),
        *(model, f"{model}/docs", f"{model}/versions/8", "/v2/models/%ff", "/v2/models/%00/ready"),
        *("/v2/repository/index", f"/v2/repository/models{model}/load", "/invocations"),
    ):
        response = HTTP.request(method, server.url + path, content=body)
        assert response.status_code < 500, path
        if response.status_code >= 400:
            assert list(response.json()) == ["error"], path


@pytest.mark.parametrize("path", ["/nowhere", "/v2/models/another", "/v2/repository/index?x=1"])
def test_every_error_has_the_same_form(server: Server, path: str) -> None:
    response = HTTP.post(server.url + path, content=b"[")
    assert 400 <= response.status_code < 500
    assert list(response.json()) == ["error"]


def test_kserve_sdk_works_with_its_defaults(server: Server) -> None:
    """In a process of its own, because the SDK registers the names of tritonclient's messages."""
    columns = sample_version.rows(3, seed=4)
    given = {c.name: (c.datatype, columns[c.name]) for c in sample_version.COLUMNS}
    sdk = Path(__file__).with_name("kserve_sdk.py")
    python = Path(__file__).parents[2] / ".venv/bin/python"
    where = (server.url, f"127.0.0.1:{server.grpc_port}", sample_version.MODEL)
    done = subprocess.run(
        [python, sdk, *where, json.dumps(given)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    expected = send(server, "json", tensors(columns)).outputs
    assert found["http"].pop("another ready") is False
    for protocol, answers in found.items():
        assert "column 'grade': missing" in answers.pop("error"), protocol
        assert {answers.pop(how) for how in ("live", "ready", "model ready")} == {True}, protocol
        assert set(answers) == {"lists", "arrays", "binary"}
        for outputs, parameters in answers.values():
            assert outputs == expected
            assert parameters["version"] == "7"
    subjects = [r.subject for r in server.records()[-9:] if isinstance(r, Prediction)]
    assert subjects.count("by lists") == subjects.count("by arrays") == 2
    assert subjects.count("by binary") == 4


@pytest.mark.parametrize("options", [[], ["--binary-data", "--batch-size", "3"]])
def test_mlserver_infer_command_works(server: Server, tmp_path: Path, options: list[str]) -> None:
    columns = sample_version.rows(4, seed=6)
    requests, answers = tmp_path / "requests", tmp_path / "answers"
    with requests.open("w") as file:
        for rows in ([0], [1, 2], [3]):
            some = {name: [values[row] for row in rows] for name, values in columns.items()}
            file.write(http_body(tensors(some), False, id=f"of row {rows[0]}")[0].decode() + "\n")
    command = [Path(sys.executable).with_name("mlserver"), "infer", "--retries", "1", *options]
    where = ["--url", f"127.0.0.1:{server.http_port}", "--model-name", sample_version.MODEL]
    subprocess.run(
        [*command, *where, "--input-data-path", requests, "--output-data-path", answers],
        check=True,
        capture_output=True,
        timeout=120,
    )
    expected = send(server, "json", tensors(columns)).outputs
    lines = sorted(map(json.loads, answers.read_text().splitlines()), key=lambda line: line["id"])
    assert [line["id"] for line in lines] == ["of row 0", "of row 1", "of row 3"]
    for name, values in expected.items():
        found = [next(o for o in line["outputs"] if o["name"] == name)["data"] for line in lines]
        assert [value for some in found for value in some] == values


def test_requests_of_mlserver_codecs_have_the_same_answer(server: Server) -> None:
    columns = sample_version.rows(3, seed=8)
    expected = send(server, "json", tensors(columns)).outputs
    script = Path(__file__).with_name("mlserver_requests.py")
    made = subprocess.run(
        [sys.executable, script, sample_version.MODEL, json.dumps(columns)],
        check=True,
        capture_output=True,
        timeout=120,
    )
    requests = json.loads(made.stdout.splitlines()[-1])
    assert set(requests) == {"by_pandas", "by_column"}
    for request in requests.values():
        for reply in (
            post(server, request["http"].encode()),
            call(server, bytes.fromhex(request["grpc"])),
        ):
            assert reply.outputs == expected, reply.error
