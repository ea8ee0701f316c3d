"""Start, readiness and shutdown of the process."""

import os
import queue
import shutil
import signal
import socket
import threading
from pathlib import Path

import grpc
import httpx
import msgspec
import pytest
import sample_version
from conftest import HTTP, PROCESS_SECONDS, Server, Starter
from test_valid_requests import offline
from tritonclient.grpc import service_pb2 as pb
from waiting import wait_for
from wire import METHOD, grpc_message, http_body, send, tensors

from watchkeeper.core.version import EXAMPLE, MANIFEST, Example, Manifest, read_manifest, seal


def wait_for_exit(server: Server) -> tuple[int, str]:
    """Wait until the process exits; return the exit code and its only error line."""
    assert server.process is not None
    code = server.process.wait(PROCESS_SECONDS)
    log = server.log.read_text()
    assert "Traceback" not in log
    errors = [line for line in log.splitlines() if " ERROR " in line]
    assert len(errors) == 1, log
    return code, errors[0]


@pytest.fixture
def copy(version: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(version, tmp_path / "copy"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("version", ""),
        ("version", "seven"),
        ("version", "0"),
        ("model", "A B"),
        ("spool_bytes", "x"),
    ],
)
def test_wrong_setting_is_named(start: Starter, name: str, value: str) -> None:
    code, error = wait_for_exit(start(**{name: value}).spawn())
    assert code == 2
    assert name in error.lower()


def test_missing_secret_is_named(start: Starter) -> None:
    server = start()
    del server.environment["WATCHKEEPER_SIGNING_KEY"]
    code, error = wait_for_exit(server.spawn())
    assert code == 2
    assert "WATCHKEEPER_SIGNING_KEY" in error


def test_version_that_fails_its_example_is_not_served(start: Starter, copy: Path) -> None:
    example = msgspec.json.decode((copy / EXAMPLE).read_bytes(), type=Example)
    example.outputs[sample_version.SCORE][0] += 1e-3
    (copy / EXAMPLE).write_bytes(msgspec.json.encode(example))
    seal(copy, msgspec.json.decode((copy / MANIFEST).read_bytes(), type=Manifest))
    code, error = wait_for_exit(start(model_folder=copy).spawn())
    assert code == 1
    assert "example" in error


def test_broken_pipeline_is_not_served(start: Starter, copy: Path) -> None:
    manifest = read_manifest(copy)
    heads = tuple(msgspec.structs.replace(head, onnx=None) for head in manifest.heads)
    (copy / f"{sample_version.SCORE}.skops").write_bytes(b"no model at all")
    seal(copy, msgspec.structs.replace(manifest, heads=heads))
    code, error = wait_for_exit(start(model_folder=copy).spawn())
    assert code == 1
    assert f"{sample_version.SCORE}.skops" in error


