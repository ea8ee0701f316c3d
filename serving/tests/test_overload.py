"""More requests than can be answered: who is turned away, and what is told of it."""

import asyncio
import collections
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import a_version
import grpc
import httpx
import pytest
import uvicorn
from conftest import HTTP, Server, Starter
from grpc import aio
from uvicorn.server import ServerState
from waiting import wait_for
from wire import METHOD, grpc_message, http_body, tensors

from watchkeeper.contracts.record import Prediction, Shed
from watchkeeper.serving.connection import Connection
from watchkeeper.serving.overload import BURST, IDLE, INTERVAL, QUEUE, Gate

TARGET = 0.003


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def rounds(gate: Gate, clock: Clock, seconds: float, arriving: int, cost: float) -> list[int]:
    """Let ``arriving`` requests come in every round; how many were taken in each."""
    taken = []
    until = clock.now + seconds
    while clock.now < until:
        arrivals = []
        for _ in range(arriving):
            clock.now += 1e-5
            if not gate.full():
                arrivals.append(gate.enter())
        clock.now += cost * len(arrivals)
        for arrival in arrivals:
            gate.leave(arrival)
        taken.append(len(arrivals))
    return taken


def test_a_standing_queue_is_cut_to_its_target() -> None:
    clock = Clock()
    taken = rounds(Gate(TARGET, clock), clock, 2, arriving=200, cost=2e-4)
    assert max(taken[:3]) > 100  # nothing is known yet, and it may be a burst
    assert {number * 2e-4 for number in taken[-20:]} <= {n * 2e-4 for n in range(14, QUEUE + 2)}


def test_a_burst_is_taken_up_to_a_bound() -> None:
    clock = Clock()
    gate = Gate(TARGET, clock)
    for _ in range(20):
        for _ in range(5):
            rounds(gate, clock, 1e-3, arriving=5, cost=2e-4)
        (taken,) = rounds(gate, clock, 1e-3, arriving=5000, cost=2e-4)
    assert BURST * TARGET * 0.95 <= taken * 2e-4 <= BURST * TARGET * 1.2
    rounds(gate, clock, 1e-3, arriving=5, cost=2e-4)
    assert not gate.standing


@pytest.mark.parametrize("pause", [2 * IDLE, 1.0, 10.0])
def test_bursts_with_pauses_pass_every_time(pause: float) -> None:
    clock = Clock()
    gate = Gate(TARGET, clock)
    for _ in range(10):
        assert rounds(gate, clock, 1e-3, arriving=200, cost=2e-4) == [200]
        clock.now += pause


def test_few_requests_are_no_queue_however_long_they_take() -> None:
    clock = Clock()
    gate = Gate(TARGET, clock)
    assert set(rounds(gate, clock, 5, arriving=QUEUE, cost=0.5)) == {QUEUE}
    assert not gate.late(clock.now - QUEUE * 0.5)


def test_what_turning_away_takes_is_no_cost_of_an_answer() -> None:
    clock = Clock()
    taken = rounds(Gate(TARGET, clock), clock, 5, arriving=5000, cost=2e-4)
    assert min(taken) * 2e-4 > TARGET


def test_the_queue_has_gone_when_the_overload_has() -> None:
    clock = Clock()
    gate = Gate(TARGET, clock)
    rounds(gate, clock, 1, arriving=200, cost=2e-4)
    assert gate.standing
    assert gate.late(clock.now - 2 * TARGET)
    rounds(gate, clock, 2 * INTERVAL, arriving=3, cost=2e-4)
    assert not gate.standing
    assert not gate.late(clock.now - 2 * TARGET)


