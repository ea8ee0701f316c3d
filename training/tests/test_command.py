"""The command as a user meets it: exit codes, one clear sentence, and a kill in the middle."""

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import milling
import pandas as pd
import pytest

from watchkeeper.contracts.exits import ENDED, GIVE_UP, TRY_AGAIN
from watchkeeper.contracts.names import CANDIDATE
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.events import history as events
from watchkeeper.registry import RUN_TAG, Registry
from watchkeeper.training.__main__ import main

TRAIN = ["ai4i-failure", "--run", "one", "--trigger", "a test", "--set", "search=off"]


@pytest.fixture
def environment(
    monkeypatch: pytest.MonkeyPatch, registry: Registry, ledger: Ledger, history: str
) -> dict[str, str]:
    variables = {
        "MLFLOW_TRACKING_URI": registry.client.tracking_uri,
        "WATCHKEEPER_SOURCE_URL": history,
        "WATCHKEEPER_LEDGER_URL": str(ledger.engine.url),
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


def complaint(caplog: pytest.LogCaptureFixture, arguments: list[str]) -> str:
    assert main(arguments) == GIVE_UP
    (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    return record.getMessage()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pump-failure", *TRAIN[1:]], "no model 'pump-failure' is declared; there is: ai4i"),
        ([*TRAIN, "--set", "tree=9"], "has no parameter 'tree'; it has: onnx, search, seed, trees"),
        ([*TRAIN, "--set", "trees=many"], "Expected `int`"),
        ([*TRAIN, "--set", "trees"], "expected name=value"),
        ([*TRAIN, "--run", "No Name"], "lower-case letters"),
        ([*TRAIN, "--episode", "none"], "the ledger knows no such episode"),
    ],
)
@pytest.mark.usefixtures("environment")
def test_an_order_that_cannot_be_carried_out_says_why(
    caplog: pytest.LogCaptureFixture,
    arguments: list[str],
    words: str,
) -> None:
    assert words in complaint(caplog, arguments)


def tables() -> dict[str, tuple[pd.DataFrame, str, str]]:
    table = milling.pieces(200)
    return {
        "no table": (table, "readings", "no such table: machine_readings"),
        "no rows": (table[:0], "machine_readings", "returns no rows"),
        "no column": (table.drop(columns="torque"), "machine_readings", "no such column: torque"),
        "one outcome": (
            table.assign(machine_failure=0),
            "machine_readings",
            "one outcome only in 200 rows (0)",
        ),
        "strange category": (
            table.assign(type="X"),
            "machine_readings",
            "column 'type' holds 'X'; the declaration lists L, M, H",
        ),
        "text for a number": (
            table.assign(torque="much"),
            "machine_readings",
            "column 'torque' is not numeric",
        ),
        "other outcomes": (
            table.assign(machine_failure=range(200)),
            "machine_readings",
            "must be 0 or 1",
        ),
        "an id twice": (table.assign(id=1), "machine_readings", "once for each row"),
        "too few": (table[:40], "machine_readings", "too few"),
    }


@pytest.mark.parametrize("what", tables())
@pytest.mark.usefixtures("environment")
def test_data_that_cannot_be_trained_on_is_told_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    what: str,
) -> None:
    table, name, words = tables()[what]
    url = milling.database(tmp_path / "plant.db", table, name)
    monkeypatch.setenv("WATCHKEEPER_SOURCE_URL", url)
    assert words in complaint(caplog, TRAIN)


@pytest.mark.usefixtures("environment")
def test_a_database_that_is_not_there_is_told_and_not_made(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("WATCHKEEPER_SOURCE_URL", f"sqlite:///{tmp_path}/typo.db")
    assert "there is no such database" in complaint(caplog, TRAIN)
    assert not (tmp_path / "typo.db").exists()


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("name", ["WATCHKEEPER_SOURCE_URL", "MLFLOW_TRACKING_URI"])
def test_a_variable_that_is_not_set_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    monkeypatch.delenv(name)
    assert f"{name} is not set" in complaint(caplog, TRAIN)


@pytest.mark.usefixtures("environment")
def test_a_registry_that_does_not_answer_is_no_fault_of_the_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert main(TRAIN) == TRY_AGAIN


@pytest.mark.usefixtures("environment")
def test_a_source_that_does_not_answer_is_no_fault_of_the_order(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    away = "postgresql+psycopg://user:hush@127.0.0.1:9/plant"
    monkeypatch.setenv("WATCHKEEPER_SOURCE_URL", away)
    assert main(TRAIN) == TRY_AGAIN
    assert "cannot read the history of ai4i-failure" in caplog.text
    assert "hush" not in caplog.text


@pytest.mark.parametrize(
    ("by", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, ENDED)]
)
def test_the_command_ended_in_the_middle_and_started_again_makes_one_version(
    environment: dict[str, str],
    registry: Registry,
    ledger: Ledger,
    by: signal.Signals,
    code: int,
) -> None:
    command = [sys.executable, "-m", "watchkeeper.training", *TRAIN, "--set", "trees=20"]
    name = f"ended-by-{by.name.lower()}"
    command[command.index("one")] = name
    settings = {**os.environ, **environment}
    with subprocess.Popen(command, env=settings, stderr=subprocess.PIPE, text=True) as victim:
        assert victim.stderr is not None
        for line in victim.stderr:
            if "logged MLflow run" in line:
                victim.send_signal(by)
    assert victim.returncode == code
    done = subprocess.run(
        command, env=settings, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    ours = [v for v in registry.versions("ai4i-failure") if v.tags[RUN_TAG] == name]
    assert [v.version for v in ours] == [registry.aliases("ai4i-failure")[CANDIDATE]]
    assert len(events(ledger, "ai4i-failure", version=ours[0].version)) == 1
