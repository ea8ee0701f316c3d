"""Models whose estimators come from a function of their package, or from versions of MLflow.

All run in the local system, from their folders, as a user has them.
"""

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow.onnx
import mlflow.sklearn
import mlflow.xgboost
import numpy as np
import pandas as pd
import pytest
import xgboost
from foreign_versions import customers, register
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from system import models, post, watchkeeper
from waiting import wait_for

from watchkeeper.demo.fast_policies import QUEUE_SECONDS, ROLLOUT_POLICY

OWN, ADOPTING, EACH, CODE = "churn-own", "churn", "churn-each", "churn-code"
NAMES = ("age", "calls")
SETTINGS = {
    "WATCHKEEPER_ROLLOUT_POLICY": json.dumps(ROLLOUT_POLICY),
    "WATCHKEEPER_TURN_SECONDS": "0.5",
    "WATCHKEEPER_QUEUE_SECONDS": QUEUE_SECONDS,
}
PROJECT = """
[project]
name = "{name}"
version = "0.1.0"

[project.entry-points."watchkeeper.models"]
{name} = "{module}:MODEL"

[tool.watchkeeper]
source = "customers.csv"
{more}
"""
DECLARATION = """
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from watchkeeper.core.answer import AnswerPolicy, Label
from watchkeeper.core.signature import Column
from watchkeeper.training.declaration import Adopt, Gate, Head, Model, Source
from watchkeeper.training.training_data import TrainingData


def fit(data: TrainingData):
    made = make_pipeline(StandardScaler(), LogisticRegression(random_state=data.parameters.seed))
    return made.fit(data.columns, data.target, logisticregression__sample_weight=data.weight)


MODEL = Model(
    name="{name}",
    source=Source("SELECT row_id, age, calls, gone FROM customers", id="row_id"),
    columns=(Column("age", "FP64", minimum=0.0, maximum=120.0), Column("calls", "FP64")),
    heads=(Head("leaves", label="gone", {origin}),),
    gate=Gate(floors={{"roc_auc": 0.7}}),
    answer=AnswerPolicy(labels=(Label("warn", "leaves", threshold=0.5),)),
)
"""


RULE = """
from pathlib import Path

import mlflow
import numpy as np


class Rule(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        self.weight = float(Path(context.artifacts["weight"]).read_text())

    def predict(self, context, model_input, params=None):
        return 1.0 / (1.0 + np.exp(1.0 - model_input["calls"] + model_input["age"] * self.weight))


mlflow.models.set_model(Rule())
"""


def project(folder: Path, name: str, origin: str, more: str = "") -> str:
    """Write a model's folder as its owner does."""
    place, module = folder / name, name.replace("-", "_")
    place.mkdir()
    customers(900, 1).to_csv(place / "customers.csv", index=False)
    (place / f"{module}.py").write_text(DECLARATION.format(name=name, origin=origin))
    (place / "pyproject.toml").write_text(PROJECT.format(name=name, module=module, more=more))
    return str(place)


class Local:
    """The running system: its home, its gateway, its folders."""

    def __init__(self, home: Path, address: str, projects: list[str]) -> None:
        self.home, self.address, self.projects = home, address, projects

    def ask(self, model: str, rows: pd.DataFrame) -> np.ndarray[Any, Any]:
        inputs = [
            {"name": name, "datatype": "FP64", "shape": [len(rows)], "data": rows[name].tolist()}
            for name in NAMES
        ]
        answer = post(f"{self.address}/v2/models/{model}/infer", {"inputs": inputs})
        outputs = {output["name"]: output["data"] for output in answer["outputs"]}
        return np.array(outputs["leaves"])

    def ended(self, run: str) -> dict[str, Any]:
        """Wait for the end of a run of the adopting model, and return the model's status."""
        wait_for(lambda: models(self.home)[ADOPTING]["runs"][run] != "running", 300.0)
        found: dict[str, Any] = models(self.home)[ADOPTING]
        return found


pytestmark = pytest.mark.nightly


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    folder = tmp_path_factory.mktemp("owners")
    home = folder / "home"
    projects = [
        project(folder, OWN, "train=fit"),
        project(
            folder,
            ADOPTING,
            'adopt=Adopt("churn", trust="pickle")',
            f'adopt.{ADOPTING} = {{model = "churn", when = "hand"}}',
        ),
        project(
            folder,
            EACH,
            f'adopt=Adopt("{EACH}", when="each")',
            f'adopt.{EACH} = {{model = "{EACH}", when = "each"}}',
        ),
        project(
            folder,
            CODE,
            f'adopt=Adopt("{CODE}", when="each")',
            f'adopt.{CODE} = {{model = "{CODE}", when = "each"}}\ntrusted_code = true',
        ),
    ]
    try:
        found = watchkeeper(home, "up", *projects, **SETTINGS)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MLFLOW_TRACKING_URI", found["mlflow"])
            yield Local(home, found["v2"], projects)
    finally:
        watchkeeper(home, "down")


