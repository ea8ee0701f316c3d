"""Which rows of a large history are read.

A training run needs about 0.7 GiB of memory for each million of rows with ten columns. So at most
``split.history_rows`` labelled rows are read. If there are more, a sample of them is.

**Blocks.** The sample has whole blocks of consecutive ids, those of
:func:`watchkeeper.training.split.block_numbers`. Within a block rows stay neighbours, as in the
traffic: the reference of the drift watch needs stretches without gaps, and idle machines that
repeat their readings are still found as duplicates. Rows with the same id are in one block, so they
are found, too. The blocks are spread over the whole history.

**Chosen by a hash** of the block's number, which does not depend on other rows. One block in 2, in
4, in 8 and so on is read, so that at most the limit is left. The same blocks are read again until
the history has about twice as many rows. A row stays on its side of the split, because its own
block or group decides about that; only a row that equals an older one can move, if the older one is
no longer read. The hash has nothing to do with the rule that holds out blocks.

**Shares stay.** Rows are not chosen by their truth. A sample with more rows of a rare outcome would
change the rate of this outcome: probabilities, thresholds and the metrics of the gate would be
about a history that never was, and all of them would need weights.

**Groups.** Rows of one group (``split.group``) are not kept whole: of ten machines with a million
rows each only one or two would be left. All groups are in the sample, with a part of their rows,
and the split keeps these on one side.

The rows are chosen in one pass, while they come from the database. When more than the limit are
kept, every second block is dropped.
"""

from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from watchkeeper.core.sample import Sample
from watchkeeper.training import CannotTrainError
from watchkeeper.training.declaration import Split
from watchkeeper.training.group_order import GroupOrder
from watchkeeper.training.split import block_numbers

_FEWEST: Final = 2**60  # one block in so many; a hash has 64 bits


class Sampler:
    """Chooses the rows of a history while they are read, and says afterwards which they were.

    ``of`` is the number of labelled rows, ``groups`` the order of the declared groups among them.
    """

    def __init__(self, rule: Split, most: int | None = None) -> None:
        """Prepare to read a history.

        Args:
            rule: its blocks are chosen or not; it has the limit.
            most: another limit; 0 for no limit.
        """
        self.of = 0
        self.groups = GroupOrder() if rule.group else None
        self._rule = rule
        self._most = rule.history_rows if most is None else most
        self._one_in = 1
        self._parts: list[pd.DataFrame] = []
        self._rows = 0

    def choose(self, ids: NDArray[np.int64], labelled: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which rows (rows,) of the next part are read, of those that are labelled."""
        self.of += int(labelled.sum())
        return np.asarray(labelled & self._in_sample(ids))

    def keep(self, part: pd.DataFrame) -> None:
        """Keep the chosen rows of a part, whose index has their ids."""
        self._parts.append(part)
        self._rows += len(part)
        while self._most and self._rows > self._most and self._one_in < _FEWEST:
            self._one_in *= 2
            smaller = (x[self._in_sample(x.index.to_numpy())] for x in self._parts)
            self._parts = [x for x in smaller if len(x)]
            self._rows = sum(map(len, self._parts))

    def take(self, where: str) -> pd.DataFrame:
        """Return all kept rows, and let go of them.

        Args:
            where: names the rows in messages.

        Raises:
            CannotTrainError: no row is in the sample, or more than the limit, because too many
                rows have ids of one block.
        """
        if not self._parts or self._one_in >= _FEWEST:
            raise CannotTrainError(
                f"{where}: {self.of} rows are in so few blocks of {self._rule.largest_block} ids "
                f"that a sample of {self._most} rows is not possible; an id must be an integer "
                "that no other row has, and split.block_rows smaller than split.history_rows"
            )
        parts, self._parts = self._parts, []
        return pd.concat(parts)

    @property
    def sample(self) -> Sample | None:
        """What was read of the history; None if all labelled rows were."""
        return Sample(self._rows, self.of, self._one_in) if self._one_in > 1 else None

    def group_numbers(self, names: NDArray[np.object_]) -> NDArray[np.int64] | None:
        """Return the numbers of declared groups (rows,); None if no group is declared."""
        return self.groups.numbers(names) if self.groups else None

    def _in_sample(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which rows (rows,) are in the sample, by their ids."""
        if self._one_in == 1:
            return np.ones(len(ids), dtype=bool)
        hashes = pd.util.hash_array(block_numbers(ids, self._rule))
        return np.asarray(hashes & np.uint64(self._one_in - 1) == 0)
