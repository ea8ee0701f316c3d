"""Models of classes and of numbers, made from tables: served, labelled, drifted, replaced."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from system import WATCHKEEPER, models, post, watchkeeper
from waiting import wait_for

from watchkeeper.demo.fast_policies import DRIFT_POLICY, QUEUE_SECONDS, ROLLOUT_POLICY

STATE, LIFE = "bearing-state", "bearing-life"
TRUTH = {STATE: "state", LIFE: "life"}
NAMES = ("vibration", "temperature", "hours")
ROWS_OF_A_REQUEST = 20
SETTINGS = {
    "WATCHKEEPER_DRIFT_POLICY": json.dumps({**DRIFT_POLICY, "minimum_positives": 20}),
    "WATCHKEEPER_ROLLOUT_POLICY": json.dumps(ROLLOUT_POLICY),
    "WATCHKEEPER_TURN_SECONDS": "0.5",
    "WATCHKEEPER_QUEUE_SECONDS": QUEUE_SECONDS,
}


def readings(rows: int, seed: int, *, hot: bool = False) -> pd.DataFrame:
    """Make readings of bearings; in a hot hall they wear faster."""
    random = np.random.default_rng(seed)
    hours = random.uniform(0.0, 8000.0, rows)
    temperature = random.normal(345.0 if hot else 320.0, 6.0, rows)
    wear = hours * (1.6 if hot else 1.0)
    vibration = 1.0 + wear / 3000.0 + random.normal(0.0, 0.2, rows)
    table = {"vibration": vibration, "temperature": temperature, "hours": hours}
    state = np.digitize(wear + random.normal(0.0, 200.0, rows), [4500.0, 7500.0])
    return pd.DataFrame(
        {
            **{name: values.round(4) for name, values in table.items()},
            "state": np.array(["ok", "worn", "broken"], dtype=object)[state],
            "life": (9000.0 - wear + random.normal(0.0, 100.0, rows)).round(1),
        }
    )


class Clients:
    """Sends rows and their labels, as the users of both models do."""

    def __init__(self, home: Path, address: str) -> None:
        self.home, self.address = home, address
        self.token = (home / "secrets/feedback-token").read_text()
        self.seed = 100

    def send(self, *, hot: bool) -> None:
        """Send two requests to each model, and their labels at once.

        The gateway gives exactly every tenth request to a canary of 10 %. With one request before
        each call with labels, all of its tenth ones could be labels.
        """
        for model, truth in TRUTH.items():
            labels: list[dict[str, Any]] = []
            for _ in range(2):
                self.seed += 1
                rows = readings(ROWS_OF_A_REQUEST, self.seed, hot=hot)
                prediction = self.ask(model, rows)["parameters"]["prediction_id"]
                labels += [
                    {"prediction_id": prediction, "row": row, "value": value}
                    for row, value in enumerate(rows[truth].tolist())
                ]
            url = f"{self.address}/v2/models/{model}/feedback"
            assert post(url, {"labels": labels}, self.token) == {"accepted": len(labels)}

    def ask(self, model: str, rows: pd.DataFrame) -> Any:
        inputs = [
            {"name": name, "datatype": "FP64", "shape": [len(rows)], "data": rows[name].tolist()}
            for name in NAMES
        ]
        return post(f"{self.address}/v2/models/{model}/infer", {"inputs": inputs})


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    """Both models in production, from one CSV file each."""
    folder = tmp_path_factory.mktemp("tasks")
    home = folder / "home"
    table = readings(2500, 1)
    for model, truth in TRUTH.items():
        table[[*NAMES, truth]].to_csv(folder / f"{truth}.csv", index=False)
        subprocess.run(
            [WATCHKEEPER, "new", model, "--from", f"{truth}.csv", "--target", truth],
            cwd=folder,
            check=True,
            timeout=300,
        )
    try:
        projects = [str(folder / model) for model in TRUTH]
        address = watchkeeper(home, "up", *projects, **SETTINGS)["v2"]
        wait_for(lambda: all(model["production"] == 1 for model in models(home).values()), 400.0)
        yield Clients(home, address)
    finally:
        watchkeeper(home, "down")


def outputs(answer: Any) -> dict[str, list[Any]]:
    return {output["name"]: output["data"] for output in answer["outputs"]}


def test_the_class_with_the_largest_score_is_the_answer(clients: Clients) -> None:
    rows = readings(200, 7)
    answered = outputs(clients.ask(STATE, rows))
    classes = ("broken", "ok", "worn")
    scores = np.array([answered[f"state_class_{name}"] for name in classes])
    assert scores.sum(axis=0) == pytest.approx(np.ones(200))
    assert answered["state_class"] == [classes[place] for place in scores.argmax(axis=0)]
    assert (np.array(answered["state_class"]) == rows["state"]).mean() > 0.8


def test_the_interval_of_a_number_contains_most_of_the_truth(clients: Clients) -> None:
    rows = readings(400, 8)
    answered = {name: np.array(values) for name, values in outputs(clients.ask(LIFE, rows)).items()}
    assert list(answered) == ["predicted_life", "predicted_life_low", "predicted_life_high"]
    inside = (answered["predicted_life_low"] <= rows["life"]) & (
        rows["life"] <= answered["predicted_life_high"]
    )
    assert 0.8 <= inside.mean() <= 0.98


@pytest.mark.parametrize(
    ("model", "label", "rule"),
    [
        (STATE, "lost", "a label must be one of the classes"),
        (STATE, 7, "a label must be one of the classes"),
        (LIFE, "long", "a label must be a finite number"),
    ],
)
def test_a_label_that_the_task_does_not_have_is_refused(
    clients: Clients, model: str, label: object, rule: str
) -> None:
    prediction = clients.ask(model, readings(1, 9))["parameters"]["prediction_id"]
    body = json.dumps({"labels": [{"prediction_id": prediction, "row": 0, "value": label}]})
    done = subprocess.run(
        ["curl", "-s", "-w", "%{http_code}", "-d", body, "-H",
         f"Authorization: Bearer {clients.token}",
         f"{clients.address}/v2/models/{model}/feedback"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=os.environ,
    )  # fmt: skip
    assert done.stdout.endswith("400")
    assert rule in done.stdout


def test_a_drift_leads_to_a_better_version_in_production(clients: Clients) -> None:
    for _ in range(30):
        clients.send(hot=False)

    def replaced() -> bool:
        for _ in range(5):
            clients.send(hot=True)
        return all(model["production"] >= 2 for model in models(clients.home).values())

    wait_for(replaced, 900.0)
    events = [
        event for model in TRUTH for event in watchkeeper(clients.home, "history", "--model", model)
    ]
    kinds = {(event["model"], event["kind"]) for event in events}
    for model in TRUTH:
        assert {(model, kind) for kind in ("gate-passed", "episode", "promoted")} <= kinds
    rows = readings(300, 11, hot=True)
    answered = outputs(clients.ask(LIFE, rows))
    error = np.abs(np.array(answered["predicted_life"]) - rows["life"]).mean()
    assert error < 600.0
