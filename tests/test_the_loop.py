"""The whole system as a user runs it: `make chaos`, and up and down again."""

import json
import os
import subprocess
from collections.abc import Iterator
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
