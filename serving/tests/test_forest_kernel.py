"""The compiled loops get addresses: what they read has the type and order that they expect."""

import numpy as np
import pytest

from watchkeeper.serving.forest_kernel import Kernel

# One node with two leaves: above 0.5 the right one.
STUMP = {
    "left": np.array([1, 1, 2], dtype=np.uint32),
    "feature": np.array([1, 0, 0], dtype=np.uint32),
    "threshold": np.array([0.5, np.inf, np.inf]),
    "weight": np.array([[0.0], [10.0], [20.0]]),
    "roots": np.array([0], dtype=np.uint32),
    "targets": np.array([[0]], dtype=np.uint32),
}
ROWS = np.array([[0.0, 0.25], [1.0, 0.75], [1.0, 0.5]])
EXPECTED = [[10.0, 20.0, 10.0]]


def added(kernel: Kernel, rows: np.ndarray) -> list[list[float]]:
    sums = np.zeros((1, len(rows)))
    kernel.add_trees(rows, sums)
    return sums.tolist()


@pytest.mark.parametrize(
    "rows", [np.asfortranarray(ROWS), ROWS.astype(np.float32), ROWS.repeat(2, 0)[::2]]
)
def test_rows_in_another_order_or_type_give_the_same_sums(rows: np.ndarray) -> None:
    assert added(Kernel(**STUMP), rows) == EXPECTED


def test_no_row_gives_no_sum() -> None:
    assert added(Kernel(**STUMP), np.zeros((0, 2))) == [[]]


def test_trees_of_other_integers_are_the_same_trees() -> None:
    wide = {
        name: array.astype(np.int64) if array.dtype == np.uint32 else array
        for name, array in STUMP.items()
    }
    assert added(Kernel(**wide), ROWS) == EXPECTED


@pytest.mark.parametrize("sums", [np.zeros((1, 3), dtype=np.float32), np.zeros((1, 6))[:, ::2]])
def test_sums_that_cannot_be_changed_in_place_are_refused(sums: np.ndarray) -> None:
    with pytest.raises(TypeError, match="in place"):
        Kernel(**STUMP).add_trees(ROWS, sums)


@pytest.mark.parametrize("shape", [(1, 2), (0, 3)])
def test_sums_of_another_shape_are_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="is needed"):
        Kernel(**STUMP).add_trees(ROWS, np.zeros(shape))
