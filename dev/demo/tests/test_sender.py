"""Lateness of the sender: the time without a case does not count."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from watchkeeper.demo import sender
from watchkeeper.demo.clients import Reply, Row, Target
from watchkeeper.demo.messages import SenderPlan
from watchkeeper.demo.plants import Case
from watchkeeper.demo.sender import CaseQueue, Sender

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
    """The monotonic clock, plus ``ahead`` seconds."""

    ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


def test_time_without_a_case_is_no_lateness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "MAX_LATENESS", 30.0)  # for a busy machine
    some = msgspec.json.encode([Case({}, "m", 0)] * 100) + b"\n"

    async def send_cases() -> int:
        labels: Any = Labels()
        plan = SenderPlan("", Target("", "", "", ()), "", "", rate=RATE)
        clock = Clock()
        running_sender = Sender([Client()], labels, plan, clock=clock)
        lines, cases = asyncio.StreamReader(), CaseQueue(size=1000)
        async with asyncio.timeout(60):
            reading = asyncio.create_task(cases.read(lines))
            sending = asyncio.create_task(running_sender.run(cases, asyncio.Event()))
            lines.feed_data(some)
            await until(lambda: running_sender.progress.requests["http"].sent == 100)
            await until(lambda: not cases._changed.is_set())  # the next case is waited for
            clock.ahead = 1000.0  # the plant makes no cases
            lines.feed_data(some)
            lines.feed_eof()
            await asyncio.gather(reading, sending)
        return running_sender.progress.requests["http"].sent

    assert asyncio.run(send_cases()) > 100


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - the sender has no event for it
        await asyncio.sleep(0.001)
