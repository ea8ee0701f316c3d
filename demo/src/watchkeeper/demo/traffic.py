"""Send V2 requests as real clients do, and labels late: ``python -m watchkeeper.demo.traffic``.

A sender for each kit of clients sends half the requests, half of them by HTTP, half by gRPC.
"""

import argparse
import asyncio
import contextlib
import signal
import sys
from pathlib import Path
from typing import Final

import msgspec

from watchkeeper.demo import system
from watchkeeper.demo.clients import KITS
from watchkeeper.demo.scenarios import SCENARIOS, STEADY
from watchkeeper.demo.sender import DRAIN_SECONDS, Counts, Plan, Progress
from watchkeeper.demo.table import TableError, read_table

MODEL: Final = "ai4i-failure"
SAY_SECONDS: Final = 5.0


class Traffic:
    """The senders of one run, with their files in ``folder``."""

    def __init__(self, folder: Path, scenario: str = STEADY.name) -> None:
        self.folder = folder
        self._processes: list[asyncio.subprocess.Process] = []
        folder.mkdir(parents=True, exist_ok=True)
        for kit in KITS:
            self._progress_file(kit).unlink(missing_ok=True)
        self.switch(scenario)

    def switch(self, scenario: str) -> None:
        """Let the machines run by another scenario from the next second on."""
        self._scenario_file.write_text(SCENARIOS[scenario].name)

    async def start(
        self,
        endpoints: system.Endpoints,
        token: str,
        *,
        rate: float = 100.0,
        label_delay: float = 20.0,
        seed: int = 7,
        data: Path | None = None,
        keep_answers: bool = False,
        model: str = MODEL,
    ) -> None:
        """Start the senders; their output goes to ``sender-<kit>.log``."""
        for number, kit in enumerate(KITS):
            plan = Plan(
                kit=kit,
                address=endpoints.address,
                host=endpoints.hosts.get(model, model),
                model=model,
                token=token,
                scenario_file=self._scenario_file,
                progress_file=self._progress_file(kit),
                answers_file=self.answers_file(kit) if keep_answers else None,
                data=data,
                rate=rate / len(KITS),
                label_delay=label_delay,
                seed=seed + number,
            )
            with self.log(kit).open("wb") as log:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "watchkeeper.demo.sender",
                    stdin=asyncio.subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C reaches them by way of this process
                )
            self._processes.append(process)
            assert process.stdin is not None  # noqa: S101 - it was asked for
            process.stdin.write(msgspec.json.encode(plan, enc_hook=str))
            process.stdin.close()

    def progress(self) -> Progress:
        """Add up how the senders stand; before their first word, nothing is sent."""
        found = [
            msgspec.json.decode(path.read_bytes(), type=Progress)
            for path in map(self._progress_file, KITS)
            if path.exists()
        ]
        return _sum(found, finished=len(found) == len(KITS) and all(p.finished for p in found))

    def check(self) -> None:
        """Make sure that all senders run.

        Raises:
            UnavailableError: one has ended by itself.
        """
        for kit, process in zip(KITS, self._processes, strict=False):
            if process.returncode is not None:
                raise system.UnavailableError(
                    f"the {kit} sender ended with exit code {process.returncode}: {self.log(kit)}"
                )

    async def stop(self) -> None:
        """End the senders: they wait for their last answers and tell the last labels.

        Raises:
            UnavailableError: one had to be killed.
        """
        running = [process for process in self._processes if process.returncode is None]
        for process in running:
            process.terminate()
        try:
            async with asyncio.timeout(DRAIN_SECONDS + 10):
                for process in running:
                    await process.wait()
        except TimeoutError as error:
            raise system.UnavailableError(f"a sender did not end: {self.folder}") from error
        finally:
            for process in running:
                if process.returncode is None:
                    process.kill()
                    await process.wait()

    def log(self, kit: str) -> Path:
        """Where a sender's output goes."""
        return self.folder / f"sender-{kit}.log"

    def answers_file(self, kit: str) -> Path:
        """Where a sender keeps its answers, one a line."""
        return self.folder / f"answers-{kit}.jsonl"

    def _progress_file(self, kit: str) -> Path:
        return self.folder / f"progress-{kit}.json"

    @property
    def _scenario_file(self) -> Path:
        return scenario_file(self.folder)


