"""The trees of an isolation forest.

The depth of a row is a sum of one constant per leaf, which is what an ensemble of regression trees
computes (Liu, Ting and Zhou, "Isolation Forest", ICDM 2008, equations 1 and 2).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from watchkeeper.pipeline.trees import LEAF, Numbers, Tree, Trees


def isolation_trees(forest: Any, method: str) -> Trees:
    """Return the trees; their sum is the mean depth over the expected depth."""
    expected = len(forest.estimators_) * float(_expected_depth(np.array([forest.max_samples_]))[0])
    members = zip(forest.estimators_, forest.estimators_features_, strict=True)
    return Trees(
        [_depth_tree(member.tree_, columns, expected) for member, columns in members],
        forest.n_features_in_,
        np.zeros(1),
        "isolation label" if method == "predict" else "isolation",
        0.0 if method == "score_samples" else float(forest.offset_),
        float32=True,
    )


def _depth_tree(tree: Any, columns: NDArray[np.int64], expected: float) -> Tree:
    leaf = tree.children_left == LEAF
    depth = _depths(tree) + _expected_depth(tree.n_node_samples)
    return Tree(
        feature=np.where(leaf, 0, columns[np.where(leaf, 0, tree.feature)]),
        threshold=np.where(leaf, 0.0, tree.threshold),
        left=tree.children_left.astype(np.int64),
        right=tree.children_right.astype(np.int64),
        missing_left=~leaf & tree.missing_go_to_left.astype(bool),
        weight=np.where(leaf, depth / expected, 0.0),
    )


def _depths(tree: Any) -> Numbers:
    """Count the splits above each node (nodes,); children come after their parents."""
    depths = np.zeros(tree.node_count)
    for node in range(tree.node_count):
        for child in (tree.children_left[node], tree.children_right[node]):
            if child != LEAF:
                depths[child] = depths[node] + 1.0
    return depths


def _expected_depth(rows: NDArray[Any]) -> Numbers:
    """Return the average depth of a row in trees of ``rows`` rows, in the same shape."""
    many = np.maximum(rows, 3).astype(np.float64)
    deep = 2.0 * (np.log(many - 1.0) + np.euler_gamma) - 2.0 * (many - 1.0) / many
    return np.where(rows <= 1, 0.0, np.where(rows == 2, 1.0, deep))
