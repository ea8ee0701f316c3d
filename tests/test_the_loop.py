"""The whole system as a user runs it: `make chaos`, and up and down again."""

import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[1]
WATCHKEEPER = ROOT / "cli/.venv/bin/watchkeeper"
DEMO = ROOT / "demo/.venv/bin/python"


def running(home: Path) -> dict[int, float]:
    """All processes of the system in ``home``: pid → start time."""
    found = {}
    for process in psutil.process_iter():
        try:
            if process.environ().get("WATCHKEEPER_HOME") == str(home):
                found[process.pid] = process.create_time()
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def watchkeeper(home: Path, *arguments: str) -> Any:
    done = subprocess.run(
        [WATCHKEEPER, *arguments, "--json"],
        env={**os.environ, "WATCHKEEPER_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def until(condition: Callable[[], Any], seconds: float = 90.0) -> Any:
    """Wait for what ``condition`` returns when it is neither None nor False."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.2)
    return found


def post(url: str, body: Any, token: str = "") -> Any:
    request = urllib.request.Request(  # noqa: S310
        url, json.dumps(body).encode(), {"Authorization": f"Bearer {token}"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        return json.loads(answer.read())


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "home"
    subprocess.run(
        [DEMO, "-m", "watchkeeper.demo.seed"],
        env={**os.environ, "WATCHKEEPER_HOME": str(folder)},
        check=True,
        timeout=60,
    )
    yield folder
    watchkeeper(folder, "down")


def test_the_loop_closes_although_every_kind_of_process_is_killed_once(tmp_path: Path) -> None:
    done = subprocess.run(
        [DEMO, "-m", "watchkeeper.demo", "--chaos"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    summary = json.loads((tmp_path / ".watchkeeper/demo/summary.json").read_text())
    assert len(summary["killed"]) == 5
    assert (summary["promoted"], summary["rolled_back"]) == ([1, 2], [3])
    for counts in summary["requests"].values():
        assert counts["sent"] == counts["answered"] == counts["in_ledger"] > 0
        assert counts["failed"] == counts["wrong"] == 0
    assert running(tmp_path / ".watchkeeper/demo/system") == {}


def test_a_second_up_changes_nothing_and_down_leaves_nothing(home: Path) -> None:
    first = watchkeeper(home, "up")
    before = {p["name"]: p["pid"] for p in watchkeeper(home, "status")["processes"]}
    second = watchkeeper(home, "up")
    after = {p["name"]: p["pid"] for p in watchkeeper(home, "status")["processes"]}
    assert first == second
    assert {name: after[name] for name in before.keys() & after.keys()} == {
        name: before[name] for name in before.keys() & after.keys()
    }
    assert {"mlflow", "gateway", "rollout"} <= before.keys() & after.keys()
    watchkeeper(home, "down")
    assert running(home) == {}


ROW = {
    "type": ("BYTES", "L"),
    "air_temperature": ("FP64", 298.1),
    "process_temperature": ("FP64", 308.6),
    "rotational_speed": ("FP64", 1551.0),
    "torque": ("FP64", 42.8),
    "tool_wear": ("FP64", 0.0),
}


def test_a_prediction_is_explained_back_to_the_data_it_was_learned_from(home: Path) -> None:
    address = watchkeeper(home, "up")["v2"] + "/v2/models/ai4i-failure"
    until(lambda: watchkeeper(home, "status")["models"][0]["production"] == 1)
    inputs = [
        {"name": name, "shape": [1], "datatype": datatype, "data": [value]}
        for name, (datatype, value) in ROW.items()
    ]
    answer = post(f"{address}/infer", {"inputs": inputs})
    prediction = answer["parameters"]["prediction_id"]
    token = (home / "secrets/feedback-token").read_text()
    label = {"prediction_id": prediction, "row": 0, "value": 0}
    assert post(f"{address}/feedback", {"labels": [label]}, token) == {"accepted": 1}

    def explained() -> Any:
        done = subprocess.run(
            [WATCHKEEPER, "explain", prediction, "--json"],
            env={**os.environ, "WATCHKEEPER_HOME": str(home)},
            capture_output=True,
            timeout=60,
            check=False,
        )
        chain = json.loads(done.stdout) if done.returncode == 0 else None
        return chain if chain and chain["labels"] else None

    chain = until(explained, 20.0)
    assert chain["prediction"]["inputs"] == {name: [v] for name, (_, v) in ROW.items()}
    assert [label["value"] for label in chain["labels"]] == [0]
    assert chain["version"] == 1
    assert chain["training"]["details"]["run"] == chain["attempt"]["run"] == "ai4i-failure-v0-a1"
    assert chain["training"]["details"]["data"]["rows"] == 10_000
    assert chain["training"]["details"]["trigger"] == "first version"
    assert [step["kind"] for step in chain["steps"]] == ["promoted"]
