"""Versions that somebody else has registered in MLflow become versions of a model."""

import contextlib
import importlib.util
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import bearings
import lightgbm
import mlflow.catboost
import mlflow.lightgbm
import mlflow.onnx
import mlflow.pyfunc
import mlflow.sklearn
import mlflow.xgboost
import msgspec
import numpy as np
import pumps
import pytest
import xgboost
from bearing import STATE
from catboost import CatBoostClassifier
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from watchkeeper.core.adoption import AdoptionRule
from watchkeeper.core.exit_codes import EXIT_FATAL, EXIT_SUCCESS
from watchkeeper.core.gate_report import read_report
from watchkeeper.core.names import model_uri
from watchkeeper.core.projects import read_project
from watchkeeper.ledger import Ledger
from watchkeeper.pipeline import load
from watchkeeper.pipeline.frameworks import UntrustedCodeError
from watchkeeper.registry import ADOPT_TAG, GATE_TAG, Registry
from watchkeeper.training import CannotTrainError
from watchkeeper.training.adoption import adopt
from watchkeeper.training.check import check
from watchkeeper.training.declaration import Adopt, DeclarationError, Integer, Model, Search
from watchkeeper.training.models import parameters_of
from watchkeeper.training.new import __main__ as new
from watchkeeper.training.run import TrainingRequest, train

TABLE = bearings.readings(1500)
X, Y = TABLE[bearings.NAMES], TABLE["state"].map({"ok": 0, "worn": 1, "broken": 2}).to_numpy()
REQUIREMENTS = ["scikit-learn"]
RUFF = Path(__file__).parents[2] / ".venv/bin/ruff"
TREE = ["sklearn.tree._tree.Tree", "numpy.dtype"]


def forest() -> Any:
    return RandomForestClassifier(20, min_samples_leaf=5, random_state=0).fit(X, Y)


def scaled() -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y)


def other_order() -> Any:
    return forest().fit(X[["hours", "temperature", "vibration"]], Y)


def boosted() -> Any:
    return xgboost.XGBClassifier(n_estimators=10, n_jobs=1).fit(X, Y)


def light() -> Any:
    return lightgbm.LGBMClassifier(n_estimators=10, n_jobs=1, verbose=-1).fit(X, Y)


def cat() -> Any:
    made = CatBoostClassifier(iterations=10, verbose=0, allow_writing_files=False)
    return made.fit(X[["hours", "temperature", "vibration"]], Y)


def exported() -> Any:
    made = make_pipeline(StandardScaler(), LogisticRegression()).fit(X.to_numpy(np.float64), Y)
    types = [("features", FloatTensorType([None, 3]))]
    return to_onnx(made, initial_types=types, options={id(made): {"zipmap": False}})


