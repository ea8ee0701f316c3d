"""The sender's clock: who is late, and who only had nothing to ask about."""

import asyncio
from typing import Any

import msgspec
import pytest

from watchkeeper.demo import sender
from watchkeeper.demo.clients import Reply, Row
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


def test_time_without_a_case_is_no_lateness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "LATE", 0.5)
    some = msgspec.json.encode([Case({}, "m", 0)] * 100) + b"\n"

    async def asked() -> int:
        labels: Any = Labels()
        plan = Plan("", "", "", "", (), "", "", rate=RATE)
        asking = Sender([Client()], labels, plan)
        lines, cases = asyncio.StreamReader(), Cases(most=1000)
        reading = asyncio.create_task(cases.read(lines))
        running = asyncio.create_task(asking.run(cases, asyncio.Event()))
        lines.feed_data(some)
        await asyncio.sleep(2.0)  # the plant stands still
        lines.feed_data(some)
        lines.feed_eof()
        async with asyncio.timeout(60):
            await asyncio.gather(reading, running)
        return asking.progress.requests["http"].sent

    assert asyncio.run(asked()) > 100
