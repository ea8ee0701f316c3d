"""The whole run against a real MLflow, from the first version to one that answers a drift."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import milling
import mlflow.pyfunc
import msgspec
import numpy as np
import onnxruntime
import pandas as pd
import pyarrow.parquet
import pytest

from watchkeeper.contracts.names import CANDIDATE, PRODUCTION, model_uri
from watchkeeper.contracts.version import read_baseline, read_example
from watchkeeper.ledger import Ledger, migrate
from watchkeeper.ledger.episodes import Episode, save_episode
from watchkeeper.ledger.events import history as events
from watchkeeper.pipeline import OfflineModel, load
from watchkeeper.registry import GATE_TAG, RUN_TAG, Registry
from watchkeeper.training import judged, offline
from watchkeeper.training.models import find, parameters_of
from watchkeeper.training.run import Order, train

NAME = "story"  # ai4i-failure under a name of its own
ONSET = 50_000.0


def order(run: str, *given: str, **more: Any) -> Order:
    model = msgspec.structs.replace(find("ai4i-failure"), name=NAME)
    parameters, chosen = parameters_of(model, ["trees=40", "search=off", *given])
    return Order(model, run, "a test", parameters, frozenset(chosen), **more)


class Story(msgspec.Struct, frozen=True):
    """Four versions, in order: the first, one for a drift, one without ONNX, a bad one."""

    registry: Registry
    ledger: Ledger
    folders: dict[int, Path]
    candidates: dict[int, int | None]


@pytest.fixture(scope="module")
def story(
    registry: Registry, history: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Story]:
    place = tmp_path_factory.mktemp("story")
    migrate(f"sqlite:///{place}/ledger.db")
    ledger = Ledger(f"sqlite:///{place}/ledger.db")
    told = Story(registry, ledger, {}, {})

    def tell(what: Order, *, serves: bool) -> None:
        version = train(what, history, registry, ledger).version
        told.folders[version] = place / str(version)
        registry.download(model_uri(NAME, version), told.folders[version])
        told.candidates[version] = registry.aliases(NAME).get(CANDIDATE)
        if serves:
            registry.set_alias(NAME, PRODUCTION, version)
            registry.drop_alias(NAME, CANDIDATE)

    tell(order("first"), serves=True)
    changed = milling.pieces(1600, seed=5, changed=True)
    steady = milling.pieces(300, seed=6)
    milling.predicted(ledger, NAME, steady, version=1, since=ONSET - 1000, labelled=300)
    milling.predicted(ledger, NAME, changed, version=1, since=ONSET, labelled=1000)
    save_episode(
        ledger, Episode("drift", NAME, 1, "training", ONSET, ONSET + 500, ONSET + 900, 1, "torque")
    )
    tell(order("second", episode="drift", replaces=1), serves=True)
    tell(order("slow", "onnx=off", "trees=80"), serves=False)
    registry.drop_alias(NAME, CANDIDATE)
    tell(order("bad", "trees=1", "depth=1"), serves=False)
    yield told
    ledger.close()


def test_a_first_version_is_registered_whole_and_becomes_the_candidate(story: Story) -> None:
    first = story.registry.versions(NAME)[0]
    assert first.tags[RUN_TAG] == "first"
    assert first.tags[GATE_TAG] == "passed"
    assert story.candidates[1] == 1
    model = load(story.folders[1])
    assert model.manifest.lineage.rows == 6000
    assert model.manifest.lineage.reference == "history"
    (event,) = events(story.ledger, NAME, version=1)
    assert (event.id, event.kind) == (f"{NAME}/v1/gate", "gate-passed")
    assert event.details["run"] == "first"
    run = story.registry.client.get_run(first.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["trees"] == "40"
    assert run.data.metrics["history.roc_auc"] > 0.95
    assert run.data.metrics["history.roc_auc.low"] < run.data.metrics["history.roc_auc.high"]
    report = (story.folders[1] / "metrics_report.txt").read_text()
    for metric in ("accuracy", "precision", "recall", "f1", "roc_auc", "average_precision"):
        assert metric in report


def test_a_version_answers_its_own_example_in_both_forms(story: Story) -> None:
    for version in (1, 2):
        model = load(story.folders[version])
        example = read_example(story.folders[version])
        columns = {name: np.array(values) for name, values in example.inputs.items()}
        answered = {name: x.tolist() for name, x in model.answer(columns).items()}
        assert answered == example.outputs
        table = milling.pieces(3000, seed=9, changed=version == 2)
        (head,) = model.manifest.heads
        assert head.onnx is not None
        assert head.onnx_difference is not None
        assert head.onnx_difference < 1e-6
        session = onnxruntime.InferenceSession(story.folders[version] / head.onnx)
        inputs = {
            c.name: table[[c.name]].to_numpy(object if c.datatype == "BYTES" else float)
            for c in model.manifest.signature.inputs
        }
        (scores,) = session.run(None, inputs)
        assert scores.shape == (3000,)
        assert scores.dtype == np.float64
        assert np.abs(scores - scored(model, table)).max() < 1e-6


def test_whoever_knows_mlflow_alone_can_load_a_version(story: Story) -> None:
    example = read_example(story.folders[1])
    plain = mlflow.pyfunc.load_model(f"models:/{NAME}/1")
    got = plain.predict(pd.DataFrame(example.inputs))
    assert got[:, 1].tolist() == example.outputs["failure_probability"]
    assert plain.metadata.get_input_schema().input_names() == milling.MEASURED


def test_a_version_that_answers_a_drift_is_better_on_what_is_new(story: Story) -> None:
    assert story.candidates[2] == 2
    (event,) = events(story.ledger, NAME, version=2)
    assert event.kind == "gate-passed"
    assert event.details["episode"] == "drift"
    assert event.details["production"] == 1
    report = judged.read(story.folders[2])
    by_name = {check.name: check for check in report.checks}
    gained = by_name["better on recent rows"].estimate
    assert gained is not None
    assert gained.low is not None
    assert gained.low > 0.1
    assert by_name["no worse on the history"].passed
    lineage = load(story.folders[2]).manifest.lineage
    assert lineage.labelled_rows == 1000, "labels from before the onset are another regime's"
    fresh = milling.pieces(4000, seed=11, changed=True)
    moved = scored(load(story.folders[2]), fresh) - scored(load(story.folders[1]), fresh)
    shift = report.score_shift["failure_probability"]
    assert shift.on == "recent"
    assert shift.mean.value == pytest.approx(moved.mean(), abs=0.05)


def test_its_reference_describes_what_it_will_see_with_scores_of_its_own(story: Story) -> None:
    first, second = (
        pyarrow.parquet.read_table(story.folders[v] / "reference.parquet") for v in (1, 2)
    )
    assert first.column_names == [*milling.MEASURED, "failure_probability"]
    assert first.num_rows == 1500
    assert np.mean(first["air_temperature"]) == pytest.approx(300.0, abs=0.3)
    assert second.num_rows == pytest.approx(600 + 0.4 * 1000, abs=60)
    assert np.mean(second["air_temperature"]) == pytest.approx(310.0, abs=0.3)
    for version, table in ((1, first), (2, second)):
        model = load(story.folders[version])
        stored = np.asarray(table["failure_probability"])
        assert stored.tolist() == scored(model, table.to_pandas()).tolist()
        assert read_baseline(story.folders[version])["torque"].mean == np.mean(table["torque"])
    live = scored(load(story.folders[2]), milling.pieces(4000, seed=11, changed=True))
    assert np.mean(second["failure_probability"]) == pytest.approx(live.mean(), abs=0.05)


def test_an_accurate_version_without_onnx_passes_when_a_person_asks_for_it(story: Story) -> None:
    assert story.candidates[3] == 3
    (head,) = load(story.folders[3]).manifest.heads
    assert head.onnx is None
    names = [check.name for check in judged.read(story.folders[3]).checks]
    assert "no worse on recent rows" in names
    assert load(story.folders[3]).manifest.lineage.reference == "recent", "the drift has stayed"


def test_a_version_that_is_worse_than_production_is_rejected_and_says_why(story: Story) -> None:
    assert story.candidates[4] is None
    assert story.registry.versions(NAME)[3].tags[GATE_TAG] == "rejected"
    (event,) = events(story.ledger, NAME, version=4)
    assert event.kind == "gate-rejected"
    assert "ROC AUC" in event.reason


def test_a_run_that_is_started_again_changes_nothing(story: Story, history: str) -> None:
    before = story.registry.versions(NAME), story.registry.aliases(NAME)
    train(order("second", episode="drift", replaces=1), history, story.registry, story.ledger)
    train(order("bad", "trees=1"), history, story.registry, story.ledger)
    assert (story.registry.versions(NAME), story.registry.aliases(NAME)) == before


def test_offline_answers_as_each_version_does(story: Story, tmp_path: Path) -> None:
    examples = {version: read_example(story.folders[version]) for version in (1, 2)}
    source, target = tmp_path / "in.json", tmp_path / "out.json"
    source.write_text(json.dumps({version: one.inputs for version, one in examples.items()}))
    assert offline.main([NAME, str(source), str(target)]) == 0
    assert json.loads(target.read_text()) == {
        str(version): one.outputs for version, one in examples.items()
    }


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"1": {"torque": [1.0]}}, "version 1: has columns ['torque'], needed are"),
        ({"first": {}}, "Expected `int`"),
    ],
)
def test_offline_refuses_what_a_version_does_not_ask_for(
    story: Story,  # noqa: ARG001 - it has made the versions
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    given: dict[str, Any],
    told: str,
) -> None:
    source, target = tmp_path / "in.json", tmp_path / "out.json"
    source.write_text(json.dumps(given))
    assert offline.main([NAME, str(source), str(target)]) == 2
    assert f"{source}: {told}" in capsys.readouterr().err
    assert not target.exists()


def scored(model: OfflineModel, table: pd.DataFrame) -> "np.ndarray[Any, Any]":
    columns = {name: table[name].to_numpy() for name in milling.MEASURED}
    return np.asarray(model.scores(columns)["failure_probability"])