LGBM = ["collections.OrderedDict", "lightgbm.basic.Booster", "lightgbm.sklearn.LGBMClassifier"]
FLAVOURS: dict[str, tuple[Callable[[], Any], Callable[[], Any], dict[str, Any], str]] = {
    "skops": (lambda: mlflow.sklearn, forest, {"skops_trusted_types": TREE}, ""),
    "skops-pipeline": (lambda: mlflow.sklearn, scaled, {}, ""),
    "skops-order": (lambda: mlflow.sklearn, other_order, {"skops_trusted_types": TREE}, ""),
    "pickle": (
        lambda: mlflow.sklearn,
        forest,
        {"serialization_format": "cloudpickle"},
        "pickle",
    ),
    "xgboost": (lambda: mlflow.xgboost, boosted, {}, ""),
    "xgboost-booster": (lambda: mlflow.xgboost, lambda: boosted().get_booster(), {}, ""),
    "lightgbm": (lambda: mlflow.lightgbm, light, {"skops_trusted_types": LGBM}, ""),
    "lightgbm-booster": (lambda: mlflow.lightgbm, lambda: light().booster_, {}, ""),
    "catboost": (lambda: mlflow.catboost, cat, {}, ""),
    "onnx": (lambda: mlflow.onnx, exported, {}, ""),
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return pumps.database(tmp_path_factory.mktemp("bearings") / "source.db", TABLE, "bearings")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """MLflow warns about requirements and signatures of what others log."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def logged(registry: Registry, name: str, module: Any, model: Any, **how: Any) -> str:
    """Register a version as its owner does, and return its URI."""
    _ = registry.client  # MLFLOW_TRACKING_URI is set
    with mlflow.start_run(), contextlib.redirect_stdout(None):
        info = module.log_model(
            model, name="model", registered_model_name=name, pip_requirements=REQUIREMENTS, **how
        )
    return f"models:/{name}/{info.registered_model_version}"


def adopting(
    name: str, trust: Literal["", "pickle"] = "", when: Literal["hand", "tag", "each"] = "hand"
) -> Model:
    rule = Adopt(name, when=when, trust=trust)
    head = msgspec.structs.replace(STATE.heads[0], features=None, estimator=None, adopt=rule)
    return msgspec.structs.replace(STATE, heads=(head,))


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_version_of_each_flavour_answers_as_its_library_does(
    flavour: str, registry: Registry, source: str, tmp_path: Path
) -> None:
    module, make, how, trust = FLAVOURS[flavour]
    given = make()
    uri = logged(registry, flavour, module(), given, **how)
    model = adopting(flavour, "pickle" if trust else "")
    parameters, _ = parameters_of(model, [f"adopt={uri}"])
    check(model, source, tmp_path / "version", parameters)
    loaded = load(tmp_path / "version")
    assert not [x for x in (tmp_path / "version").rglob("*") if x.suffix in (".pkl", ".pickle")]
    told = read_report(tmp_path / "version").consequences
    assert f"the estimator is that of {uri}" in told[0]
    assert len(told) == 1, told
    assert loaded.manifest.heads[0].onnx is not None
    rows = bearings.readings(40, 9)[bearings.NAMES]
    answered = loaded.answer({name: rows[name].to_numpy() for name in rows})
    scores = np.stack([answered[f"state_{name}"] for name in ("ok", "worn", "broken")], axis=1)
    if hasattr(given, "predict_proba"):
        names = getattr(given, "feature_names_", bearings.NAMES)
        names = list(getattr(given, "feature_names_in_", names))
        assert scores == pytest.approx(given.predict_proba(rows[names]), abs=1e-6)
    assert scores.sum(axis=1) == pytest.approx(np.ones(40), abs=1e-6)


def test_a_run_registers_the_adopted_version_with_its_origin(
    registry: Registry, ledger: Ledger, source: str, tmp_path: Path
) -> None:
    uri = logged(registry, "stranger", mlflow.sklearn, forest(), skops_trusted_types=TREE)
    model = msgspec.structs.replace(adopting("stranger", when="each"), name="bearing-adopted")
    request = TrainingRequest(model, "adopts", f"adopts {uri}", model.parameters())
    version = train(request, source, registry, ledger)
    assert version.tags[GATE_TAG] == "passed"
    assert version.tags["watchkeeper.trigger"] == f"adopts {uri}"
    assert registry.client.get_run(version.run_id).data.params["adopt"] == uri
    registry.download(model_uri(model.name, version.version), tmp_path / "version")
    assert f"adopt={uri}" in (tmp_path / "version/metrics_report.txt").read_text()


class Poisoned(LogisticRegression):
    """What a pickle can do: this one creates a file when it is opened."""

    file = Path()

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def test_a_pickle_is_opened_only_if_the_declaration_trusts_it(
    registry: Registry, source: str, tmp_path: Path
) -> None:
    made = Poisoned().fit(X, Y)
    made.file = tmp_path / "executed"
    uri = logged(registry, "poison", mlflow.sklearn, made, serialization_format="cloudpickle")

    def adopts(trust: Literal["", "pickle"]) -> None:
        model = adopting("poison", trust)
        check(model, source, tmp_path / "version", parameters_of(model, [f"adopt={uri}"])[0])

    with pytest.raises(CannotTrainError, match=r"^head 'state': .*is a pickle.*trust=\"pickle\""):
        adopts("")
    assert not made.file.exists()
    with pytest.raises(CannotTrainError, match="None was returned, and not a fitted estimator"):
        adopts("pickle")
    assert made.file.exists(), "the pickle would have written it"


@mlflow.pyfunc.utils.pyfunc
def constant(model_input: list[float]) -> list[float]:
    return [0.0 for _ in model_input]


CODE = """
from pathlib import Path

import mlflow
import numpy as np

Path({executed!r}).touch()


class States(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        self.hours = float(Path(context.artifacts["hours"]).read_text())

    def predict(self, context, model_input, params=None):
        worn = 1.0 / (1.0 + np.exp((self.hours - model_input["hours"]) / 500.0))
        return np.stack([1.0 - worn, 0.9 * worn, 0.1 * worn], axis=1)


mlflow.models.set_model(States())
"""


def logged_code(registry: Registry, name: str, folder: Path) -> tuple[str, Path]:
    """Register code that makes a file when it is executed; return its URI and that file."""
    code, hours, executed = folder / "model.py", folder / "hours.txt", folder / "executed"
    code.write_text(CODE.format(executed=str(executed)))
    hours.write_text("5000")
    _ = registry.client
    with mlflow.start_run(), contextlib.redirect_stdout(None):
        info = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(code),
            artifacts={"hours": str(hours)},
            registered_model_name=name,
            pip_requirements=REQUIREMENTS,
        )
    executed.unlink()
    code.unlink()  # another machine has only what MLflow keeps
    return f"models:/{name}/{info.registered_model_version}", executed


def test_code_of_others_is_executed_only_where_it_is_trusted(
    registry: Registry, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, executed = logged_code(registry, "code", tmp_path)
    model, folder = adopting("code", "pickle"), tmp_path / "version"
    parameters, _ = parameters_of(model, [f"adopt={uri}"])
    with pytest.raises(CannotTrainError, match="sets WATCHKEEPER_TRUSTED_CODE=yes"):
        check(model, source, folder, parameters)
    assert not executed.exists()
    monkeypatch.setenv("WATCHKEEPER_TRUSTED_CODE", "yes")
    found = check(model, source, tmp_path / "made/version", parameters)
    assert executed.exists()
    assert any("state: no ONNX form: code is not" in x for x in found.report.consequences)
    rows = bearings.readings(40, 9)[bearings.NAMES]
    columns = {name: rows[name].to_numpy() for name in rows}
    answered = load(tmp_path / "made/version").answer(columns)
    worn = 1.0 / (1.0 + np.exp((5000.0 - rows["hours"]) / 500.0))
    assert answered["state_worn"] == pytest.approx(0.9 * worn)
    monkeypatch.delenv("WATCHKEEPER_TRUSTED_CODE")
    executed.unlink()
    with pytest.raises(UntrustedCodeError):  # as rollout does, which then compares nothing
        load(tmp_path / "made/version")
    assert not executed.exists()


def test_a_function_in_a_pickle_is_not_opened_anywhere(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHKEEPER_TRUSTED_CODE", "yes")
    _ = registry.client
    with mlflow.start_run(), contextlib.redirect_stdout(None):
        info = mlflow.pyfunc.log_model(
            name="model",
            python_model=constant,
            registered_model_name="pickled-code",
            pip_requirements=REQUIREMENTS,
        )
    model = adopting("pickled-code", "pickle")
    uri = f"models:/pickled-code/{info.registered_model_version}"
    parameters, _ = parameters_of(model, [f"adopt={uri}"])
    with pytest.raises(
        CannotTrainError, match=r'open a pickle; log it with python_model="model.py"'
    ):
        adopt(model, parameters, lambda: registry, tmp_path)


def test_types_that_are_not_trusted_are_not_constructed(registry: Registry, tmp_path: Path) -> None:
    """The list in MLmodel is the stranger's, and does not count."""
    made = make_pipeline(StandardScaler(), Poisoned()).fit(X, Y)
    trusted = [f"{Poisoned.__module__}.Poisoned"]
    uri = logged(registry, "own-class", mlflow.sklearn, made, skops_trusted_types=trusted)
    model = adopting("own-class")
    with pytest.raises(CannotTrainError, match=r"holds types that are not trusted: .*Poisoned"):
        adopt(model, parameters_of(model, [f"adopt={uri}"])[0], lambda: registry, tmp_path)


def test_a_run_without_a_name_adopts_by_the_rule_of_the_declaration(
    registry: Registry, tmp_path: Path
) -> None:
    first, second = (logged(registry, "several", mlflow.sklearn, scaled()) for _ in range(2))

    def adopted(when: Literal["hand", "tag", "each"]) -> str:
        model = adopting("several", when=when)
        found = adopt(model, model.parameters(), lambda: registry, tmp_path / when)
        return found.parameters.adopt

    assert adopted("each") == second
    with pytest.raises(CannotTrainError, match="watchkeeper adopt models:/several/<version>"):
        adopted("hand")
    with pytest.raises(CannotTrainError, match=r"with the tag watchkeeper.adopt = bearing-state"):
        adopted("tag")
    number = int(first.rpartition("/")[2])
    registry.set_tag("several", number, ADOPT_TAG, "another-model")
    with pytest.raises(CannotTrainError, match="with the tag"):
        adopted("tag")
    registry.set_tag("several", number, ADOPT_TAG, "bearing-state")
    assert adopted("tag") == first
    registry.client.set_registered_model_alias("several", "champion", str(number))
    model = adopting("several")
    parameters, _ = parameters_of(model, ["adopt=models:/several@champion"])
    found = adopt(model, parameters, lambda: registry, tmp_path / "alias")
    assert found.parameters.adopt == first


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("models:/several/99", "models:/several/99: "),
        ("models:/other/1", "adopts versions of 'several', as its declaration says"),
        ("models:/several@none", "models:/several@none: "),
    ],
)
def test_a_version_that_is_not_there_is_refused(
    given: str, message: str, registry: Registry, tmp_path: Path
) -> None:
    model = adopting("several")
    with pytest.raises(CannotTrainError, match=f"^head 'state': .*{message}"):
        adopt(model, parameters_of(model, [f"adopt={given}"])[0], lambda: registry, tmp_path)