@pytest.mark.parametrize("port", ["http_port", "grpc_port"])
def test_port_in_use_ends_the_process(start: Starter, port: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        code, error = wait_for_exit(start(**{port: number}).spawn())
    assert code == 1
    assert str(number) in error


def test_version_without_onnx_is_served_by_sklearn(start: Starter, tmp_path: Path) -> None:
    version = sample_version.create_version(tmp_path / "version", trees=5, with_onnx=False)
    server = start(model_folder=version).start()
    assert (
        HTTP.get(f"{server.url}/v2/models/{sample_version.MODEL}").json()["platform"] == "sklearn"
    )
    columns = sample_version.rows(7, seed=3)
    for encoding in ("json", "raw"):
        assert send(server, encoding, tensors(columns)).outputs == offline(version, columns)


def test_settings_override_the_answer_policy(start: Starter) -> None:
    policy = {
        "out_of_range": "flag",
        "risk": {"score": sample_version.SCORE, "medium": 0.0, "high": 9.0},
    }
    server = start(answer_policy=msgspec.json.encode(policy).decode()).start()
    given = tensors({**sample_version.rows(2), "vibration": [999.0, 1.0]})
    for encoding in ("json", "typed"):
        reply = send(server, encoding, given)
        assert reply.outputs["risk_level"] == ["MEDIUM", "MEDIUM"]
        assert "'vibration'" in reply.parameters["flags"]
        assert "999" in reply.parameters["flags"]
        assert server.last().flags == [reply.parameters["flags"]]
    nan = tensors({**sample_version.rows(2), "vibration": [float("nan"), 1.0]})
    assert send(server, "raw", nan).status == "INVALID_ARGUMENT"


class Clients:
    """Send requests over both protocols without a pause and collect the statuses.

    Over HTTP they continue until the port is closed. Over gRPC they stop when the server is not
    ready, like the gateway, because gRPC cancels calls that arrive during its shutdown.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.statuses: dict[str, list[str]] = {"http": [], "grpc": []}
        self.stop, self.leave = threading.Event(), threading.Event()
        self._threads = [threading.Thread(target=work) for work in (self._http, self._grpc)]

    def __enter__(self) -> "Clients":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join(60)

    def _http(self) -> None:
        body, headers = http_body(tensors(sample_version.rows(1)), False)
        with httpx.Client() as client:
            while not self.stop.is_set():
                try:
                    response = client.post(self.server.infer_url, content=body, headers=headers)
                    self.statuses["http"].append(str(response.status_code))
                except httpx.ConnectError:
                    return  # the port is closed
                except httpx.TransportError as error:
                    self.statuses["http"].append(repr(error))

    def _grpc(self) -> None:
        message = grpc_message(tensors(sample_version.rows(1)), True).SerializeToString()
        with grpc.insecure_channel(f"127.0.0.1:{self.server.grpc_port}") as channel:
            method = channel.unary_unary(METHOD)
            while not (self.leave.is_set() or self.stop.is_set()):
                try:
                    method(message, timeout=60)
                    self.statuses["grpc"].append("OK")
                except grpc.RpcError as error:
                    self.statuses["grpc"].append(f"{error.code()} {error.details()}")


def test_sigterm_drains_without_resets(start: Starter) -> None:
    server = start(drain_seconds=3).start()
    assert server.process is not None
    with Clients(server) as clients:
        wait_for(lambda: all(len(s) > 20 for s in clients.statuses.values()), what="traffic")
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: readiness(server) == 503, what="not ready")
        clients.leave.set()
        answered = len(clients.statuses["http"])
        assert HTTP.get(f"{server.url}/v2/health/live").status_code == 200
        wait_for(lambda: len(clients.statuses["http"]) > answered, what="answers while draining")
        assert server.process.wait(PROCESS_SECONDS) == 0
    assert set(clients.statuses["http"]) == {"200"}
    assert set(clients.statuses["grpc"]) == {"OK"}
    assert server.log.read_text().count("Traceback") == 0
    answered = sum(len(statuses) for statuses in clients.statuses.values())
    assert len(server.records()) == answered


def readiness(server: Server) -> int:
    return HTTP.get(f"{server.url}/v2/health/ready").status_code


def test_half_sent_request_at_sigterm_is_answered(start: Starter) -> None:
    server = start(drain_seconds=3, body_seconds=60).start()
    assert server.process is not None
    body, _ = http_body(tensors(sample_version.rows(1)), False)
    head = f"POST {httpx.URL(server.infer_url).path} HTTP/1.1\r\nhost: x\r\n"
    with socket.create_connection(("127.0.0.1", server.http_port)) as connection:
        connection.settimeout(60)
        connection.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body[:50])
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: readiness(server) == 503, what="not ready")
        connection.sendall(body[50:])
        answer = connection.recv(65536)
    assert b"200 OK" in answer
    assert b"connection: close" in answer
    assert server.process.wait(PROCESS_SECONDS) == 0


def test_open_call_at_sigterm_is_answered(start: Starter) -> None:
    server = start(body_seconds=60).start()
    assert server.process is not None
    messages: queue.Queue[bytes | None] = queue.Queue()
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        answer = channel.stream_unary(METHOD).future(iter(messages.get, None), timeout=60)
        # On the same connection: when this is answered, the call has begun.
        channel.unary_unary("/inference.GRPCInferenceService/ServerLive")(b"", timeout=60)
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: not accepts(server), what="no new connections")
        messages.put(grpc_message(tensors(sample_version.rows(1)), True).SerializeToString())
        messages.put(None)
        assert (
            pb.ModelInferResponse.FromString(answer.result(60)).model_name == sample_version.MODEL
        )
    assert server.process.wait(PROCESS_SECONDS) == 0


def accepts(server: Server) -> bool:
    try:
        socket.create_connection(("127.0.0.1", server.http_port)).close()
    except ConnectionRefusedError:
        return False
    return True


def test_unfinished_request_does_not_delay_the_exit(start: Starter) -> None:
    server = start(stop_seconds=1).start()
    with socket.create_connection(("127.0.0.1", server.http_port)) as connection:
        head = f"POST {httpx.URL(server.infer_url).path} HTTP/1.1\r\nhost: x\r\n"
        connection.sendall(f"{head}content-length: 99\r\n\r\n{{".encode())
        wait_for(lambda: readiness(server) == 200, what="ready")
        assert server.kill(signal.SIGTERM) == 0


def test_live_but_not_ready_until_the_example_is_answered(start: Starter, tmp_path: Path) -> None:
    """A pipe in place of a file of the version delays its loading as long as needed."""
    slow = Path(shutil.copytree(start().environment["WATCHKEEPER_MODEL_FOLDER"], tmp_path / "slow"))
    content = (slow / MANIFEST).read_bytes()
    (slow / MANIFEST).unlink()
    os.mkfifo(slow / MANIFEST)
    server = start(model_folder=slow).spawn()

    def live() -> bool:
        try:
            return HTTP.get(f"{server.url}/v2/health/live").json() == {"live": True}
        except httpx.TransportError:
            return False

    wait_for(live, what="live")
    assert readiness(server) == 503
    assert HTTP.get(f"{server.url}/v2/models/{sample_version.MODEL}/ready").status_code == 503
    given = tensors(sample_version.rows(1))
    assert send(server, "json", given).status == 503
    assert send(server, "raw", given).status == "UNAVAILABLE"
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        ask = channel.unary_unary("/inference.GRPCInferenceService/ServerReady")
        assert not pb.ServerReadyResponse.FromString(ask(b"", timeout=60)).ready
    (slow / MANIFEST).write_bytes(content)
    wait_for(server.is_ready, what="ready")
    assert [record.status for record in server.records()] == ["UNAVAILABLE", "UNAVAILABLE"]
