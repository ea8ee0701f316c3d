"""Send V2 requests and late labels to running models: ``python -m watchkeeper.demo.traffic``."""

import argparse
import asyncio
import contextlib
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from watchkeeper.core.settings import SettingsError
from watchkeeper.demo import system
from watchkeeper.demo.access import check_access
from watchkeeper.demo.messages import TrafficProgress
from watchkeeper.demo.plants import (
    STEADY,
    DatabaseError,
    Plant,
    PlantError,
    find,
    find_scenario,
    simulated,
    tables_by_model,
)
from watchkeeper.demo.senders import Traffic, switch
from watchkeeper.demo.system import SystemUnavailableError
from watchkeeper.demo.watchdog import StalledError, Watchdog

REPORT_SECONDS: Final = 5.0
STATUS_SECONDS: Final = 1.0
# For the training of a first version. Its log and its state count as progress.
FIRST_IDLE_SECONDS: Final = 300.0
FIRST_LIMIT_SECONDS: Final = 3600.0
FAILURES: Final = (
    SettingsError,
    DatabaseError,
    PlantError,
    SystemUnavailableError,
    OSError,
)


def describe(progress: TrafficProgress) -> str:
    """Describe the progress of the traffic in one line."""
    requests = ", ".join(
        f"{protocol} {c.sent} sent {c.answered} answered {c.failed} failed"
        for protocol, c in sorted(progress.requests.items())
    )
    versions = ", ".join(f"v{v}: {n}" for v, n in sorted(progress.versions.items()))
    return f"{requests}; {versions or 'no answer yet'}; {progress.labels} labels"


async def _run(arguments: argparse.Namespace) -> int:
    status = await system.command("status")
    endpoints = msgspec.convert(status["endpoints"], system.Endpoints)
    plants = [find(m) for m in arguments.models or (m for m in endpoints.hosts if m in simulated())]
    scenarios = _scenarios(plants, arguments.switch or arguments.scenario)
    if arguments.switch:
        for plant in plants:
            switch(_folder(plant), plant, scenarios[plant.model])
        return 0
    data = tables_by_model([plant.model for plant in plants], arguments.data)
    await _wait_for_first_versions([plant.model for plant in plants], status)
    key = system.api_key()
    for plant in plants:
        await check_access(endpoints, plant.model, key)
    traffics = {p.model: Traffic(_folder(p), p, scenarios[p.model]) for p in plants}
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
        print(f"sending to {endpoints.v2}; stop with Ctrl-C", flush=True)
        await _report(traffics, arguments.duration)
    progress = {model: traffic.progress() for model, traffic in traffics.items()}
    for model, final in progress.items():
        print(f"{model}: {describe(final)}")
        for error in final.errors:
            print(error, file=sys.stderr)
    return any(c.failed for final in progress.values() for c in final.requests.values())


async def _wait_for_first_versions(models: Sequence[str], status: Any) -> None:
    """Wait until each model has a version with traffic: after the first start they are trained.

    Args:
        models: the models.
        status: the present output of ``watchkeeper status --json``.

    Raises:
        SystemUnavailableError: a model does not exist, its training has failed, or it makes no
            progress.
    """
    watchdog = Watchdog(idle_seconds=FIRST_IDLE_SECONDS, limit_seconds=FIRST_LIMIT_SECONDS)
    announced: set[str] = set()
    while waiting := _without_version(models, status):
        for model, runs in waiting.items():
            if runs and all(state == "failed" for state in runs.values()):
                raise SystemUnavailableError(
                    f"{model} has no version, and its training failed ({_describe_runs(runs)}); "
                    "'watchkeeper status' shows where its log is"
                )
        try:
            watchdog.observe((waiting, await asyncio.to_thread(_log_sizes, status)))
        except StalledError as error:
            late = "; ".join(f"{model} ({_describe_runs(r)})" for model, r in waiting.items())
            raise SystemUnavailableError(
                f"no version takes requests, {error}: {late}; 'watchkeeper history' shows why"
            ) from error
        for model in waiting.keys() - announced:
            print(f"{model}: waiting for its first version, which is being trained", flush=True)
        announced |= waiting.keys()
        await asyncio.sleep(STATUS_SECONDS)
        status = await system.command("status")


def _without_version(models: Sequence[str], status: Any) -> dict[str, dict[str, str]]:
    """Return the models that have no version with traffic, each with its training runs."""
    known = {found["name"]: found for found in status["models"]}
    for model in models:
        if model not in known:
            raise SystemUnavailableError(
                f"the system has no model {model!r}; its models are {', '.join(known)}"
            )
    return {model: known[model]["runs"] for model in models if not known[model]["weights"]}


def _log_sizes(status: Any) -> dict[str, int]:
    """Return the sizes of the logs that are files on this machine."""
    logs = [Path(process["log"]) for process in status.get("processes", ())]
    return {str(log): log.stat().st_size for log in logs if log.is_file()}


def _describe_runs(runs: dict[str, str]) -> str:
    return ", ".join(f"{run}: {state}" for run, state in sorted(runs.items())) or "no training run"


async def _report(traffics: dict[str, Traffic], seconds: float | None) -> None:
    """Print the progress every few seconds, for ``seconds`` or until a signal."""
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    if seconds is not None:
        asyncio.get_running_loop().call_later(seconds, stopping.set)
    while not stopping.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), REPORT_SECONDS)
        for model, traffic in traffics.items():
            traffic.check()
            print(f"{model}: {describe(traffic.progress())}", flush=True)


def _scenarios(plants: list[Plant], name: str) -> dict[str, str]:
    """Return the scenario of each plant: ``name``, or ``steady`` if the plant does not have it.

    Raises:
        PlantError: no plant has a scenario of that name.
    """
    if not plants:
        raise PlantError(
            "the system has no model with a plant; models with a plant: " + ", ".join(simulated())
        )
    if not any(name in plant.scenarios for plant in plants):
        find_scenario(plants[0], name)  # raises the error that lists all scenarios
    return {p.model: name if name in p.scenarios else STEADY for p in plants}


def _folder(plant: Plant) -> Path:
    return system.home() / "traffic" / plant.model


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m watchkeeper.demo.traffic",
        description="Send V2 requests and late labels to running models.",
    )
    parser.add_argument("models", nargs="*", help="default: all models that have a plant")
    parser.add_argument(
        "--scenario",
        default=STEADY,
        help="how the plant behaves; an unknown name prints all scenarios",
    )
    parser.add_argument("--switch", help="switch the running traffic to this scenario, and exit")
    parser.add_argument("--data", type=Path, help="draw rows from this table (CSV)")
    parser.add_argument(
        "--rate", type=float, default=100.0, help="requests per second of all models together"
    )
    parser.add_argument("--duration", type=float, help="seconds; default: until Ctrl-C")
    parser.add_argument(
        "--label-delay", type=float, default=20.0, help="seconds between an answer and its label"
    )
    parser.add_argument("--seed", type=int, default=7, help="seed of the plants")
    parser.add_argument(
        "--keep-answers", action="store_true", help="write all answers to files in the home"
    )
    arguments = parser.parse_args()
    try:
        return asyncio.run(_run(arguments))
    except FAILURES as error:
        print(f"traffic: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
