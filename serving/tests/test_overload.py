"""Overload: which requests are refused, and how this is reported."""

import asyncio
import collections
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import sample_version
import uvicorn
from conftest import HTTP, PROCESS_SECONDS, Server, Starter
from grpc import aio
from uvicorn.server import ServerState
from waiting import wait_for
from wire import METHOD, grpc_message, http_body, tensors

from watchkeeper.core.record import Prediction, Shed
from watchkeeper.serving.admission import (
    BURST_TARGETS,
    IDLE_SECONDS,
    NO_QUEUE,
    STANDING_SECONDS,
    AdmissionController,
)
from watchkeeper.serving.connection import Connection

TARGET = 0.003


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def simulate(
    controller: AdmissionController, clock: Clock, seconds: float, arriving: int, cost: float
) -> list[int]:
    """Let ``arriving`` requests arrive per turn of the loop; return how many were admitted."""
    taken = []
    until = clock.now + seconds
    while clock.now < until:
        arrivals = []
        for _ in range(arriving):
            clock.now += 1e-5
            if not controller.is_full():
                arrivals.append(controller.enter())
        clock.now += cost * len(arrivals)
        for arrival in arrivals:
            controller.leave(arrival)
        taken.append(len(arrivals))
    return taken


def test_standing_queue_is_limited_to_its_target() -> None:
    clock = Clock()
    taken = simulate(AdmissionController(TARGET, clock), clock, 2, arriving=200, cost=2e-4)
    assert max(taken[:3]) > 100  # it may be a burst
    assert {number * 2e-4 for number in taken[-20:]} <= {n * 2e-4 for n in range(14, NO_QUEUE + 2)}


def test_burst_is_admitted_up_to_a_limit() -> None:
    clock = Clock()
    controller = AdmissionController(TARGET, clock)
    for _ in range(20):
        for _ in range(5):
            simulate(controller, clock, 1e-3, arriving=5, cost=2e-4)
        (taken,) = simulate(controller, clock, 1e-3, arriving=5000, cost=2e-4)
    assert BURST_TARGETS * TARGET * 0.95 <= taken * 2e-4 <= BURST_TARGETS * TARGET * 1.2
    simulate(controller, clock, 1e-3, arriving=5, cost=2e-4)
    assert not controller.standing_queue


@pytest.mark.parametrize("pause", [2 * IDLE_SECONDS, 1.0, 10.0])
def test_bursts_with_pauses_are_admitted(pause: float) -> None:
    clock = Clock()
    controller = AdmissionController(TARGET, clock)
    for _ in range(10):
        assert simulate(controller, clock, 1e-3, arriving=200, cost=2e-4) == [200]
        clock.now += pause


def test_few_slow_requests_are_not_a_queue() -> None:
    clock = Clock()
    controller = AdmissionController(TARGET, clock)
    assert set(simulate(controller, clock, 5, arriving=NO_QUEUE, cost=0.5)) == {NO_QUEUE}
    assert not controller.is_late(clock.now - NO_QUEUE * 0.5)


def test_time_of_refusals_is_not_in_the_cost_of_a_request() -> None:
    clock = Clock()
    taken = simulate(AdmissionController(TARGET, clock), clock, 5, arriving=5000, cost=2e-4)
    assert min(taken) * 2e-4 > TARGET


def test_standing_queue_ends_with_the_overload() -> None:
    clock = Clock()
    controller = AdmissionController(TARGET, clock)
    simulate(controller, clock, 1, arriving=200, cost=2e-4)
    assert controller.standing_queue
    assert controller.is_late(clock.now - 2 * TARGET)
    simulate(controller, clock, 2 * STANDING_SECONDS, arriving=3, cost=2e-4)
    assert not controller.standing_queue
    assert not controller.is_late(clock.now - 2 * TARGET)


def test_queue_is_standing_while_requests_are_refused() -> None:
    clock = Clock()
    taken = simulate(AdmissionController(TARGET, clock), clock, 5, arriving=60, cost=2e-4)
    assert max(taken[len(taken) // 2 :]) * 2e-4 < 2 * TARGET


class Client(asyncio.Protocol):
    """Sends the next request after each answer; collects the heads of the answers."""

    def __init__(self, request: bytes, answers: list[bytes], parts: int = 1) -> None:
        self.request, self.answers, self.parts = request, answers, parts
        self.buffer = b""
        self.ended = self.waits = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.send()

    def send(self) -> None:
        self.waits = not self.ended
        if self.ended:
            return
        if self.parts == 1:
            self.transport.write(self.request)
            return
        half = len(self.request) // 2
        self.transport.write(self.request[:half])
        loop = asyncio.get_running_loop()
        loop.call_later(0.001, self.transport.write, self.request[half:])

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, found, rest = self.buffer.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0] or 0)
        if found and len(rest) >= length:
            assert len(rest) == length
            self.answers.append(head)
            self.buffer = b""
            self.send()


