"""Compressed requests are answered like plain ones, and a small body never becomes a large one."""

import contextlib
import functools
import gzip
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sample_version
import tritonclient.http as triton_http
from backports import zstd
from conftest import HTTP, TOKEN, Server, Starter
from hypothesis import given, settings
from hypothesis import strategies as st
from test_clients import inputs
from test_feedback import label, labels
from wire import http_body, post, send, tensors

from watchkeeper.serving.content_coding import decompress
from watchkeeper.serving.errors import RequestError, TooLargeError

COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstd.compress,
}
LIMIT = 4 * 1024 * 1024
BOMB = 256 * 1024 * 1024


@functools.cache
def bomb(coding: str) -> bytes:
    """Zeros, a thousand times as many as the bytes that stand for them."""
    zeros = bytes(1024 * 1024)
    if coding == "zstd":
        compressor: Any = zstd.ZstdCompressor()
    else:
        compressor = zlib.compressobj(9, wbits=zlib.MAX_WBITS | (16 if coding == "gzip" else 0))
    parts = [compressor.compress(zeros) for _ in range(BOMB // len(zeros))]
    return b"".join((*parts, compressor.flush()))


def peak_bytes(server: Server) -> int:
    assert server.process is not None
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


@pytest.mark.parametrize("coding", COMPRESSORS)
@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("number", [1, 500])
def test_compressed_body_has_the_answer_of_the_plain_one(
    server: Server, coding: str, binary: bool, number: int
) -> None:
    given = tensors(sample_version.rows(number))
    body, headers = http_body(given, binary)
    reply = post(server, COMPRESSORS[coding](body), {**headers, "content-encoding": coding})
    assert reply.status == 200, reply.error
    assert reply.outputs == send(server, "json", given).outputs
    assert server.last().status == "OK"


@pytest.mark.parametrize("name", ["GZIP", "x-gzip"])
def test_name_of_a_coding_may_be_written_in_other_ways(server: Server, name: str) -> None:
    body, headers = http_body(tensors(sample_version.rows(1)), False)
    assert post(server, gzip.compress(body), {**headers, "content-encoding": name}).status == 200
    assert post(server, body, {**headers, "content-encoding": "Identity"}).status == 200


@pytest.mark.parametrize("coding", COMPRESSORS)
def test_compressed_chunks_are_answered(server: Server, coding: str) -> None:
    body, headers = http_body(tensors(sample_version.rows(20)), False)
    content = COMPRESSORS[coding](body)
    parts = iter([content[:10], content[10:]])
    headers["content-encoding"] = coding
    assert HTTP.post(server.infer_url, content=parts, headers=headers).status_code == 200


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_tritonclient_may_compress(server: Server, coding: str) -> None:
    columns = sample_version.rows(5, seed=9)
    with triton_http.InferenceServerClient(f"127.0.0.1:{server.http_port}") as client:
        result = client.infer(
            sample_version.MODEL,
            inputs(triton_http, columns),
            request_compression_algorithm=coding,
            response_compression_algorithm=coding,
        )
    expected = send(server, "json", tensors(columns)).outputs
    assert result.as_numpy("failure").tolist() == expected["failure"]


def test_bomb_is_refused_and_takes_little_memory(start: Starter) -> None:
    server = start().start()
    before = peak_bytes(server)
    for coding in COMPRESSORS:
        content = bomb(coding)
        assert len(content) < LIMIT
        reply = post(server, content, {"content-encoding": coding})
        assert reply.status == 413
        assert f"decompressed body is over the limit of {LIMIT} bytes" in reply.error
        assert (server.last().status, server.last().error) == ("RESOURCE_EXHAUSTED", reply.error)
    assert peak_bytes(server) - before < 8 * LIMIT


@pytest.mark.parametrize("coding", COMPRESSORS)
def test_limit_holds_before_decompression_too(server: Server, coding: str) -> None:
    content = COMPRESSORS[coding](b"{}") + bytes(LIMIT)
    assert post(server, content, {"content-encoding": coding}).status == 413


@pytest.mark.parametrize("coding", COMPRESSORS)
def test_limit_is_exact(coding: str) -> None:
    content = COMPRESSORS[coding](b"x" * 1000)
    assert decompress(content, coding, 1000) == b"x" * 1000
    with pytest.raises(TooLargeError, match="limit of 999 bytes"):
        decompress(content, coding, 999)


@pytest.mark.parametrize("coding", COMPRESSORS)
def test_few_streams_in_a_row_are_one_body(coding: str) -> None:
    compress = COMPRESSORS[coding]
    parts = [b"one ", b"", b"two ", b"x" * 100_000]
    content = b"".join(map(compress, parts))
    assert decompress(content, coding, 100_008) == b"".join(parts)
    with pytest.raises(TooLargeError):
        decompress(content, coding, 100_007)
    with pytest.raises(RequestError, match="more than 64"):
        decompress(compress(b"") * 65, coding, 1000)


@pytest.mark.parametrize("coding", COMPRESSORS)
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda content: content[:-1], "ends in the middle"),
        (lambda content: content + b"trailing", "is not valid"),
        (lambda _: b"", "ends in the middle"),
        (lambda _: b'{"inputs": []}', "is not valid"),
    ],
)
def test_damaged_body_is_refused(
    server: Server, coding: str, spoil: Callable[[bytes], bytes], words: str
) -> None:
    body, headers = http_body(tensors(sample_version.rows(3)), False)
    content = spoil(COMPRESSORS[coding](body))
    reply = post(server, content, {**headers, "content-encoding": coding})
    assert reply.status == 400
    assert words in reply.error
    assert coding in reply.error
    assert (server.last().status, server.last().error) == ("INVALID_ARGUMENT", reply.error)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(sorted(COMPRESSORS)),
    st.binary(max_size=3000),
    st.data(),
)
def test_decompression_returns_the_body_or_refuses_it(
    coding: str, body: bytes, data: st.DataObject
) -> None:
    content = COMPRESSORS[coding](body)
    assert decompress(content, coding, len(body)) == body
    at = data.draw(st.integers(0, len(content)))
    to = data.draw(st.integers(at, len(content)))
    spoilt = content[:at] + data.draw(st.binary(max_size=20)) + content[to:]
    with contextlib.suppress(RequestError):
        assert len(decompress(spoilt, coding, 3000)) <= 3000


