"""Whole runs with a real MLflow, from the first version to one that answers a drift."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import msgspec
import numpy as np
import onnxruntime
import pandas as pd
import pumps
import pyarrow.parquet
import pytest
from pump_failure import GRADES
from sklearn.compose import ColumnTransformer
from sklearn.preprocessing import OrdinalEncoder

from watchkeeper.core.gate_report import read_report
from watchkeeper.core.names import CANDIDATE, PRODUCTION, model_uri
from watchkeeper.core.signature import Column
from watchkeeper.core.version import read_baseline, read_example
from watchkeeper.ledger import Ledger, migrate
from watchkeeper.ledger.episodes import Episode, save_episode
from watchkeeper.ledger.events import history as events
from watchkeeper.pipeline import OfflineModel, load
from watchkeeper.registry import GATE_TAG, RUN_TAG, Registry
from watchkeeper.training import offline
from watchkeeper.training.fit import fit
from watchkeeper.training.history import read_history
from watchkeeper.training.judge import judge
from watchkeeper.training.models import find, parameters_of
from watchkeeper.training.read import Production
from watchkeeper.training.run import TrainingRequest, train
from watchkeeper.training.split import split

NAME = "pumps-in-turn"  # the model of pump-failure under another name
ONSET = 50_000.0


def request(run: str, *given: str, **more: Any) -> TrainingRequest:
    model = msgspec.structs.replace(find("pump-failure"), name=NAME)
    parameters, chosen = parameters_of(model, ["trees=40", "search=off", *given])
    return TrainingRequest(model, run, "a test", parameters, frozenset(chosen), **more)


class Versions(msgspec.Struct, frozen=True):
    """Four versions, in order: the first, one for a drift, one without ONNX, a bad one."""

    registry: Registry
    ledger: Ledger
    folders: dict[int, Path]
    candidates: dict[int, int | None]


@pytest.fixture(scope="module")
def versions(
    registry: Registry, history: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Versions]:
    place = tmp_path_factory.mktemp("versions")
    migrate(f"sqlite:///{place}/ledger.db")
    ledger = Ledger(f"sqlite:///{place}/ledger.db")
    made = Versions(registry, ledger, {}, {})

    def register(what: TrainingRequest, *, serves: bool) -> None:
        version = train(what, history, registry, ledger).version
        made.folders[version] = place / str(version)
        registry.download(model_uri(NAME, version), made.folders[version])
        made.candidates[version] = registry.aliases(NAME).get(CANDIDATE)
        if serves:
            registry.set_alias(NAME, PRODUCTION, version)
            registry.delete_alias(NAME, CANDIDATE)

    register(request("first"), serves=True)
    changed = pumps.readings(1600, seed=5, changed=True)
    steady = pumps.readings(300, seed=6)
    pumps.store_predictions(ledger, NAME, steady, version=1, since=ONSET - 1000, labelled=300)
    pumps.store_predictions(ledger, NAME, changed, version=1, since=ONSET, labelled=1000)
    save_episode(
        ledger, Episode("drift", NAME, 1, "training", ONSET, ONSET + 500, ONSET + 900, 1, "load")
    )
    register(request("second", episode="drift", replaces=1), serves=True)
    register(request("slow", "onnx=off", "trees=80"), serves=False)
    registry.delete_alias(NAME, CANDIDATE)
    register(request("bad", "trees=1", "depth=1"), serves=False)
    yield made
    ledger.close()


def test_the_first_version_is_registered_and_becomes_the_candidate(versions: Versions) -> None:
    first = versions.registry.versions(NAME)[0]
    assert first.tags[RUN_TAG] == "first"
    assert first.tags[GATE_TAG] == "passed"
    assert versions.candidates[1] == 1
    model = load(versions.folders[1])
    assert model.manifest.lineage.rows == 6000
    assert model.manifest.lineage.reference == "history"
    (event,) = events(versions.ledger, NAME, version=1)
    assert (event.id, event.kind) == (f"{NAME}/v1/gate", "gate-passed")
    assert event.details.run == "first"
    run = versions.registry.client.get_run(first.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["trees"] == "40"
    assert run.data.metrics["history.roc_auc"] > 0.95
    assert run.data.metrics["history.roc_auc.low"] < run.data.metrics["history.roc_auc.high"]
    shown = {file.path for file in versions.registry.client.list_artifacts(first.run_id)}
    assert {"metrics_report.txt", "report.html"} <= shown
    report = (versions.folders[1] / "metrics_report.txt").read_text()
    for metric in ("accuracy", "precision", "recall", "f1", "roc_auc", "average_precision"):
        assert metric in report


def test_a_version_answers_its_own_example_in_both_forms(versions: Versions) -> None:
    for version in (1, 2):
        model = load(versions.folders[version])
        example = read_example(versions.folders[version])
        columns = {name: np.array(values) for name, values in example.inputs.items()}
        answered = {name: x.tolist() for name, x in model.answer(columns).items()}
        assert answered == example.outputs
        table = pumps.readings(3000, seed=9, changed=version == 2)
        (head,) = model.manifest.heads
        assert head.onnx is not None
        assert head.onnx_difference is not None
        assert head.onnx_difference < 1e-6
        session = onnxruntime.InferenceSession(versions.folders[version] / head.onnx)
        inputs = {
            c.name: table[[c.name]].to_numpy(object if c.datatype == "BYTES" else float)
            for c in model.manifest.signature.inputs
        }
        (scores,) = session.run(None, inputs)
        assert scores.shape == (3000,)
        assert scores.dtype == np.float64
        assert np.abs(scores - scored(model, table)).max() < 1e-6


def test_mlflow_alone_can_load_a_version(versions: Versions) -> None:
    example = read_example(versions.folders[1])
    plain = mlflow.pyfunc.load_model(f"models:/{NAME}/1")
    got = plain.predict(pd.DataFrame(example.inputs))
    assert got[:, 1].tolist() == example.outputs["failure_probability"]
    assert plain.metadata.get_input_schema().input_names() == pumps.COLUMNS


def test_a_version_that_answers_a_drift_is_superior_on_recent_rows(versions: Versions) -> None:
    assert versions.candidates[2] == 2
    (event,) = events(versions.ledger, NAME, version=2)
    assert event.kind == "gate-passed"
    assert event.details.episode == "drift"
    assert event.details.report is not None
    assert event.details.report.production == 1
    report = read_report(versions.folders[2])
    by_name = {check.name: check for check in report.checks}
    gained = by_name["superior on recent rows"].estimate
    assert gained is not None
    assert gained.low is not None
    assert gained.low > 0.1
    assert by_name["noninferior on the history"].passed
    lineage = load(versions.folders[2]).manifest.lineage
    assert lineage.labelled_rows == 1000, "labels from before the onset are another regime's"
    fresh = pumps.readings(4000, seed=11, changed=True)
    moved = scored(load(versions.folders[2]), fresh) - scored(load(versions.folders[1]), fresh)
    shift = report.score_shift["failure_probability"]
    assert shift.on == "recent"
    assert shift.mean.value == pytest.approx(moved.mean(), abs=0.05)


def test_the_reference_describes_the_new_regime_with_the_versions_own_scores(
    versions: Versions,
) -> None:
    first, second = (
        pyarrow.parquet.read_table(versions.folders[v] / "reference.parquet") for v in (1, 2)
    )
    assert first.column_names == [*pumps.COLUMNS, "failure_probability"]
    assert first.num_rows == 6000, "inputs are of the whole history"
    assert first["failure_probability"].null_count == 4500, "scores are of held-out rows"
    assert np.mean(first["inlet_temperature"]) == pytest.approx(300.0, abs=0.3)
    start = int(second.schema.metadata[b"start"])
    assert start == 6000, "the history before the onset measures the variation"
    second = second.slice(start)
    assert second.num_rows == 1600, "all rows since the onset"
    assert np.mean(second["inlet_temperature"]) == pytest.approx(310.0, abs=0.3)
    for version, table in ((1, first), (2, second)):
        model = load(versions.folders[version])
        baseline = read_baseline(versions.folders[version])
        assert baseline["load"].mean == pytest.approx(np.mean(table["load"]))
        held = table.to_pandas().dropna()
        assert held["failure_probability"].tolist() == scored(model, held).tolist()
        depends = json.loads(table.schema.metadata[b"depends"])
        assert set(depends["failure_probability"]) == set(pumps.COLUMNS)
    second = second.filter(second["failure_probability"].is_valid())
    assert second.num_rows == pytest.approx(600 + 0.4 * 1000, abs=60)
    live = scored(load(versions.folders[2]), pumps.readings(4000, seed=11, changed=True))
    assert np.mean(second["failure_probability"]) == pytest.approx(live.mean(), abs=0.05)


def test_an_accurate_version_without_onnx_passes_on_request(versions: Versions) -> None:
    assert versions.candidates[3] == 3
    (head,) = load(versions.folders[3]).manifest.heads
    assert head.onnx is None
    names = [check.name for check in read_report(versions.folders[3]).checks]
    assert "noninferior on recent rows" in names
    assert load(versions.folders[3]).manifest.lineage.reference == "recent", "the drift has stayed"


def test_a_version_that_is_worse_than_production_is_rejected_with_the_reason(
    versions: Versions,
) -> None:
    assert versions.candidates[4] is None
    assert versions.registry.versions(NAME)[3].tags[GATE_TAG] == "rejected"
    (event,) = events(versions.ledger, NAME, version=4)
    assert event.kind == "gate-rejected"
    assert "ROC AUC" in event.reason


def test_rows_of_a_new_category_are_not_compared_with_production(
    versions: Versions, tmp_path: Path
) -> None:
    grades = (*GRADES, "X")
    table = pumps.readings(6000, seed=8)
    table.loc[table.index % 5 == 0, "grade"] = "X"
    declared = find("pump-failure")
    model = msgspec.structs.replace(
        declared,
        columns=(Column("grade", "BYTES", categories=grades), *declared.columns[1:]),
        heads=(
            msgspec.structs.replace(
                declared.main_head,
                features=lambda _: ColumnTransformer(
                    [
                        ("grade", OrdinalEncoder(categories=[list(grades)]), ["grade"]),
                        ("rest", "passthrough", pumps.NUMERIC),
                    ]
                ),
            ),
        ),
    )
    history = read_history(pumps.database(tmp_path / "source.db", table), model)
    parts = split(history, history.where(np.zeros(len(history), dtype=bool)), model)
    report = judge(
        model,
        fit(model, msgspec.convert({"trees": 20}, model.parameters), parts),
        Production(1, load(versions.folders[1])),
        [],
        duplicates={},
        must_improve=False,
        seed=0,
    )
    assert "noninferior on the history" in [check.name for check in report.checks]
    shared = int((parts.held.columns["grade"] != "X").sum())
    assert report.score_shift["failure_probability"].rows == shared < len(parts.held)


def test_a_repeated_run_changes_nothing(versions: Versions, history: str) -> None:
    before = versions.registry.versions(NAME), versions.registry.aliases(NAME)
    train(
        request("second", episode="drift", replaces=1), history, versions.registry, versions.ledger
    )
    train(request("bad", "trees=1"), history, versions.registry, versions.ledger)
    assert (versions.registry.versions(NAME), versions.registry.aliases(NAME)) == before


def test_offline_predictions_equal_those_of_each_version(
    versions: Versions, tmp_path: Path
) -> None:
    examples = {version: read_example(versions.folders[version]) for version in (1, 2)}
    source, target = tmp_path / "in.json", tmp_path / "out.json"
    source.write_text(json.dumps({version: one.inputs for version, one in examples.items()}))
    assert offline.main([NAME, str(source), str(target)]) == 0
    assert json.loads(target.read_text()) == {
        str(version): one.outputs for version, one in examples.items()
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"1": {"load": [1.0]}}, "version 1: has columns ['load'], needed are"),
        ({"first": {}}, "Expected `int`"),
    ],
)
def test_offline_refuses_other_columns_than_the_signatures(
    versions: Versions,  # noqa: ARG001 - it registers the versions
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    given: dict[str, Any],
    message: str,
) -> None:
    source, target = tmp_path / "in.json", tmp_path / "out.json"
    source.write_text(json.dumps(given))
    assert offline.main([NAME, str(source), str(target)]) == 2
    assert f"{source}: {message}" in capsys.readouterr().err
    assert not target.exists()


def scored(model: OfflineModel, table: pd.DataFrame) -> "np.ndarray[Any, Any]":
    columns = {name: table[name].to_numpy() for name in pumps.COLUMNS}
    return np.asarray(model.scores(columns)["failure_probability"])
