"""The trees of scikit-learn's estimators.

Trees and forests round features to float32 and compare them with double thresholds. Histogram
gradient boosting compares doubles.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

import numpy as np
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.tree import (
    DecisionTreeClassifier,
    DecisionTreeRegressor,
    ExtraTreeClassifier,
    ExtraTreeRegressor,
)

from watchkeeper.pipeline.frameworks.isolation_trees import isolation_trees
from watchkeeper.pipeline.trees import Link, Numbers, Tree, Trees, UnsupportedTreesError

_PROBABILITY: Final = ("predict_proba",)
_MARGIN: Final = ("predict_proba", "decision_function")
_NUMBER: Final = ("predict",)


def trees(estimator: Any, method: str) -> Trees:
    """Return the trees that compute what a method of the estimator returns.

    Raises:
        UnsupportedTreesError: the estimator or its method is none of trees alone.
    """
    kind = type(estimator)
    if kind not in _LOWERED:
        raise UnsupportedTreesError(f"{kind.__name__} is not read as trees")
    methods, lower = _LOWERED[kind]
    if method not in methods:
        raise UnsupportedTreesError(f"{kind.__name__}.{method} is not a sum over its trees")
    if getattr(estimator, "n_outputs_", 1) != 1:
        raise UnsupportedTreesError(f"{kind.__name__} was fitted on several targets")
    found: Trees = lower(estimator, method)
    return found


def split_nodes(tree: Any, weight: Numbers, output: int = 0) -> Tree:
    """Return one tree of scikit-learn with a weight for each node, of shape (nodes,)."""
    leaf = tree.children_left < 0
    return Tree(
        feature=np.where(leaf, 0, tree.feature).astype(np.int64),
        threshold=np.where(leaf, 0.0, tree.threshold),
        left=tree.children_left.astype(np.int64),
        right=tree.children_right.astype(np.int64),
        missing_left=~leaf & tree.missing_go_to_left.astype(bool),
        weight=np.where(leaf, weight, 0.0),
        output=output,
    )


def _forest(estimator: Any, _: str) -> Trees:
    return _average(estimator, estimator.estimators_)


def _single_tree(estimator: Any, _: str) -> Trees:
    return _average(estimator, [estimator])


def _average(estimator: Any, members: Iterable[Any]) -> Trees:
    """Average the values of the members' leaves; the leaves of classifiers have probabilities."""
    fitted = [member.tree_ for member in members]
    columns = _class_columns(len(getattr(estimator, "classes_", [0])))
    return Trees(
        [
            split_nodes(tree, tree.value[:, 0, column] / len(fitted), output)
            for tree in fitted
            for output, column in enumerate(columns)
        ],
        estimator.n_features_in_,
        np.zeros(len(columns)),
        float32=True,
    )


def _class_columns(classes: int) -> list[int]:
    """Return the columns of a leaf's value that are outputs: of two classes the second one."""
    return [1] if classes == 2 else list(range(classes))


def _gradient_boosting(estimator: Any, method: str) -> Trees:
    outputs = estimator.estimators_.shape[1]
    return Trees(
        [
            split_nodes(member.tree_, estimator.learning_rate * member.tree_.value[:, 0, 0], output)
            for stage in estimator.estimators_
            for output, member in enumerate(stage)
        ],
        estimator.n_features_in_,
        _start(estimator, outputs),
        _boosting_link(estimator, outputs, method),
        float32=True,
    )


def _start(estimator: Any, outputs: int) -> Numbers:
    """Return the prediction without trees, which is a constant unless the user has declared one."""
    if estimator.init_ == "zero":
        return np.zeros(outputs)
    if not isinstance(estimator.init_, DummyClassifier | DummyRegressor):
        raise UnsupportedTreesError("its predictions start from another estimator (init)")
    any_row = np.zeros((1, estimator.n_features_in_), dtype=np.float32)
    return np.asarray(estimator._raw_predict_init(any_row), dtype=np.float64).reshape(outputs)


def _boosting_link(estimator: Any, outputs: int, method: str) -> Link:
    if method != "predict_proba":
        return "identity"
    if estimator.loss != "log_loss":
        raise UnsupportedTreesError(f"its loss is {estimator.loss!r}")
    return "sigmoid" if outputs == 1 else "softmax"


def _histogram_boosting(estimator: Any, method: str) -> Trees:
    if estimator.is_categorical_ is not None:
        raise UnsupportedTreesError("it has categorical features")
    outputs = estimator.n_trees_per_iteration_
    link: Link = "identity"
    if method == "predict_proba":
        link = "sigmoid" if outputs == 1 else "softmax"
    elif method == "predict" and estimator.loss in ("poisson", "gamma"):
        link = "exp"
    return Trees(
        [
            _histogram_tree(predictor.nodes, output)
            for iteration in estimator._predictors
            for output, predictor in enumerate(iteration)
        ],
        estimator.n_features_in_,
        np.asarray(estimator._baseline_prediction, dtype=np.float64).reshape(outputs),
        link,
    )


def _histogram_tree(nodes: Any, output: int) -> Tree:
    leaf = nodes["is_leaf"].astype(bool)
    return Tree(
        feature=np.where(leaf, 0, nodes["feature_idx"]).astype(np.int64),
        threshold=np.where(leaf, 0.0, nodes["num_threshold"]),
        left=np.where(leaf, -1, nodes["left"].astype(np.int64)),
        right=np.where(leaf, -1, nodes["right"].astype(np.int64)),
        missing_left=~leaf & nodes["missing_go_to_left"].astype(bool),
        weight=np.where(leaf, nodes["value"], 0.0),
        output=output,
    )


_Lowering = tuple[tuple[str, ...], Callable[[Any, str], Trees]]
_LOWERED: Final[dict[type, _Lowering]] = {
    DecisionTreeClassifier: (_PROBABILITY, _single_tree),
    DecisionTreeRegressor: (_NUMBER, _single_tree),
    ExtraTreeClassifier: (_PROBABILITY, _single_tree),
    ExtraTreeRegressor: (_NUMBER, _single_tree),
    RandomForestClassifier: (_PROBABILITY, _forest),
    RandomForestRegressor: (_NUMBER, _forest),
    ExtraTreesClassifier: (_PROBABILITY, _forest),
    ExtraTreesRegressor: (_NUMBER, _forest),
    GradientBoostingClassifier: (_MARGIN, _gradient_boosting),
    GradientBoostingRegressor: (_NUMBER, _gradient_boosting),
    HistGradientBoostingClassifier: (_MARGIN, _histogram_boosting),
    HistGradientBoostingRegressor: (_NUMBER, _histogram_boosting),
    IsolationForest: (("decision_function", "score_samples", "predict"), isolation_trees),
}
