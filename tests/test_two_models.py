"""Two models side by side in one system: up, asked, watched and promoted each for itself, down."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc as triton
from rows import ROWS
from sqlalchemy import select
from system import DEMO, ROOT, WATCHKEEPER, models, post, running, seed, watchkeeper
from told_metrics import told_metrics
from tritonclient.utils import InferenceServerException
from waiting import wait_for

from watchkeeper.contracts.prediction_id import request_of
from watchkeeper.demo.checking import read_answers
from watchkeeper.demo.clients import tensors
from watchkeeper.demo.ledger import count_reports
from watchkeeper.demo.story import DRIFT_POLICY, QUEUE_SECONDS, ROLLOUT_POLICY
from watchkeeper.demo.worlds import find
from watchkeeper.ledger import Ledger
from watchkeeper.ledger import tables as t

MACHINES, VEHICLES = "ai4i-failure", "warranty-risk"
OUTPUTS = {
    MACHINES: ["failure_probability", "failure", "risk_level"],
    VEHICLES: ["warranty_probability", "anomaly_flag", "risk_level"],
}
SETTINGS = {
    "WATCHKEEPER_DRIFT_POLICY": json.dumps(DRIFT_POLICY),
    "WATCHKEEPER_ROLLOUT_POLICY": json.dumps(ROLLOUT_POLICY),
    "WATCHKEEPER_TURN_SECONDS": "0.5",
    "WATCHKEEPER_QUEUE_SECONDS": QUEUE_SECONDS,
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One system for all tests here, in their order."""
    folder = tmp_path_factory.mktemp("two") / "home"
    seed(folder, MACHINES, VEHICLES)
    yield folder
    watchkeeper(folder, "down")


@pytest.fixture(scope="module")
def address(home: Path) -> str:
    """The V2 port of the system, both models in production."""
    found: str = watchkeeper(home, "up", MACHINES, VEHICLES, **SETTINGS)["v2"]
    wait_for(lambda: all(model["production"] == 1 for model in models(home).values()), 400.0)
    return found


def test_a_second_up_changes_nothing(home: Path, address: str) -> None:
    before = {p["name"]: p["pid"] for p in watchkeeper(home, "status")["processes"]}
    again = watchkeeper(home, "up", MACHINES, VEHICLES, **SETTINGS)
    after = {p["name"]: p["pid"] for p in watchkeeper(home, "status")["processes"]}
    assert again["v2"] == address
    assert {name: after[name] for name in before.keys() & after.keys()} == {
        name: before[name] for name in before.keys() & after.keys()
    }
    servers = {f"server.{MACHINES}-v1", f"server.{VEHICLES}-v1"}
    assert {"mlflow", "gateway", "rollout", *servers} <= before.keys() & after.keys()


@pytest.mark.parametrize("model", [MACHINES, VEHICLES])
def test_http_reaches_each_model_by_its_path(address: str, model: str) -> None:
    answer = infer(address, model)
    assert answer["model_name"] == model
    assert [output["name"] for output in answer["outputs"]] == OUTPUTS[model]


def test_grpc_reaches_each_model_by_its_host_and_the_first_one_without(address: str) -> None:
    def asked(model: str, *options: tuple[str, str]) -> str:
        with triton.InferenceServerClient(
            address.removeprefix("http://"), channel_args=options
        ) as client:
            inputs = tensors(triton.InferInput, find(model).columns, ROWS[model])
            found: str = client.infer(model, inputs, client_timeout=30).get_response().model_name
            return found

    assert asked(MACHINES) == MACHINES
    for model in (MACHINES, VEHICLES):
        assert asked(model, ("grpc.default_authority", model)) == model
    with pytest.raises(InferenceServerException, match="the host names the model"):
        asked(VEHICLES)


