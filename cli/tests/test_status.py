"""What ``watchkeeper status`` prints for people."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from watchkeeper.cli.status import ModelStatus, Status, print_status, read_status
from watchkeeper.cli.system import System
from watchkeeper.ledger import Ledger, migrate
from watchkeeper.platforms import (
    Endpoints,
    PlatformError,
    RolloutCommands,
    Route,
    ServingStatus,
)


@pytest.mark.parametrize("part", ["registry", "platform"])
def test_a_part_that_does_not_answer_is_named(part: str) -> None:
    console = Console(width=200)
    status = Status(
        Endpoints("", "", "", "", ""), models=[], processes=[], down={part: "[refused]"}
    )
    with console.capture() as captured:
        print_status(console, status)
    assert f"the {part} does not answer, so its part of the status is missing: [refused]" in (
        captured.get()
    )


@pytest.mark.parametrize(
    ("hosts", "end"),
    [({"valve": "valve"}, "are being taken out of service"), ({}, "stay in service")],
)
def test_models_that_are_no_longer_configured_are_named(hosts: dict[str, str], end: str) -> None:
    console = Console(width=200)
    endpoints = Endpoints("", "", "", "", "", hosts)
    with console.capture() as captured:
        print_status(console, Status(endpoints, [], [], removed=["pump"]))
    assert f"no longer configured: pump; they {end}" in captured.get()


@pytest.mark.parametrize("since", ["1000.0", ""])
def test_production_that_the_registry_does_not_name_is_shown(since: str) -> None:
    console = Console(width=200)
    model = ModelStatus(
        name="pump",
        host="pump",
        production=None,
        candidate=None,
        previous=None,
        weights={3: 100},
        confirmed=True,
        paused=False,
        rollout={"production": "3", "unregistered_since": since},
        serving=[],
        runs={},
        episodes=[],
    )
    with console.capture() as captured:
        print_status(console, Status(Endpoints("", "", "", "", ""), [model], []))
    assert ("the registry does not name version 3" in captured.get()) == bool(since)


def test_the_command_in_a_reason_can_be_copied_in_80_columns() -> None:
    command = f"kubectl logs -n a-namespace pump-v3-predictor-{'x' * 60} -c kserve-container"
    console = Console(width=80)
    model = ModelStatus(
        name="pump",
        host="pump",
        production=None,
        candidate=3,
        previous=None,
        weights={},
        confirmed=False,
        paused=False,
        rollout={},
        serving=[ServingStatus(3, "failed", f"started 4 times (see {command})")],
        runs={},
        episodes=[],
    )
    with console.capture() as captured:
        print_status(console, Status(Endpoints("", "", "", "", ""), [model], []))
    assert f"  v3 failed: started 4 times (see {command})\n" in captured.get()


def test_the_log_of_a_failed_run_is_named(tmp_path: Path) -> None:
    migrate(f"sqlite:///{tmp_path}/ledger.db")
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    states = {"pump-v0-a1": "failed", "pump-v0-a2": "running", "pump-v0-a3": "succeeded"}
    log = f"{tmp_path}/{'a long path/' * 20}run.log"
    endpoints = Endpoints("", "", "", "", "")
    platform: Any = SimpleNamespace(
        serving=lambda _: {},
        route=lambda _: None,
        commands=lambda _: RolloutCommands(),
        processes=list,
        removed_models=list,
        problems=lambda _: [],
        runs=lambda _: states,
        run_log=lambda run: f"{log} of {run}",
        run_reason=lambda run: {"pump-v0-a2": "for room: no node has 9 CPUs"}.get(run, ""),
    )
    registry: Any = SimpleNamespace(aliases=lambda _: {})
    status = read_status(System(platform, ledger, registry, endpoints, ("pump",)))
    ledger.close()
    (model,) = status.models
    assert isinstance(model, ModelStatus)
    assert model.logs == {"pump-v0-a1": f"{log} of pump-v0-a1"}
    console = Console(width=80)
    with console.capture() as captured:
        print_status(console, status)
    assert f"training run pump-v0-a1: failed, see {log} of pump-v0-a1\n" in captured.get()
    reason = "training run pump-v0-a2: running\n    for room: no node has 9 CPUs\n"
    assert reason in captured.get()
    assert "pump-v0-a3" not in captured.get()


def test_a_model_whose_route_cannot_be_read_hides_no_other_model(tmp_path: Path) -> None:
    migrate(f"sqlite:///{tmp_path}/ledger.db")
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db")

    def route(model: str) -> Route:
        if model == "pump":
            raise PlatformError("HTTPRoute pump is not Watchkeeper's")
        return Route({1: 100})

    platform: Any = SimpleNamespace(
        serving=lambda _: {},
        route=route,
        commands=lambda _: RolloutCommands(),
        processes=list,
        removed_models=list,
        runs=lambda _: {},
        confirmed=lambda _: True,
        problems=lambda _: ["no SecurityPolicy", "no listener"],
    )
    registry: Any = SimpleNamespace(aliases=lambda _: {"production": 1})
    endpoints = Endpoints("", "", "", "", "")
    status = read_status(System(platform, ledger, registry, endpoints, ("pump", "valve")))
    ledger.close()
    pump, valve = status.models
    assert pump.problem == "HTTPRoute pump is not Watchkeeper's"
    assert valve.problem == "no SecurityPolicy; no listener"
    assert valve.weights == {1: 100}
    console = Console(width=80)
    with console.capture() as captured:
        print_status(console, status)
    assert "HTTPRoute pump is not Watchkeeper's" in captured.get()
    assert "no SecurityPolicy; no listener" in captured.get()


def test_a_drift_watch_that_fails_and_features_that_it_cannot_see_are_shown() -> None:
    console = Console(width=200)
    failing = ModelStatus(
        name="pump",
        host="pump",
        production=1,
        candidate=None,
        previous=None,
        weights={1: 100},
        confirmed=True,
        paused=False,
        rollout={},
        serving=[],
        runs={},
        episodes=[],
        watch_failure="the drift watch of version 1 fails: [no file]",
        cannot_alarm=["speed", "flow"],
    )
    status = Status(Endpoints("", "", "", "", ""), models=[failing], processes=[])
    with console.capture() as captured:
        print_status(console, status)
    assert "the drift watch of version 1 fails: [no file]" in captured.get()
    assert "cannot be seen, they vary too much: speed, flow" in captured.get()
