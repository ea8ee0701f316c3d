"""A sender process: the two clients of one kit, started by :mod:`watchkeeper.demo.senders`.

It is an open loop: requests leave at a fixed rate, whatever happens to earlier ones. Only if very
many have no answer yet, it skips requests and counts them. The two clients take turns, and no
request is repeated. Standard input has the plan in its first line and a
list of cases in each further line. The sender stops at its end.
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
from typing import BinaryIO, Final

import msgspec

from watchkeeper.core.spool import replace_file
from watchkeeper.demo.clients import Client, open_clients
from watchkeeper.demo.labels import DelayedLabels
from watchkeeper.demo.messages import Answer, Failure, RequestCounts, SenderPlan, TrafficProgress
from watchkeeper.demo.plants import Case

log = logging.getLogger(__name__)

# Requests of one sender without an answer. If the machine is too busy for the rate, a larger number
# only makes all requests wait for longer than the gateway allows.
MAX_IN_FLIGHT: Final = 64
MAX_LATENESS: Final = 1.0  # seconds; a later request is skipped, so that there is no burst
WAITING_SECONDS: Final = 2.5  # cases for so many seconds may wait; the oldest ones are dropped
PROGRESS_SECONDS: Final = 0.5
DRAIN_SECONDS: Final = 35.0  # longer than the time-out of every client
MAX_ERRORS: Final = 20  # error messages in the progress; all errors are counted
LINE_BYTES: Final = 1 << 24


class CaseQueue:
    """Cases that wait for a request, at most ``size`` of them."""

    def __init__(self, size: int) -> None:
        self._waiting: deque[Case] = deque(maxlen=size)
        self._changed = asyncio.Event()
        self._ended = False

    async def read(self, lines: asyncio.StreamReader) -> None:
        """Read lines with a list of cases each, until the end of the stream."""
        decoder = msgspec.json.Decoder(list[Case])
        while line := await lines.readline():
            self._waiting.extend(decoder.decode(line))
            self._changed.set()
        self._ended = True
        self._changed.set()

    async def next(self) -> Case | None:
        """Wait for the next case and return it; None after the last one."""
        while not self._waiting:
            if self._ended:
                return None
            self._changed.clear()
            await self._changed.wait()
        return self._waiting.popleft()


class Sender:
    """Sends requests and counts. Writes a line of JSON for each answer and each failure."""

    def __init__(
        self,
        clients: list[Client],
        labels: DelayedLabels,
        plan: SenderPlan,
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
        self._in_flight: set[asyncio.Task[None]] = set()
        self.progress = TrafficProgress(
            requests={client.protocol: RequestCounts() for client in clients}, versions={}
        )

    async def run(self, cases: CaseQueue, stopping: asyncio.Event) -> None:
        """Send a request for each case until ``stopping`` is set; then wait for the answers."""
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
            due += self._clock() - idle  # the time without a case is no lateness
            late = self._clock() - due
            if late > MAX_LATENESS or len(self._in_flight) >= MAX_IN_FLIGHT:
                self.progress.skipped += 1
                continue
            client = self._clients[number % len(self._clients)]
            task = loop.create_task(self._send(client, case))
            self._in_flight.add(task)
            task.add_done_callback(self._in_flight.discard)
        if self._in_flight:
            await asyncio.wait(self._in_flight, timeout=DRAIN_SECONDS)

    async def _send(self, client: Client, case: Case) -> None:
        counts = self.progress.requests[client.protocol]
        counts.sent += 1
        begin, start = time.time(), time.perf_counter()
        try:
            reply = await client.infer(case.row, case.subject)
        except Exception as error:  # noqa: BLE001 - clients raise anything; it is counted and shown
            counts.failed += 1
            message = f"{type(error).__name__}: {error}"[:500]
            if len(self.progress.errors) < MAX_ERRORS:
                self.progress.errors.append(f"{client.name}: {message}")
            log.warning("%s: %s", client.name, message)
            failure = Failure(client.protocol, client.name, begin, time.time(), message)
            _write(self._failures, failure)
            return
        counts.answered += 1
        versions = self.progress.versions
        versions[reply.version] = versions.get(reply.version, 0) + 1
        self._labels.add(reply.prediction, case.outcome)
        _write(
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
        """Write the progress every half second until ``stopping`` is set."""
        while not stopping.is_set():
            self.write_progress()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), PROGRESS_SECONDS)

    def write_progress(self) -> None:
        """Flush answers and failures, and replace the progress file."""
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


def _write(file: BinaryIO | None, line: msgspec.Struct) -> None:
    if file is not None:
        file.write(msgspec.json.encode(line) + b"\n")


async def send(lines: asyncio.StreamReader) -> None:
    """Send by the plan in ``lines`` until SIGINT, SIGTERM, or the end of the lines."""
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    plan = msgspec.json.decode(await lines.readline(), type=SenderPlan)
    clients = open_clients(plan.kit, plan.target)
    labels = DelayedLabels(
        f"http://{plan.target.address}/v2/models/{plan.target.model}/feedback",
        {"Host": plan.target.host, "Authorization": f"Bearer {plan.token}"},
        delay=plan.label_delay,
        lost_share=plan.lost_share,
        seed=plan.seed,
    )
    cases = CaseQueue(size=max(1, round(plan.rate * WAITING_SECONDS)))
    with contextlib.ExitStack() as stack:
        files = [
            stack.enter_context(_open(file)) if file else None
            for file in (plan.answers_file, plan.failures_file)
        ]
        sender = Sender(clients, labels, plan, *files)
        sent, labelled = asyncio.Event(), asyncio.Event()
        labelling = asyncio.create_task(labels.run(sent))
        reporting = asyncio.create_task(sender.report(labelled))
        reading = asyncio.create_task(_read_cases(cases, lines, stopping))
        try:
            await sender.run(cases, stopping)
        finally:
            sent.set()
            reading.cancel()
            await asyncio.gather(labelling, return_exceptions=True)
            labelled.set()
            await asyncio.gather(reporting)
            for client in clients:
                await client.close()
            sender.progress.finished = True
            sender.write_progress()
        labelling.result()


async def _read_cases(
    cases: CaseQueue, lines: asyncio.StreamReader, stopping: asyncio.Event
) -> None:
    """Read all cases. When they end, the parent process has ended or wants this one to end."""
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
    # The plan contains a token, so it comes on standard input: arguments are visible to all users.
    asyncio.run(_main())