def test_a_prediction_is_explained_back_to_the_data_it_was_learned_from(
    home: Path, address: str
) -> None:
    prediction = infer(address, MACHINES)["parameters"]["prediction_id"]
    token = (home / "secrets/feedback-token").read_text()
    label = {"prediction_id": prediction, "row": 0, "value": 0}
    told = post(f"{address}/v2/models/{MACHINES}/feedback", {"labels": [label]}, token)
    assert told == {"accepted": 1}

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
    assert chain["prediction"]["inputs"] == {n: [v] for n, v in ROWS[MACHINES].items()}
    assert chain["prediction"]["subject"] == "M14860"
    assert [label["value"] for label in chain["labels"]] == [0]
    assert chain["version"] == 1
    assert chain["training"]["details"]["run"] == chain["attempt"]["run"] == "ai4i-failure-v0-a1"
    assert chain["training"]["details"]["data"]["rows"] == 10_000
    assert chain["training"]["details"]["trigger"] == "first version"
    assert [step["kind"] for step in chain["steps"]] == ["promoted", "watched"]


def test_drift_in_one_model_is_of_no_concern_to_the_other(home: Path, address: str) -> None:  # noqa: ARG001
    ledger = Ledger(f"sqlite:///{home / 'ledger.db'}")
    before = models(home)[MACHINES]
    with subprocess.Popen(
        traffic("--rate", "100", "--label-delay", "2", "--keep-answers"),
        env={**os.environ, "WATCHKEEPER_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as senders:
        try:
            for model in (MACHINES, VEHICLES):
                wait_for(lambda m=model: count_reports(ledger, m, 1, drifted=False) >= 2, 240.0)
            subprocess.run(
                traffic(VEHICLES, "--switch", "new-platform"),
                env={**os.environ, "WATCHKEEPER_HOME": str(home)},
                check=True,
                timeout=60,
            )
            wait_for(lambda: models(home)[VEHICLES]["production"] == 2, 400.0)
        finally:
            senders.send_signal(signal.SIGINT)
            said, _ = senders.communicate(timeout=120)
    assert senders.returncode == 0, said

    episodes = models(home)[VEHICLES]["episodes"]
    assert [(episode["model"], episode["version"]) for episode in episodes] == [(VEHICLES, 1)]
    after = models(home)[MACHINES]
    assert after == before, "its versions, shares, runs and episodes are as they were"
    for model, versions in ((MACHINES, {1}), (VEHICLES, {1, 2})):
        assert answered_and_kept(home, ledger, model) == versions
    ledger.close()


def test_alerts_and_dashboard_ask_for_metrics_that_there_are(home: Path, address: str) -> None:  # noqa: ARG001
    chart = ROOT / "charts/watchkeeper"
    asked = {
        re.sub("_(bucket|count|sum)$", "", name)
        for file in ("rules/watchkeeper.yaml", "dashboards/watchkeeper.json")
        for name in re.findall(r"\bwatchkeeper_[a-z_]+", (chart / file).read_text())
    }
    assert len(asked) > 10
    assert asked - told_metrics(home) == set()


def test_down_leaves_nothing(home: Path) -> None:
    watchkeeper(home, "down")
    assert running(home) == {}


def infer(address: str, model: str) -> Any:
    """Ask as curl would: JSON, and no host but the address."""
    inputs = [
        {"name": name, "shape": [1], "datatype": datatype, "data": [ROWS[model][name]]}
        for name, datatype in find(model).columns
    ]
    body = {"inputs": inputs, "parameters": {"subject": "M14860"}}
    return post(f"{address}/v2/models/{model}/infer", body)


def traffic(*arguments: str) -> list[str]:
    """The command that sends requests."""
    return [str(DEMO), "-m", "watchkeeper.demo.traffic", *arguments]


def answered_and_kept(home: Path, ledger: Ledger, model: str) -> set[int]:
    """Check that the ledger has all answers of a model once, as such; return their versions."""
    answers = read_answers((home / "traffic" / model).glob("answers-*.jsonl"))
    given = {request_of(answer.prediction): answer.version for answer in answers}
    assert len(given) == len(answers) > 0
    query = select(t.predictions.c.id, t.predictions.c.version, t.predictions.c.subject).where(
        t.predictions.c.model == model
    )

    def kept() -> dict[str, int] | None:
        with ledger.read() as connection:
            rows = connection.execute(query).all()
        found = {row.id: row.version for row in rows if row.id in given}
        assert all(row.subject for row in rows if row.id in given)
        return found if len(found) == len(given) else None

    assert wait_for(kept, 60.0) == given
    return set(given.values())
