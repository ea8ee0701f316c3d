"""Ensembles of decision trees in one form, whatever library has fitted them.

A row of features goes through these steps:

1. ``float32``: the features are rounded to float32 and compared as doubles.
2. ``missing``: values that are missing by a rule of the library become NaN.
3. ``whole``: features with categories are rounded to whole numbers.
4. Each tree adds the weight of one leaf to one output, on top of ``base``.
5. ``link`` turns the sums into the outputs.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

LEAF: Final = -1  # the child of a leaf

Link = Literal["identity", "sigmoid", "softmax", "exp", "isolation", "isolation label"]
"""From sums to outputs. "isolation" is -2^-sum - offset, and "isolation label" is -1 where that is
negative and 1 elsewhere."""

Rounding = Literal["floor", "towards zero"]


class UnsupportedTreesError(ValueError):
    """The estimator has no trees, or trees that this form cannot express; the message says why."""


class Tree(NamedTuple):
    """One tree, in arrays of shape (nodes,). Node 0 is the root.

    A row goes left if its feature is not larger than the threshold, or, in a node of ``members``,
    if its feature is one of these categories. A missing value goes left where ``missing_left`` is
    true. Children have larger numbers than their parents. Leaves have :data:`LEAF` as both
    children, and a weight.
    """

    feature: NDArray[np.int64]
    threshold: Numbers
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    missing_left: NDArray[np.bool_]
    weight: Numbers
    output: int = 0
    members: Mapping[int, Numbers] = {}

    @property
    def leaf(self) -> NDArray[np.bool_]:
        """Which nodes are leaves, of shape (nodes,)."""
        return np.asarray(self.left == LEAF)


class Missing(NamedTuple):
    """Which values are missing besides NaN.

    ``value`` is a number that says so in every feature. In the features ``zeros``, numbers up to
    ``nearly_zero`` in size do.
    """

    value: float | None = None
    zeros: tuple[int, ...] = ()
    nearly_zero: float = 0.0


class Whole(NamedTuple):
    """The features that are rounded to whole numbers before they are compared."""

    features: tuple[int, ...] = ()
    rounding: Rounding = "floor"


class Trees(NamedTuple):
    """An ensemble.

    A binary classifier has one output, the probability of its positive class. A classifier of k
    classes has k outputs, a regressor has one.
    """

    trees: Sequence[Tree]
    features: int
    base: Numbers  # (outputs,)
    link: Link = "identity"
    offset: float = 0.0
    float32: bool = False
    missing: Missing = Missing()
    whole: Whole = Whole()

    @property
    def outputs(self) -> int:
        """The number of outputs."""
        return len(self.base)

    def thresholds(self) -> list[Numbers]:
        """Return for each feature the sorted values at which some tree changes its direction."""
        found: list[list[Any]] = [[] for _ in range(self.features)]
        for tree in self.trees:
            for node in np.flatnonzero(~tree.leaf):
                values = tree.members.get(int(node), tree.threshold[node])
                found[tree.feature[node]].append(np.atleast_1d(values))
        return [np.unique(np.concatenate(each)) if each else np.empty(0) for each in found]


def below(thresholds: Any) -> Numbers:
    """Turn thresholds of "less than" into thresholds of "not larger than"."""
    return np.nextafter(np.asarray(thresholds, dtype=np.float64), -np.inf)
