"""`make traffic` at a gateway that requires API keys."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from system import PYTHON, models, seed, watchkeeper
from waiting import wait_for

from watchkeeper.demo.clients import KITS
from watchkeeper.demo.fast_policies import ROLLOUT_POLICY
from watchkeeper.demo.plants import simulated
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.counts import count_labelled_rows, stored_requests
from watchkeeper.ledger.lookup import find_prediction

MODEL = simulated()[0]
CLIENT, KEY = "line 4", "0123456789abcdef"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The home of a system that accepts one client."""
    folder = tmp_path_factory.mktemp("keys") / "home"
    keys = folder.with_name("keys.json")
    keys.write_text(json.dumps({CLIENT: KEY}))
    seed(folder, MODEL)
    settings = {
        "WATCHKEEPER_API_KEYS_FILE": str(keys),
        "WATCHKEEPER_ROLLOUT_POLICY": json.dumps(ROLLOUT_POLICY),
        "WATCHKEEPER_TURN_SECONDS": "0.5",
    }
    try:
        watchkeeper(folder, "up", MODEL, **settings)
        wait_for(lambda: models(folder)[MODEL]["production"] == 1, 400.0)
        yield folder
    finally:
        watchkeeper(folder, "down")


def traffic(home: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Send requests for twelve seconds."""
    arguments = [MODEL, "--rate", "40", "--duration", "12", "--label-delay", "1", "--keep-answers"]
    return subprocess.run(
        [PYTHON, "-m", "watchkeeper.demo.traffic", *arguments],
        env={**os.environ, **settings, "WATCHKEEPER_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def test_without_a_key_the_error_names_the_setting(home: Path) -> None:
    done = traffic(home)
    assert done.returncode == 1
    assert "needs an API key (401); set WATCHKEEPER_API_KEY" in done.stderr
    assert "sending" not in done.stdout


def test_a_wrong_key_is_an_error(home: Path) -> None:
    done = traffic(home, WATCHKEEPER_API_KEY="fedcba9876543210")
    assert done.returncode == 1
    assert "does not accept this API key (401)" in done.stderr


def test_with_the_key_all_requests_and_labels_are_accepted(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    done = traffic(home, WATCHKEEPER_API_KEY_FILE=str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    clients = set()
    folder = home / "traffic" / MODEL
    for kit in KITS:
        answers = (folder / f"answers-{kit}.jsonl").read_bytes().splitlines()
        clients |= {json.loads(line)[1] for line in answers}
    assert clients == {"tritonclient-http", "tritonclient-grpc", "kserve-rest", "kserve-grpc"}
    ledger = Ledger(watchkeeper(home, "status")["endpoints"]["ledger"])
    try:
        wait_for(lambda: count_labelled_rows(ledger, MODEL, since=0.0)[0])
        stored = stored_requests(ledger, MODEL)
        found = [
            find_prediction(ledger, request)
            for request in set().union(*stored.answered.values(), stored.refused)
        ]
    finally:
        ledger.close()
    names = {each.prediction.client for each in found if each}
    assert names == {CLIENT}, "the name of the key, and not that of the sender"
