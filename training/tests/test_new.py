"""``watchkeeper new``: a project that works at once, from a clean table and from a broken one."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from sqlalchemy import create_engine

from watchkeeper.core.projects import read_project, write_metadata
from watchkeeper.training.new.__main__ import main

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / ".venv/bin"


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def clean(rows: int) -> pd.DataFrame:
    random = np.random.default_rng(0)
    flow, heat = random.normal(50.0, 9.0, rows), random.normal(0.0, 1.0, rows)
    return pd.DataFrame(
        {
            "Flow [l/min]": flow.round(3),
            "heat": heat.round(4),
            "starts": random.integers(0, 400, rows),
            "site": random.choice(["north", "south"], rows),
            "failed": (flow / 9 + heat + random.normal(0, 0.5, rows) > 6.2).astype(int),
        }
    )


def broken(rows: int) -> pd.DataFrame:
    """Everything that tables of people have."""
    table = clean(rows).astype(object)
    table.loc[4, "heat"] = "err"
    table.loc[9, "heat"] = "err"
    table.loc[5, "heat"] = "inf"
    table.loc[6, "Flow [l/min]"] = ""
    table["starts"] = [f"{value}.0" for value in table["starts"]]
    table["unit"] = [f"P-{number % 97:04}" for number in range(rows)]
    table["serial no"] = [f"X{number:06}" for number in range(rows)]
    table["seen"] = [f"2026-01-{number % 28 + 1:02} 10:00:00" for number in range(rows)]
    table["plant"] = "Kiel"
    table["note"] = ""
    table["udi"] = range(1, rows + 1)
    table["failed"] = np.where(table["failed"] == 1, "yes", "no")
    return table


def written(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main([*arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    project = read_project(folder)
    variables = {"MYPY_CACHE_DIR": str(ROOT / ".mypy_cache")}  # it knows the libraries already
    write_metadata(project, folder.parent / "metadata")
    environment = {**os.environ, **project.environment(folder.parent / "metadata"), **variables}
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def assert_sound(folder: Path) -> None:
    """A project passes its own tests and the checks that its settings ask for."""
    for command in (
        (f"{TOOLS}/ruff", "check", "."),
        (f"{TOOLS}/ruff", "format", "--check", "--diff", "."),
        (f"{TOOLS}/mypy", "src", "tests"),
        (sys.executable, "-m", "pytest", "-q"),
    ):
        done = run(folder, *command)
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_clean_table_becomes_a_project_without_a_warning(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clean(400).to_csv("readings.csv", index=False)
    found = written(capsys, "pump-trial", "--from", "readings.csv", "--target", "failed")
    assert found["columns"] == ["flow", "heat", "starts", "site"]
    assert found["dropped"] == {}
    assert found["findings"] == [
        "1 column is renamed for requests, such as 'Flow [l/min]' to 'flow'"
    ]
    declaration = (workspace / "pump-trial/src/pump_trial/model.py").read_text()
    assert 'Column("flow", "FP64", unit="l/min", minimum=0.0, maximum=' in declaration
    assert 'Column("starts", "INT64", minimum=0.0, maximum=800.0)' in declaration
    assert 'Column("site", "BYTES", categories=("north", "south"))' in declaration
    assert_sound(workspace / "pump-trial")


def test_the_project_has_a_workflow_that_delivers_it(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clean(100).to_csv("readings.csv", index=False)
    written(capsys, "pump-trial", "--from", "readings.csv", "--target", "failed")
    text = (workspace / "pump-trial/.github/workflows/deliver.yaml").read_text()
    steps = yaml.safe_load(text)["jobs"]["deliver"]["steps"]
    assert all(
        re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", each["uses"]) for each in steps if "uses" in each
    )
    scripts = [each["run"] for each in steps if "run" in each]
    for script in scripts:
        assert "{{" not in script, "GitHub would insert the value into the text of the script"
        subprocess.run(["bash", "-n", "-c", script], check=True)
    assert 'models.pump-trial.training.image=$IMAGE"' in scripts[-2]
    assert 'watchkeeper wait pump-trial --code "$IMAGE"' in scripts[-1]


def test_what_is_unusual_is_reported_one_by_one_and_decided_in_the_declaration(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = broken(600).rename(columns={"note": " note "})
    table.to_csv("My readings.csv", index=False, encoding="utf-8-sig", sep=";")
    found = written(capsys, "pump-trial", "--from", "My readings.csv", "--target", "failed")
    assert found["columns"] == ["flow", "heat", "starts", "site"]
    assert found["findings"] == [
        "the file begins with a byte-order mark, which is left out",
        "1 header has spaces around it, which are left out, such as ' note '",
        "2 columns are renamed for requests, such as 'Flow [l/min]' to 'flow'",
        "column 'Flow [l/min]': empty: 1 cell, such as row 7; a missing value",
        "column 'heat': not a number: 2 cells, such as 'err' in row 5; a missing value",
        "column 'heat': infinite or too large: 1 cell, such as 'inf' in row 6; a missing value",
        f"column 'starts': integers written as floats: 600 cells, such as "
        f"{broken(600)['starts'][0]!r} in row 1",
        *(f"column {name!r} is dropped: {reason}" for name, reason in found["dropped"].items()),
    ]
    assert found["dropped"] == {
        "unit": "it is text with 97 different values; if it names what a row is about, such as a "
        "machine, add it to the query and declare split=Split(group='unit')",
        "serial no": "it is text with 600 different values, one for nearly every row",
        "seen": "it holds times; compute what matters of them, such as an age, in the query, or "
        "declare a TIMESTAMP and compute it in the features",
        "plant": "all its cells are 'Kiel'",
        "note": "all its cells are empty",
    }
    declaration = (workspace / "pump-trial/src/pump_trial/model.py").read_text()
    for line in (
        "udi,",
        """CASE WHEN "heat" IN ('err', 'inf') THEN NULL ELSE "heat" END AS heat""",
        """CASE "failed" WHEN 'yes' THEN 1 WHEN 'no' THEN 0 END AS failed""",
        "FROM my_readings",
        "# CHECK: 3 of 600 rows have no value, so a request may lack it, too. Without nullable,",
        "# CHECK: all are whole numbers, some written as 3.0; INT64 would refuse 3.5.",
        "# - plant: all its cells are 'Kiel'",
    ):
        assert line in declaration, line
    assert_sound(workspace / "pump-trial")


def test_a_table_of_a_database_becomes_a_project_without_its_password(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{workspace}/plant.db"
    table = clean(300).assign(id=range(1000, 1300))
    table.to_sql("pump readings", create_engine(url), index=False)
    found = written(
        capsys, "pump-trial", "--source", url, "--table", "pump readings", "--target", "failed"
    )
    assert found["rows"] == 300
    declaration = (workspace / "pump-trial/src/pump_trial/model.py").read_text()
    assert 'FROM "pump readings"' in declaration
    assert 'id="id"' in declaration
    assert read_project(workspace / "pump-trial").source == url
    assert_sound(workspace / "pump-trial")


def of_task(rows: int, task: str) -> pd.DataFrame:
    table = clean(rows)
    load = table["Flow [l/min]"] / 9 + table["heat"]
    if task == "regression":
        return table.assign(failed=(1000.0 - 100 * load).round(1))
    states = np.digitize(load, [5.0, 6.0])
    names = {"text": np.array(["ok", "worn", "very worn"], dtype=object), "numbers": np.arange(3)}
    return table.assign(failed=names[task][states])


@pytest.mark.parametrize(
    ("task", "lines"),
    [
        (
            "text",
            (
                '"failed_class",',
                'classes=("ok", "very worn", "worn"),',
                'gate=Gate(floors={"balanced_accuracy": 0.43}),',
            ),
        ),
        (
            "numbers",
            ('classes=("0", "1", "2"),', "# CHECK: the numbers of failed are names of classes;"),
        ),
        (
            "regression",
            (
                '"predicted_failed",',
                'task="regression",',
                "interval=0.9,",
                "from sklearn.ensemble import RandomForestRegressor",
                'gate=Gate(floors={"r2": 0.2}),',
            ),
        ),
    ],
)
def test_the_truth_decides_the_task(
    workspace: Path, capsys: pytest.CaptureFixture[str], task: str, lines: tuple[str, ...]
) -> None:
    of_task(600, task).to_csv("readings.csv", index=False)
    written(capsys, "pump-trial", "--from", "readings.csv", "--target", "failed")
    declaration = (workspace / "pump-trial/src/pump_trial/model.py").read_text()
    for line in lines:
        assert line in declaration, declaration
    assert_sound(workspace / "pump-trial")


def test_a_table_without_a_truth_becomes_a_model_that_finds_unusual_rows(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = clean(400).drop(columns="failed")
    table.loc[4, "heat"] = np.nan
    table.to_csv("readings.csv", index=False)
    found = written(capsys, "pump-trial", "--from", "readings.csv")
    assert found["columns"] == ["flow", "heat", "starts", "site"]
    declaration = (workspace / "pump-trial/src/pump_trial/model.py").read_text()
    for line in (
        'heads=(Head("normality", features=features, estimator=isolation),),',
        'gate=Gate(max_label_rate={"unusual": 0.1}),',
        "    unusual: Annotated[float, msgspec.Meta(gt=0, le=0.5)] = 0.02",
        "contamination=parameters.unusual,",
        "from watchkeeper.core.answer import AnswerPolicy, Label\n",
    ):
        assert line in declaration, declaration
    assert_sound(workspace / "pump-trial")


def test_several_truths_make_heads_and_texts_may_be_true_false_or_rare(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = of_task(800, "regression").rename(columns={"failed": "life"})
    table["failed"] = clean(800)["failed"]
    table["state"] = of_task(800, "text")["failed"]
    table["stopped"] = np.where(table["failed"] == 1, "no", "yes")
    table["covered"] = np.where(table["starts"] % 3 == 0, "True", "False")
    table["cleaned"] = np.where(table["starts"] % 2 == 0, "true", "false")
    table.loc[3, "cleaned"] = ""
    vendors = np.array([f"vendor {number % 3}" for number in range(800)], dtype=object)
    vendors[::20] = [f"small vendor {number}" for number in range(40)]
    table["vendor"] = vendors
    table.to_csv("readings.csv", index=False)
    truths = ("failed", "life", "state", "stopped")
    options = [word for name in truths for word in ("--target", name)]
    found = written(capsys, "pump-trial", "--from", "readings.csv", *options)
    assert not {*truths} & {*found["columns"]}
    declaration = (workspace / "pump-trial/src/pump_trial/model.py").read_text()
    for line in (
        'Head("failed_probability", features=features, estimator=classifier, label="failed"),',
        '"predicted_life",',
        '"state_class",',
        '"state_class.balanced_accuracy": 0.43,',
        'Label("stopped", "stopped_probability", threshold=0.499),',
        'risk=Risk("failed_probability",',
        "CASE \"covered\" WHEN 'False' THEN 0 WHEN 'True' THEN 1 END AS covered,",
        'Column("covered", "BOOL"),',
        'Column("cleaned", "FP64", minimum=0.0, maximum=1.0, nullable=True),',
        "# CHECK: 40 more texts are rare.",
        'categories=("vendor 0", "vendor 1", "vendor 2"), unseen="accept"',
    ):
        assert line in declaration, declaration
    assert_sound(workspace / "pump-trial")


TABLES = {
    "no target": (clean(200), "flaw", "--target flaw: the table has no such column; its columns"),
    "few rows": (clean(20), "failed", "the table has 20 rows; 60 are the least"),
    "one outcome": (clean(200).assign(failed=0), "failed", "and this column has '0'; name another"),
    "a rare class": (
        clean(200).assign(failed=["a", "b", "c", *"ab" * 98, "a"]),
        "failed",
        "class 'c' has 1 rows, and a class needs 20; join it with another one",
    ),
    "texts": (
        clean(200).assign(failed=[f"n{number}" for number in range(200)]),
        "failed",
        "this column has 'n0', 'n1', 'n2', 'n3', 'n4' and 195 more; name another column",
    ),
    "no columns": (clean(200)[["failed"]], "failed", "no column is left for a request"),
}


@pytest.mark.parametrize("what", TABLES)
def test_a_table_without_a_model_in_it_is_refused_and_nothing_is_written(
    workspace: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    table, target, message = TABLES[what]
    table.to_csv("readings.csv", index=False)
    assert main(["pump-trial", "--from", "readings.csv", "--target", target]) == 2
    assert message in capsys.readouterr().err
    assert not (workspace / "pump-trial").exists()


def test_a_folder_that_exists_is_never_overwritten(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clean(200).to_csv("readings.csv", index=False)
    (workspace / "pump-trial").mkdir()
    assert main(["pump-trial", "--from", "readings.csv", "--target", "failed"]) == 2
    assert "pump-trial: it exists already" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "message"), [("Pump", "lower-case"), ("random", "would hide")])
def test_a_name_that_cannot_be_used_is_refused(
    workspace: Path, capsys: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    clean(200).to_csv("readings.csv", index=False)
    assert main([name, "--from", "readings.csv", "--target", "failed"]) == 2
    assert message in capsys.readouterr().err
    assert list(workspace.iterdir()) == [workspace / "readings.csv"]


def test_a_column_may_have_the_name_of_a_word_of_sql(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clean(80).rename(columns={"starts": "order"}).to_csv("rows.csv", index=False)
    assert main(["ordered-pump", "--from", "rows.csv", "--target", "failed"]) == 0
    capsys.readouterr()
    declaration = (workspace / "ordered-pump/src/ordered_pump/model.py").read_text()
    assert '\n    "order",\n' in declaration
