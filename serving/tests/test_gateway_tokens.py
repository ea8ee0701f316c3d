"""With a token of the gateway, a server answers nobody who reaches it past the gateway."""

import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import sample_version
from conftest import HTTP, PROCESS_SECONDS, TOKEN, Server, Starter
from waiting import wait_for
from wire import grpc_message, http_body, tensors

SERVICE = "/inference.GRPCInferenceService"
MODEL_PATH = f"/v2/models/{sample_version.MODEL}"
HEADER = "x-watchkeeper-gateway"
GIVEN, OTHER = "the token of the gateway", "another token"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tokens as kubelet mounts them: links into a folder that is replaced as a whole."""
    folder = tmp_path_factory.mktemp("tokens")
    mount(folder, credential=GIVEN)
    return folder


def mount(folder: Path, **tokens: str) -> None:
    """Replace all tokens at once."""
    content = folder / f"..{uuid.uuid4().hex}"
    content.mkdir()
    for name, token in tokens.items():
        (content / name).write_text(f"{token}\n")
    (folder / "..new").symlink_to(content)
    (folder / "..new").rename(folder / "..data")
    for name in ("credential", "next"):
        (folder / name).unlink(missing_ok=True)
        if name in tokens:
            (folder / name).symlink_to(folder / "..data" / name)


@pytest.fixture(scope="module")
def guarded(
    version: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    running = Server(version, tmp_path_factory.mktemp("server"), gateway_tokens=folder).start()
    yield running
    assert running.kill(signal.SIGTERM) == 0


def post(server: Server, path: str, headers: dict[str, Any]) -> int:
    body, own = http_body(tensors(sample_version.rows(1)), binary=False)
    return HTTP.post(f"{server.url}{path}", content=body, headers={**own, **headers}).status_code


def call(server: Server, method: str, message: bytes, token: str | None = None) -> Any:
    """Return the status code of a call."""
    metadata = () if token is None else ((HEADER, token),)
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        try:
            channel.unary_unary(method)(message, metadata=metadata, timeout=60)
        except grpc.RpcError as error:
            return error.code()  # type: ignore[attr-defined]
    return grpc.StatusCode.OK


@pytest.mark.parametrize("token", [None, "", OTHER, GIVEN[:-1], GIVEN + "x", "\xfc"])
def test_a_request_without_the_token_is_refused_and_not_recorded(
    guarded: Server, token: str | None
) -> None:
    before, refused = len(guarded.records()), guarded.metric("watchkeeper_past_gateway_total")
    headers = {} if token is None else {HEADER: token.encode("latin-1")}
    for path in ("infer", "versions/7/infer", "generate", "versions/7"):
        assert post(guarded, f"{MODEL_PATH}/{path}", headers) == 401
    for path in (MODEL_PATH, "/v2", "/elsewhere"):
        assert HTTP.get(f"{guarded.url}{path}", headers=headers).status_code == 401
    assert guarded.metric("watchkeeper_past_gateway_total") == refused + 7
    if token != "\xfc":  # metadata is ASCII
        message = grpc_message(tensors(sample_version.rows(1)), as_raw=False).SerializeToString()
        for method in ("ModelInfer", "ModelMetadata", "ServerMetadata", "Unknown"):
            code = call(guarded, f"{SERVICE}/{method}", message, token)
            assert code is grpc.StatusCode.UNAUTHENTICATED
    assert len(guarded.records()) == before


def test_a_request_with_the_token_is_answered(guarded: Server) -> None:
    headers = {HEADER: GIVEN}
    assert post(guarded, f"{MODEL_PATH}/infer", headers) == 200
    assert HTTP.get(f"{guarded.url}{MODEL_PATH}", headers=headers).status_code == 200
    message = grpc_message(tensors(sample_version.rows(1)), as_raw=False).SerializeToString()
    assert call(guarded, f"{SERVICE}/ModelInfer", message, GIVEN) is grpc.StatusCode.OK


def test_probes_and_feedback_need_no_token(guarded: Server) -> None:
    for path in ("/v2/health/live", "/v2/health/ready", f"{MODEL_PATH}/ready"):
        assert HTTP.get(f"{guarded.url}{path}").status_code == 200
    for method in (
        f"{SERVICE}/ServerLive",
        f"{SERVICE}/ServerReady",
        "/grpc.health.v1.Health/Check",
    ):
        assert call(guarded, method, b"") is grpc.StatusCode.OK
    url, headers = f"{guarded.url}{MODEL_PATH}/feedback", {"authorization": f"Bearer {TOKEN}"}
    assert HTTP.post(url, json={"labels": []}, headers=headers).status_code == 400


def test_a_token_is_replaced_without_a_restart_and_without_a_refused_request(
    guarded: Server, folder: Path
) -> None:
    def accepts(token: str) -> bool:
        return post(guarded, f"{MODEL_PATH}/infer", {HEADER: token}) == 200

    mount(folder, credential=GIVEN, next=OTHER)
    wait_for(lambda: accepts(OTHER))
    assert accepts(GIVEN)
    mount(folder, credential=OTHER)
    wait_for(lambda: not accepts(GIVEN))
    assert accepts(OTHER)
    mount(folder, credential="")
    mount(folder, credential=GIVEN)
    wait_for(lambda: accepts(GIVEN))
    assert not accepts(OTHER)


def test_a_server_whose_folder_has_no_token_does_not_start(start: Starter, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    server = start(gateway_tokens=empty).spawn()
    assert server.process is not None
    assert server.process.wait(PROCESS_SECONDS) == 2
    assert "no file in it has a token" in server.log.read_text()
