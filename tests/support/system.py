"""The local system, started and used through the command line as a user does."""

import json
import os
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
WATCHKEEPER = ROOT / ".venv/bin/watchkeeper"
PYTHON = ROOT / ".venv/bin/python"


def processes_of(home: Path) -> dict[int, float]:
    """Return the processes with ``home`` in their arguments or environment, except this one.

    Returns:
        The start time of each process, in seconds since 1970, by pid.
    """
    found = {}
    for process in psutil.process_iter():
        try:
            texts = [*process.cmdline(), *process.environ().values()]
            if process.pid != os.getpid() and any(str(home) in text for text in texts):
                found[process.pid] = process.create_time()
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def watchkeeper(home: Path, *arguments: str, **settings: str) -> Any:
    """Run a `watchkeeper` command, and return its JSON output.

    Args:
        home: the home of the system.
        arguments: the command.
        settings: environment variables.
    """
    done = subprocess.run(
        [WATCHKEEPER, *arguments, "--json"],
        env={**os.environ, **settings, "WATCHKEEPER_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def models(home: Path) -> dict[str, Any]:
    """Return the models in the output of `watchkeeper status`, by name."""
    return {model["name"]: model for model in watchkeeper(home, "status")["models"]}


def seed(home: Path, *names: str) -> None:
    """Fill the operational database with the history of the models' plants."""
    subprocess.run(
        [PYTHON, "-m", "watchkeeper.demo.seed", *names],
        env={**os.environ, "WATCHKEEPER_HOME": str(home)},
        check=True,
        timeout=600,
    )


def post(url: str, body: Any, token: str = "") -> Any:
    """Post JSON with a bearer token, and return the JSON of the response."""
    request = urllib.request.Request(  # noqa: S310
        url, json.dumps(body).encode(), {"Authorization": f"Bearer {token}"}
    )
    with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
        return json.loads(response.read())
