"""The mean loss of a version on held-out rows: what the drift watch compares live losses with.

It is measured on the rows that describe what the version is going to see, as the reference does:
after a drift on the rows since the onset only. Neighbouring rows of machines are alike, so the
interval of a mean over rows would be too narrow. The units are blocks of consecutive rows, here
and in the watch.
"""

from collections.abc import Iterable
from fractions import Fraction
from math import ceil
from typing import Final

import numpy as np

from watchkeeper.core.block_means import FEWEST_BLOCKS, block_length, mean_of_dependent
from watchkeeper.core.gate_report import HISTORY, RECENT, HeldOutLoss, RowsKind
from watchkeeper.core.tasks import task_of
from watchkeeper.core.tasks.base import Labelled
from watchkeeper.core.version import ReferenceKind
from watchkeeper.training.fit import Fitted

MINIMUM_ROWS: Final = 100
TOO_FEW: Final = (
    "{rows} held-out rows with a label are too few to tell how long losses depend on each other; "
    "{needed} are enough: load a longer history, or wait for more labels before the next training "
    "run"
)
TOO_SLOW: Final = (
    "the losses change so slowly that {rows} held-out rows do not show their usual mean; a longer "
    "history helps"
)


def held_out_losses(
    labels: Iterable[str], fitted: Fitted, describes: ReferenceKind, block: int
) -> dict[str, HeldOutLoss]:
    """Measure the mean loss of the heads with the truths ``labels``, by these names.

    A head of which fewer than :data:`MINIMUM_ROWS` rows are known is left out.

    Args:
        labels: the names of the truths.
        fitted: the heads, and the scores of the held-out rows.
        describes: what the reference of the version describes.
        block: the smallest number of rows of a block.
    """
    kinds: tuple[RowsKind, ...] = (HISTORY, RECENT)
    chosen = {HISTORY: fitted.held, RECENT: fitted.unseen}
    if describes != "history and recent":
        kinds = (RECENT,) if describes == "recent" else (HISTORY,)
    read = {
        HISTORY: len(fitted.train) + len(fitted.held),
        RECENT: len(fitted.recent_train) + len(fitted.unseen),
    }
    heads = {head.label: head for head in fitted.heads}
    found = {}
    for label in labels:
        parts = [chosen[kind].about(label).truth() for kind in kinds]
        rows = Labelled(
            np.concatenate([part.target for part in parts]),
            {
                name: np.concatenate([part.scores[name] for part in parts])
                for name in task_of(heads[label]).scores
            },
        )
        if len(rows) < MINIMUM_ROWS:
            continue
        task = task_of(heads[label])
        scale = task.loss_scale(rows)
        losses = task.losses(rows, scale)
        length = block_length(losses, block)
        on = tuple(kind for kind, part in zip(kinds, parts, strict=True) if len(part))
        unusable = ""
        if length is None:
            needed = FEWEST_BLOCKS * block
            why = TOO_FEW if len(rows) < needed else TOO_SLOW
            unusable = why.format(rows=len(rows), needed=needed)
        live = in_traffic(length or block, len(rows), sum(read[kind] for kind in kinds))
        found[label] = HeldOutLoss(on, len(rows), live, mean_of_dependent(losses), scale, unusable)
    return found


def in_traffic(length: int, held_out: int, read: int) -> int:
    """Return how many consecutive rows of the traffic have so many held-out rows, on average.

    Held-out rows are not neighbours in the traffic: blocks, rows or machines between them were
    fitted, and some rows have no label. Dependence ends after a time, so after more rows of the
    traffic than held-out ones.

    Args:
        length: the number of held-out rows.
        held_out: the number of all held-out rows with a label.
        read: the number of all rows, fitted or held out, with a label or without.
    """
    return ceil(length / Fraction(held_out, read))