def scenario_file(folder: Path) -> Path:
    """Where senders read which scenario the machines run by."""
    return folder / "scenario"


def show(progress: Progress) -> str:
    """Say in one line how it stands."""
    requests = ", ".join(
        f"{protocol} {c.sent} sent {c.answered} answered {c.failed} failed"
        for protocol, c in sorted(progress.requests.items())
    )
    versions = ", ".join(f"v{v}: {n}" for v, n in sorted(progress.versions.items()))
    return (
        f"{progress.scenario}: {requests}; {versions or 'no answer yet'}; {progress.labels} labels"
    )


def _sum(parts: list[Progress], *, finished: bool) -> Progress:
    total = Progress(
        scenario=parts[0].scenario if parts else STEADY.name,
        requests={"http": Counts(), "grpc": Counts()},
        versions={},
        finished=finished,
    )
    for part in parts:
        for protocol, counts in part.requests.items():
            known = total.requests[protocol]
            total.requests[protocol] = Counts(
                sent=known.sent + counts.sent,
                answered=known.answered + counts.answered,
                failed=known.failed + counts.failed,
            )
        for version, number in part.versions.items():
            total.versions[version] = total.versions.get(version, 0) + number
        total.labels += part.labels
        total.labels_never_sent += part.labels_never_sent
        total.labels_lost += part.labels_lost
        total.skipped += part.skipped
        total.errors += part.errors
    return total


async def _main(arguments: argparse.Namespace) -> int:
    folder = system.home() / "traffic"
    if arguments.switch:
        scenario_file(folder).write_text(arguments.switch)
        return 0
    if arguments.data:
        read_table(arguments.data)  # errors belong here, not into a sender's log
    found = await system.command("status")
    endpoints = msgspec.convert(found["endpoints"], system.Endpoints)
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    if arguments.duration is not None:
        asyncio.get_running_loop().call_later(arguments.duration, stopping.set)
    traffic = Traffic(folder, arguments.scenario)
    try:
        await traffic.start(
            endpoints,
            system.feedback_token(system.home()),
            rate=arguments.rate,
            label_delay=arguments.label_delay,
            seed=arguments.seed,
            data=arguments.data,
            keep_answers=arguments.keep_answers,
        )
        print(f"sending to {endpoints.v2}; Ctrl-C ends it", flush=True)
        while not stopping.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), SAY_SECONDS)
            traffic.check()
            print(show(traffic.progress()), flush=True)
    finally:
        await traffic.stop()
    progress = traffic.progress()
    print(show(progress))
    for error in progress.errors:
        print(error, file=sys.stderr)
    return 1 if any(counts.failed for counts in progress.requests.values()) else 0


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m watchkeeper.demo.traffic", description=__doc__.partition("\n")[0]
    )
    known = "; ".join(f"{s.name}: {s.story}" for s in SCENARIOS.values())
    parser.add_argument("--scenario", choices=SCENARIOS, default=STEADY.name, help=known)
    parser.add_argument("--switch", choices=SCENARIOS, help="switch a running traffic, and end")
    parser.add_argument("--data", type=Path, help="draw rows from this AI4I 2020 table (CSV)")
    parser.add_argument("--rate", type=float, default=100.0, help="requests a second")
    parser.add_argument("--duration", type=float, help="seconds; without it, until Ctrl-C")
    parser.add_argument("--label-delay", type=float, default=20.0, help="seconds")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--keep-answers", action="store_true", help="every one, in the home")
    arguments = parser.parse_args()
    try:
        return asyncio.run(_main(arguments))
    except (system.UnavailableError, TableError, OSError) as error:
        print(f"traffic: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
