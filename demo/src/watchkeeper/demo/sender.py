"""One sender: the two clients of a kit, in a process of its own, started by ``traffic``.

An open loop: requests leave by the clock whatever became of those before, the two clients in
turn, and none is repeated.
"""

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

import msgspec

from watchkeeper.contracts.spool import replace_file
from watchkeeper.demo.clients import OUTPUTS, Client, Row, open_clients
from watchkeeper.demo.labels import LateLabels
from watchkeeper.demo.machines import MEASUREMENTS, Fleet, Readings
from watchkeeper.demo.scenarios import SCENARIOS, STEADY, played
from watchkeeper.demo.table import TableRows, read_table

log = logging.getLogger(__name__)

IN_FLIGHT: Final = 500  # requests; more would only hide that nothing answers
LATE: Final = 1.0  # seconds behind its clock after which the loop skips instead of bursting
PROGRESS_SECONDS: Final = 0.5
DRAIN_SECONDS: Final = 35.0  # longer than any client waits
ERRORS: Final = 20  # the first ones are told, the rest counted


class Source(Protocol):
    """Where rows come from."""

    def readings(self, rows: int) -> Readings:
        """Return the next rows."""


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


class Counts(msgspec.Struct):
    """What became of the requests of one protocol."""

    sent: int = 0
    answered: int = 0
    failed: int = 0


class Progress(msgspec.Struct):
    """Where the traffic stands; its file is replaced again and again.

    ``skipped`` requests were never sent, because this process or the system was too slow.
    """

    scenario: str
    requests: dict[str, Counts]
    versions: dict[int, int]
    labels: int = 0
    labels_never_sent: int = 0
    labels_lost: int = 0
    skipped: int = 0
    finished: bool = False
    errors: list[str] = []


class Plan(msgspec.Struct, frozen=True):
    """What a sender is told, as JSON: where to send, what, how much, and where to say so.

    ``rate`` is in requests a second, ``label_delay`` in seconds; ``labels_lost`` is the share of
    labels that never arrives. The scenario is read from its file again and again.
    """

    kit: str
    address: str
    host: str
    model: str
    token: str
    scenario_file: Path
    progress_file: Path
    answers_file: Path | None = None
    data: Path | None = None
    rate: float = 50.0
    label_delay: float = 20.0
    labels_lost: float = 0.03
    seed: int = 7


