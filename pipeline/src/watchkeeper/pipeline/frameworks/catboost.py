"""CatBoost: its scikit-learn classes, saved as cbm.

Its trees compare float32 values.
"""

import json
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np

from watchkeeper.core.head import Head
from watchkeeper.core.tasks import task_of
from watchkeeper.core.version import BrokenVersionError
from watchkeeper.pipeline.frameworks import (
    Framework,
    UnsupportedEstimatorError,
    file_of,
    is_a,
    library,
)
from watchkeeper.pipeline.frameworks.side_file import read_side_file, write_side_file
from watchkeeper.pipeline.trees import LEAF, Link, Tree, Trees, UnsupportedTreesError

CLASSES: Final = frozenset({"CatBoostClassifier", "CatBoostRegressor"})

_LINKS: Final[dict[str, Link]] = {
    "Logloss": "sigmoid",
    "CrossEntropy": "sigmoid",
    "MultiClass": "softmax",
    "MultiClassOneVsAll": "sigmoid",
    "Poisson": "exp",
    "Tweedie": "exp",
    "RMSE": "identity",
    "MAE": "identity",
    "MAPE": "identity",
    "Quantile": "identity",
    "Huber": "identity",
    "LogCosh": "identity",
    "Expectile": "identity",
    "Lq": "identity",
}


class Catboost(Framework):
    """CatBoostClassifier and CatBoostRegressor."""

    name = "catboost"
    library = "catboost"

    def recognises(self, estimator: Any) -> bool:
        """Whether the class is one of CatBoost's own."""
        return is_a(estimator, self.library, CLASSES)

    def save(self, estimator: Any, path: Path) -> None:
        """Write ``path.cbm``."""
        if not isinstance(estimator.get_all_params().get("loss_function"), str):
            raise UnsupportedEstimatorError("its loss is a function, which no file can hold")
        estimator.save_model(f"{path}.cbm")
        write_side_file(path, {"class": type(estimator).__name__})

    def load(self, path: Path) -> Any:
        """Read ``path.cbm``."""
        side = read_side_file(path, CLASSES)
        catboost = library(self.library)
        try:
            return getattr(catboost, side["class"])(thread_count=1).load_model(f"{path}.cbm")
        except catboost.CatBoostError as error:
            raise BrokenVersionError(f"{path}.cbm: CatBoost cannot load it: {error}") from error

    def opened(self, folder: Path, flavour: dict[str, Any], head: Head) -> Any:
        """Read ``model.cb``."""
        kind = str(flavour.get("model_type", ""))
        if kind not in CLASSES:
            kind = "CatBoostClassifier" if task_of(head).outcomes else "CatBoostRegressor"
        path = file_of(folder, flavour, "data")
        catboost = library(self.library)
        try:
            return getattr(catboost, kind)(thread_count=1).load_model(
                str(path), flavour.get("save_format", "cbm")
            )
        except catboost.CatBoostError as error:
            raise BrokenVersionError(f"{path.name}: CatBoost cannot load it: {error}") from error

    def feature_names(self, estimator: Any) -> list[str]:
        """Return its own names."""
        return [str(name) for name in estimator.feature_names_]

    def trees(self, estimator: Any, method: str) -> Trees:
        """Return the trees, if they are symmetric and all features are numbers."""
        kind = type(estimator).__name__
        if method != ("predict_proba" if kind == "CatBoostClassifier" else "predict"):
            raise UnsupportedTreesError(f"{kind}.{method} is no sum of trees")
        loss = estimator.get_all_params()["loss_function"].partition(":")[0]
        if loss not in _LINKS:
            raise UnsupportedTreesError(f"its loss is {loss!r}")
        model = _as_json(estimator)
        features = model["features_info"]
        others = [name for name in features if name != "float_features" and features[name]]
        if others:
            raise UnsupportedTreesError(f"it has {', '.join(others)}, and not only numbers")
        if "oblivious_trees" not in model:
            raise UnsupportedTreesError("its trees are not symmetric")
        scale, bias = model["scale_and_bias"]
        base = np.ravel(bias).astype(np.float64) if np.size(bias) else np.zeros(1)
        known = {each["feature_index"]: each for each in features["float_features"]}
        return Trees(
            [
                tree
                for found in model["oblivious_trees"]
                for tree in _symmetric_tree(found, known, scale, len(base))
            ],
            max(each["flat_feature_index"] for each in known.values()) + 1,
            base,
            _LINKS[loss],
            float32=True,
        )


def _as_json(estimator: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.json"
        estimator.save_model(str(path), format="json")
        return json.loads(path.read_bytes())


def _symmetric_tree(found: Any, known: Any, scale: float, outputs: int) -> list[Tree]:
    """Return a complete tree for each output, with the same split in all nodes of a level."""
    splits = list(reversed(found["splits"] or []))  # the last one is the root
    depth, count = len(splits), 2 ** (len(splits) + 1) - 1
    feature, threshold = np.zeros(count, dtype=np.int64), np.zeros(count)
    missing_left = np.zeros(count, dtype=bool)
    for level, split in enumerate(splits):
        about = known[split["float_feature_index"]]
        nodes = slice(2**level - 1, 2 ** (level + 1) - 1)
        feature[nodes] = about["flat_feature_index"]
        threshold[nodes] = np.float64(np.float32(split["border"]))
        missing_left[nodes] = about["nan_value_treatment"] != "AsTrue"
    node = np.arange(count)
    leaf = node >= 2**depth - 1
    leaves = scale * np.array(found["leaf_values"], dtype=np.float64).reshape(-1, outputs)
    weight = np.zeros((count, outputs))
    weight[leaf] = leaves
    return [
        Tree(
            feature,
            threshold,
            np.where(leaf, LEAF, 2 * node + 1),
            np.where(leaf, LEAF, 2 * node + 2),
            missing_left,
            weight[:, output],
            output,
        )
        for output in range(outputs)
    ]


FRAMEWORK = Catboost()
