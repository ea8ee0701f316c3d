"""Malformed HTTP is refused and recorded, and never parsed as the start of another request."""

import itertools
import socket

import pytest
import sample_version
from conftest import Server
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from waiting import wait_for
from wire import http_body, tensors

from watchkeeper.core.record import Prediction

PATH = f"/v2/models/{sample_version.MODEL}/infer"
BODY = http_body(tensors(sample_version.rows(1)), False)[0]
CHUNKED = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
LENGTH = f"content-length: {len(BODY)}"
# What the JDK's HTTP client sends by default.
OFFER = (
    "Connection: Upgrade, HTTP2-Settings",
    "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
    "Upgrade: h2c",
)
EVIL = b"POST /v2/models/evil/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}"


def request(*headers: str, body: bytes = BODY, line: str = f"POST {PATH} HTTP/1.1") -> bytes:
    return "".join(f"{each}\r\n" for each in (line, "host: x", *headers, "")).encode() + body


def exchange(server: Server, *content: bytes) -> bytes:
    """Send bytes and a last request that closes the connection; return all answers."""
    last = b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    received = b""
    with socket.create_connection(("127.0.0.1", server.http_port)) as connection:
        connection.settimeout(60)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for part in (*content, last):
                connection.sendall(part)
            while some := connection.recv(65536):
                received += some
        except (ConnectionResetError, BrokenPipeError):
            pass  # the server has closed the connection before it read everything
    return received


REFUSED = {
    "length and chunks": (request(LENGTH, "transfer-encoding: chunked", body=CHUNKED), 400),
    "chunks and length": (request("transfer-encoding: chunked", LENGTH, body=CHUNKED), 400),
    "a length behind the coding": (request("transfer-encoding : chunked", body=CHUNKED), 400),
    "two lengths": (request(LENGTH, f"content-length: {len(BODY) + 1}"), 400),
    "the same length twice": (request(LENGTH, LENGTH), 400),
    "a list of lengths": (request(f"{LENGTH}, {len(BODY)}"), 400),
    "a signed length": (request(f"content-length: +{len(BODY)}"), 400),
    "a negative length": (request("content-length: -1"), 400),
    "an enormous length": (request("content-length: " + "9" * 30), 400),
    "a coding that is not served": (request("transfer-encoding: gzip, chunked", body=CHUNKED), 415),
    "chunked is not the last": (request("transfer-encoding: chunked, gzip", body=CHUNKED), 400),
    "a chunk of no size": (request("transfer-encoding: chunked", body=b"zz\r\n"), 400),
    "an upgrade with a request in it": (
        request(f"content-length: {len(EVIL)}", *OFFER, body=EVIL),
        400,
    ),
    "an upgrade with length and chunks": (
        request(LENGTH, "transfer-encoding: chunked", *OFFER, body=CHUNKED),
        400,
    ),
    "an upgrade with a chunk of no size": (
        request("transfer-encoding: chunked", *OFFER, body=b"zz\r\n"),
        400,
    ),
    "a tunnel": (request(LENGTH, line="CONNECT x:80 HTTP/1.1"), 400),
    "two content types": (
        request(LENGTH, "content-type: application/json", "content-type: text/plain"),
        400,
    ),
    "two encodings": (request(LENGTH, "content-encoding: identity", "content-encoding: gzip"), 400),
    "two lengths of the JSON": (request(LENGTH, *["inference-header-content-length: 1"] * 2), 400),
    "a folded header": (request(LENGTH, "x: a", " b"), 400),
    "a control character": (request(LENGTH, "x-watchkeeper-client: a\x01b"), 400),
    "another method": (request(LENGTH, line=f"FOO {PATH} HTTP/1.1"), 400),
    "no HTTP at all": (b"hello\r\n\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "a head without end": (request("x: " + "a" * 2_000_000, LENGTH), 431),
    "a thousand thousand headers": (request(*["x: a"] * 300_000, LENGTH), 431),
}


@pytest.mark.parametrize("case", REFUSED)
def test_malformed_request_is_refused_and_recorded(server: Server, case: str) -> None:
    content, status = REFUSED[case]
    before = len(server.records())
    received = exchange(server, content)
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status) or not received, received[:300]
    assert b"Traceback" not in received
    if received:
        assert b"content-type: application/json" in head.lower()
        assert body.startswith(b'{"error":"'), received
    wait_for(lambda: len(server.records()) > before, what="a record")
    records = server.records()[before:]
    assert all(isinstance(r, Prediction) and r.status != "OK" and r.error for r in records)
    assert not any("evil" in r.error for r in records)