class Sender:
    """Asks and counts. ``answers`` takes a line for every answer, as JSON."""

    def __init__(
        self,
        clients: list[Client],
        source: Source,
        labels: LateLabels,
        plan: Plan,
        answers: BinaryIO | None = None,
    ) -> None:
        self._clients = clients
        self._source = source
        self._labels = labels
        self._plan = plan
        self._answers = answers
        self._flying: set[asyncio.Task[None]] = set()
        self.progress = Progress(
            scenario=read_scenario(plan.scenario_file),
            requests={client.protocol: Counts() for client in clients},
            versions={},
        )

    async def run(self, stopping: asyncio.Event) -> None:
        """Send until ``stopping``; then wait for the last answers."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        rows = self._rows()
        for number in itertools.count():
            due = start + number / self._plan.rate
            if (wait := due - loop.time()) > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stopping.wait(), wait)
            if stopping.is_set():
                break
            if loop.time() - due > LATE or len(self._flying) >= IN_FLIGHT:
                self.progress.skipped += 1
                continue
            task = loop.create_task(
                self._ask(self._clients[number % len(self._clients)], *next(rows))
            )
            self._flying.add(task)
            task.add_done_callback(self._flying.discard)
        if self._flying:
            await asyncio.wait(self._flying, timeout=DRAIN_SECONDS)

    def _rows(self) -> Iterator[tuple[Row, int]]:
        """Yield rows and what becomes of them, a second's worth drawn at a time."""
        while True:
            self.progress.scenario = read_scenario(self._plan.scenario_file)
            scenario = SCENARIOS[self.progress.scenario]
            drawn = played(self._source.readings(max(1, round(self._plan.rate))), scenario)
            columns = [drawn[name].tolist() for name in MEASUREMENTS]
            for values, failed in zip(
                zip(*columns, strict=True), drawn["machine_failure"].tolist(), strict=True
            ):
                yield dict(zip(MEASUREMENTS, values, strict=True)), failed

    async def _ask(self, client: Client, row: Row, failed: int) -> None:
        counts = self.progress.requests[client.protocol]
        counts.sent += 1
        now, start = time.time(), time.perf_counter()
        try:
            reply = await client.infer(row)
        except Exception as error:  # noqa: BLE001 - counted as failed, and shown
            counts.failed += 1
            what = f"{type(error).__name__}: {error}"  # some of them have no telling repr
            if len(self.progress.errors) < ERRORS:
                self.progress.errors.append(f"{client.name}: {what}"[:500])
            log.warning("%s: %s", client.name, what)
            return
        counts.answered += 1
        versions = self.progress.versions
        versions[reply.version] = versions.get(reply.version, 0) + 1
        self._labels.add(reply.prediction, failed)
        if self._answers is not None:
            answer = Answer(
                client.protocol,
                client.name,
                now,
                time.perf_counter() - start,
                reply.version,
                reply.prediction,
                row,
                {name: reply.outputs[name] for name in OUTPUTS},
            )
            self._answers.write(msgspec.json.encode(answer) + b"\n")

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
        if self._answers is not None:
            self._answers.flush()
        replace_file(self._plan.progress_file, msgspec.json.encode(self.progress))


def read_scenario(path: Path) -> str:
    """Return the scenario that the file names now; whoever rewrites it switches the machines."""
    try:
        name = path.read_text().strip()
    except FileNotFoundError:
        return STEADY.name
    if name not in SCENARIOS:
        log.error("%s: no scenario %r; there is %s", path, name, ", ".join(SCENARIOS))
        return STEADY.name
    return name


async def send(plan: Plan) -> None:
    """Send until SIGINT, SIGTERM, or the end of the process that started this one."""
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    source: Source = TableRows(read_table(plan.data), plan.seed) if plan.data else Fleet(plan.seed)
    clients = open_clients(plan.kit, plan.address, plan.host, plan.model)
    labels = LateLabels(
        f"http://{plan.address}/v2/models/{plan.model}/feedback",
        {"Host": plan.host, "Authorization": f"Bearer {plan.token}"},
        delay=plan.label_delay,
        lost_share=plan.labels_lost,
        seed=plan.seed,
    )
    with contextlib.ExitStack() as stack:
        answers = stack.enter_context(plan.answers_file.open("wb")) if plan.answers_file else None
        sender = Sender(clients, source, labels, plan, answers)
        over = asyncio.Event()
        aside = [
            asyncio.create_task(sender.report(over)),
            asyncio.create_task(labels.run(over)),
            asyncio.create_task(_stop_as_orphan(os.getppid(), stopping)),
        ]
        try:
            await sender.run(stopping)
        finally:
            stopping.set()
            over.set()
            await asyncio.gather(*aside)
            for client in clients:
                await client.close()
            sender.progress.finished = True
            sender.write_progress()


def _read_plan(text: bytes) -> Plan:
    """Read a plan; paths come as text."""
    return msgspec.json.decode(text, type=Plan, dec_hook=lambda kind, value: kind(value))


async def _stop_as_orphan(parent: int, stopping: asyncio.Event) -> None:
    while not stopping.is_set():
        if os.getppid() != parent:
            log.warning("the process that started this one is gone")
            stopping.set()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), 1.0)


if __name__ == "__main__":
    logging.basicConfig(format="%(asctime)s %(name)s %(levelname)s %(message)s")
    # The plan holds a credential: it comes where no list of processes shows it.
    asyncio.run(send(_read_plan(sys.stdin.buffer.read())))
