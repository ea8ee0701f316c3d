"""Every row is scored once by each version, although several stages need its score."""

from typing import Any

import msgspec
import numpy as np
import pump_failure
import pumps
import pytest
from pump_failure import PumpParameters
from sklearn.ensemble import RandomForestClassifier

from watchkeeper.core.names import CANDIDATE, PRODUCTION
from watchkeeper.ledger import Ledger
from watchkeeper.registry import Registry
from watchkeeper.training.artifact import EXAMPLE_QUANTILES
from watchkeeper.training.reference import SHUFFLED_ROWS
from watchkeeper.training.report.importance import MOST_ROWS, REPEATS
from watchkeeper.training.run import TrainingRequest, train
from watchkeeper.training.split import held_predictions
from watchkeeper.training.verify import MADE_ROWS

HISTORY, HELD = 6000, 1500  # rows, three of twelve blocks are held out
RECENT, LABELLED = 400, 250


@pytest.mark.parametrize("onnx", ["on", "off"])
def test_each_version_scores_each_held_out_row_once(
    monkeypatch: pytest.MonkeyPatch, registry: Registry, ledger: Ledger, history: str, onnx: Any
) -> None:
    model = msgspec.structs.replace(pump_failure.MODEL, name=f"counted-{onnx}")
    parameters = PumpParameters(search="off", trees=10, onnx=onnx)
    scored: list[tuple[RandomForestClassifier, int]] = []
    predict_proba = RandomForestClassifier.predict_proba

    def counted(forest: RandomForestClassifier, rows: Any) -> Any:
        scored.append((forest, len(rows)))
        return predict_proba(forest, rows)

    def run(name: str) -> int:
        request = TrainingRequest(model, name, "a test", parameters)
        return train(request, history, registry, ledger).version

    first = run("first")
    registry.set_alias(model.name, PRODUCTION, first)
    registry.delete_alias(model.name, CANDIDATE)
    recent = pumps.readings(RECENT, seed=5)
    pumps.store_predictions(
        ledger, model.name, recent, version=first, since=1000.0, labelled=LABELLED
    )
    ids = np.array([f"{1000:016x}{number:016x}" for number in range(RECENT)])
    unseen = held_predictions(ids, model.split) | (np.arange(RECENT) >= LABELLED)

    monkeypatch.setattr(RandomForestClassifier, "predict_proba", counted)
    run("second")
    rows: dict[int, int] = {}
    for forest, count in scored:
        rows[id(forest)] = rows.get(id(forest), 0) + count
    # The new version also scores some rows again to see which columns its score depends on and how
    # important each is, and made rows to verify its ONNX form: features, missing ones, requests.
    permuted = (REPEATS * len(model.columns) + 1) * MOST_ROWS
    shuffled, made = SHUFFLED_ROWS * len(model.columns), 3 * MADE_ROWS * (onnx == "on")
    assert sorted(rows.values()) == [
        len(EXAMPLE_QUANTILES),  # of the saved version, which is loaded again
        HELD + unseen.sum(),
        HISTORY + RECENT + shuffled + permuted + made,
    ]
