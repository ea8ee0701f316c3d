"""A long load while things are killed: ``python tests/soak.py``, see ``make soak``.

Requests over both protocols go to one model. Again and again its server, its sidecar and the
ledger's database are killed with -9; supervision, or here what stands for an operator's init,
starts them again. At the end the accounts must be right: every answered prediction is in the
ledger exactly once, and requests have failed only while no serving process was there.

A serving process is there when it answers that it is ready. The gateway asks for that four times
a second: failures between the process's own word and the gateway's are counted by themselves.
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
from sqlalchemy import func, select
from system import seed, watchkeeper

from watchkeeper.contracts.names import serving_name
from watchkeeper.contracts.prediction_id import request_of
from watchkeeper.demo import system
from watchkeeper.demo.checking import read_answers
from watchkeeper.demo.clients import KITS
from watchkeeper.demo.ledger import count_labels, count_predictions, kept
from watchkeeper.demo.sender import Failure
from watchkeeper.demo.senders import Traffic
from watchkeeper.demo.story import QUEUE_SECONDS
from watchkeeper.demo.traffic import show
from watchkeeper.demo.worlds import find
from watchkeeper.ledger import Ledger
from watchkeeper.ledger import tables as t

VERSION = 1
PROBE_SECONDS = 0.02
PATIENCE = 300.0  # seconds for the ledger to catch up at the end
GATEWAY_SECONDS = 1.0  # within which the gateway has noticed that a server is ready
DATABASE_AWAY = 2.0  # seconds, at least
LABEL_DELAY = 5.0


class Watch:
    """When no serving process was there: intervals in seconds since 1970."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/v2/health/ready"
        self.away: list[tuple[float, float]] = []
        self._seen = time.time()
        self._there = True

    @property
    def there(self) -> bool:
        """Whether a serving process is there now."""
        return self._there

    async def run(self) -> None:
        """Ask again and again, for as long as it is let."""
        while True:
            begin = time.time()
            there = await asyncio.to_thread(self._ready)
            if there and not self._there:
                self.away.append((self._seen, time.time()))
            if there:
                self._seen = begin
            self._there = there
            await asyncio.sleep(PROBE_SECONDS)

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(self._url, timeout=5):  # noqa: S310
                return True
        except TimeoutError:
            return True  # slow, not gone
        except (urllib.error.URLError, OSError) as error:
            return isinstance(getattr(error, "reason", None), TimeoutError)


class Killer:
    """Kills by turns: all at one moment, then one after the other."""

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
        """Kill everything once every so often, and leave the last interval in peace."""
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
        await asyncio.sleep(DATABASE_AWAY)
        await asyncio.to_thread(self._database.start)

    def _count(self, name: str) -> None:
        self.killed[name] = self.killed.get(name, 0) + 1
        print(f"killed -9 {name}", flush=True)


class Accounts(msgspec.Struct):
    """What is put side by side at the end, see :func:`problems`."""

    sent: int = 0
    answered: int = 0
    failed: int = 0
    skipped: int = 0
    failed_away: int = 0
    failed_before_the_gateway_noticed: int = 0
    failed_without_reason: dict[str, int] = {}
    repeated: int = 0
    missing: int = 0
    twice: int = 0
    kept_but_not_answered: int = 0
    labels_accepted: int = 0
    labels_kept: int = 0
    away_intervals: int = 0
    away_seconds: float = 0.0
    caught_up_seconds: float = 0.0
    killed: dict[str, int] = {}


def problems(accounts: Accounts) -> list[str]:
    """Say what is not as it must be."""
    found = [
        (accounts.sent != accounts.answered + accounts.failed, "sent is not answered plus failed"),
        (not accounts.answered, "nothing was answered"),
        (accounts.repeated, "prediction ids were given out more than once"),
        (accounts.missing, "answered predictions are not in the ledger"),
        (accounts.twice, "predictions are in the ledger more than once"),
        (accounts.failed_without_reason, "requests failed although a serving process was there"),
        (
            accounts.kept_but_not_answered > accounts.failed,
            "the ledger has more predictions than were asked for",
        ),
        (accounts.labels_kept < accounts.labels_accepted, "accepted labels are not in the ledger"),
    ]
    return [what for wrong, what in found if wrong]


def account(traffic: Traffic, ledger: Ledger, model: str, watch: Watch) -> Accounts:
    """Compare every answer with the ledger, and every failure with the times without a server."""
    progress = traffic.progress()
    answers = read_answers(traffic.answers_file(kit) for kit in KITS)
    given = [request_of(answer.prediction) for answer in answers]
    found = kept(ledger, model)
    answered = set().union(*found.answered.values())
    accounts = Accounts(
        sent=sum(c.sent for c in progress.requests.values()),
        answered=len(answers),
        failed=sum(c.failed for c in progress.requests.values()),
        skipped=progress.skipped,
        repeated=len(given) - len(set(given)),
        missing=len(set(given) - answered),
        twice=_repeated_rows(ledger, model),
        kept_but_not_answered=len(answered - set(given)),
        labels_accepted=progress.labels,
        labels_kept=count_labels(ledger, model),
        away_intervals=len(watch.away),
        away_seconds=round(sum(end - begin for begin, end in watch.away), 1),
    )
    for failure in _failures(traffic):
        if any(failure.begin <= end and failure.end >= begin for begin, end in watch.away):
            accounts.failed_away += 1
        elif any(begin <= failure.begin <= end + GATEWAY_SECONDS for begin, end in watch.away):
            accounts.failed_before_the_gateway_noticed += 1
        else:
            why = f"{failure.client}: {' '.join(failure.why.split())[:160]}"
            unexplained = accounts.failed_without_reason
            unexplained[why] = unexplained.get(why, 0) + 1
    return accounts


