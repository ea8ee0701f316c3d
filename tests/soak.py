"""Soak test: a long load while processes are killed. Run it with ``make soak``.

Requests over both protocols go to one model. At regular intervals its server, its sidecar and the
ledger's database are killed with SIGKILL. The supervisor restarts the first two, this program the
database. At the end every answered prediction must be in the ledger exactly once, and a request
may have failed only while no server was ready.

The gateway checks four times per second whether a server is ready, and this program more often.
Failures between the two observations are counted separately.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from databases import DatabaseMissingError, PostgreSQL
from system import seed, watchkeeper

from watchkeeper.core.names import serving_name
from watchkeeper.core.prediction_id import request_of
from watchkeeper.demo import system
from watchkeeper.demo.clients import KITS
from watchkeeper.demo.fast_policies import QUEUE_SECONDS
from watchkeeper.demo.messages import Failure
from watchkeeper.demo.offline_comparison import read_answers
from watchkeeper.demo.plants import find, simulated
from watchkeeper.demo.senders import Traffic
from watchkeeper.demo.traffic import describe
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.counts import count_answered, count_labels, stored_requests

VERSION = 1
PROBE_SECONDS = 0.02
CATCH_UP_SECONDS = 300.0  # for the ledger at the end
GATEWAY_SECONDS = 1.0  # until the gateway has noticed that a server is ready
DATABASE_DOWN_SECONDS = 2.0
LABEL_DELAY = 5.0
FIRST_VERSION_SECONDS = 600.0  # until the first version is trained and serves


class ReadinessProbe:
    """Observes when no server is ready.

    Attributes:
        outages: past intervals without a ready server, in seconds since 1970.
    """

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/v2/health/ready"
        self.outages: list[tuple[float, float]] = []
        self._last_ready = time.time()
        self._is_ready = True

    @property
    def is_ready(self) -> bool:
        """Whether a server is ready now."""
        return self._is_ready

    async def run(self) -> None:
        """Probe the server until the task is cancelled."""
        while True:
            begin = time.time()
            ready = await asyncio.to_thread(self._probe)
            if ready and not self._is_ready:
                self.outages.append((self._last_ready, time.time()))
            if ready:
                self._last_ready = begin
            self._is_ready = ready
            await asyncio.sleep(PROBE_SECONDS)

    def _probe(self) -> bool:
        try:
            with urllib.request.urlopen(self._url, timeout=5):  # noqa: S310
                return True
        except TimeoutError:
            return True  # slow, but running
        except (urllib.error.URLError, OSError) as error:
            return isinstance(getattr(error, "reason", None), TimeoutError)


class Killer:
    """Kills all processes alternately at the same time and at random times.

    Attributes:
        killed: how often each process was killed.
    """

    def __init__(self, home: Path, model: str, database: PostgreSQL | None, every: float) -> None:
        self._home = home
        self._programs = [
            f"{kind}.{serving_name(model, VERSION)}" for kind in ("server", "sidecar")
        ]
        self._database = database
        self._every = every
        self._random = random.Random(4)
        self.killed: dict[str, int] = {}

    async def run(self, seconds: float) -> None:
        """Kill every process once per interval, except in the last interval."""
        start = time.monotonic()
        for turn in range(1, int(seconds / self._every)):
            offsets = [0.0, 0.0, 0.0]
            if turn % 2 == 0:
                offsets = [self._random.uniform(0, self._every * 0.75) for _ in range(3)]
            begin = start + (turn - 1) * self._every
            await asyncio.gather(
                self._kill_program(self._programs[0], begin + offsets[0]),
                self._kill_program(self._programs[1], begin + offsets[1]),
                self._kill_database(begin + offsets[2]),
            )
            await _sleep_until(begin + self._every)

    async def _kill_program(self, name: str, when: float) -> None:
        await _sleep_until(when)
        found = await asyncio.to_thread(watchkeeper, self._home, "status")
        for process in found["processes"]:
            if process["name"] == name and process["pid"]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process["pid"], signal.SIGKILL)
                    self._count(name)

    async def _kill_database(self, when: float) -> None:
        if self._database is None:
            return
        await _sleep_until(when)
        await asyncio.to_thread(self._database.kill)
        self._count("database")
        await asyncio.sleep(DATABASE_DOWN_SECONDS)
        await asyncio.to_thread(self._database.start)

    def _count(self, name: str) -> None:
        self.killed[name] = self.killed.get(name, 0) + 1
        print(f"killed {name} with SIGKILL", flush=True)


class Result(msgspec.Struct):
    """Numbers of requests, predictions and labels at the end, see :func:`problems`."""

    sent: int = 0
    answered: int = 0
    failed: int = 0
    skipped: int = 0
    failed_without_server: int = 0
    failed_before_the_gateway_noticed: int = 0
    failed_with_server: dict[str, int] = {}
    repeated: int = 0
    missing: int = 0
    stored_twice: int = 0
    stored_but_not_answered: int = 0
    labels_accepted: int = 0
    labels_stored: int = 0
    outages: int = 0
    outage_seconds: float = 0.0
    caught_up_seconds: float = 0.0
    killed: dict[str, int] = {}


def problems(result: Result) -> list[str]:
    """Return the violated conditions."""
    found = [
        (result.sent != result.answered + result.failed, "sent is not answered plus failed"),
        (not result.answered, "no request was answered"),
        (result.repeated, "prediction ids are not unique"),
        (result.missing, "answered predictions are not in the ledger"),
        (result.stored_twice, "predictions are in the ledger more than once"),
        (result.failed_with_server, "requests failed although a server was ready"),
        (
            result.stored_but_not_answered > result.failed,
            "the ledger has more predictions than there were requests",
        ),
        (result.labels_stored < result.labels_accepted, "accepted labels are not in the ledger"),
    ]
    return [problem for is_violated, problem in found if is_violated]


def compare(traffic: Traffic, ledger: Ledger, model: str, probe: ReadinessProbe) -> Result:
    """Compare every answer with the ledger, and every failure with the outages of the server."""
    progress = traffic.progress()
    answers = read_answers(traffic.answers_file(kit) for kit in KITS)
    ids = [request_of(answer.prediction) for answer in answers]
    found = stored_requests(ledger, model)
    answered = set().union(*found.answered.values())
    result = Result(
        sent=sum(c.sent for c in progress.requests.values()),
        answered=len(answers),
        failed=sum(c.failed for c in progress.requests.values()),
        skipped=progress.skipped,
        repeated=len(ids) - len(set(ids)),
        missing=len(set(ids) - answered),
        stored_twice=count_answered(ledger, model) - len(answered),
        stored_but_not_answered=len(answered - set(ids)),
        labels_accepted=progress.labels,
        labels_stored=count_labels(ledger, model),
        outages=len(probe.outages),
        outage_seconds=round(sum(end - begin for begin, end in probe.outages), 1),
    )
    for failure in _failures(traffic):
        if any(failure.begin <= end and failure.end >= begin for begin, end in probe.outages):
            result.failed_without_server += 1
        elif any(begin <= failure.begin <= end + GATEWAY_SECONDS for begin, end in probe.outages):
            result.failed_before_the_gateway_noticed += 1
        else:
            why = f"{failure.client}: {' '.join(failure.why.split())[:160]}"
            reasons = result.failed_with_server
            reasons[why] = reasons.get(why, 0) + 1
    return result


def _failures(traffic: Traffic) -> Iterator[Failure]:
    decoder = msgspec.json.Decoder(Failure)
    for kit in KITS:
        with traffic.failures_file(kit).open("rb") as lines:
            yield from map(decoder.decode, lines)


async def soak(arguments: argparse.Namespace, home: Path, database: PostgreSQL | None) -> Result:
    """Run the soak test on a system of its own in ``home``."""
    model = arguments.model
    url = database.create() if database else f"sqlite:///{home / 'ledger.db'}"
    # This tests kills, not overload: a busy machine must not reject requests.
    settings = {"WATCHKEEPER_LEDGER_URL": url, "WATCHKEEPER_QUEUE_SECONDS": QUEUE_SECONDS}
    endpoints = msgspec.convert(watchkeeper(home, "up", model, **settings), system.Endpoints)
    async with asyncio.timeout(FIRST_VERSION_SECONDS):
        while not (await asyncio.to_thread(_serves, home)):  # noqa: ASYNC110
            await asyncio.sleep(1.0)
    served = json.loads(
        (home / "serving" / serving_name(model, VERSION) / "version.json").read_text()
    )
    probe, ledger = ReadinessProbe(served["http"]), Ledger(url)
    killer = Killer(home, model, database, arguments.every)
    traffic = Traffic(home / "traffic", find(model))
    source = f"sqlite:///{home / 'operational.db'}"
    background = [asyncio.create_task(probe.run())]
    try:
        await traffic.start(
            endpoints,
            system.feedback_token(home),
            source=source,
            rate=arguments.rate,
            label_delay=LABEL_DELAY,
            keep_answers=True,
        )
        background.append(asyncio.create_task(_print_progress(traffic)))
        await killer.run(arguments.minutes * 60)
        await asyncio.sleep(arguments.every)
        async with asyncio.timeout(120):
            while not probe.is_ready:  # noqa: ASYNC110 - a probe, not an event
                await asyncio.sleep(0.1)
        background.pop().cancel()
        await traffic.stop()
        waited = await _caught_up(traffic, ledger, model)
    finally:
        await traffic.stop()
        for task in background:
            task.cancel()
        errors = await asyncio.gather(*background, return_exceptions=True)
    for error in errors:
        if isinstance(error, Exception):
            raise error
    result = await asyncio.to_thread(compare, traffic, ledger, model, probe)
    ledger.close()
    result.killed, result.caught_up_seconds = killer.killed, round(waited, 1)
    return result


def _serves(home: Path) -> bool:
    return bool(watchkeeper(home, "status")["models"][0]["production"] == VERSION)


async def _caught_up(traffic: Traffic, ledger: Ledger, model: str) -> float:
    """Wait until the ledger has all predictions and labels; return the seconds that it took."""
    start = time.monotonic()
    progress = traffic.progress()
    answered = sum(c.answered for c in progress.requests.values())
    while time.monotonic() - start < CATCH_UP_SECONDS:
        if (
            await asyncio.to_thread(count_answered, ledger, model) >= answered
            and await asyncio.to_thread(count_labels, ledger, model) >= progress.labels
        ):
            break
        await asyncio.sleep(0.5)
    return time.monotonic() - start


async def _print_progress(traffic: Traffic) -> None:
    while True:
        await asyncio.sleep(10.0)
        traffic.check()
        print(describe(traffic.progress()), flush=True)


async def _sleep_until(when: float) -> None:
    await asyncio.sleep(max(0.0, when - time.monotonic()))


def main() -> int:
    """Run the command. The exit code is 0 if there are no problems."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=200.0, help="requests per second")
    parser.add_argument("--every", type=float, default=20.0, help="seconds per interval")
    parser.add_argument("--model", default=simulated()[0])
    parser.add_argument("--ledger", choices=("postgresql", "sqlite"), default="postgresql")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    home = folder / "home"
    for name in list(os.environ):
        if name.startswith(("WATCHKEEPER_", "MLFLOW_")) and not name.endswith("_PORT"):
            del os.environ[name]
    result: Any = None
    database: PostgreSQL | None = None
    try:
        if arguments.ledger == "postgresql":
            (folder / "database").mkdir()
            folder.chmod(0o755)
            database = PostgreSQL(folder / "database")
        seed(home, arguments.model)
        result = asyncio.run(soak(arguments, home, database))
    except DatabaseMissingError as missing:
        print(f"soak: {missing}; or use --ledger sqlite", file=sys.stderr)
        return 2
    finally:
        try:
            watchkeeper(home, "down")
        finally:
            if database is not None:
                database.kill()
    print(msgspec.json.format(msgspec.json.encode(result)).decode())
    found = problems(result)
    for problem in found:
        print(f"soak: {problem}", file=sys.stderr)
    if found:
        print(f"soak: all files are in {folder}", file=sys.stderr)
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
