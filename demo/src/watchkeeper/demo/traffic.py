"""Send V2 requests as real clients do, and labels late: ``python -m watchkeeper.demo.traffic``."""

import argparse
import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from watchkeeper.contracts.settings import SettingsError
from watchkeeper.demo import entrance, system
from watchkeeper.demo.sender import Progress
from watchkeeper.demo.senders import Traffic, switch
from watchkeeper.demo.worlds import STEADY, WORLDS, World, WorldError, find, scenario_of, tables

SAY_SECONDS: Final = 5.0
FIRST_SECONDS: Final = 900.0  # two trainings and their first steps, on a busy machine
FAILURES: Final = (
    SettingsError,
    SQLAlchemyError,
    WorldError,
    system.UnavailableError,
    OSError,
)


def show(progress: Progress) -> str:
    """Say in one line how it stands."""
    requests = ", ".join(
        f"{protocol} {c.sent} sent {c.answered} answered {c.failed} failed"
        for protocol, c in sorted(progress.requests.items())
    )
    versions = ", ".join(f"v{v}: {n}" for v, n in sorted(progress.versions.items()))
    return f"{requests}; {versions or 'no answer yet'}; {progress.labels} labels"


async def _main(arguments: argparse.Namespace) -> int:
    found = await system.command("status")
    endpoints = msgspec.convert(found["endpoints"], system.Endpoints)
    worlds = [find(m) for m in arguments.models or (m for m in endpoints.hosts if m in WORLDS)]
    wanted = _scenarios(worlds, arguments.switch or arguments.scenario)
    if arguments.switch:
        for world in worlds:
            switch(_folder(world), world, wanted[world.model])
        return 0
    data = tables([world.model for world in worlds], arguments.data)  # its errors belong here
    await _first_versions([world.model for world in worlds], found)
    key = system.api_key()
    for world in worlds:
        await entrance.check(endpoints, world.model, key)
    traffics = {w.model: Traffic(_folder(w), w, wanted[w.model]) for w in worlds}
    async with contextlib.AsyncExitStack() as stack:
        for model, traffic in traffics.items():
            stack.push_async_callback(traffic.stop)
            await traffic.start(
                endpoints,
                system.feedback_token(system.home()),
                key=key,
                rate=arguments.rate / len(traffics),
                label_delay=arguments.label_delay,
                seed=arguments.seed,
                data=data[model],
                keep_answers=arguments.keep_answers,
            )
        print(f"sending to {endpoints.v2}; Ctrl-C ends it", flush=True)
        await _watch(traffics, arguments.duration)
    progress = {model: traffic.progress() for model, traffic in traffics.items()}
    for model, final in progress.items():
        print(f"{model}: {show(final)}")
        for error in final.errors:
            print(error, file=sys.stderr)
    return any(c.failed for final in progress.values() for c in final.requests.values())


async def _first_versions(models: Sequence[str], status: Any) -> None:
    """Wait until each of the models takes requests: after the first start they are trained first.

    ``status`` is what the system says now.

    Raises:
        UnavailableError: one is not there, its training has failed, or it takes too long.
    """
    deadline = time.monotonic() + FIRST_SECONDS
    told: set[str] = set()
    while waiting := _without_version(models, status):
        for model, runs in waiting.items():
            if runs and all(state == "failed" for state in runs.values()):
                raise system.UnavailableError(
                    f"{model} has no version, and its training failed ({_runs(runs)}): "
                    "'watchkeeper status' tells where its log is"
                )
        if time.monotonic() > deadline:
            late = "; ".join(f"{model} ({_runs(runs)})" for model, runs in waiting.items())
            raise system.UnavailableError(
                f"no version takes requests after {FIRST_SECONDS:g} s: {late}; "
                "'watchkeeper history' tells why"
            )
        for model in waiting.keys() - told:
            print(f"{model}: waiting for its first version, which is being trained", flush=True)
        told |= waiting.keys()
        await asyncio.sleep(SAY_SECONDS / 5)
        status = await system.command("status")


def _without_version(models: Sequence[str], status: Any) -> dict[str, dict[str, str]]:
    """Return the models that have no version with traffic, each with its training runs."""
    there = {found["name"]: found for found in status["models"]}
    for model in models:
        if model not in there:
            raise system.UnavailableError(f"no model {model!r} here; there is {', '.join(there)}")
    return {model: there[model]["runs"] for model in models if not there[model]["weights"]}


def _runs(runs: dict[str, str]) -> str:
    return ", ".join(f"{run}: {state}" for run, state in sorted(runs.items())) or "no training run"


async def _watch(traffics: dict[str, Traffic], seconds: float | None) -> None:
    """Say again and again how it stands, until the time is over or somebody ends it."""
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    if seconds is not None:
        asyncio.get_running_loop().call_later(seconds, stopping.set)
    while not stopping.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), SAY_SECONDS)
        for model, traffic in traffics.items():
            traffic.check()
            print(f"{model}: {show(traffic.progress())}", flush=True)


def _scenarios(worlds: list[World], name: str) -> dict[str, str]:
    """Tell for each world by which scenario it goes: one that does not know the name is steady.

    Raises:
        WorldError: no world knows it.
    """
    if not worlds:
        raise WorldError(
            f"the system has none of the models that a world is for: {', '.join(WORLDS)}"
        )
    if not any(name in world.scenarios for world in worlds):
        scenario_of(worlds[0], name)
    return {w.model: name if name in w.scenarios else STEADY for w in worlds}


def _folder(world: World) -> Path:
    return system.home() / "traffic" / world.model


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m watchkeeper.demo.traffic", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("models", nargs="*", help="by default all that the system serves")
    parser.add_argument("--scenario", default=STEADY, help="how things go; a wrong one tells all")
    parser.add_argument("--switch", help="switch a running traffic to this scenario, and end")
    parser.add_argument("--data", type=Path, help="draw rows from this AI4I 2020 table (CSV)")
    parser.add_argument("--rate", type=float, default=100.0, help="requests a second, of all")
    parser.add_argument("--duration", type=float, help="seconds; without it, until Ctrl-C")
    parser.add_argument("--label-delay", type=float, default=20.0, help="seconds")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--keep-answers", action="store_true", help="every one, in the home")
    arguments = parser.parse_args()
    try:
        return asyncio.run(_main(arguments))
    except FAILURES as error:
        print(f"traffic: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
