"""The test for concept drift: has the mean of the losses risen above a limit?

The test is an e-detector (Shin, Ramdas, Rinaldo, "E-detectors: a nonparametric framework for
sequential change detection", NEJSDS 2, 2024). An observation is the mean loss of a block, a number
``x`` from 0 to 1. A stake ``s`` makes the e-value ``1 + s (x - limit)`` of it, whose mean is at
most 1 while the mean of ``x`` is at most the limit (Waudby-Smith and Ramdas, "Estimating means of
bounded random variables by betting", JRSS B 86, 2024). The products of e-values from every block on
are summed up, as Shiryaev and Roberts do, and averaged over some stakes. This sum reaches ``c``
after at least ``c`` blocks on average, however often one looks, and whatever the distribution is.

It assumes that the mean loss of a block, given all blocks before it, is at most the limit. Rows in
a block may depend on each other as they like. Blocks may not, beyond what the limit leaves room
for: the limit has to be above the loss of a difficult stretch that is longer than a block.
"""

from typing import Final

import msgspec
import numpy as np

from watchkeeper.core.estimates import Numbers

# The stakes as shares of 1 / limit, the largest one that never makes an e-value negative. Large
# ones find large changes soon, small ones find small changes.
STAKES: Final = np.array([0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9])
RECOVERY_BLOCKS: Final = 30  # of each stretch after an alarm, which says whether a drift has ended
RECOVERY_Z: Final = 1.645  # the mean loss is below the limit with a confidence of 95 %


class Detection(msgspec.Struct, frozen=True):
    """What the blocks show; places count from 0.

    ``drifted`` says whether the newest block is in a drift, ``first`` is the place of the first
    block of this drift, as far as the blocks tell, and ``found`` of the block that raised the
    alarm. ``evidence`` is the sum of e-values, as a share of the one that raises an alarm.
    ``alarms`` counts the alarms of all blocks.
    """

    drifted: bool = False
    first: int = 0
    found: int = 0
    evidence: float = 0.0
    alarms: int = 0


def detect(losses: Numbers, limit: float, run_length: float) -> Detection:
    """Look for a rise of the mean loss.

    After an alarm, each :data:`RECOVERY_BLOCKS` blocks are a stretch. A drift ends when a stretch
    shows a mean loss below the limit. Then the test begins anew. Stretches have no block in common.
    A test after each block would look at a drift that persists so often that it ends by chance.

    Args:
        losses: the mean losses of the blocks, oldest first, of shape (blocks,), from 0 to 1.
        limit: the largest mean loss that is no drift, above 0.
        run_length: the mean number of blocks without drift until an alarm, at least; above 0.
    """
    threshold = max(run_length, 1.0)
    found = Detection()
    begin = 0
    sums = np.zeros(len(STAKES))
    for place, loss in enumerate(losses):
        if found.drifted:
            complete = (place - found.found) % RECOVERY_BLOCKS == 0
            stretch = losses[place + 1 - RECOVERY_BLOCKS : place + 1]
            if complete and _upper_bound(stretch) <= limit:
                found = Detection(alarms=found.alarms)
                begin, sums = place + 1, np.zeros(len(STAKES))
            continue
        sums = (sums + 1) * (1 + STAKES * (loss / limit - 1))
        evidence = float(sums.mean()) / threshold
        if evidence >= 1:
            first = begin + _first_drifted(losses[begin : place + 1], limit)
            found = Detection(True, first, place, 1.0, found.alarms + 1)
        else:
            found = Detection(evidence=evidence, alarms=found.alarms)
    return found


def _first_drifted(losses: Numbers, limit: float) -> int:
    """Return the place from which on the product of e-values is largest, over all stakes."""
    logs = np.log1p(STAKES[:, np.newaxis] * (losses / limit - 1))
    products = np.cumsum(logs[:, ::-1], axis=1)[:, ::-1]
    return int(np.unravel_index(products.argmax(), products.shape)[1])


def _upper_bound(losses: Numbers) -> float:
    spread = losses.std(ddof=1) / len(losses) ** 0.5
    return float(losses.mean() + RECOVERY_Z * spread)
