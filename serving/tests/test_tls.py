"""With a certificate, a server answers over TLS only; without TLS it answers health."""

import asyncio
import contextlib
import signal
import ssl
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import grpc
import httpx
import pytest
import sample_version
from conftest import HTTP, PROCESS_SECONDS, Server, Starter
from free_ports import HOST, free_ports
from trustme import CA
from waiting import wait_for
from wire import METHOD, grpc_message, http_body, tensors

NAME = "watchkeeper-servers.plant.svc"  # of the certificate; no server has this address
MODEL_PATH = f"/v2/models/{sample_version.MODEL}"


class TlsServer(Server):
    """A server with a certificate as kubelet mounts it, and the authority that clients know."""

    def __init__(self, version: Path, home: Path) -> None:
        self.folder = home / "certificate"
        self.folder.mkdir()
        self.https_port, self.grpcs_port = free_ports(2)
        self.authority = self.renew()
        super().__init__(
            version,
            home,
            certificate=self.folder,
            https_port=self.https_port,
            grpcs_port=self.grpcs_port,
        )

    def renew(self, ends: datetime | None = None, **files: bytes) -> CA:
        """Replace the files at once by a certificate of a new authority, or by ``files``."""
        self.authority = CA()
        made = self.authority.issue_cert(NAME, not_after=ends)
        content = self.folder / f"..{uuid.uuid4().hex}"
        content.mkdir()
        for name, text in {
            "tls.crt": made.cert_chain_pems[0].bytes(),
            "tls.key": made.private_key_pem.bytes(),
            **files,
        }.items():
            (content / name).write_bytes(text)
        (self.folder / "..new").symlink_to(content)
        (self.folder / "..new").rename(self.folder / "..data")
        return self.authority

    def post(self, client: httpx.Client) -> httpx.Response:
        body, headers = http_body(tensors(sample_version.rows(1)), binary=False)
        return client.post(
            f"https://{HOST}:{self.https_port}{MODEL_PATH}/infer",
            content=body,
            headers=headers,
            extensions={"sni_hostname": NAME},
        )

    def client(self) -> httpx.Client:
        """A client that checks the certificate."""
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        return httpx.Client(verify=context, timeout=60)

    def call(self) -> grpc.StatusCode:
        """Send one request over gRPC, in a connection of its own; return its status."""
        message = grpc_message(tensors(sample_version.rows(1)), as_raw=True).SerializeToString()
        credentials = grpc.ssl_channel_credentials(self.authority.cert_pem.bytes())
        options = [("grpc.ssl_target_name_override", NAME), ("grpc.use_local_subchannel_pool", 1)]
        with grpc.secure_channel(f"{HOST}:{self.grpcs_port}", credentials, options) as channel:
            try:
                channel.unary_unary(METHOD)(message, timeout=60)
            except grpc.RpcError as error:
                return error.code()  # type: ignore[attr-defined]
        return grpc.StatusCode.OK


@pytest.fixture(scope="module")
def server(version: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServer]:
    running = TlsServer(version, tmp_path_factory.mktemp("server"))
    running.start()
    yield running
    assert running.kill(signal.SIGTERM) == 0
    assert "Traceback" not in running.log.read_text()


def test_requests_over_tls_are_answered_and_recorded(server: TlsServer) -> None:
    with server.client() as client:
        assert server.post(client).status_code == 200
        url = f"https://{HOST}:{server.https_port}{MODEL_PATH}"
        assert client.get(url, extensions={"sni_hostname": NAME}).status_code == 200
    assert server.last().protocol == "http"
    assert server.call() is grpc.StatusCode.OK
    assert server.last().protocol == "grpc"


def test_without_tls_only_health_is_answered(server: TlsServer) -> None:
    before, refused = len(server.records()), server.metric("watchkeeper_past_gateway_total")
    body, headers = http_body(tensors(sample_version.rows(1)), binary=False)
    for path in ("infer", "feedback", "generate"):
        answer = HTTP.post(f"{server.url}{MODEL_PATH}/{path}", content=body, headers=headers)
        assert (answer.status_code, answer.json()) == (
            403,
            {"error": "this server answers over TLS only"},
        )
    assert HTTP.get(f"{server.url}/v2").status_code == 403
    for path in ("live", "ready"):
        assert HTTP.get(f"{server.url}/v2/health/{path}").status_code == 200
    assert server.metric("watchkeeper_past_gateway_total") == refused + 4
    with pytest.raises(httpx.TransportError):
        HTTP.post(f"http://{HOST}:{server.https_port}{MODEL_PATH}/infer", content=body)
    assert len(server.records()) == before


