"""LightGBM: its scikit-learn classes, saved as text.

Its trees compare doubles.
"""

from pathlib import Path
from typing import Any, Final

import numpy as np

from watchkeeper.core.head import Head
from watchkeeper.core.tasks import task_of
from watchkeeper.core.version import BrokenVersionError
from watchkeeper.pipeline.frameworks import (
    Framework,
    PickledError,
    UnsupportedEstimatorError,
    file_of,
    is_a,
    library,
)
from watchkeeper.pipeline.frameworks.side_file import read_side_file, write_side_file
from watchkeeper.pipeline.frameworks.sklearn import SKOPS, load_skops
from watchkeeper.pipeline.trees import (
    LEAF,
    Link,
    Missing,
    Numbers,
    Tree,
    Trees,
    UnsupportedTreesError,
    Whole,
)

CLASSES: Final = frozenset({"LGBMClassifier", "LGBMRegressor"})
# What skops holds of these classes. They read the text of the trees, and call nothing by its name.
TRUSTED_TYPES: Final = (
    "collections.OrderedDict",
    "lightgbm.basic.Booster",
    "lightgbm.sklearn.LGBMClassifier",
    "lightgbm.sklearn.LGBMRegressor",
)
NEARLY_ZERO: Final = float(np.float32(1e-35))  # LightGBM takes smaller numbers as 0

_LINKS: Final[dict[str, Link]] = {
    "binary": "sigmoid",
    "cross_entropy": "sigmoid",
    "multiclass": "softmax",
    "multiclassova": "sigmoid",
    "poisson": "exp",
    "gamma": "exp",
    "tweedie": "exp",
    "regression": "identity",
    "regression_l1": "identity",
    "huber": "identity",
    "fair": "identity",
    "quantile": "identity",
    "mape": "identity",
}


class LoadedBooster:
    """A LightGBM model that was read from a file, with the methods of its scikit-learn class."""

    def __init__(self, booster: Any, kind: str) -> None:
        self.booster_ = booster
        self.kind = kind

    def predict(self, values: Any) -> Any:
        """Return one number per row, of shape (rows,)."""
        return self.booster_.predict(values, num_threads=1)

    def predict_proba(self, values: Any) -> Any:
        """Return the probabilities of all classes, of shape (rows, classes)."""
        found = self.predict(values)
        return np.stack([1.0 - found, found], axis=1) if found.ndim == 1 else found


class Lightgbm(Framework):
    """LGBMClassifier and LGBMRegressor."""

    name = "lightgbm"
    library = "lightgbm"

    def recognises(self, estimator: Any) -> bool:
        """Whether the class is one of LightGBM's own, or read from a file of LightGBM."""
        return isinstance(estimator, LoadedBooster) or is_a(estimator, self.library, CLASSES)

    def save(self, estimator: Any, path: Path) -> None:
        """Write ``path.txt``, with the trees up to the best iteration."""
        if callable(getattr(estimator, "objective_", None)):
            raise UnsupportedEstimatorError("its objective is a function, which no file can hold")
        estimator.booster_.save_model(f"{path}.txt")
        write_side_file(path, {"class": _kind(estimator)})

    def load(self, path: Path) -> Any:
        """Read ``path.txt``."""
        side = read_side_file(path, CLASSES)
        lightgbm = library(self.library)
        try:
            booster = lightgbm.Booster(model_file=f"{path}.txt")
        except lightgbm.basic.LightGBMError as error:
            raise BrokenVersionError(f"{path}.txt: LightGBM cannot load it: {error}") from error
        return LoadedBooster(booster, side["class"])

    def opened(self, folder: Path, flavour: dict[str, Any], head: Head) -> Any:
        """Read ``model.lgb`` of a Booster, or ``model.skops`` of the other classes."""
        path = file_of(folder, flavour, "data")
        lightgbm = library(self.library)
        if _is_booster(flavour):
            kind = "LGBMClassifier" if task_of(head).outcomes else "LGBMRegressor"
            try:
                return LoadedBooster(lightgbm.Booster(model_file=str(path)), kind)
            except lightgbm.basic.LightGBMError as error:
                raise BrokenVersionError(
                    f"{path.name}: LightGBM cannot load it: {error}"
                ) from error
        if self.is_pickle(flavour):
            raise PickledError(path)
        return load_skops(path, TRUSTED_TYPES)

    def is_pickle(self, flavour: dict[str, Any]) -> bool:
        """Whether it is no text of a Booster, and the format is another one than skops."""
        return not _is_booster(flavour) and flavour.get("serialization_format") != SKOPS

    def feature_names(self, estimator: Any) -> list[str]:
        """Return the names in the file."""
        return [str(name) for name in estimator.booster_.feature_name()]

    def trees(self, estimator: Any, method: str) -> Trees:
        """Return the trees up to the best iteration."""
        kind = _kind(estimator)
        if method != ("predict_proba" if kind == "LGBMClassifier" else "predict"):
            raise UnsupportedTreesError(f"{kind}.{method} is no sum of trees")
        model = estimator.booster_.dump_model()
        objective, *settings = model.get("objective", "none").split()
        if objective not in _LINKS or "sqrt" in settings:
            raise UnsupportedTreesError(f"its objective is {model.get('objective')!r}")
        slope = next((float(x[8:]) for x in settings if x.startswith("sigmoid:")), 1.0)
        outputs = model["num_tree_per_iteration"]
        count = len(model["tree_info"])
        scale = slope * (outputs / count if model["average_output"] else 1.0)
        reader = _TreeReader()
        trees = [
            reader.tree(found["tree_structure"], scale, number % outputs)
            for number, found in enumerate(model["tree_info"])
        ]
        return Trees(
            trees,
            model["max_feature_idx"] + 1,
            np.zeros(outputs),
            _LINKS[objective],
            missing=Missing(zeros=reader.missing_zeros(), nearly_zero=NEARLY_ZERO),
            whole=Whole(tuple(sorted(reader.categorical)), "towards zero"),
        )


