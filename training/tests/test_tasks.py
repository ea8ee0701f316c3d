"""Models of every task are trained, judged and compared, and a drift makes a better version."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bearings
import msgspec
import numpy as np
import pandas as pd
import pumps
import pytest
from bearing import LIFE, STATE

from watchkeeper.core.answer import AnswerPolicy, Label
from watchkeeper.core.gate_report import GateReport, read_report
from watchkeeper.core.names import PRODUCTION, model_uri
from watchkeeper.core.version import read_example
from watchkeeper.ledger import Ledger, migrate
from watchkeeper.ledger.episodes import Episode, save_episode
from watchkeeper.pipeline import OfflineModel, load
from watchkeeper.registry import Registry
from watchkeeper.training import CannotTrainError
from watchkeeper.training.declaration import DeclarationError, Gate, Head, Model, Parameters
from watchkeeper.training.history import read_history
from watchkeeper.training.run import TrainingRequest, train

ONSET = 50_000.0
HOT = bearings.readings(1500, seed=3, changed=True)


class Trained(msgspec.Struct, frozen=True):
    """The first version, and the one that answers a drift."""

    versions: tuple[OfflineModel, OfflineModel]
    reports: tuple[GateReport, GateReport]
    folders: tuple[Path, Path]


@pytest.fixture(scope="module", params=[STATE, LIFE], ids=["multiclass", "regression"])
def trained(
    request: pytest.FixtureRequest, registry: Registry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Trained]:
    model: Model = request.param
    place = tmp_path_factory.mktemp(model.name)
    source = pumps.database(place / "source.db", bearings.readings(4000), "bearings")
    migrate(f"sqlite:///{place}/ledger.db")
    ledger = Ledger(f"sqlite:///{place}/ledger.db")
    first = TrainingRequest(model, "first", "a test", Parameters())
    version = train(first, source, registry, ledger).version
    registry.set_alias(model.name, PRODUCTION, version)
    bearings.store_predictions(ledger, model.name, HOT, model.task, since=ONSET)
    save_episode(
        ledger,
        Episode("drift", model.name, 1, "training", ONSET, ONSET + 500, ONSET + 900, 1, "hot"),
    )
    second = msgspec.structs.replace(first, run="second", episode="drift", replaces=1)
    train(second, source, registry, ledger)
    folders = place / "1", place / "2"
    for number, folder in enumerate(folders, start=1):
        registry.download(model_uri(model.name, number), folder)
    one, two = (load(folder) for folder in folders)
    reports = read_report(folders[0]), read_report(folders[1])
    yield Trained((one, two), reports, folders)
    ledger.close()


def columns(table: pd.DataFrame) -> dict[str, Any]:
    return {name: table[name].to_numpy() for name in bearings.NAMES}


def test_the_version_that_answers_a_drift_is_superior_on_recent_rows(trained: Trained) -> None:
    first, second = trained.reports
    assert first.passed, first.reason
    assert second.passed, second.reason
    (check,) = [check for check in second.checks if check.name == "superior on recent rows"]
    assert check.passed
    assert check.estimate is not None
    assert (check.estimate.low or 0.0) > 0.0


def test_a_version_of_any_task_has_an_onnx_form_and_answers_its_example(trained: Trained) -> None:
    for model, folder in zip(trained.versions, trained.folders, strict=True):
        (head,) = model.manifest.heads
        assert head.onnx is not None
        assert (head.onnx_difference or 0.0) < 1e-6
        example = read_example(folder)
        inputs = {name: np.array(values) for name, values in example.inputs.items()}
        answered = {name: values.tolist() for name, values in model.answer(inputs).items()}
        assert answered == example.outputs
        assert [output.name for output in model.manifest.signature.outputs] == list(answered)


def test_the_report_counts_and_measures_in_the_words_of_the_task(trained: Trained) -> None:
    report = trained.reports[1]
    text = (trained.folders[1] / "metrics_report.txt").read_text()
    expected = {
        "state": ("balanced_accuracy", "log_loss", " worn", "balanced accuracy"),
        "life": ("r2", "mean_absolute_error", "coverage", "mean absolute error"),
    }[report.score]
    for words in expected:
        assert words in text


def test_the_report_has_the_loss_on_the_rows_that_the_version_is_for(trained: Trained) -> None:
    (label,) = [head.label for head in trained.versions[0].manifest.heads]
    first, second = (report.losses[label] for report in trained.reports)
    assert (first.on, second.on) == (("history",), ("recent",))
    assert first.rows > second.rows >= 100
    assert not first.unusable
    assert "are too few to tell" in second.unusable
    for loss in (first, second):
        assert loss.block_rows >= 2 * 50, "less than half of the rows are held out"
        assert (
            0.0 <= (loss.mean.low or 0.0) < (loss.mean.value or 1.0) < (loss.mean.high or 0.0) < 1
        )
    with_unit = trained.reports[0].score == "life"
    assert (first.scale != 1.0) == with_unit


@pytest.mark.parametrize("trained", [LIFE], indirect=True, ids=["regression"])
def test_the_interval_of_a_regression_contains_the_stated_share_of_new_rows(
    trained: Trained,
) -> None:
    fresh = bearings.readings(3000, seed=11)
    ends = trained.versions[0].answer(columns(fresh))
    inside = (ends["life_low"] <= fresh["life"]) & (fresh["life"] <= ends["life_high"])
    assert 0.87 <= inside.mean() <= 0.93
    hot = trained.reports[1].production_metrics["recent"]["coverage"]
    assert (hot.high or 1.0) < 0.8, "a drift shows in the live coverage"


def replaced(model: Model, **changes: Any) -> Model:
    return msgspec.structs.replace(model, **changes)


@pytest.mark.parametrize(
    ("model", "changes", "message"),
    [
        (STATE, {"gate": Gate(floors={"roc_auc": 0.9})}, "gate.floors name 'roc_auc'; metrics of"),
        (LIFE, {"gate": Gate(floors={"mean_absolute_error": 0.5})}, "higher is better are 'r2'"),
        (LIFE, {"gate": Gate(ceilings={"r2": 0.5})}, "lower is better are 'mean_absolute_error'"),
        (STATE, {"answer": AnswerPolicy((Label("x", "state"),))}, "scores are 'state_ok'"),
    ],
)
def test_a_declaration_that_does_not_fit_its_task_is_refused(
    model: Model, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(DeclarationError, match=message):
        replaced(model, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "ranking"}, "unknown task 'ranking'; tasks are binary, multiclass"),
        ({"task": "multiclass", "classes": ("ok",)}, "needs at least two, and each once"),
        ({"method": "predict"}, "method 'predict' does not fit the task multiclass"),
        ({"task": "anomaly"}, "the task anomaly has no label"),
    ],
)
def test_a_head_that_lacks_what_its_task_needs_is_refused(
    changes: dict[str, Any], message: str
) -> None:
    (head,) = STATE.heads
    with pytest.raises(DeclarationError, match=message):
        replaced(STATE, heads=(msgspec.structs.replace(head, **changes),))


@pytest.mark.parametrize(
    ("model", "column", "value", "message"),
    [
        (STATE, "state", "lost", "column 'state' holds 'lost' .*one of the classes 'ok', 'worn'"),
        (STATE, "state", "ok", "'state' is ok in all 4000 rows"),
        (LIFE, "life", "long", "column 'life' holds 'long' .*must be a finite number"),
        (LIFE, "life", 7.0, "'life' is 7 in all 4000 rows"),
    ],
)
def test_a_history_with_other_labels_is_refused(
    model: Model, column: str, value: object, message: str, tmp_path: Path
) -> None:
    table = bearings.readings(4000)
    one = value in ("lost", "long")
    table[column] = table[column].astype(object)
    table.loc[table.index[:1] if one else table.index, column] = value
    with pytest.raises(CannotTrainError, match=message):
        read_history(pumps.database(tmp_path / "source.db", table, "bearings"), model)


def test_classes_of_a_whole_number_are_named_by_it(tmp_path: Path) -> None:
    (head,) = STATE.heads
    numbered: Head = msgspec.structs.replace(head, classes=("0", "1", "2"))
    table = bearings.readings(500)
    table["state"] = np.arange(500) % 3
    url = pumps.database(tmp_path / "source.db", table, "bearings")
    rows = read_history(url, replaced(STATE, heads=(numbered,)))
    assert rows.target.tolist() == [float(n % 3) for n in range(500)]
