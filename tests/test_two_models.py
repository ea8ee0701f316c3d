"""Two models in one local system: requests, drift and promotion of one do not affect the other."""

import json
import os
import re
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc as triton
from metric_names import exported_metrics
from sample_requests import sample_row
from system import PYTHON, ROOT, WATCHKEEPER, models, post, processes_of, seed, watchkeeper
from tritonclient.utils import InferenceServerException
from waiting import wait_for

from watchkeeper.core.prediction_id import request_of
from watchkeeper.demo.clients import tensors
from watchkeeper.demo.fast_policies import DRIFT_POLICY, QUEUE_SECONDS, ROLLOUT_POLICY
from watchkeeper.demo.offline_comparison import read_answers
from watchkeeper.demo.plants import find, simulated
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.counts import count_reports
from watchkeeper.ledger.lookup import find_prediction
from watchkeeper.ledger.observations import observations
from watchkeeper.training.models import find as find_declaration

# Requests without a host go to FIRST. SECOND drifts.
FIRST, *_, SECOND = simulated()
SUBJECT = "machine 7"
SETTINGS = {
    "WATCHKEEPER_DRIFT_POLICY": json.dumps(DRIFT_POLICY),
    "WATCHKEEPER_ROLLOUT_POLICY": json.dumps(ROLLOUT_POLICY),
    "WATCHKEEPER_TURN_SECONDS": "0.5",
    "WATCHKEEPER_QUEUE_SECONDS": QUEUE_SECONDS,
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The home of one system for all tests of this file, in their order."""
    folder = tmp_path_factory.mktemp("two") / "home"
    seed(folder, FIRST, SECOND)
    yield folder
    watchkeeper(folder, "down")


@pytest.fixture(scope="module")
def address(home: Path) -> str:
    """The URL of the gateway, with both models in production."""
    found: str = watchkeeper(home, "up", FIRST, SECOND, **SETTINGS)["v2"]
    wait_for(lambda: all(model["production"] == 1 for model in models(home).values()), 400.0)
    return found


def test_a_second_up_changes_nothing(home: Path, address: str) -> None:
    before = {p["name"]: p["pid"] for p in watchkeeper(home, "status")["processes"]}
    again = watchkeeper(home, "up", FIRST, SECOND, **SETTINGS)
    after = {p["name"]: p["pid"] for p in watchkeeper(home, "status")["processes"]}
    assert again["v2"] == address
    assert {name: after[name] for name in before.keys() & after.keys()} == {
        name: before[name] for name in before.keys() & after.keys()
    }
    servers = {f"server.{FIRST}-v1", f"server.{SECOND}-v1"}
    assert {"mlflow", "gateway", "rollout", *servers} <= before.keys() & after.keys()


@pytest.mark.parametrize("model", [FIRST, SECOND])
def test_http_reaches_each_model_by_its_path(address: str, model: str) -> None:
    answer = infer(address, model)
    assert answer["model_name"] == model
    declared = find_declaration(model).signature.outputs
    assert [output["name"] for output in answer["outputs"]] == [each.name for each in declared]


def test_grpc_selects_the_model_by_host_and_without_one_the_first(
    address: str,
) -> None:
    def answering_model(model: str, *options: tuple[str, str]) -> str:
        with triton.InferenceServerClient(
            address.removeprefix("http://"), channel_args=options
        ) as client:
            inputs = tensors(triton.InferInput, find(model).columns, sample_row(model))
            found: str = client.infer(model, inputs, client_timeout=30).get_response().model_name
            return found

    assert answering_model(FIRST) == FIRST
    for model in (FIRST, SECOND):
        assert answering_model(model, ("grpc.default_authority", model)) == model
    with pytest.raises(InferenceServerException, match="the host names the model"):
        answering_model(SECOND)


def test_explain_leads_from_a_prediction_to_its_training_data(home: Path, address: str) -> None:
    prediction = infer(address, FIRST)["parameters"]["prediction_id"]
    token = (home / "secrets/feedback-token").read_text()
    label = {"prediction_id": prediction, "row": 0, "value": 0}
    response = post(f"{address}/v2/models/{FIRST}/feedback", {"labels": [label]}, token)
    assert response == {"accepted": 1}

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

    chain = wait_for(explained, 60.0)
    assert chain["prediction"]["inputs"] == {n: [v] for n, v in sample_row(FIRST).items()}
    assert chain["prediction"]["subject"] == SUBJECT
    assert [label["value"] for label in chain["labels"]] == [0]
    assert chain["version"] == 1
    assert chain["training"]["details"]["run"] == chain["attempt"]["run"] == f"{FIRST}-v0-a1"
    assert chain["training"]["details"]["data"]["rows"] == count_history(home, FIRST)
    assert chain["training"]["details"]["trigger"] == "first version"
    assert [step["kind"] for step in chain["steps"]] == ["promoted", "watched"]


def test_predictions_are_in_a_view_of_each_model(home: Path, address: str) -> None:
    prediction = infer(address, FIRST)["parameters"]["prediction_id"]
    ledger = Ledger(f"sqlite:///{home / 'ledger.db'}")
    wait_for(lambda: find_prediction(ledger, request_of(prediction)), 60.0)
    ledger.close()
    for model in (FIRST, SECOND):
        printed = watchkeeper(home, "data", "views", model)
        assert printed["created"] is False
        watchkeeper(home, "data", "views", model, "--create")
    with sqlite3.connect(home / "ledger.db") as connection:
        connection.row_factory = sqlite3.Row
        view = FIRST.replace("-", "_") + "_predictions"
        query = f"SELECT * FROM {view} WHERE id = ?"  # noqa: S608
        (row,) = connection.execute(query, [request_of(prediction)]).fetchall()
    connection.close()
    assert sample_row(FIRST).items() <= dict(row).items()
    assert (row["version"], row["alias"], row["subject"]) == (1, "production", SUBJECT)
    assert {each.name for each in find_declaration(FIRST).signature.outputs} <= set(row.keys())


@pytest.mark.nightly
def test_drift_of_one_model_does_not_affect_the_other(home: Path, address: str) -> None:  # noqa: ARG001
    ledger = Ledger(f"sqlite:///{home / 'ledger.db'}")
    before = models(home)[FIRST]
    with subprocess.Popen(
        traffic("--rate", "100", "--label-delay", "2", "--keep-answers"),
        env={**os.environ, "WATCHKEEPER_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as senders:
        try:
            for model in (FIRST, SECOND):
                wait_for(lambda m=model: count_reports(ledger, m, 1, drifted=False) >= 2, 240.0)
            subprocess.run(
                traffic(SECOND, "--switch", find(SECOND).drift),
                env={**os.environ, "WATCHKEEPER_HOME": str(home)},
                check=True,
                timeout=60,
            )
            wait_for(lambda: models(home)[SECOND]["production"] == 2, 400.0)
        finally:
            senders.send_signal(signal.SIGINT)
            output, _ = senders.communicate(timeout=120)
    assert senders.returncode == 0, output

    episodes = models(home)[SECOND]["episodes"]
    assert [(episode["model"], episode["version"]) for episode in episodes] == [(SECOND, 1)]
    after = models(home)[FIRST]
    assert after == before, "versions, weights, runs and episodes have not changed"
    for model, versions in ((FIRST, {1}), (SECOND, {1, 2})):
        assert stored_versions(home, ledger, model) == versions
    ledger.close()


def test_alerts_and_dashboard_use_metrics_that_exist(home: Path, address: str) -> None:  # noqa: ARG001
    chart = ROOT / "charts/watchkeeper"
    used = {
        re.sub("_(bucket|count|sum)$", "", name)
        for file in ("rules/watchkeeper.yaml", "dashboards/watchkeeper.json")
        for name in re.findall(r"\bwatchkeeper_[a-z_]+", (chart / file).read_text())
    }
    assert len(used) > 10
    assert used - exported_metrics(home) == set()


def test_down_stops_every_process(home: Path) -> None:
    watchkeeper(home, "down")
    assert processes_of(home) == {}


def infer(address: str, model: str) -> Any:
    """Send a JSON request without a host of the model, as curl does."""
    inputs = [
        {"name": name, "shape": [1], "datatype": datatype, "data": [sample_row(model)[name]]}
        for name, datatype in find(model).columns
    ]
    body = {"inputs": inputs, "parameters": {"subject": SUBJECT}}
    return post(f"{address}/v2/models/{model}/infer", body)


def traffic(*arguments: str) -> list[str]:
    """Return the command that sends requests."""
    return [str(PYTHON), "-m", "watchkeeper.demo.traffic", *arguments]


def count_history(home: Path, model: str) -> int:
    """Count the rows that the query of a model's declaration returns."""
    query = find_declaration(model).source.query
    with sqlite3.connect(home / "operational.db") as connection:
        ((rows,),) = connection.execute(f"SELECT count(*) FROM ({query})")  # noqa: S608
    return int(rows)


def stored_versions(home: Path, ledger: Ledger, model: str) -> set[int]:
    """Check that the ledger has every answer of a model once; return the versions that answered."""
    answers = read_answers((home / "traffic" / model).glob("answers-*.jsonl"))
    answered = {request_of(answer.prediction): answer.version for answer in answers}
    assert len(answered) == len(answers) > 0
    versions = set(answered.values())

    def all_stored() -> dict[str, int] | None:
        stored = {
            observation.id: observation.version
            for version in versions
            for observation in observations(ledger, model, version, since=0.0)
            if observation.id in answered
        }
        return stored if len(stored) == len(answered) else None

    assert wait_for(all_stored, 60.0) == answered
    for request in list(answered)[::50]:
        found = find_prediction(ledger, request)
        assert found
        assert found.prediction.subject
    return versions