class _TreeReader:
    """Reads trees, and collects what holds for features in all of them."""

    def __init__(self) -> None:
        self.categorical: set[int] = set()
        self._zero_missing: set[int] = set()
        self._zero_present: set[int] = set()

    def missing_zeros(self) -> tuple[int, ...]:
        if self._zero_missing & self._zero_present:
            raise UnsupportedTreesError("a feature's zeros are missing in some nodes only")
        return tuple(sorted(self._zero_missing))

    def tree(self, root: Any, scale: float, output: int) -> Tree:
        nodes = [root]
        feature, threshold, left, right, missing_left, weight = [], [], [], [], [], []
        members: dict[int, Numbers] = {}
        for number, node in enumerate(nodes):  # it grows: children are appended
            if "leaf_const" in node:
                raise UnsupportedTreesError("its leaves are linear models")
            inner = "split_feature" in node
            feature.append(node["split_feature"] if inner else 0)
            weight.append(0.0 if inner else node["leaf_value"] * scale)
            left.append(len(nodes) if inner else LEAF)
            right.append(len(nodes) + 1 if inner else LEAF)
            if inner:
                nodes += [node["left_child"], node["right_child"]]
            categories = _categories(node)
            if categories is not None:
                members[number] = categories
                self.categorical.add(node["split_feature"])
            numeric = inner and categories is None
            threshold.append(_threshold(node["threshold"]) if numeric else 0.0)
            missing_left.append(numeric and self._missing_left(node))
        return Tree(
            np.array(feature, dtype=np.int64),
            np.array(threshold, dtype=np.float64),
            np.array(left, dtype=np.int64),
            np.array(right, dtype=np.int64),
            np.array(missing_left, dtype=bool),
            np.array(weight, dtype=np.float64),
            output,
            members,
        )

    def _missing_left(self, node: Any) -> bool:
        kind, feature = node["missing_type"], node["split_feature"]
        (self._zero_missing if kind == "Zero" else self._zero_present).add(feature)
        if kind == "None":  # then a missing value counts as 0
            return bool(_threshold(node["threshold"]) >= 0.0)
        return bool(node["default_left"])


def _is_booster(flavour: dict[str, Any]) -> bool:
    return str(flavour.get("model_class", "lightgbm.basic.Booster")).endswith(".Booster")


def _kind(estimator: Any) -> str:
    """Return the class of an estimator, also of one that was read from a file."""
    return str(getattr(estimator, "kind", type(estimator).__name__))


def _categories(node: Any) -> Numbers | None:
    if node.get("decision_type") != "==":
        return None
    return np.array([float(x) for x in node["threshold"].split("||")])


def _threshold(value: float) -> float:
    """Move a threshold within the numbers that count as 0 to the end of them."""
    if -NEARLY_ZERO <= value < 0.0:
        return float(np.nextafter(-NEARLY_ZERO, -np.inf))
    return max(float(value), NEARLY_ZERO) if value >= 0.0 else float(value)


FRAMEWORK = Lightgbm()
