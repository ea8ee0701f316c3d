"""Heads without ONNX form are served by the library that has fitted them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sample_version
from catboost import CatBoostClassifier
from conftest import HTTP, Starter
from lightgbm import LGBMClassifier
from sklearn.neighbors import KNeighborsClassifier
from test_lifecycle import wait_for_exit
from test_valid_requests import offline
from wire import send, tensors
from xgboost import XGBClassifier

from watchkeeper.core.version import read_manifest
from watchkeeper.serving.version import load_version

ESTIMATORS: dict[str, Callable[[], Any]] = {
    "sklearn": KNeighborsClassifier,
    "xgboost": lambda: XGBClassifier(n_estimators=10),
    "lightgbm": lambda: LGBMClassifier(n_estimators=10, verbose=-1),
    "catboost": lambda: CatBoostClassifier(iterations=10, verbose=0, allow_writing_files=False),
}


def create(folder: Path, name: str) -> Path:
    return sample_version.create_version(folder / "version", estimator=ESTIMATORS[name]())


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_a_version_answers_as_its_library(name: str, tmp_path: Path) -> None:
    folder = create(tmp_path, name)
    assert read_manifest(folder).heads[0].framework == name
    version = load_version(folder, sample_version.MODEL, {})
    given = sample_version.rows(50, seed=3)
    columns = {
        key: np.array(values, dtype=object if key == "grade" else None)
        for key, values in given.items()
    }
    expected = offline(folder, given)[sample_version.SCORE]
    assert version.answer(columns)[sample_version.SCORE].tolist() == expected


def test_a_server_says_which_library_computes_its_scores(start: Starter, tmp_path: Path) -> None:
    folder = create(tmp_path, "xgboost")
    server = start(model_folder=folder).start()
    url = f"{server.url}/v2/models/{sample_version.MODEL}"
    assert HTTP.get(url).json()["platform"] == "xgboost"
    columns = sample_version.rows(7, seed=3)
    for encoding in ("json", "raw"):
        assert send(server, encoding, tensors(columns)).outputs == offline(folder, columns)


def test_a_server_without_the_library_names_it(start: Starter, tmp_path: Path) -> None:
    folder = create(tmp_path, "xgboost")
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    error = "ModuleNotFoundError(\"No module named 'xgboost'\", name='xgboost')"
    (hidden / "xgboost.py").write_text(f"raise {error}\n")
    server = start(model_folder=folder)
    server.environment["PYTHONPATH"] = str(hidden)
    code, message = wait_for_exit(server.spawn())
    assert code == 1
    assert "the library 'xgboost' is not installed here" in message
    assert "use an image that has it" in message