def test_the_queue_stands_as_long_as_others_are_turned_away() -> None:
    clock = Clock()
    taken = rounds(Gate(TARGET, clock), clock, 5, arriving=60, cost=2e-4)
    assert max(taken[len(taken) // 2 :]) * 2e-4 < 2 * TARGET


class Client(asyncio.Protocol):
    """Asks again as soon as it has its answer; keeps every answer's status and whole head."""

    def __init__(self, request: bytes, answers: list[bytes], parts: int = 1) -> None:
        self.request, self.answers, self.parts = request, answers, parts
        self.buffer = b""
        self.ended = self.waits = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.ask()

    def ask(self) -> None:
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
            self.ask()


def flood(server: Server, connections: int, until: Callable[[list[bytes]], bool]) -> list[bytes]:
    """Ask on many connections at once, some of them in two parts, until a condition holds."""
    body, _ = http_body(tensors(a_version.rows(1)), False)
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


def test_http_requests_that_cannot_be_answered_in_time_are_turned_away(start: Starter) -> None:
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
    turned_away = [answer.lower() for answer in answers if b" 200 " not in answer[:15]]
    for head in turned_away:
        assert head.startswith(b"http/1.1 503 service unavailable")
        assert b"retry-after: 1" in head
        assert b"x-envoy-ratelimited: true" in head
    assert server.metric("watchkeeper_shed_total") == len(turned_away)

    def told() -> list[Shed]:
        return [line for line in server.records() if isinstance(line, Shed)]

    wait_for(
        lambda: sum(line.count for line in told()) == len(turned_away), what="all of them told"
    )
    assert len(told()) <= time.time() - before + 1
    assert {line.protocol for line in told()} == {"http"}
    assert all(before - 10 < line.since < line.until <= time.time() for line in told())
    answered = [line for line in server.records() if isinstance(line, Prediction)]
    assert len(answered) == len(answers) - len(turned_away)
    assert {line.status for line in answered} == {"OK"}


Ends = collections.Counter[str]
REFUSED = "RST_STREAM with error code 7"  # REFUSED_STREAM, RFC 9113


def call_without_a_pause(server: Server, callers: int, enough: Callable[[Ends], bool]) -> Ends:
    """Call on many connections at once, until there are enough ends of calls."""
    message = grpc_message(tensors(a_version.rows(1)), True).SerializeToString()
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
                told = {str(name): value for name, value in error.trailing_metadata()}
                assert told["retry-after"] == "1"
                assert told["grpc-retry-pushback-ms"] == "1000"

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


def test_calls_that_waited_too_long_inside_grpc_are_turned_away(start: Starter) -> None:
    server = start().start()
    ends = call_without_a_pause(
        server, 800, lambda ends: min(ends["OK"], ends["RESOURCE_EXHAUSTED"]) >= 300
    )
    # gRPC's own HTTP/2 refuses a stream now and then: not begun, so that it is safe to ask again.
    assert ends.pop(REFUSED, 0) < ends.total() / 20
    assert set(ends) == {"OK", "RESOURCE_EXHAUSTED"}
    assert server.metric("watchkeeper_shed_total") == ends["RESOURCE_EXHAUSTED"]

    def lines(kind: type[Prediction] | type[Shed]) -> list[Any]:
        return [line for line in server.records() if isinstance(line, kind)]

    wait_for(
        lambda: sum(line.count for line in lines(Shed)) == ends["RESOURCE_EXHAUSTED"],
        what="all of them told",
    )
    assert {line.protocol for line in lines(Shed)} == {"grpc"}
    assert [line.status for line in lines(Prediction)] == ["OK"] * ends["OK"]

    message = grpc_message(tensors(a_version.rows(1)), True).SerializeToString()
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:

        def answered() -> bool:
            done = channel.unary_unary(METHOD).future(message, timeout=60)
            return done.exception(60) is None

        wait_for(answered, what="room again")


def test_a_few_calls_to_a_slow_model_are_no_overload(start: Starter, tmp_path: Path) -> None:
    version = a_version.make(tmp_path / "version", trees=200, with_onnx=False)
    server = start(model_folder=version).start()
    ends = call_without_a_pause(server, 12, lambda ends: ends.total() >= 300)
    assert set(ends) == {"OK"}


def test_connections_are_bounded_and_health_is_still_answered(start: Starter) -> None:
    server = start(connections=8).start()
    idle = [socket.create_connection(("127.0.0.1", server.http_port)) for _ in range(8)]
    try:
        with httpx.Client(timeout=20) as client:
            assert client.get(f"{server.url}/v2/health/ready").status_code == 200
        with httpx.Client(timeout=20) as client:
            body, headers = http_body(tensors(a_version.rows(1)), False)
            answer = client.post(server.infer_url, content=body, headers=headers)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert list(answer.json()) == ["error"]
            assert answer.headers["connection"] == "close"
    finally:
        for connection in idle:
            connection.close()
    given = http_body(tensors(a_version.rows(1)), False)[0]
    wait_for(
        lambda: HTTP.post(server.infer_url, content=given).status_code == 200, what="room again"
    )


def test_requests_that_never_begin_do_not_wait_for_ever() -> None:
    class Count:
        waiting = 0

        def full(self) -> bool:
            return False

        def enter(self) -> float:
            self.waiting += 1
            return 0.0

        def leave(self, arrival: float) -> None:  # noqa: ARG002
            self.waiting -= 1

    gate: Any = Count()

    async def waiting(count: int) -> None:
        deadline = time.monotonic() + 60
        while gate.waiting != count:
            assert time.monotonic() < deadline, gate.waiting
            await asyncio.sleep(0.01)

    async def ask() -> None:
        turns = asyncio.Semaphore(0)

        async def by_turns(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001
            await turns.acquire()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            gate.leave(0.0)

        config = uvicorn.Config(by_turns, http="httptools", log_config=None, lifespan="off")
        config.load()
        named = {"config": config, "server_state": ServerState(), "app_state": {}}
        named |= {"malformed": pytest.fail, "shed": pytest.fail, "gate": gate, "limit": 10}
        listening = await asyncio.get_running_loop().create_server(
            lambda: Connection(**named), "127.0.0.1", 0
        )
        async with listening:
            _, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
            writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n" * 3)
            await waiting(3)
            writer.transport.abort()
            for _ in range(3):  # nobody is there any more to begin the others for
                turns.release()
            await waiting(0)

    asyncio.run(ask())


@pytest.mark.parametrize("name", ["connections", "queue_seconds"])
def test_bounds_of_nothing_are_refused(start: Starter, name: str) -> None:
    server = start(**{name: 0}).spawn()
    assert server.process is not None
    assert server.process.wait(30) == 2
    assert name.upper() in server.log.read_text()
