"""The sender's clock: who is late, and who only had nothing to ask about."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from watchkeeper.demo import sender
from watchkeeper.demo.clients import Reply, Row, Target
from watchkeeper.demo.sender import Cases, Plan, Sender
from watchkeeper.demo.worlds import Case

RATE = 1000.0


class Client:
    name, protocol = "stand-in", "http"

    async def infer(self, row: Row, subject: str) -> Reply:  # noqa: ARG002
        return Reply({}, 1, "prediction")

    async def close(self) -> None:
        pass


class Labels:
    def add(self, prediction: str, outcome: int) -> None:
        pass


class Clock:
    """Goes on by itself, and by as much as it is set forward."""

    ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


def test_time_without_a_case_is_no_lateness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "LATE", 30.0)  # a busy machine is no plant that stands still
    some = msgspec.json.encode([Case({}, "m", 0)] * 100) + b"\n"

    async def asked() -> int:
        labels: Any = Labels()
        plan = Plan("", Target("", "", "", ()), "", "", rate=RATE)
        clock = Clock()
        asking = Sender([Client()], labels, plan, clock=clock)
        lines, cases = asyncio.StreamReader(), Cases(most=1000)
        async with asyncio.timeout(60):
            reading = asyncio.create_task(cases.read(lines))
            running = asyncio.create_task(asking.run(cases, asyncio.Event()))
            lines.feed_data(some)
            await until(lambda: asking.progress.requests["http"].sent == 100)
            await until(lambda: not cases._news.is_set())  # the next case is waited for
            clock.ahead = 1000.0  # the plant stands still
            lines.feed_data(some)
            lines.feed_eof()
            await asyncio.gather(reading, running)
        return asking.progress.requests["http"].sent

    assert asyncio.run(asked()) > 100


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - the sender has no event for it
        await asyncio.sleep(0.001)