def flood(server: Server, connections: int, until: Callable[[list[bytes]], bool]) -> list[bytes]:
    """Send requests over many connections, some in two parts, until a condition holds."""
    body, _ = http_body(tensors(sample_version.rows(1)), False)
    path = httpx.URL(server.infer_url).path
    request = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    answers: list[bytes] = []

    async def ask() -> None:
        loop = asyncio.get_running_loop()
        clients = []
        for number in range(connections):
            client = Client(request + body, answers, parts=1 if number % 8 else 2)
            await loop.create_connection(lambda c=client: c, "127.0.0.1", server.http_port)
            clients.append(client)
        deadline = time.monotonic() + 60
        while not until(answers):
            assert time.monotonic() < deadline, collections.Counter(a[:12] for a in answers)
            await asyncio.sleep(0.05)
        for client in clients:
            client.ended = True
        while any(client.waits for client in clients):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        for client in clients:
            client.transport.abort()

    asyncio.run(ask())
    return answers


def test_http_overload_is_refused_and_reported(start: Starter) -> None:
    server = start(queue_seconds=0.0002).start()
    healthy = []

    def enough(answers: list[bytes]) -> bool:
        healthy.append(HTTP.get(f"{server.url}/v2/health/live").status_code)
        return min(sum(b" 200 " in a[:15] for a in answers), len(answers)) > 200 and (
            sum(b" 503 " in a[:15] for a in answers) > 500
        )

    before = time.time()
    answers = flood(server, 100, enough)
    assert set(healthy) == {200}
    refused = [answer.lower() for answer in answers if b" 200 " not in answer[:15]]
    for head in refused:
        assert head.startswith(b"http/1.1 503 service unavailable")
        assert b"retry-after: 1" in head
        assert b"x-envoy-ratelimited: true" in head
    assert server.metric("watchkeeper_shed_total") == len(refused)

    def reported() -> list[Shed]:
        return [line for line in server.records() if isinstance(line, Shed)]

    wait_for(
        lambda: sum(line.count for line in reported()) == len(refused), what="all of them reported"
    )
    assert len(reported()) <= time.time() - before + 1
    assert {line.protocol for line in reported()} == {"http"}
    assert all(before - 10 < line.since < line.until <= time.time() for line in reported())
    answered = [line for line in server.records() if isinstance(line, Prediction)]
    assert len(answered) == len(answers) - len(refused)
    assert {line.status for line in answered} == {"OK"}


Ends = collections.Counter[str]
REFUSED = "RST_STREAM"  # of HTTP/2: REFUSED_STREAM or ENHANCE_YOUR_CALM, RFC 9113


def call_without_a_pause(server: Server, callers: int, enough: Callable[[Ends], bool]) -> Ends:
    """Call over many connections until enough calls have ended."""
    message = grpc_message(tensors(sample_version.rows(1)), True).SerializeToString()
    ends: Ends = collections.Counter()
    options = [("grpc.use_local_subchannel_pool", 1)]

    async def work(channel: aio.Channel, deadline: float) -> None:
        while not enough(ends):
            assert time.monotonic() < deadline, ends
            try:
                await channel.unary_unary(METHOD)(message, timeout=60)
                ends["OK"] += 1
            except aio.AioRpcError as error:
                if REFUSED in str(error.details()):
                    ends[REFUSED] += 1
                    continue
                ends[error.code().name] += 1
                metadata = {str(name): value for name, value in error.trailing_metadata()}
                shown = f"{error.code()}: {error.details()}, {metadata}"
                assert metadata.get("retry-after") == "1", shown
                assert metadata.get("grpc-retry-pushback-ms") == "1000", shown

    async def ask() -> None:
        deadline = time.monotonic() + 120
        channels = [
            aio.insecure_channel(f"127.0.0.1:{server.grpc_port}", options) for _ in range(8)
        ]
        await asyncio.gather(*(work(channels[n % 8], deadline) for n in range(callers)))
        for channel in channels:
            await channel.close()

    asyncio.run(ask())
    return ends