@pytest.mark.parametrize("coding", ["br", "compress", "gzip, gzip", "gzip, identity", "é"])
def test_other_codings_are_refused_with_the_list_of_those_that_are_served(
    server: Server, coding: str
) -> None:
    headers = {"content-encoding": coding.encode("latin-1")}
    response = HTTP.post(server.infer_url, content=b"{}", headers=headers)
    assert response.status_code == 415
    assert "gzip, deflate, zstd" in response.json()["error"]
    assert response.headers["accept-encoding"] == "gzip, deflate, zstd"
    assert server.last().error == response.json()["error"]


def test_zstd_with_a_window_over_8_mebibytes_is_refused() -> None:
    options = {zstd.CompressionParameter.window_log: 24}
    compressor = zstd.ZstdCompressor(options=options)
    content = compressor.compress(b"x" * 100) + compressor.flush()
    with pytest.raises(RequestError, match="zstd"):
        decompress(content, "zstd", LIMIT)


@pytest.mark.parametrize("coding", COMPRESSORS)
def test_labels_may_be_compressed(server: Server, coding: str) -> None:
    before, refused = len(labels(server)), server.metric("watchkeeper_label_requests_refused_total")
    url = f"{server.url}/v2/models/{sample_version.MODEL}/feedback"
    headers = {"authorization": f"Bearer {TOKEN}", "content-encoding": coding}
    body = b'{"labels": [{"prediction_id": "%s", "row": 0, "value": 1}]}'
    body %= str(label()["prediction_id"]).encode()
    content = COMPRESSORS[coding](body)
    assert HTTP.post(url, content=content, headers=headers).status_code == 202
    assert len(labels(server)) == before + 1
    assert HTTP.post(url, content=bomb(coding), headers=headers).status_code == 413
    assert HTTP.post(url, content=content[:-1], headers=headers).status_code == 400
    assert server.metric("watchkeeper_label_requests_refused_total") == refused + 2
