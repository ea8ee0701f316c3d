"""A whole run with a booster: its files, its description for MLflow, and what the report says."""

from pathlib import Path

import mlflow.pyfunc
import msgspec
import numpy as np
import pumps
import pytest
import xgboost

from watchkeeper.core.gate_report import read_report
from watchkeeper.core.names import model_uri
from watchkeeper.core.version import read_example
from watchkeeper.ledger import Ledger
from watchkeeper.pipeline import load
from watchkeeper.registry import GATE_TAG, Registry
from watchkeeper.training.models import find
from watchkeeper.training.run import TrainingRequest, train

NAME = "boosted-pumps"


@pytest.mark.parametrize("booster", ["gbtree", "gblinear"])
def test_a_run_with_xgboost_registers_a_version_without_pickle(
    booster: str, registry: Registry, ledger: Ledger, history: str, tmp_path: Path
) -> None:
    pump = find("pump-failure")
    estimator = xgboost.XGBClassifier(n_estimators=60, n_jobs=1, booster=booster)
    head = msgspec.structs.replace(pump.main_head, estimator=lambda _: estimator)
    model = msgspec.structs.replace(pump, name=NAME, heads=(head,))
    parameters = msgspec.structs.replace(model.parameters(), search="off")
    request = TrainingRequest(model, f"a-run-{booster}", "a test", parameters)
    version = train(request, history, registry, ledger)

    folder = tmp_path / "version"
    registry.download(model_uri(NAME, version.version), folder)
    assert not [path for path in folder.rglob("*") if path.suffix in (".pkl", ".pickle")]
    assert (folder / f"{head.score}.estimator.ubj").exists()
    loaded = load(folder)
    (described,) = loaded.manifest.heads
    assert described.framework == "xgboost"
    assert loaded.manifest.lineage.dependencies["xgboost"] == xgboost.__version__
    assert f"xgboost=={xgboost.__version__}" in (folder / "requirements.txt").read_text()
    example = read_example(folder)
    rows = pumps.readings(20, seed=9)[model.names]
    answered = loaded.answer({name: rows[name].to_numpy() for name in rows})
    by_mlflow = mlflow.pyfunc.load_model(str(folder)).predict(rows)
    assert np.array_equal(by_mlflow[head.score], answered[head.score])
    assert set(example.outputs) == set(answered)

    consequences = read_report(folder).consequences
    if booster == "gbtree":
        assert described.onnx is not None
        assert version.tags[GATE_TAG] == "passed"
        assert not consequences
    else:
        assert described.onnx is None
        assert "its booster is 'gblinear'" in consequences[0]
        assert consequences[0] in (folder / "metrics_report.txt").read_text()
