"""Rounds: requests that arrive together go their way together, one step after the other.

All rows of a round go through the model at once, then one line records all, then all answers
leave. A forest takes eight rows in a third of the time of eight times one, and the code of a step
stays in the processor's caches. Nobody waits for a request that is not there yet: HTTP comes in
rounds by itself, as the event loop reads all connections before it goes on; for calls over gRPC,
which come out of its core one by one, :class:`Gathering` waits a few turns of the event loop.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

# From gRPC's queue to its message a call takes so many turns of the event loop: where there was no
# newcomer for as long, none is on its way. (grpc.aio accepts one call at a time.)
_TURNS = 6
_MOST = 64  # calls in a round, so that those who came first are not kept waiting for ever

Question = TypeVar("Question")
Outcome = TypeVar("Outcome")


class Rounds(Generic[Question, Outcome]):
    """``answer`` gets all questions of a round, and gives an outcome or an error for each."""

    def __init__(
        self, answer: Callable[[Sequence[Question]], Sequence[Outcome | Exception]]
    ) -> None:
        self._answer = answer
        self._questions: list[Question] = []
        self._waiting: list[asyncio.Future[Outcome]] = []
        self.cost = 0.0  # seconds that a question took in the newest round

    async def ask(self, question: Question) -> Outcome:
        """Have a question answered in the loop's next turn, with all that come in this one."""
        loop = asyncio.get_running_loop()
        if not self._questions:
            loop.call_soon(self._go)
        outcome: asyncio.Future[Outcome] = loop.create_future()
        self._questions.append(question)
        self._waiting.append(outcome)
        return await outcome

    def _go(self) -> None:
        questions, self._questions = self._questions, []
        waiting, self._waiting = self._waiting, []
        began = time.perf_counter()
        try:
            outcomes = self._answer(questions)
        except Exception as error:  # noqa: BLE001 - the same for all, rather than that nobody ever hears
            outcomes = [error] * len(questions)
        self.cost = (time.perf_counter() - began) / len(questions)
        for asked, outcome in zip(waiting, outcomes, strict=True):
            if asked.done():  # its client has gone
                continue
            if isinstance(outcome, Exception):
                asked.set_exception(outcome)
            else:
                asked.set_result(outcome)


class Gathering:
    """Where calls over gRPC wait for those right behind them."""

    def __init__(self) -> None:
        self._waiting = 0
        self._gathered = asyncio.Event()

    async def join(self) -> None:
        """Wait until the round begins."""
        self._waiting += 1
        if self._waiting == 1:
            asyncio.get_running_loop().call_soon(self._look, 1, 0)
        await self._gathered.wait()

    def _look(self, seen: int, turns: int) -> None:
        turns = turns + 1 if self._waiting == seen else 0
        if turns < _TURNS and self._waiting < _MOST:
            asyncio.get_running_loop().call_soon(self._look, self._waiting, turns)
            return
        self._waiting = 0
        self._gathered.set()
        self._gathered = asyncio.Event()
