"""The system as a user runs it, for tests: the command line, and requests to its addresses."""

import json
import os
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
WATCHKEEPER = ROOT / "cli/.venv/bin/watchkeeper"
DEMO = ROOT / "demo/.venv/bin/python"


def running(home: Path) -> dict[int, float]:
    """All processes that were given anything in ``home``, by words or environment.

    Each pid with its start time; the process that asks is none of them.
    """
    found = {}
    for process in psutil.process_iter():
        try:
            given = [*process.cmdline(), *process.environ().values()]
            if process.pid != os.getpid() and any(str(home) in one for one in given):
                found[process.pid] = process.create_time()
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def watchkeeper(home: Path, *arguments: str, **settings: str) -> Any:
    """Run a command and return its JSON."""
    done = subprocess.run(
        [WATCHKEEPER, *arguments, "--json"],
        env={**os.environ, **settings, "WATCHKEEPER_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def models(home: Path) -> dict[str, Any]:
    """What `watchkeeper status` tells of each model."""
    return {model["name"]: model for model in watchkeeper(home, "status")["models"]}


def seed(home: Path, *names: str) -> None:
    """Fill the operational database."""
    subprocess.run(
        [DEMO, "-m", "watchkeeper.demo.seed", *names],
        env={**os.environ, "WATCHKEEPER_HOME": str(home)},
        check=True,
        timeout=120,
    )


def post(url: str, body: Any, token: str = "") -> Any:
    """Post JSON and return what comes back."""
    request = urllib.request.Request(  # noqa: S310
        url, json.dumps(body).encode(), {"Authorization": f"Bearer {token}"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        return json.loads(answer.read())
