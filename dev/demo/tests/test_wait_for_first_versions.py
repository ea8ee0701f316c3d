"""Traffic waits until all models have a version, unless one cannot get any."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from watchkeeper.demo import system, traffic

MODELS = ("pump-failure", "press-wear")
# Prints the lines of the file beside it, one more line at each call.
COMMAND = """#!{python}
import pathlib, sys
file = pathlib.Path(__file__).with_name("outputs")
first, *rest = file.read_text().splitlines()
file.write_text("\\n".join(rest or [first]))
print(first)
"""


def status(**models: tuple[int, str]) -> dict[str, Any]:
    """Build a status from each model's version with traffic, 0 for none, and its run's state."""
    found = []
    for name, (version, run) in models.items():
        model = name.replace("_", "-")
        weights = {str(version): 100} if version else {}
        found.append({"name": model, "weights": weights, "runs": {f"{model}-v0-a1": run}})
    return {"models": found}


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Replace the command line by a program that prints one given output per call."""
    command = tmp_path / "watchkeeper"
    command.write_text(COMMAND.format(python=sys.executable))
    command.chmod(0o755)
    monkeypatch.setattr(system, "WATCHKEEPER", command)
    monkeypatch.setattr(traffic, "STATUS_SECONDS", 0.01)

    def write(*lines: Any) -> None:
        (tmp_path / "outputs").write_text("\n".join(map(json.dumps, lines)))

    return write


def test_all_models_are_waited_for_together(
    outputs: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs(
        status(pump_failure=(1, "succeeded"), press_wear=(0, "running")),
        status(pump_failure=(1, "succeeded"), press_wear=(1, "succeeded")),
        "one call too many",
    )
    begin = status(pump_failure=(0, "running"), press_wear=(0, "running"))
    asyncio.run(traffic._wait_for_first_versions(MODELS, begin))
    assert capsys.readouterr().out.count("waiting for its first version") == 2


def test_failed_first_training_is_reported_at_once(outputs: Any) -> None:
    outputs(status(pump_failure=(1, "succeeded"), press_wear=(0, "failed")))
    begin = status(pump_failure=(0, "running"), press_wear=(0, "running"))
    with pytest.raises(system.SystemUnavailableError, match=r"press-wear .*press-wear-v0-a1: fai"):
        asyncio.run(traffic._wait_for_first_versions(MODELS, begin))


def test_training_without_progress_is_not_waited_for(
    outputs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traffic, "FIRST_IDLE_SECONDS", 0.5)
    rejected = status(pump_failure=(1, "succeeded"), press_wear=(0, "succeeded"))
    outputs(rejected)
    with pytest.raises(
        system.SystemUnavailableError, match=r"no progress for \d+ s: press-wear \(press.*succ"
    ):
        asyncio.run(traffic._wait_for_first_versions(MODELS, rejected))


def test_unknown_model_is_an_error(outputs: Any) -> None:  # noqa: ARG001
    with pytest.raises(system.SystemUnavailableError, match="no model 'press-wear'"):
        asyncio.run(traffic._wait_for_first_versions(MODELS, status(pump_failure=(1, "succeeded"))))


def test_training_that_writes_its_log_is_waited_for(
    outputs: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(traffic, "FIRST_IDLE_SECONDS", 1.0)
    log = tmp_path / "run.log"
    readings = iter(range(1000))

    def observe(self: traffic.Watchdog, reading: object) -> None:
        log.write_text("x" * next(readings))
        original(self, reading)

    original = traffic.Watchdog.observe
    monkeypatch.setattr(traffic.Watchdog, "observe", observe)
    training = status(pump_failure=(0, "running"), press_wear=(1, "succeeded"))
    training["processes"] = [{"name": "run", "log": str(log)}, {"name": "a", "log": "nowhere"}]
    done = status(pump_failure=(1, "succeeded"), press_wear=(1, "succeeded"))
    outputs(*[training] * 30, done)
    asyncio.run(traffic._wait_for_first_versions(MODELS, training))
    assert next(readings) >= 30