def test_grpc_overload_is_refused_and_reported(start: Starter) -> None:
    server = start().start()
    ends = call_without_a_pause(
        server, 800, lambda ends: min(ends["OK"], ends["RESOURCE_EXHAUSTED"]) >= 300
    )
    # HTTP/2 itself sometimes refuses a stream. The call has not begun, so a client can repeat it.
    assert ends.pop(REFUSED, 0) < ends.total() / 20
    assert set(ends) == {"OK", "RESOURCE_EXHAUSTED"}
    assert server.metric("watchkeeper_shed_total") == ends["RESOURCE_EXHAUSTED"]

    def lines(kind: type[Prediction] | type[Shed]) -> list[Any]:
        return [line for line in server.records() if isinstance(line, kind)]

    wait_for(
        lambda: sum(line.count for line in lines(Shed)) == ends["RESOURCE_EXHAUSTED"],
        what="all of them reported",
    )
    assert {line.protocol for line in lines(Shed)} == {"grpc"}
    assert [line.status for line in lines(Prediction)] == ["OK"] * ends["OK"]

    message = grpc_message(tensors(sample_version.rows(1)), True).SerializeToString()
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:

        def answered() -> bool:
            done = channel.unary_unary(METHOD).future(message, timeout=60)
            return done.exception(60) is None

        wait_for(answered, what="room again")


def test_few_calls_to_a_slow_model_are_not_overload(start: Starter, tmp_path: Path) -> None:
    version = sample_version.create_version(tmp_path / "version", trees=200, with_onnx=False)
    server = start(model_folder=version).start()
    ends = call_without_a_pause(server, 12, lambda ends: ends.total() >= 300)
    assert set(ends) == {"OK"}


def test_connections_are_limited_but_health_is_answered(start: Starter) -> None:
    server = start(connections=8).start()
    idle = [socket.create_connection(("127.0.0.1", server.http_port)) for _ in range(8)]
    try:
        with httpx.Client(timeout=20) as client:
            assert client.get(f"{server.url}/v2/health/ready").status_code == 200
        with httpx.Client(timeout=20) as client:
            body, headers = http_body(tensors(sample_version.rows(1)), False)
            answer = client.post(server.infer_url, content=body, headers=headers)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert list(answer.json()) == ["error"]
            assert answer.headers["connection"] == "close"
    finally:
        for connection in idle:
            connection.close()
    given = http_body(tensors(sample_version.rows(1)), False)[0]
    wait_for(
        lambda: HTTP.post(server.infer_url, content=given).status_code == 200, what="room again"
    )


def test_pipelined_requests_of_a_closed_connection_leave_the_queue() -> None:
    class Count:
        waiting = 0

        def is_full(self) -> bool:
            return False

        def enter(self) -> float:
            self.waiting += 1
            return 0.0

        def leave(self, arrival: float) -> None:  # noqa: ARG002
            self.waiting -= 1

    controller: Any = Count()

    async def waiting(count: int) -> None:
        deadline = time.monotonic() + 60
        while controller.waiting != count:
            assert time.monotonic() < deadline, controller.waiting
            await asyncio.sleep(0.01)

    async def ask() -> None:
        turns = asyncio.Semaphore(0)

        async def by_turns(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001
            await turns.acquire()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            controller.leave(0.0)

        config = uvicorn.Config(by_turns, http="httptools", log_config=None, lifespan="off")
        config.load()
        named = {"config": config, "server_state": ServerState(), "app_state": {}}
        named |= {"on_malformed": pytest.fail, "on_shed": pytest.fail}
        named |= {"controller": controller, "limit": 10}
        listening = await asyncio.get_running_loop().create_server(
            lambda: Connection(**named), "127.0.0.1", 0
        )
        async with listening:
            _, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
            writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n" * 3)
            await waiting(3)
            writer.transport.abort()
            for _ in range(3):  # the client is gone, so the other requests never begin
                turns.release()
            await waiting(0)

    asyncio.run(ask())


@pytest.mark.parametrize("name", ["connections", "queue_seconds"])
def test_limit_of_zero_is_refused(start: Starter, name: str) -> None:
    server = start(**{name: 0}).spawn()
    assert server.process is not None
    assert server.process.wait(PROCESS_SECONDS) == 2
    assert name.upper() in server.log.read_text()
