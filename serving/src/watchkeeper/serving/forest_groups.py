"""Trees of one shape: those of a forest with several outputs often differ in their leaves only.

A row reaches the same leaf in all of them. So they make a group, and the compiled forest takes rows
down one tree of each group.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Groups(NamedTuple):
    """Groups of trees with the same comparisons.

    Attributes:
        kept: Which nodes (nodes,) are those of the first tree of a group.
        first: The first tree of each group, of shape (groups,).
        targets: The output that each tree of a group adds to, of shape (groups, members).
        weight: The weight of each kept node in each tree of its group, of shape (nodes, members).
    """

    kept: NDArray[np.bool_]
    first: NDArray[np.intp]
    targets: NDArray[np.uint32]
    weight: NDArray[np.float64]


def group_trees(
    tree: NDArray[np.intp],
    comparisons: Sequence[NDArray[Any]],
    targets: NDArray[np.uint32],
    weight: NDArray[np.float64],
) -> Groups:
    """Find trees of one shape that add to different outputs.

    A group with fewer trees than the largest one adds zeros to output 0, which costs time. So all
    trees stay alone if the groups are more than half as many.

    Args:
        tree: The tree of each node, of shape (nodes,); it never falls.
        comparisons: What must be equal in two trees, each of shape (nodes,).
        targets: The output that each tree adds to, of shape (trees,).
        weight: The weight of each node, of shape (nodes,).
    """
    bounds = np.searchsorted(tree, np.arange(len(targets) + 1))
    groups = _same_shape(bounds, comparisons, targets)
    if 2 * len(groups) > len(targets):
        groups = [[number] for number in range(len(targets))]
    first = np.array([members[0] for members in groups], dtype=np.intp)
    kept = np.isin(tree, first)
    width = max(map(len, groups))
    of_groups = np.zeros((len(groups), width), dtype=np.uint32)
    weights = np.zeros((int(kept.sum()), width))
    begin = 0
    for group, members in enumerate(groups):
        end = begin + int(bounds[members[0] + 1] - bounds[members[0]])
        for place, number in enumerate(members):
            of_groups[group, place] = targets[number]
            weights[begin:end, place] = weight[bounds[number] : bounds[number + 1]]
        begin = end
    return Groups(kept, first, of_groups, weights)


def _same_shape(
    bounds: NDArray[np.intp], comparisons: Sequence[NDArray[Any]], targets: NDArray[np.uint32]
) -> list[list[int]]:
    """Return the trees of each group; those of one group add to different outputs."""
    groups: dict[tuple[bytes, int], list[int]] = {}
    seen: Counter[tuple[bytes, int]] = Counter()
    for number, target in enumerate(targets.tolist()):
        shape = hashlib.sha256()
        for values in comparisons:
            shape.update(values[bounds[number] : bounds[number + 1]].tobytes())
        digest = shape.digest()
        groups.setdefault((digest, seen[digest, target]), []).append(number)
        seen[digest, target] += 1
    return list(groups.values())
