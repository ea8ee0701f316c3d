"""`make traffic` at a gateway that asks for API keys: every sender shows one, or it says so."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select
from system import DEMO, models, seed, watchkeeper
from waiting import wait_for

from watchkeeper.demo.clients import KITS
from watchkeeper.demo.story import ROLLOUT_POLICY
from watchkeeper.ledger import Ledger, tables
from watchkeeper.ledger.observations import count_labels

MODEL, CLIENT, KEY = "ai4i-failure", "line 4", "0123456789abcdef"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A system that lets in one client."""
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
    arguments = [MODEL, "--rate", "40", "--duration", "12", "--label-delay", "1", "--keep-answers"]
    return subprocess.run(
        [DEMO, "-m", "watchkeeper.demo.traffic", *arguments],
        env={**os.environ, **settings, "WATCHKEEPER_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def test_without_the_key_it_is_told_which_setting_is_missing(home: Path) -> None:
    done = traffic(home)
    assert done.returncode == 1
    assert "asks for an API key (401): set WATCHKEEPER_API_KEY" in done.stderr
    assert "sending" not in done.stdout


def test_a_wrong_key_is_told_as_one(home: Path) -> None:
    done = traffic(home, WATCHKEEPER_API_KEY="fedcba9876543210")
    assert done.returncode == 1
    assert "does not know the API key that was given (401)" in done.stderr


def test_with_the_key_every_sender_is_let_in_and_labels_arrive(home: Path, tmp_path: Path) -> None:
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
        wait_for(lambda: count_labels(ledger, MODEL, since=0.0)[0])
        with ledger.read() as connection:
            named = set(connection.execute(select(tables.predictions.c.client)).scalars())
    finally:
        ledger.close()
    assert named == {CLIENT}, "the key's name, whatever a sender calls itself"
