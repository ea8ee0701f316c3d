"""The order in which the groups of a history appear.

It decides which groups are held out. So it must not change when a sample of the history is read,
and it is taken from all labelled rows.
"""

from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

_WAITING: Final = 1_000_000  # new rows, before they are merged


class GroupOrder:
    """The oldest id of each group. Names are kept as hashes, because there may be millions."""

    def __init__(self) -> None:
        self._oldest = pd.Series(dtype=np.int64, index=pd.Index([], dtype=np.uint64))
        self._new: list[pd.Series[int]] = []
        self._waiting = 0

    def add(self, names: NDArray[Any], ids: NDArray[np.int64]) -> None:
        """Add the names of the groups of rows (rows,), in any order, and the ids of the rows."""
        found = pd.Series(ids, _hashes(names)).groupby(level=0).min()
        self._new.append(found)
        self._waiting += len(found)
        if self._waiting > _WAITING + len(self._oldest):
            self._merge()

    def numbers(self, names: NDArray[Any]) -> NDArray[np.int64]:
        """Return the numbers of groups (rows,), counted from 0 in the order of their oldest ids."""
        self._merge()
        order = self._oldest.rank(method="first").astype(np.int64) - 1
        return np.asarray(order.loc[_hashes(names)], dtype=np.int64)

    def _merge(self) -> None:
        self._oldest = pd.concat([self._oldest, *self._new]).groupby(level=0).min()
        self._new, self._waiting = [], 0


def _hashes(names: NDArray[Any]) -> NDArray[np.uint64]:
    return np.asarray(pd.util.hash_array(names.astype(object)), dtype=np.uint64)
