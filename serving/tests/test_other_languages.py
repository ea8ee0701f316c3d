"""HTTP clients of other languages, and command-line tools, with their defaults.

A test is skipped where its tool is missing.
"""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import sample_version
from conftest import HTTP, Server
from wire import http_body, send, tensors

CLIENTS = Path(__file__).with_name("clients")
COLUMNS = sample_version.rows(3, seed=12)
GIVEN = [each._replace(shape=[3, 1], nested=True) for each in tensors(COLUMNS)]


@pytest.fixture
def body(tmp_path: Path) -> Path:
    file = tmp_path / "body.json"
    file.write_bytes(http_body(GIVEN, False)[0])
    return file


def run(tool: str, *arguments: str | Path) -> str:
    """What the tool prints."""
    program = shutil.which(tool)
    if program is None:
        pytest.skip(f"{tool} is not installed")
    done = subprocess.run(
        [program, *arguments], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def outputs(answer: str) -> dict[str, list]:
    return {each["name"]: each["data"] for each in json.loads(answer)["outputs"]}


@pytest.mark.parametrize(
    ("command", "number"),
    [
        (["java", CLIENTS / "Ask.java"], 4),
        (["node", CLIENTS / "ask.mjs"], 3),
        (["go", "run", CLIENTS / "ask.go"], 3),
    ],
    ids=["java", "node", "go"],
)
def test_http_client_of_the_language_is_answered(
    server: Server, body: Path, command: list, number: int
) -> None:
    answers = run(*command, server.infer_url, body).splitlines()
    assert len(answers) == number
    expected = send(server, "json", tensors(COLUMNS)).outputs
    for answer in answers:
        assert outputs(answer) == expected


@pytest.mark.parametrize(
    "options",
    [[], ["--header", "Transfer-Encoding: chunked"], ["--header", "Expect: 100-continue"]],
)
def test_curl_is_answered(server: Server, body: Path, options: list[str]) -> None:
    answer = run("curl", "--silent", *options, "--data", f"@{body}", server.infer_url)
    assert outputs(answer) == send(server, "json", tensors(COLUMNS)).outputs


@pytest.mark.parametrize("compress", [["gzip", "--stdout"], ["zstd", "--stdout", "--quiet"]])
def test_what_a_command_compresses_is_answered(
    server: Server, body: Path, compress: list[str]
) -> None:
    program = shutil.which(compress[0])
    if program is None:
        pytest.skip(f"{compress[0]} is not installed")
    content = subprocess.run(
        [program, *compress[1:], body], capture_output=True, check=True, timeout=60
    ).stdout
    headers = {"content-encoding": compress[0]}
    answer = HTTP.post(server.infer_url, content=content, headers=headers).text
    assert outputs(answer) == send(server, "json", tensors(COLUMNS)).outputs


def test_grpcurl_needs_no_description_of_the_protocol(server: Server) -> None:
    where = ("-plaintext", "-max-time", "60")
    address, service = f"127.0.0.1:{server.grpc_port}", "inference.GRPCInferenceService"
    services = run("grpcurl", *where, address, "list").split()
    assert {service, "grpc.health.v1.Health"} <= {*services}
    assert "ModelInfer" in run("grpcurl", *where, address, "describe", service)
    healthy = run("grpcurl", *where, address, "grpc.health.v1.Health/Check")
    assert json.loads(healthy) == {"status": "SERVING"}
    fields = {"FP64": "fp64_contents", "INT64": "int64_contents", "BYTES": "bytes_contents"}
    inputs = [
        {
            "name": each.name,
            "datatype": each.datatype,
            "shape": [1],
            "contents": {fields[each.datatype]: [each.values[0]]},
        }
        for each in tensors({**COLUMNS, "grade": ["TA==", "", ""]})  # Base64 of L
    ]
    request = json.dumps({"model_name": sample_version.MODEL, "inputs": inputs})
    answer = run("grpcurl", *where, "-d", request, address, f"{service}/ModelInfer")
    (scores,) = json.loads(answer)["outputs"][0]["contents"].values()
    one = {name: values[:1] for name, values in {**COLUMNS, "grade": ["L"]}.items()}
    assert scores == send(server, "json", tensors(one)).outputs[sample_version.SCORE]


def test_browser_gets_no_permission_for_another_origin(server: Server) -> None:
    """CORS is off: a page of another origin can neither send JSON nor read an answer."""
    origin = {"origin": "http://example.com"}
    preflight = HTTP.options(
        server.infer_url, headers={**origin, "access-control-request-method": "POST"}
    )
    assert preflight.status_code == 405
    sent = HTTP.post(server.infer_url, content=http_body(GIVEN, False)[0], headers=origin)
    assert sent.status_code == 200
    for response in (preflight, sent):
        assert not [name for name in response.headers if name.startswith("access-control-")]
