"""Traffic waits for the first versions of all models, and for none that cannot come."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from watchkeeper.demo import system, traffic

MODELS = ("ai4i-failure", "warranty-risk")
# Says what lies in the file beside it, each time one line further.
COMMAND = """#!{python}
import pathlib, sys
file = pathlib.Path(__file__).with_name("says")
first, *rest = file.read_text().splitlines()
file.write_text("\\n".join(rest or [first]))
print(first)
"""


def status(**models: tuple[int, str]) -> dict[str, Any]:
    """Of each model, the version with the traffic, 0 for none, and how its training does."""
    found = []
    for name, (version, run) in models.items():
        model = name.replace("_", "-")
        weights = {str(version): 100} if version else {}
        found.append({"name": model, "weights": weights, "runs": {f"{model}-v0-a1": run}})
    return {"models": found}


@pytest.fixture
def says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let the command line say things, one a call."""
    command = tmp_path / "watchkeeper"
    command.write_text(COMMAND.format(python=sys.executable))
    command.chmod(0o755)
    monkeypatch.setattr(system, "WATCHKEEPER", command)
    monkeypatch.setattr(traffic, "SAY_SECONDS", 0.05)

    def say(*lines: Any) -> None:
        (tmp_path / "says").write_text("\n".join(map(json.dumps, lines)))

    return say


def test_all_models_are_waited_for_in_one_go(says: Any, capsys: pytest.CaptureFixture[str]) -> None:
    says(
        status(ai4i_failure=(1, "succeeded"), warranty_risk=(0, "running")),
        status(ai4i_failure=(1, "succeeded"), warranty_risk=(1, "succeeded")),
        "one call too many",
    )
    begin = status(ai4i_failure=(0, "running"), warranty_risk=(0, "running"))
    asyncio.run(traffic._first_versions(MODELS, begin))
    assert capsys.readouterr().out.count("waiting for its first version") == 2


def test_a_first_training_that_failed_is_told_at_once(says: Any) -> None:
    says(status(ai4i_failure=(1, "succeeded"), warranty_risk=(0, "failed")))
    begin = status(ai4i_failure=(0, "running"), warranty_risk=(0, "running"))
    with pytest.raises(system.UnavailableError, match=r"warranty-risk .*warranty-risk-v0-a1: fai"):
        asyncio.run(traffic._first_versions(MODELS, begin))


def test_nobody_waits_for_ever(says: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "FIRST_SECONDS", 0.5)
    rejected = status(ai4i_failure=(1, "succeeded"), warranty_risk=(0, "succeeded"))
    says(rejected)
    with pytest.raises(system.UnavailableError, match=r"after 0.5 s: warranty-risk \(warr.*succ"):
        asyncio.run(traffic._first_versions(MODELS, rejected))


def test_a_model_that_is_not_there_is_told(says: Any) -> None:  # noqa: ARG001
    with pytest.raises(system.UnavailableError, match="no model 'warranty-risk' here"):
        asyncio.run(traffic._first_versions(MODELS, status(ai4i_failure=(1, "succeeded"))))