def test_a_model_with_its_own_function_is_checked_trained_and_served(local: Local) -> None:
    assert watchkeeper(local.home, "check", local.projects[0])["gate"]["passed"]
    wait_for(lambda: models(local.home)[OWN]["production"] == 1, 300.0)
    table, rows = customers(900, 1), customers(50, 2)
    near = make_pipeline(StandardScaler(), LogisticRegression()).fit(table[[*NAMES]], table["gone"])
    answered = local.ask(OWN, rows)
    assert answered == pytest.approx(near.predict_proba(rows[[*NAMES]])[:, 1], abs=0.1)


def logged(module: Any, model: Any, name: str = "churn", **how: Any) -> str:
    return register(module, name, model, pip_requirements=["scikit-learn"], **how)


def test_versions_of_mlflow_become_versions_that_serve(local: Local) -> None:
    table, rows = customers(900, 1), customers(50, 2)
    x, y = table[[*NAMES]], table["gone"]
    forest = RandomForestClassifier(30, min_samples_leaf=5, random_state=0).fit(x, y)
    boosted = xgboost.XGBClassifier(n_estimators=20, max_depth=3, n_jobs=1).fit(x, y)
    line = make_pipeline(StandardScaler(), LogisticRegression()).fit(x.to_numpy(), y)
    graph = to_onnx(
        line,
        initial_types=[("features", FloatTensorType([None, 2]))],
        options={id(line): {"zipmap": False}},
    )
    given = [
        (forest, mlflow.sklearn, forest, {"skops_trusted_types": ["sklearn.tree._tree.Tree"]}),
        (forest, mlflow.sklearn, forest, {"serialization_format": "cloudpickle"}),
        (boosted, mlflow.xgboost, boosted, {}),
        (line, mlflow.onnx, graph, {}),
    ]
    served: set[int] = set()
    for expected, module, model, how in given:
        run = watchkeeper(local.home, "adopt", logged(module, model, **how), "--model", ADOPTING)
        status = local.ended(run["run"])
        assert status["runs"][run["run"]] == "succeeded", status["reasons"]
        if not served:
            wait_for(lambda: models(local.home)[ADOPTING]["production"], 300.0)
        else:
            wait_for(lambda: models(local.home)[ADOPTING]["candidate"], 60.0)
            watchkeeper(local.home, "promote", ADOPTING)
            wait_for(lambda: models(local.home)[ADOPTING]["production"] not in served, 300.0)
        served.add(models(local.home)[ADOPTING]["production"])
        values = rows[[*NAMES]] if hasattr(expected, "feature_names_in_") else rows[[*NAMES]].values
        probabilities = expected.predict_proba(values)[:, 1]
        assert local.ask(ADOPTING, rows) == pytest.approx(probabilities, abs=1e-6)
    assert len(served) == len(given)


def test_a_version_that_is_not_there_starts_no_run(local: Local) -> None:
    table = customers(900, 1)
    uri = logged(mlflow.sklearn, LogisticRegression().fit(table[[*NAMES]], table["gone"]))
    before = models(local.home)[ADOPTING]["runs"]
    with pytest.raises(AssertionError, match="models:/churn/999"):
        watchkeeper(local.home, "adopt", "models:/churn/999", "--model", ADOPTING)
    with pytest.raises(AssertionError, match="no head of churn-own adopts a version"):
        watchkeeper(local.home, "adopt", uri, "--model", OWN)
    assert models(local.home)[ADOPTING]["runs"] == before


def test_every_new_version_is_adopted_where_the_project_says_so(local: Local) -> None:
    assert not models(local.home)[EACH]["runs"], "there is nothing to adopt yet"
    table, rows = customers(900, 1), customers(50, 2)
    x, y = table[[*NAMES]], table["gone"]
    line = make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y)
    uri = logged(mlflow.sklearn, line, EACH)
    wait_for(lambda: models(local.home)[EACH]["production"], 300.0)
    probabilities = line.predict_proba(rows[[*NAMES]])[:, 1]
    assert local.ask(EACH, rows) == pytest.approx(probabilities, abs=1e-6)
    (run,) = models(local.home)[EACH]["runs"]
    assert run.startswith(f"{EACH}-adopt-")
    (decided,) = [
        each
        for each in watchkeeper(local.home, "history", "--model", EACH)
        if each["kind"] == "gate-passed"
    ]
    assert decided["details"]["trigger"] == f"adopts {uri}"


def test_code_of_mlflow_serves_where_the_project_trusts_it(local: Local, tmp_path: Path) -> None:
    code, weight = tmp_path / "model.py", tmp_path / "weight.txt"
    code.write_text(RULE)
    weight.write_text("0.05")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow import pyfunc  # noqa: PLC0415 - it warns when it is imported

    register(
        pyfunc,
        CODE,
        python_model=str(code),
        artifacts={"weight": str(weight)},
        pip_requirements=["numpy"],
    )
    code.unlink()
    wait_for(lambda: models(local.home)[CODE]["production"], 300.0)
    rows = customers(50, 2)
    expected = 1.0 / (1.0 + np.exp(1.0 - rows["calls"] + rows["age"] * 0.05))
    assert local.ask(CODE, rows) == pytest.approx(expected)
