"""The command: exit codes, error messages, and a run that is killed."""

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pumps
import pytest

from watchkeeper.core.exit_codes import EXIT_FATAL, EXIT_RETRY, EXIT_TERMINATED
from watchkeeper.core.names import CANDIDATE
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.events import history as events
from watchkeeper.registry import RUN_TAG, Registry
from watchkeeper.training import SearchInterruptedError, check_parameters, run
from watchkeeper.training.__main__ import main

TRAIN = ["pump-failure", "--run", "one", "--trigger", "a test", "--set", "search=off"]


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


def error_of(caplog: pytest.LogCaptureFixture, arguments: list[str]) -> str:
    assert main(arguments) == EXIT_FATAL
    (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    return record.getMessage()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["valve-failure", *TRAIN[1:]], "no model 'valve-failure' is declared; declared models: "),
        (
            ["contradiction", *TRAIN[1:]],
            "gate.floors name 'auc'; metrics of which higher is better are 'accuracy'",
        ),
        (
            [*TRAIN, "--set", "tree=9"],
            "has no parameter 'tree'; it has: onnx, search, seed, adopt, trees",
        ),
        ([*TRAIN, "--set", "trees=many"], "Expected `int`"),
        ([*TRAIN, "--set", "trees"], "expected name=value"),
        ([*TRAIN, "--run", "No Name"], "lower-case letters"),
        ([*TRAIN, "--episode", "none"], "the ledger has no such episode"),
    ],
)
@pytest.mark.usefixtures("environment")
def test_an_invalid_request_is_refused_with_the_reason(
    caplog: pytest.LogCaptureFixture,
    arguments: list[str],
    words: str,
) -> None:
    assert words in error_of(caplog, arguments)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("readings", "no such table: pump_readings"),
        ("pump_readings", "no such column: load"),
    ],
)
@pytest.mark.usefixtures("environment")
def test_a_database_that_refuses_the_query_is_named(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    table: str,
    words: str,
) -> None:
    url = pumps.database(tmp_path / "source.db", pumps.readings(200).drop(columns="load"), table)
    monkeypatch.setenv("WATCHKEEPER_SOURCE_URL", url)
    assert words in error_of(caplog, TRAIN)


@pytest.mark.usefixtures("environment")
def test_a_missing_database_is_an_error_and_is_not_created(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("WATCHKEEPER_SOURCE_URL", f"sqlite:///{tmp_path}/typo.db")
    assert "there is no such database" in error_of(caplog, TRAIN)
    assert not (tmp_path / "typo.db").exists()


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("name", ["WATCHKEEPER_SOURCE_URL", "MLFLOW_TRACKING_URI"])
def test_a_missing_variable_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    monkeypatch.delenv(name)
    assert f"{name} is not set" in error_of(caplog, TRAIN)


@pytest.mark.usefixtures("environment")
def test_an_unreachable_registry_can_be_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert main(TRAIN) == EXIT_RETRY


@pytest.mark.usefixtures("environment")
def test_a_search_that_has_lost_its_workers_can_be_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def lost(*_: object) -> None:
        raise SearchInterruptedError("search: workers were killed")

    monkeypatch.setattr(run, "search", lost)
    assert main(TRAIN) == EXIT_RETRY
    assert "search: workers were killed" in caplog.text


@pytest.mark.usefixtures("environment")
def test_an_unreachable_source_can_be_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    away = "postgresql+psycopg://user:hush@127.0.0.1:9/source"
    monkeypatch.setenv("WATCHKEEPER_SOURCE_URL", away)
    assert main(TRAIN) == EXIT_RETRY
    assert "cannot read the history of pump-failure" in caplog.text
    assert "hush" not in caplog.text


@pytest.mark.parametrize(
    ("by", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, EXIT_TERMINATED)]
)
def test_a_run_that_is_killed_and_started_again_makes_one_version(
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
    ours = [v for v in registry.versions("pump-failure") if v.tags[RUN_TAG] == name]
    assert [v.version for v in ours] == [registry.aliases("pump-failure")[CANDIDATE]]
    assert len(events(ledger, "pump-failure", version=ours[0].version)) == 1


def test_every_model_that_is_not_declared_is_named_before_any_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert check_parameters.main(["pump-failure"]) == 0
    assert check_parameters.main(["valve-leak", "pump-failure", "paint"]) == EXIT_FATAL
    first, second = (line.split(";") for line in capsys.readouterr().err.splitlines())
    assert (first[0], second[0]) == (
        "no model 'valve-leak' is declared",
        "no model 'paint' is declared",
    )
    assert "pump-failure" in first[1]
