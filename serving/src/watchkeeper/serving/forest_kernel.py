"""The compiled loops of ``compiled/forest_loops.c``, called through ctypes.

``build_loops.py`` compiles them when this package is installed. They do not check their arguments:
a wrong index reads foreign memory. So :class:`Kernel` accepts arrays of the right types only, and
its caller has checked what the arrays refer to.
"""

from ctypes import CDLL, POINTER, Structure, byref, c_size_t, c_void_p
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

# In a folder of its own: beside modules, Python takes it for one of them.
LIBRARY: Final = Path(__file__).parent / "compiled/forest_loops.so"


class _Forest(Structure):
    """The struct ``Forest`` of ``forest_loops.c``."""

    _fields_ = (
        *((name, c_void_p) for name in ("left", "feature", "threshold", "weight")),
        *((name, c_void_p) for name in ("roots", "targets")),
        *((name, c_size_t) for name in ("groups", "members")),
    )


class Kernel:
    """Trees in memory, and the loops over them.

    Args:
        left: The left child of each node, its right neighbour is the right one; a leaf has itself.
        feature: The column that each node compares.
        threshold: What each node compares with; infinite for a leaf.
        weight: The weights of each node, of shape (nodes, members); zero if it is not a leaf.
        roots: The root of each group of trees, as a node.
        targets: The output that each tree of a group adds to, of shape (groups, members).
    """

    def __init__(
        self,
        *,
        left: NDArray[np.uint32],
        feature: NDArray[np.uint32],
        threshold: NDArray[np.float64],
        weight: NDArray[np.float64],
        roots: NDArray[np.uint32],
        targets: NDArray[np.uint32],
    ) -> None:
        integers = [np.ascontiguousarray(x, np.uint32) for x in (left, feature, roots, targets)]
        numbers = [np.ascontiguousarray(x, np.float64) for x in (threshold, weight)]
        self._arrays = integers, numbers  # the struct has only their addresses
        (left_at, feature_at, roots_at, targets_at) = (array.ctypes.data for array in integers)
        (threshold_at, weight_at) = (array.ctypes.data for array in numbers)
        self._forest = _Forest(
            *(left_at, feature_at, threshold_at, weight_at, roots_at, targets_at), *targets.shape
        )
        self._outputs = int(targets.max()) + 1
        self._add_trees = _library().add_trees

    def add_trees(self, features: NDArray[np.float64], sums: NDArray[np.float64]) -> None:
        """Add the leaf of every tree to the sums.

        Args:
            features: The rows, of shape (rows, columns), without missing values.
            sums: The sums so far, of shape (outputs, rows). They are changed.

        Raises:
            TypeError: The sums cannot be changed in place.
            ValueError: The sums have another shape.
        """
        rows = np.ascontiguousarray(features, np.float64)
        if not (sums.flags.c_contiguous and sums.dtype == np.float64):
            raise TypeError("sums must be contiguous FP64, because they are changed in place")
        if sums.shape[1] != len(rows) or len(sums) < self._outputs:
            raise ValueError(f"sums of shape {sums.shape}: {self._outputs, len(rows)} is needed")
        if len(rows):
            self._add_trees(byref(self._forest), rows.ctypes.data, *rows.shape, sums.ctypes.data)


@cache
def _library() -> CDLL:
    try:
        library = CDLL(str(LIBRARY))
    except OSError as error:
        raise RuntimeError(
            f"the compiled forest cannot be loaded ({error}); delete {LIBRARY} and install "
            "watchkeeper-serving again, for example by 'make environments'"
        ) from error
    library.add_trees.argtypes = [POINTER(_Forest), c_void_p, c_size_t, c_size_t, c_void_p]
    library.add_trees.restype = None
    return library
