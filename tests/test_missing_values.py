"""A table with empty cells: a model from it, answers, a drift of what is missing, a new version."""

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
from system import PYTHON, WATCHKEEPER, models, post, watchkeeper
from waiting import wait_for

MODEL, TRUTH = "valve-failure", "failed"
COLUMNS = {"pressure": "FP64", "noise": "FP64", "cycles": "FP64", "maker": "BYTES"}
ROWS_OF_A_REQUEST = 20


def readings(rows: int, seed: int, *, worn: bool = False) -> pd.DataFrame:
    """Make readings of valves; ``worn`` sensors of the noise seldom have a value."""
    random = np.random.default_rng(seed)
    pressure, cycles = random.normal(6.0, 1.5, rows), random.integers(0, 9000, rows)
    maker = random.choice(["north", "south", "west"], rows)
    noise = 2.0 + cycles / 3000.0 + random.normal(0.0, 0.3, rows)
    risk = cycles / 3000.0 + (maker == "west") + pressure / (2.0 if worn else 9.0)
    gaps = {"pressure": 0.1, "noise": 0.75 if worn else 0.1, "cycles": 0.1, "maker": 0.15}
    table = pd.DataFrame(
        {
            "pressure": pressure.round(3),
            "noise": noise.round(4),
            "cycles": pd.array(cycles, dtype="Int64"),
            "maker": maker,
            TRUTH: (risk + random.normal(0.0, 0.2, rows) > (5.0 if worn else 3.0)).astype(int),
        }
    )
    for name, share in gaps.items():
        table[name] = table[name].mask(random.random(rows) < share)
    return table


def columns_of(table: pd.DataFrame) -> dict[str, list[Any]]:
    """The values of requests, with null where a value is missing."""
    return {
        name: [None if pd.isna(value) else value for value in table[name].tolist()]
        for name in COLUMNS
    }


class User:
    """Sends rows and their labels."""

    def __init__(self, home: Path, endpoints: dict[str, Any]) -> None:
        self.home, self.address, self.mlflow = home, endpoints["v2"], endpoints["mlflow"]
        self.token = (home / "secrets/feedback-token").read_text()
        self.seed = 100

    def ask(self, columns: dict[str, list[Any]]) -> Any:
        inputs = [
            {"name": name, "datatype": datatype, "shape": [len(values)], "data": values}
            for (name, datatype), values in zip(COLUMNS.items(), columns.values(), strict=True)
        ]
        return post(f"{self.address}/v2/models/{MODEL}/infer", {"inputs": inputs})

    def send(self, *, worn: bool) -> None:
        """Send two requests, and their labels at once; see test_tasks.py for the number."""
        labels: list[dict[str, Any]] = []
        for _ in range(2):
            self.seed += 1
            table = readings(ROWS_OF_A_REQUEST, self.seed, worn=worn)
            prediction = self.ask(columns_of(table))["parameters"]["prediction_id"]
            labels += [
                {"prediction_id": prediction, "row": row, "value": value}
                for row, value in enumerate(table[TRUTH].tolist())
            ]
        post(f"{self.address}/v2/models/{MODEL}/feedback", {"labels": labels}, self.token)

    def offline(self, version: int, columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """The answer of the library that has fitted a version, from its files in MLflow."""
        asked, answered = self.home / "asked.json", self.home / "answered.json"
        asked.write_text(json.dumps({version: columns}))
        subprocess.run(
            [PYTHON, "-m", "watchkeeper.training.offline", MODEL, asked, answered],
            env={**os.environ, "MLFLOW_TRACKING_URI": self.mlflow},
            check=True,
            timeout=300,
        )
        found: dict[str, list[Any]] = json.loads(answered.read_text())[str(version)]
        return found


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    """A model in production, from a CSV file with empty cells and without an edit."""
    folder = tmp_path_factory.mktemp("missing")
    home = folder / "home"
    readings(2500, 1).to_csv(folder / "readings.csv", index=False)
    command = [WATCHKEEPER, "new", MODEL, "--from", "readings.csv", "--target", TRUTH]
    subprocess.run(command, cwd=folder, check=True, timeout=300)
    try:
        endpoints = watchkeeper(home, "up", str(folder / MODEL), **FAST_LOOP)
        wait_for(lambda: models(home)[MODEL]["production"] == 1, 400.0)
        yield User(home, endpoints)
    finally:
        watchkeeper(home, "down")


def assert_answers_of_the_library(user: User, version: int, table: pd.DataFrame) -> None:
    columns = columns_of(table)
    reply = user.ask(columns)
    assert reply["model_version"] == str(version)
    answered = {output["name"]: output["data"] for output in reply["outputs"]}
    expected = user.offline(version, columns)
    assert answered.keys() == expected.keys()
    for name, values in expected.items():
        if isinstance(values[0], float):
            assert answered[name] == pytest.approx(values, abs=1e-6)
        else:
            assert answered[name] == values


def test_rows_with_missing_values_have_the_answer_of_the_library(user: User) -> None:
    table = readings(300, 7)
    assert table[list(COLUMNS)].isna().any(axis=1).mean() > 0.3
    assert_answers_of_the_library(user, 1, table)


def test_a_row_without_any_value_has_an_answer(user: User) -> None:
    table = readings(2, 8)
    table[list(COLUMNS)] = None
    assert_answers_of_the_library(user, 1, table)


@pytest.mark.parametrize("form", ["--curl", "--python"])
def test_a_sample_of_the_model_works(user: User, form: str) -> None:
    text = subprocess.run(
        [WATCHKEEPER, "sample", MODEL, form],
        env={**os.environ, "WATCHKEEPER_HOME": str(user.home)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout
    program = ["sh", "-c"] if form == "--curl" else [PYTHON, "-c"]
    done = subprocess.run([*program, text], capture_output=True, text=True, check=True, timeout=120)
    assert "failed_probability" in done.stdout


@pytest.mark.nightly
def test_more_missing_values_are_a_drift_that_leads_to_a_new_version(user: User) -> None:
    for _ in range(30):
        user.send(worn=False)

    def replaced() -> bool:
        for _ in range(5):
            user.send(worn=True)
        return bool(models(user.home)[MODEL]["production"] >= 2)

    wait_for(replaced, 1500.0)
    events = watchkeeper(user.home, "history", "--model", MODEL)
    assert {"gate-passed", "episode", "promoted"} <= {event["kind"] for event in events}
    assert any("noise: missing" in json.dumps(e) for e in events if e["kind"] == "episode")
    version = models(user.home)[MODEL]["production"]
    assert_answers_of_the_library(user, version, readings(200, 9, worn=True))
