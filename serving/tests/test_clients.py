"""The clients that nobody here wrote, with their defaults, beyond what inference needs."""

from typing import Any

import a_version
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from conftest import HTTP, Server
from tritonclient.utils import InferenceServerException
from wire import send, tensors


def inputs(triton: Any, columns: dict[str, list]) -> list[Any]:
    made = []
    for column in a_version.COLUMNS:
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
    columns = a_version.rows(5, seed=9)
    result = client.infer(a_version.MODEL, inputs(module, columns), request_id="mine")
    expected = send(server, "json", tensors(columns)).outputs
    assert result.as_numpy(a_version.SCORE).tolist() == expected[a_version.SCORE]
    assert result.as_numpy("failure").tolist() == expected["failure"]
    assert [level.decode() for level in result.as_numpy("risk_level")] == expected["risk_level"]


def test_tritonclient_gets_the_outputs_it_asks_for(triton: Any) -> None:
    module, client = triton
    asked = [module.InferRequestedOutput("failure")]
    result = client.infer(a_version.MODEL, inputs(module, a_version.rows(2)), outputs=asked)
    assert result.as_numpy("failure").shape == (2,)
    assert result.as_numpy("risk_level") is None


def test_tritonclient_reads_the_refusal(triton: Any) -> None:
    module, client = triton
    with pytest.raises(InferenceServerException, match="column 'type': missing"):
        client.infer(a_version.MODEL, inputs(module, a_version.rows(1))[1:])


def test_tritonclient_asks_for_health_and_metadata(triton: Any) -> None:
    module, client = triton
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(a_version.MODEL)
    assert client.is_model_ready(a_version.MODEL, "7")
    as_json = {} if module is triton_http else {"as_json": True}
    assert client.get_server_metadata(**as_json)["name"] == "watchkeeper"
    metadata = client.get_model_metadata(a_version.MODEL, **as_json)
    found = {tensor["name"]: tensor["datatype"] for tensor in metadata["inputs"]}
    assert found == {column.name: column.datatype for column in a_version.COLUMNS}
    assert [tensor["name"] for tensor in metadata["outputs"]] == [
        a_version.SCORE,
        "failure",
        "risk_level",
    ]
    with pytest.raises(InferenceServerException, match="another"):
        client.get_model_metadata("another")


def test_tritonclient_sees_the_repository_but_cannot_change_it(triton: Any) -> None:
    module, client = triton
    as_json = {} if module is triton_http else {"as_json": True}
    index = client.get_model_repository_index(**as_json)
    models = index if module is triton_http else index["models"]
    assert [(m["name"], m["version"], m["state"]) for m in models] == [
        (a_version.MODEL, "7", "READY")
    ]
    for change in (client.load_model, client.unload_model):
        with pytest.raises(InferenceServerException, match="one version"):
            change(a_version.MODEL)
    assert client.is_model_ready(a_version.MODEL)


def test_health_has_the_bodies_that_the_kserve_client_reads(server: Server) -> None:
    assert HTTP.get(f"{server.url}/v2/health/live").json() == {"live": True}
    assert HTTP.get(f"{server.url}/v2/health/ready").json() == {"ready": True}
    assert HTTP.get(f"{server.url}/v2/models/{a_version.MODEL}/ready").json()["ready"] is True
    assert HTTP.get(f"{server.url}/v2/models/another/ready").status_code == 404


def test_metadata_tells_units_ranges_and_categories(server: Server) -> None:
    metadata = HTTP.get(f"{server.url}/v2/models/{a_version.MODEL}/versions/7").json()
    told = {tensor["name"]: tensor.get("parameters") for tensor in metadata["inputs"]}
    assert told["torque"] == {"unit": "Nm", "minimum": 0, "maximum": 200}
    assert told["type"] == {"categories": ["L", "M", "H"]}
    assert metadata["versions"] == ["7"]


def test_stray_variables_of_mlserver_change_nothing(server: Server) -> None:
    headers = {"origin": "http://evil", "accept-encoding": "gzip"}
    response = HTTP.get(f"{server.url}/v2/models/{a_version.MODEL}", headers=headers)
    assert response.status_code == 200
    assert "access-control-allow-origin" not in response.headers
    assert "content-encoding" not in response.headers


@pytest.mark.parametrize("path", ["/nowhere", "/v2/models/another", "/v2/repository/index?x=1"])
def test_errors_of_every_path_have_the_one_body(server: Server, path: str) -> None:
    response = HTTP.post(server.url + path, content=b"[")
    assert 400 <= response.status_code < 500
    assert list(response.json()) == ["error"]