def test_the_parameter_is_for_models_that_adopt() -> None:
    with pytest.raises(CannotTrainError, match="no head of bearing-state adopts a version"):
        parameters_of(STATE, ["adopt=models:/several/1"])
    with pytest.raises(CannotTrainError, match="expected models:/<name>/<version>"):
        parameters_of(adopting("several"), ["adopt=several/1"])


def test_an_adopting_model_declares_no_search() -> None:
    with pytest.raises(DeclarationError, match="search tries parameters"):
        msgspec.structs.replace(adopting("several"), search=Search(space={"seed": Integer(0, 2)}))


@pytest.mark.parametrize("form", ["skops", "cloudpickle"])
def test_a_project_is_written_for_a_version(
    form: str,
    registry: Registry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = f"written-{form}"
    table = TABLE.rename(columns={"hours": "Hours run"}).assign(note=7.0)
    table[["id", "vibration", "temperature", "Hours run", "note", "state"]].to_csv(
        tmp_path / "bearings.csv", index=False
    )
    used = table[["Hours run", "vibration"]]
    made = RandomForestClassifier(20, min_samples_leaf=5, random_state=0)
    made.fit(used, table["state"])
    how = {"skops_trusted_types": TREE} if form == "skops" else {"serialization_format": form}
    uri = logged(
        registry, name, mlflow.sklearn, made, input_example=used.head().astype(float), **how
    )
    monkeypatch.chdir(tmp_path)
    arguments = ["bearing-of-others", "--from", "bearings.csv", "--target", "state"]
    assert new.main([*arguments, "--mlflow", uri]) == EXIT_SUCCESS
    assert f"watchkeeper adopt {uri} --model bearing-of-others" in capsys.readouterr().out
    project = read_project(tmp_path / "bearing-of-others")
    assert project.adopt == {"bearing-of-others": AdoptionRule(name, "hand")}
    assert f'model: "{name}"' in (project.folder / "values.yaml").read_text()
    declaration = (project.folder / "src/bearing_of_others/model.py").read_text()
    assert ('trust="pickle"' in declaration) == (form == "cloudpickle")
    for tool in (["check", "-q"], ["format", "--check", "-q"]):
        subprocess.run([RUFF, *tool, str(project.folder)], check=True, timeout=60)
    spec = importlib.util.spec_from_file_location(
        "written", project.folder / "src/bearing_of_others/model.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model: Model = module.MODEL
    assert [(c.name, c.datatype) for c in model.columns] == [
        ("Hours run", "FP64"),
        ("vibration", "FP64"),
    ]
    if form == "skops":
        parameters, _ = parameters_of(model, [f"adopt={uri}"])
        found = check(model, project.source, tmp_path / "version", parameters)
        assert found.report.passed
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
            cwd=project.folder, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert "3 passed" in done.stdout, done.stdout


def test_a_table_without_a_column_of_the_version_is_refused(
    registry: Registry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    uri = logged(registry, "wide", mlflow.sklearn, scaled(), input_example=X.astype(float).head())
    TABLE[["id", "vibration", "hours", "state"]].to_csv(tmp_path / "rows.csv", index=False)
    monkeypatch.chdir(tmp_path)
    arguments = ["narrow", "--from", "rows.csv", "--target", "state", "--mlflow"]
    assert new.main([*arguments, uri]) == EXIT_FATAL
    assert "takes the column 'temperature', which the table does not" in capsys.readouterr().err
    assert new.main([*arguments, "models:/wide/99"]) == EXIT_FATAL
    assert "models:/wide/99" in capsys.readouterr().err
