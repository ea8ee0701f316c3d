"""One sender: the two clients of a kit, in a process of its own, started by ``traffic``.

An open loop: requests leave by the clock whatever became of those before, the two clients in
turn, and none is repeated. The plan and then the cases come on standard input, a line each, and
its end is the end.
"""

import asyncio
import contextlib
import itertools
import logging
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from watchkeeper.contracts.spool import replace_file
from watchkeeper.demo.clients import Client, Target, open_clients
from watchkeeper.demo.labels import LateLabels
from watchkeeper.demo.worlds import Case

log = logging.getLogger(__name__)

IN_FLIGHT: Final = 500  # requests; more would only hide that nothing answers
LATE: Final = 1.0  # seconds behind its clock after which the loop skips instead of bursting
WAITING: Final = 2.5  # seconds' worth of cases that may wait; the oldest beyond are dropped
PROGRESS_SECONDS: Final = 0.5
DRAIN_SECONDS: Final = 35.0  # longer than any client waits
ERRORS: Final = 20  # the first ones are told, the rest counted
LINE_BYTES: Final = 1 << 24


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """One answered request; ``time`` in seconds since 1970, ``latency`` in seconds."""

    protocol: str
    client: str
    time: float
    latency: float
    version: int
    prediction: str
    inputs: dict[str, Any]
    outputs: dict[str, Any]


class Failure(msgspec.Struct, frozen=True, array_like=True):
    """One request without an answer, from ``begin`` to ``end`` in seconds since 1970."""

    protocol: str
    client: str
    begin: float
    end: float
    why: str


class Counts(msgspec.Struct):
    """What became of the requests of one protocol."""

    sent: int = 0
    answered: int = 0
    failed: int = 0


class Progress(msgspec.Struct):
    """Where the traffic stands; its file is replaced again and again.

    ``skipped`` requests were never sent, because this process or the system was too slow.
    """

    requests: dict[str, Counts]
    versions: dict[int, int]
    labels: int = 0
    labels_never_sent: int = 0
    labels_lost: int = 0
    skipped: int = 0
    finished: bool = False
    errors: list[str] = []


class Plan(msgspec.Struct, frozen=True):
    """What a sender is told: where to send, how much, and where to say so.

    ``rate`` is in requests a second, ``label_delay`` in seconds; ``labels_lost`` is the share of
    labels that never arrives. Answers and failures are kept if there is a file for them.
    """

    kit: str
    target: Target
    token: str
    progress_file: str
    answers_file: str = ""
    failures_file: str = ""
    rate: float = 50.0
    label_delay: float = 20.0
    labels_lost: float = 0.03
    seed: int = 7


class Cases:
    """Cases that have come and wait to be asked, at most so many; ``ended`` once no more come."""

    def __init__(self, most: int) -> None:
        self._waiting: deque[Case] = deque(maxlen=most)
        self._news = asyncio.Event()
        self.ended = False

    async def read(self, lines: asyncio.StreamReader) -> None:
        """Take in lines, a list of cases each, until there are no more."""
        decoder = msgspec.json.Decoder(list[Case])
        while line := await lines.readline():
            self._waiting.extend(decoder.decode(line))
            self._news.set()
        self.ended = True
        self._news.set()

    async def next(self) -> Case | None:
        """Return the next case as soon as there is one, None after the last."""
        while not self._waiting:
            if self.ended:
                return None
            self._news.clear()
            await self._news.wait()
        return self._waiting.popleft()


