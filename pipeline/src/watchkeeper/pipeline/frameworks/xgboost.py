"""XGBoost: its scikit-learn classes, saved as UBJSON.

Its trees compare float32 values, and it adds up in float32.
"""

import json
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
from watchkeeper.pipeline.trees import (
    LEAF,
    Link,
    Missing,
    Numbers,
    Tree,
    Trees,
    UnsupportedTreesError,
    Whole,
    below,
)

CLASSES: Final = frozenset({"XGBClassifier", "XGBRegressor", "XGBRFClassifier", "XGBRFRegressor"})

# The links by objective; the base score is stored after the link.
_LINKS: Final[dict[str, Link]] = {
    "binary:logistic": "sigmoid",
    "reg:logistic": "sigmoid",
    "multi:softprob": "softmax",
    "count:poisson": "exp",
    "reg:gamma": "exp",
    "reg:tweedie": "exp",
    "reg:squarederror": "identity",
    "reg:squaredlogerror": "identity",
    "reg:pseudohubererror": "identity",
    "reg:absoluteerror": "identity",
    "reg:quantileerror": "identity",
}


class Xgboost(Framework):
    """XGBClassifier, XGBRegressor, XGBRFClassifier and XGBRFRegressor."""

    name = "xgboost"
    library = "xgboost"

    def recognises(self, estimator: Any) -> bool:
        """Whether the class is one of XGBoost's own."""
        return is_a(estimator, self.library, CLASSES)

    def save(self, estimator: Any, path: Path) -> None:
        """Write ``path.ubj``, and beside it ``missing``, which UBJSON does not contain."""
        if callable(estimator.objective):
            raise UnsupportedEstimatorError("its objective is a function, which no file can hold")
        estimator.save_model(f"{path}.ubj")
        kind, missing = type(estimator).__name__, float(estimator.missing)
        write_side_file(path, {"class": kind, "missing": None if np.isnan(missing) else missing})

    def load(self, path: Path) -> Any:
        """Read ``path.ubj``."""
        side = read_side_file(path, CLASSES)
        xgboost = library(self.library)
        missing = np.nan if side["missing"] is None else side["missing"]
        # More threads than one cost more than they save for the rows of a request.
        estimator = getattr(xgboost, side["class"])(missing=missing, n_jobs=1)
        try:
            estimator.load_model(f"{path}.ubj")
        except xgboost.core.XGBoostError as error:
            raise BrokenVersionError(f"{path}.ubj: XGBoost cannot load it: {error}") from error
        return estimator

    def opened(self, folder: Path, flavour: dict[str, Any], head: Head) -> Any:
        """Read ``model.ubj`` or ``model.json``; a file has no ``missing`` other than NaN."""
        kind = str(flavour.get("model_class", "")).rpartition(".")[2]
        if kind not in CLASSES:
            kind = "XGBClassifier" if task_of(head).outcomes else "XGBRegressor"
        path = file_of(folder, flavour, "data")
        xgboost = library(self.library)
        estimator = getattr(xgboost, kind)(n_jobs=1)
        try:
            estimator.load_model(path)
        except (xgboost.core.XGBoostError, TypeError) as error:
            raise BrokenVersionError(f"{path.name}: XGBoost cannot load it: {error}") from error
        return estimator

    def trees(self, estimator: Any, method: str) -> Trees:
        """Return the trees up to the best iteration."""
        wanted = "predict_proba" if "Classifier" in type(estimator).__name__ else "predict"
        if method != wanted:
            raise UnsupportedTreesError(f"{type(estimator).__name__}.{method} is no sum of trees")
        booster = estimator.get_booster()
        learner = json.loads(bytes(booster.save_raw("json")))["learner"]
        boosting = learner["gradient_booster"]
        if boosting["name"] not in ("gbtree", "dart"):
            raise UnsupportedTreesError(f"its booster is {boosting['name']!r}")
        dropped = boosting.get("weight_drop")
        model = boosting["gbtree"]["model"] if "gbtree" in boosting else boosting["model"]
        count = len(model["trees"])
        best = booster.attributes().get("best_iteration")
        if best is not None:
            count = model["iteration_indptr"][int(best) + 1]
        link, base = _link_and_base(learner)
        features = int(learner["learner_model_param"]["num_feature"])
        categorical: set[int] = set()
        trees = [
            _tree(model["trees"][n], dropped[n] if dropped else 1.0, model["tree_info"][n])
            for n in range(count)
        ]
        for tree in trees:
            categorical |= {int(tree.feature[node]) for node in tree.members}
        missing = float(estimator.missing)
        return Trees(
            trees,
            features,
            base,
            link,
            float32=True,
            missing=Missing(None if np.isnan(missing) else missing),
            whole=Whole(tuple(sorted(categorical)), "floor"),
        )


def _tree(found: Any, factor: float, output: int) -> Tree:
    if int(found["tree_param"]["size_leaf_vector"]) > 1:
        raise UnsupportedTreesError("its trees have vectors as leaves")
    left = np.array(found["left_children"], dtype=np.int64)
    right = np.array(found["right_children"], dtype=np.int64)
    value = np.array(found["split_conditions"], dtype=np.float32).astype(np.float64)
    missing_left = np.array(found["default_left"], dtype=bool)
    leaf = left == LEAF
    category = ~leaf & (np.array(found["split_type"]) == 1)
    parts = zip(
        found["categories_nodes"],
        found["categories_segments"],
        found["categories_sizes"],
        strict=True,
    )
    return Tree(
        feature=np.where(leaf, 0, found["split_indices"]).astype(np.int64),
        threshold=np.where(leaf | category, 0.0, below(value)),
        # The categories of a node go right.
        left=np.where(category, right, left),
        right=np.where(category, left, right),
        missing_left=~leaf & (missing_left ^ category),
        weight=np.where(leaf, value * factor, 0.0),
        output=output,
        members={
            node: np.array(found["categories"][start : start + size], dtype=np.float64)
            for node, start, size in parts
        },
    )


def _link_and_base(learner: Any) -> tuple[Link, Numbers]:
    objective = learner["objective"]["name"]
    if objective not in _LINKS:
        raise UnsupportedTreesError(f"its objective is {objective!r}")
    link, parameters = _LINKS[objective], learner["learner_model_param"]
    outputs = max(1, int(parameters["num_class"]), int(parameters.get("num_target", 1)))
    base = np.atleast_1d(np.array(json.loads(parameters["base_score"]), dtype=np.float32))
    if link == "sigmoid":
        base = -np.log(1 / base - np.float32(1))
    elif link == "exp":
        base = np.log(base)
    return link, np.broadcast_to(base.astype(np.float64), (outputs,)).copy()


FRAMEWORK = Xgboost()