def test_a_replaced_certificate_is_used_without_a_restart_and_without_a_lost_connection(
    server: TlsServer,
) -> None:
    old = server.authority
    with server.client() as open_before:
        assert server.post(open_before).status_code == 200
        server.renew()

        def new_connection() -> bool:
            with server.client() as client:
                try:
                    return server.post(client).status_code == 200
                except httpx.ConnectError:
                    return False

        wait_for(new_connection)
        assert server.call() is grpc.StatusCode.OK
        assert server.post(open_before).status_code == 200
    new, server.authority = server.authority, old
    with server.client() as client, pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY"):
        server.post(client)
    server.authority = new


def test_a_broken_replacement_leaves_the_last_certificate(server: TlsServer) -> None:
    good = server.authority
    server.renew(**{"tls.key": CA().issue_cert(NAME).private_key_pem.bytes()})
    wait_for(lambda: "the last certificate stays" in server.log.read_text())
    server.authority = good
    with server.client() as client:
        assert server.post(client).status_code == 200
    assert server.call() is grpc.StatusCode.OK
    server.renew()
    wait_for(lambda: server.call() is grpc.StatusCode.OK)


def test_a_certificate_of_which_the_end_cannot_be_read_leaves_the_last_one(
    server: TlsServer,
) -> None:
    good = server.authority
    made = CA().issue_cert(NAME)
    trusted = made.cert_chain_pems[0].bytes().replace(b" CERTIFICATE", b" TRUSTED CERTIFICATE")
    server.renew(**{"tls.crt": trusted, "tls.key": made.private_key_pem.bytes()})
    wait_for(lambda: "the last certificate stays: tls.crt: " in server.log.read_text())
    server.authority = good
    assert server.call() is grpc.StatusCode.OK
    server.renew()
    wait_for(lambda: server.call() is grpc.StatusCode.OK)


def test_metrics_show_the_end_of_the_certificate_in_use(server: TlsServer) -> None:
    def shown() -> float:
        return server.metric("watchkeeper_certificate_not_after_timestamp_seconds")

    ends = datetime(2055, 3, 9, tzinfo=UTC)
    server.renew(ends)
    wait_for(lambda: shown() == ends.timestamp())
    server.renew(datetime(2066, 1, 1, tzinfo=UTC), **{"tls.crt": b"broken"})
    wait_for(lambda: "PEM" in server.log.read_text())
    assert shown() == ends.timestamp()
    server.renew()
    wait_for(lambda: server.call() is grpc.StatusCode.OK)
    assert shown() != ends.timestamp()


def test_requests_in_progress_are_finished_when_the_process_ends(
    version: Path, tmp_path: Path
) -> None:
    running = TlsServer(version, tmp_path)
    running.start()
    context = ssl.create_default_context()
    running.authority.configure_trust(context)
    body, headers = http_body(tensors(sample_version.rows(1)), binary=False)
    lines = [
        f"POST {MODEL_PATH}/infer HTTP/1.1",
        "host: x",
        f"content-length: {len(body)}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    head = "\r\n".join([*lines, "", ""]).encode()

    async def slow_request() -> bytes:
        reader, writer = await asyncio.open_connection(
            HOST, running.https_port, ssl=context, server_hostname=NAME
        )
        writer.write(head + body[:1])
        await writer.drain()
        assert running.process is not None
        running.process.send_signal(signal.SIGTERM)
        writer.write(body[1:])
        answer = await reader.read()
        writer.close()
        with contextlib.suppress(OSError):  # the server may have closed first
            await writer.wait_closed()
        return answer.partition(b"\r\n")[0]

    assert b" 200 " in asyncio.run(slow_request())
    assert running.kill(signal.SIGTERM) == 0


@pytest.mark.parametrize("files", [(), ("tls.crt",), ("tls.crt", "tls.key")])
def test_a_server_without_a_certificate_in_its_folder_does_not_start(
    start: Starter, tmp_path: Path, files: tuple[str, ...]
) -> None:
    folder = tmp_path / "certificate"
    folder.mkdir()
    for name in files:
        (folder / name).write_text("no certificate\n")
    server = start(certificate=folder).spawn()
    assert server.process is not None
    assert server.process.wait(PROCESS_SECONDS) == 2
    log = server.log.read_text()
    assert f"WATCHKEEPER_CERTIFICATE={folder}" in log
    assert "the folder needs a certificate in tls.crt" in log
