"""The page on one's own model, word by word: from a table to a right answer without an edit."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from system import ROOT, models, watchkeeper
from waiting import wait_for

PAGE = ROOT / "docs/how-to/your-own-model.md"
MODEL, ROWS, SECONDS = "pump-failure", 400, 300.0
KEY = "0123456789abcdef"


def commands() -> list[str]:
    """Return the commands of the page, in order."""
    return re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def readings() -> pd.DataFrame:
    random = np.random.default_rng(3)
    flow, vibration = random.normal(80.0, 12.0, ROWS), random.gamma(4.0, 1.0, ROWS)
    wear = random.uniform(0.0, 1.0, ROWS)
    risk = vibration - flow / 20.0 + 3.0 * wear + random.normal(0.0, 0.7, ROWS)
    table = {"flow": flow, "vibration": vibration, "wear": wear}
    numbers = {name: values.round(4) for name, values in table.items()}
    return pd.DataFrame({**numbers, "failed": (risk > 2.5).astype(int)})


class User:
    """A user in a folder with the table, and the environment on the path."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "home"
        readings().to_csv(folder / "readings.csv", index=False)

    def run(self, command: str, **variables: str) -> str:
        path = f"{ROOT}/.venv/bin:{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=self.folder,
            env={**os.environ, "WATCHKEEPER_HOME": str(self.home), "PATH": path, **variables},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    found = User(tmp_path_factory.mktemp("user"))
    try:
        yield found
    finally:
        watchkeeper(found.home, "down")


@pytest.fixture(scope="module")
def answers(user: User) -> dict[str, str]:
    """The output of each command of the page, within five minutes."""
    start, found = time.monotonic(), {}
    for command in commands():
        if "sample" in command and "sample" not in "".join(found):
            wait_for(lambda: models(user.home)[MODEL]["production"] == 1, 400.0)
        found[command.strip()] = user.run(command)
    busy = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))  # other programs need time, too
    assert time.monotonic() - start < SECONDS * busy
    return found


def outputs(sample: str) -> dict[str, str]:
    """Return the answer that the first lines of a sample promise."""
    (promised,) = re.findall(r"^# Version 1 of pump-failure answers: (.*)$", sample, re.MULTILINE)
    return dict(text.rsplit(" ", 1) for text in promised.split(", "))


def answered(response: str) -> dict[str, Any]:
    return {each["name"]: each["data"][0] for each in json.loads(response)["outputs"]}


def assert_promised(sample: str, given: dict[str, Any]) -> None:
    promised = outputs(sample)
    assert promised.keys() == given.keys()
    for name, value in given.items():
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        assert promised[name] == shown


def test_a_table_leads_to_a_right_answer_in_less_than_five_minutes(answers: dict[str, str]) -> None:
    new, check, _, status, sample, response = answers.values()
    assert "a model with 3 columns, from 400 rows" in new
    assert "pump-failure can be trained and served" in check
    assert "pump-failure" in status
    assert_promised(sample, answered(response))


@pytest.mark.usefixtures("answers")
@pytest.mark.parametrize("form", ["--python", "--grpc"])
def test_the_other_samples_work_word_for_word(user: User, form: str) -> None:
    text = user.run(f"watchkeeper sample {MODEL} {form}")
    (user.folder / "ask.py").write_text(text)
    lines = user.run(f"{sys.executable} ask.py").splitlines()
    given = {name: value.removeprefix("b").strip("'") for name, value in map(str.split, lines)}
    promised = outputs(text)
    assert promised.keys() == given.keys()
    assert float(given["failed_probability"]) == pytest.approx(
        float(promised["failed_probability"]), rel=1e-3, abs=1e-4
    )
    assert given["risk_level"] == promised["risk_level"]


@pytest.mark.usefixtures("answers")
def test_a_second_up_adopts_the_project_by_itself(user: User) -> None:
    user.run("cd / && watchkeeper up")
    assert list(models(user.home)) == [MODEL]
    assert models(user.home)[MODEL]["production"] == 1


@pytest.mark.usefixtures("answers")
def test_a_defect_ends_a_run_once_with_a_sentence_that_names_the_field(user: User) -> None:
    declaration = user.folder / "pump-failure/src/pump_failure/model.py"
    before = declaration.read_text()
    declaration.write_text(before.replace("failed\nFROM", "failed AS broke\nFROM"))
    try:
        name = watchkeeper(user.home, "train", MODEL)["run"]
        wait_for(lambda: models(user.home)[MODEL]["runs"][name] == "failed", 120.0)
    finally:
        declaration.write_text(before)
    status = models(user.home)[MODEL]
    sentence = "history of pump-failure: the source's query must return column 'failed' once"
    assert status["reasons"][name].startswith(sentence)
    assert Path(status["logs"][name]).read_text().count("ERROR") == 1, "it was not tried again"
    shown = user.run("watchkeeper status")
    assert sentence in shown
    assert status["logs"][name] in shown

    def reported() -> list[str]:
        events = watchkeeper(user.home, "history")
        return [each["reason"] for each in events if each["kind"] == "run-failed"]

    wait_for(reported, 60.0)
    assert reported()[0].startswith(sentence)


@pytest.mark.usefixtures("answers")
@pytest.mark.parametrize("form", ["--curl", "--python", "--grpc"])
def test_samples_have_a_place_for_the_key_if_clients_need_one(user: User, form: str) -> None:
    (user.folder / "keys.json").write_text(json.dumps({"line 4": KEY}))
    user.run("watchkeeper up", WATCHKEEPER_API_KEYS_FILE=str(user.folder / "keys.json"))
    text = user.run(f"watchkeeper sample {MODEL} {form}")
    assert KEY not in text
    (user.folder / "ask").write_text(text)
    command = "sh ask" if form == "--curl" else f"{sys.executable} ask"
    assert "risk_level" in user.run(command, WATCHKEEPER_API_KEY=KEY)


@pytest.mark.usefixtures("answers")
def test_the_rows_that_the_version_was_trained_on_are_restored_and_nothing_is_replaced(
    user: User,
) -> None:
    file = user.folder / "pump-failure-v1.parquet"
    for _ in range(2):
        said = user.run("watchkeeper data pull pump-failure 1")
        assert said.startswith(f"{file.name}: {ROWS} rows, verified by SHA-256 ")
    restored = pd.read_parquet(file)[list(readings().columns)]
    pd.testing.assert_frame_equal(restored, readings(), check_dtype=False)
    file.write_bytes(b"other")
    said = user.run("watchkeeper data pull pump-failure 1 2>&1 || true")
    assert (
        said == f"watchkeeper: {file.name} exists with other content; name another file with --to\n"
    )
    assert file.read_bytes() == b"other"