class Sender:
    """Asks and counts. The files take a line of JSON for every answer and every failure."""

    def __init__(
        self,
        clients: list[Client],
        labels: LateLabels,
        plan: Plan,
        answers: BinaryIO | None = None,
        failures: BinaryIO | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clients = clients
        self._labels = labels
        self._plan = plan
        self._answers = answers
        self._failures = failures
        self._clock = clock
        self._flying: set[asyncio.Task[None]] = set()
        self.progress = Progress(
            requests={client.protocol: Counts() for client in clients}, versions={}
        )

    async def run(self, cases: Cases, stopping: asyncio.Event) -> None:
        """Ask about all cases until ``stopping``; then wait for the last answers."""
        loop = asyncio.get_running_loop()
        due = self._clock()
        for number in itertools.count():
            due += 1 / self._plan.rate
            if (wait := due - self._clock()) > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stopping.wait(), wait)
            idle = self._clock()
            if stopping.is_set() or (case := await cases.next()) is None:
                break
            due += self._clock() - idle  # while there was no case, nobody was late
            behind = self._clock() - due
            if behind > LATE or len(self._flying) >= IN_FLIGHT:
                self.progress.skipped += 1
                continue
            client = self._clients[number % len(self._clients)]
            task = loop.create_task(self._ask(client, case))
            self._flying.add(task)
            task.add_done_callback(self._flying.discard)
        if self._flying:
            await asyncio.wait(self._flying, timeout=DRAIN_SECONDS)

    async def _ask(self, client: Client, case: Case) -> None:
        counts = self.progress.requests[client.protocol]
        counts.sent += 1
        begin, start = time.time(), time.perf_counter()
        try:
            reply = await client.infer(case.row, case.subject)
        except Exception as error:  # noqa: BLE001 - counted as failed, and shown
            counts.failed += 1
            what = f"{type(error).__name__}: {error}"[:500]  # some of them have no telling repr
            if len(self.progress.errors) < ERRORS:
                self.progress.errors.append(f"{client.name}: {what}")
            log.warning("%s: %s", client.name, what)
            _keep(self._failures, Failure(client.protocol, client.name, begin, time.time(), what))
            return
        counts.answered += 1
        versions = self.progress.versions
        versions[reply.version] = versions.get(reply.version, 0) + 1
        self._labels.add(reply.prediction, case.outcome)
        _keep(
            self._answers,
            Answer(
                client.protocol,
                client.name,
                begin,
                time.perf_counter() - start,
                reply.version,
                reply.prediction,
                case.row,
                reply.outputs,
            ),
        )

    async def report(self, stopping: asyncio.Event) -> None:
        """Keep the progress file true, less than a second late."""
        while not stopping.is_set():
            self.write_progress()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), PROGRESS_SECONDS)

    def write_progress(self) -> None:
        """Put the progress into its file."""
        labels = self._labels
        self.progress.labels = labels.accepted
        self.progress.labels_never_sent = labels.never_sent
        self.progress.labels_lost = labels.dropped + labels.refused
        for file in (self._answers, self._failures):
            if file is not None:
                file.flush()
        replace_file(Path(self._plan.progress_file), msgspec.json.encode(self.progress))


def _open(file: str) -> BinaryIO:
    return Path(file).open("wb")


def _keep(file: BinaryIO | None, what: msgspec.Struct) -> None:
    if file is not None:
        file.write(msgspec.json.encode(what) + b"\n")


async def send(lines: asyncio.StreamReader) -> None:
    """Send until SIGINT, SIGTERM, or the end of the lines."""
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    plan = msgspec.json.decode(await lines.readline(), type=Plan)
    clients = open_clients(plan.kit, plan.target)
    labels = LateLabels(
        f"http://{plan.target.address}/v2/models/{plan.target.model}/feedback",
        {"Host": plan.target.host, "Authorization": f"Bearer {plan.token}"},
        delay=plan.label_delay,
        lost_share=plan.labels_lost,
        seed=plan.seed,
    )
    cases = Cases(most=max(1, round(plan.rate * WAITING)))
    with contextlib.ExitStack() as stack:
        kept = [
            stack.enter_context(_open(file)) if file else None
            for file in (plan.answers_file, plan.failures_file)
        ]
        sender = Sender(clients, labels, plan, *kept)
        over = asyncio.Event()
        aside = [
            asyncio.create_task(sender.report(over)),
            asyncio.create_task(labels.run(over)),
        ]
        reading = asyncio.create_task(_read(cases, lines, stopping))
        try:
            await sender.run(cases, stopping)
        finally:
            over.set()
            reading.cancel()
            await asyncio.gather(*aside)
            for client in clients:
                await client.close()
            sender.progress.finished = True
            sender.write_progress()


async def _read(cases: Cases, lines: asyncio.StreamReader, stopping: asyncio.Event) -> None:
    """Read all cases; whoever sent them is gone when they end, and so is the reason to go on."""
    try:
        await cases.read(lines)
    finally:
        stopping.set()


async def _main() -> None:
    lines = asyncio.StreamReader(limit=LINE_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), sys.stdin
    )
    await send(lines)


if __name__ == "__main__":
    logging.basicConfig(format="%(asctime)s %(name)s %(levelname)s %(message)s")
    # The plan holds a credential: it comes where no list of processes shows it.
    asyncio.run(_main())