@pytest.mark.parametrize(
    "content",
    [
        request(LENGTH),
        request("transfer-encoding: chunked", body=CHUNKED),
        request("Transfer-Encoding: CHUNKED", body=CHUNKED),
        request(LENGTH, "expect: 100-continue"),
        request(LENGTH, line=f"POST {PATH}?a=b HTTP/1.1"),
        request(LENGTH, line=f"POST {PATH.replace('-', '%2D')} HTTP/1.1"),
        request(LENGTH, line=f"POST http://elsewhere{PATH} HTTP/1.1"),
        request(LENGTH, "content-type: Application/JSON; charset=utf-8"),
        request(LENGTH, "X-Watchkeeper-Client: caf\xe9"),
        request(*OFFER, LENGTH),
        request("Transfer-encoding: chunked", *OFFER, body=CHUNKED),
        request(*OFFER, LENGTH, "expect: 100-continue"),
        request(LENGTH, "upgrade: h2c"),
        request(LENGTH, "connection: upgrade", "upgrade: websocket"),
        request(LENGTH, *OFFER, "upgrade: foo/2"),
        request(LENGTH, *OFFER, line=f"POST {PATH}?a=b HTTP/1.1"),
    ],
)
def test_unusual_but_valid_requests_are_answered(server: Server, content: bytes) -> None:
    received = exchange(server, content)
    assert b"HTTP/1.1 200 OK" in received
    assert b'"prediction_id"' in received
    assert server.last().status == "OK"


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    before = len(server.records())
    received = exchange(server, request(LENGTH) + EVIL + request(LENGTH))
    statuses = [line for line in received.split(b"\r\n") if b"HTTP/1.1 " in line]
    assert [line.partition(b"HTTP/1.1 ")[2][:3] for line in statuses] == [
        b"200",
        b"404",
        b"200",
        b"200",
    ]
    assert [r.status for r in server.records()[before:]] == ["OK", "NOT_FOUND", "OK"]


@pytest.mark.parametrize("framing", ["length", "chunks"])
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cuts=st.sets(st.integers(1, 700), max_size=8), number=st.integers(1, 3))
def test_offer_of_h2c_is_ignored_wherever_the_bytes_are_cut(
    server: Server, framing: str, cuts: set[int], number: int
) -> None:
    chunked = framing == "chunks"
    offered = request(
        *OFFER,
        "transfer-encoding: chunked" if chunked else LENGTH,
        body=CHUNKED if chunked else BODY,
    )
    content = offered * number
    places = [0, *sorted(cuts), len(content)]
    received = exchange(server, *(content[a:b] for a, b in itertools.pairwise(places)))
    assert received.count(b"HTTP/1.1 200 OK") == number + 1  # and the health at the end
    assert received.count(b'"prediction_id"') == number


def test_many_offers_in_one_packet_are_ignored(server: Server) -> None:
    offer = (
        b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"
    )
    received = exchange(server, offer * 700)
    assert received.count(b"HTTP/1.1 200 OK") == 701


@pytest.mark.parametrize("path", [f"{PATH}/", f"/{PATH}", PATH.upper(), "/v2/models/a%2Fb/infer"])
def test_almost_right_paths_are_not_found(server: Server, path: str) -> None:
    received = exchange(server, request(LENGTH, line=f"POST {path} HTTP/1.1"))
    assert received.startswith(b"HTTP/1.1 404 ")
    assert b'{"error":"' in received