def _failures(traffic: Traffic) -> Iterator[Failure]:
    decoder = msgspec.json.Decoder(Failure)
    for kit in KITS:
        with traffic.failures_file(kit).open("rb") as lines:
            yield from map(decoder.decode, lines)


def _repeated_rows(ledger: Ledger, model: str) -> int:
    ids = t.predictions.c.id
    query = select(func.count() - func.count(ids.distinct())).where(t.predictions.c.model == model)
    with ledger.read() as connection:
        return int(connection.execute(query).scalar_one())


async def soak(arguments: argparse.Namespace, home: Path, database: PostgreSQL | None) -> Accounts:
    """Run all of it on a system of its own in ``home``."""
    model = arguments.model
    url = database.create() if database else f"sqlite:///{home / 'ledger.db'}"
    # Killing is tested here, not overload: a busy machine shall turn nothing away.
    settings = {"WATCHKEEPER_LEDGER_URL": url, "WATCHKEEPER_QUEUE_SECONDS": QUEUE_SECONDS}
    endpoints = msgspec.convert(watchkeeper(home, "up", model, **settings), system.Endpoints)
    async with asyncio.timeout(180):
        while not (await asyncio.to_thread(_serves, home)):  # noqa: ASYNC110
            await asyncio.sleep(1.0)
    pod = json.loads((home / "serving" / serving_name(model, VERSION) / "pod.json").read_text())
    watch, ledger = Watch(pod["http"]), Ledger(url)
    killer = Killer(home, model, database, arguments.every)
    traffic = Traffic(home / "traffic", find(model))
    source = f"sqlite:///{home / 'operational.db'}"
    aside = [asyncio.create_task(watch.run())]
    try:
        await traffic.start(
            endpoints,
            system.feedback_token(home),
            source=source,
            rate=arguments.rate,
            label_delay=LABEL_DELAY,
            keep_answers=True,
        )
        aside.append(asyncio.create_task(_tell(traffic)))
        await killer.run(arguments.minutes * 60)
        await asyncio.sleep(arguments.every)
        async with asyncio.timeout(120):
            while not watch.there:  # noqa: ASYNC110 - a probe, not an event
                await asyncio.sleep(0.1)
        aside.pop().cancel()
        await traffic.stop()
        waited = await _caught_up(traffic, ledger, model)
    finally:
        await traffic.stop()
        for task in aside:
            task.cancel()
        results = await asyncio.gather(*aside, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result
    accounts = await asyncio.to_thread(account, traffic, ledger, model, watch)
    ledger.close()
    accounts.killed, accounts.caught_up_seconds = killer.killed, round(waited, 1)
    return accounts


def _serves(home: Path) -> bool:
    return bool(watchkeeper(home, "status")["models"][0]["production"] == VERSION)


async def _caught_up(traffic: Traffic, ledger: Ledger, model: str) -> float:
    """Wait until the ledger has as much as was answered, and tell how long it took."""
    start = time.monotonic()
    progress = traffic.progress()
    answered = sum(c.answered for c in progress.requests.values())
    while time.monotonic() - start < PATIENCE:
        if (
            await asyncio.to_thread(count_predictions, ledger, model) >= answered
            and await asyncio.to_thread(count_labels, ledger, model) >= progress.labels
        ):
            break
        await asyncio.sleep(0.5)
    return time.monotonic() - start


async def _tell(traffic: Traffic) -> None:
    while True:
        await asyncio.sleep(10.0)
        traffic.check()
        print(show(traffic.progress()), flush=True)


async def _sleep_until(when: float) -> None:
    await asyncio.sleep(max(0.0, when - time.monotonic()))


def main() -> int:
    """Run the command: 0 only if the accounts are right."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second")
    parser.add_argument("--every", type=float, default=20.0, help="seconds between two kills")
    parser.add_argument("--model", default="ai4i-failure")
    parser.add_argument("--ledger", choices=("postgresql", "sqlite"), default="postgresql")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    home = folder / "home"
    for name in list(os.environ):
        if name.startswith(("WATCHKEEPER_", "MLFLOW_")) and not name.endswith("_PORT"):
            del os.environ[name]
    accounts: Any = None
    database: PostgreSQL | None = None
    try:
        if arguments.ledger == "postgresql":
            (folder / "database").mkdir()
            folder.chmod(0o755)
            database = PostgreSQL(folder / "database")
        seed(home, arguments.model)
        accounts = asyncio.run(soak(arguments, home, database))
    except DatabaseMissingError as missing:
        print(f"soak: {missing}; or take --ledger sqlite", file=sys.stderr)
        return 2
    finally:
        try:
            watchkeeper(home, "down")
        finally:
            if database is not None:
                database.kill()
    print(msgspec.json.format(msgspec.json.encode(accounts)).decode())
    wrong = problems(accounts)
    for what in wrong:
        print(f"soak: {what}", file=sys.stderr)
    if wrong:
        print(f"soak: all files are in {folder}", file=sys.stderr)
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
