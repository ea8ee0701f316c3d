"""Models of a number, of a class and a number, and of nothing: served, drifted, replaced."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fast_loop import FAST_LOOP
from system import WATCHKEEPER, models, post, watchkeeper
from waiting import wait_for

LIFE, HEALTH, UNUSUAL = "bearing-life", "bearing-health", "bearing-unusual"
SCORES = {"state": "state_class", "life": "predicted_life"}
# A version that knows both halls is worse on the old rows than the usual margin allows.
MARGINS = {"state": 0.1, "life": 0.5}
TRUTHS = {LIFE: ("life",), HEALTH: ("state", "life"), UNUSUAL: ()}
# What a user changes in a project of one truth, so that it has a second one.
SECOND_TRUTH = {
    "from sklearn.ensemble import RandomForestClassifier\n": (
        "from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor\n"
    ),
    "    state\nFROM": "    state,\n    life\nFROM",
    "MODEL = Model(": (
        "def life_forest(parameters: ForestParameters) -> RandomForestRegressor:\n"
        '    """Return the estimator of the remaining life."""\n'
        "    return RandomForestRegressor(\n"
        "        n_estimators=parameters.trees, min_samples_leaf=5, random_state=parameters.seed\n"
        "    )\n\n\nMODEL = Model("
    ),
    "        ),\n    ),\n": (
        "        ),\n"
        '        Head("predicted_life", features, life_forest, label="life", task="regression", '
        "interval=0.9),\n"
        "    ),\n"
    ),
}
NAMES = ("vibration", "temperature", "hours")
ROWS_OF_A_REQUEST = 20


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
    """Sends rows and their labels, as the users of the models do."""

    def __init__(self, home: Path, address: str) -> None:
        self.home, self.address = home, address
        self.token = (home / "secrets/feedback-token").read_text()
        self.seed = 100

    def send(self, *, hot: bool) -> None:
        """Send a request to each model, and its labels if it has any: by name if of several."""
        for model, truths in TRUTHS.items():
            self.seed += 1
            rows = readings(ROWS_OF_A_REQUEST, self.seed, hot=hot)
            prediction = self.ask(model, rows)["parameters"]["prediction_id"]
            if not truths:
                continue
            labels = [
                {"prediction_id": prediction, "row": row}
                | ({"labels": values} if len(truths) > 1 else {"value": values[truths[0]]})
                for row, values in enumerate(rows[list(truths)].to_dict("records"))
            ]
            url = f"{self.address}/v2/models/{model}/feedback"
            assert post(url, {"labels": labels}, self.token) == {
                "accepted": ROWS_OF_A_REQUEST * len(truths)
            }

    def ask(self, model: str, rows: pd.DataFrame) -> Any:
        inputs = [
            {"name": name, "datatype": "FP64", "shape": [len(rows)], "data": rows[name].tolist()}
            for name in NAMES
        ]
        return post(f"{self.address}/v2/models/{model}/infer", {"inputs": inputs})


def edit(project: Path, changes: dict[str, str]) -> None:
    """Replace texts in the declaration of a project."""
    (declaration,) = project.glob("src/*/model.py")
    text = declaration.read_text()
    for before, after in changes.items():
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    declaration.write_text(text)


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    """All models in production, from one CSV file each."""
    folder = tmp_path_factory.mktemp("tasks")
    home = folder / "home"
    table = readings(2500, 1)
    for model, truths in TRUTHS.items():
        table[[*NAMES, *truths[:1]]].to_csv(folder / f"{model}.csv", index=False)
        target = [word for truth in truths[:1] for word in ("--target", truth)]
        subprocess.run(
            [WATCHKEEPER, "new", model, "--from", f"{model}.csv", *target],
            cwd=folder,
            check=True,
            timeout=300,
        )
    (file,) = (folder / HEALTH).glob("*.csv")
    table.to_csv(file, index=False)
    edit(folder / HEALTH, SECOND_TRUTH)
    for model, truths in TRUTHS.items():
        if not truths:
            continue
        margins = {SCORES[truth]: MARGINS[truth] for truth in truths}
        edit(folder / model, {"gate=Gate(": f"gate=Gate(margin={margins}, "})
    try:
        projects = [str(folder / model) for model in TRUTHS]
        address = watchkeeper(home, "up", *projects, **FAST_LOOP)["v2"]
        wait_for(lambda: all(model["production"] == 1 for model in models(home).values()), 400.0)
        yield Clients(home, address)
    finally:
        watchkeeper(home, "down")


def outputs(answer: Any) -> dict[str, list[Any]]:
    return {output["name"]: output["data"] for output in answer["outputs"]}


def test_the_class_with_the_largest_score_is_the_answer(clients: Clients) -> None:
    rows = readings(200, 7)
    answered = outputs(clients.ask(HEALTH, rows))
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
        (HEALTH, {"value": "lost"}, "a label must be one of the classes"),
        (HEALTH, {"value": 7}, "a label must be one of the classes"),
        (LIFE, {"value": "long"}, "a label must be a finite number"),
        (HEALTH, {"labels": {"state": "ok", "life": "long"}}, "a label must be a finite number"),
        (HEALTH, {"labels": {"age": 3}}, "unknown label 'age'; this model has 'state', 'life'"),
        (UNUSUAL, {"value": 1}, "model 'bearing-unusual' has no labels"),
    ],
)
def test_a_label_that_the_task_does_not_have_is_refused(
    clients: Clients, model: str, label: dict[str, object], rule: str
) -> None:
    prediction = clients.ask(model, readings(1, 9))["parameters"]["prediction_id"]
    body = json.dumps({"labels": [{"prediction_id": prediction, "row": 0, **label}]})
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


def test_explain_shows_the_labels_of_each_truth(clients: Clients) -> None:
    prediction = clients.ask(HEALTH, readings(1, 10))["parameters"]["prediction_id"]
    url = f"{clients.address}/v2/models/{HEALTH}/feedback"
    values = {"state": "worn", "life": 4321.5}
    label = {"prediction_id": prediction, "row": 0, "labels": values}
    assert post(url, {"labels": [label]}, clients.token) == {"accepted": 2}

    def shown() -> dict[str, float]:
        labels = watchkeeper(clients.home, "explain", prediction)["labels"]
        return {label["name"]: label["value"] for label in labels}

    wait_for(lambda: shown() == {"state": 2.0, "life": 4321.5})


def share_of_unusual(clients: Clients) -> float:
    answered = outputs(clients.ask(UNUSUAL, readings(300, 12, hot=True)))
    return float(np.mean(answered["unusual"]))


def test_a_drift_leads_to_a_better_version_in_production(clients: Clients) -> None:
    assert share_of_unusual(clients) > 0.2, "the first version does not know a hot hall"
    for _ in range(30):
        clients.send(hot=False)

    def replaced() -> bool:
        for _ in range(25):  # a canary needs hundreds of requests, and a look at the status is slow
            clients.send(hot=True)
        return all(model["production"] >= 2 for model in models(clients.home).values())

    wait_for(replaced, 900.0)
    events = [
        event
        for model in TRUTHS
        for event in watchkeeper(clients.home, "history", "--model", model)
    ]
    kinds = {(event["model"], event["kind"]) for event in events}
    for model in TRUTHS:
        assert {(model, kind) for kind in ("gate-passed", "episode", "promoted")} <= kinds
    rows = readings(300, 11, hot=True)
    for model in (LIFE, HEALTH):
        answered = outputs(clients.ask(model, rows))
        error = np.abs(np.array(answered["predicted_life"]) - rows["life"]).mean()
        assert error < 600.0, model
    assert share_of_unusual(clients) < 0.1
