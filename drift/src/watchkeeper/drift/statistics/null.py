"""What the reference shows without any drift: contiguous blocks of it against the rest.

Machines wander. Rows near in time are alike, so that an honest block of a reference in time
order differs from the rest by far more than a test for exchangeable rows allows. The largest
difference among the reference's own blocks, with a margin, is what a window must exceed.
"""

from collections.abc import Sequence

import msgspec
import numpy as np

from watchkeeper.drift.statistics.columns import Columns, Feature
from watchkeeper.drift.statistics.effects import commonest_share, distance

OVERLAP = 4  # blocks begin every quarter of their length
FULL_BLOCKS = 4  # windows that a reference must hold to be cut into blocks of the full length
# Measured on replays without drift, windows of 500: with 1.5 none of 2,400 windows alarmed on
# references of 1,500 rows and more, the published AI4I table in its own order among them. On
# references of 200 to 600 rows of twenty slowly wandering machines, 9 of 360 did; with 2.0 none.
MARGIN = 1.5
SHORT_MARGIN = 2.0


class Null(msgspec.Struct, frozen=True):
    """The reference's own differences, by feature, and what they rest on.

    ``threshold`` is the largest effect of a block times ``margin``; above 1 it says that the
    feature wanders so much that no window can be told from it. ``stuck`` is the largest share
    that one single value has in a block.
    """

    threshold: dict[str, float]
    stuck: dict[str, float]
    rows: int
    block_rows: int
    blocks: int
    margin: float
    note: str = ""


def measure(features: Sequence[Feature], reference: Columns, window: int) -> Null:
    """Measure the null of a reference, columns of shape (rows,) in time order.

    A reference of fewer than ``FULL_BLOCKS`` windows is cut into as many shorter blocks, which
    scatter more, and the margin is larger: what is lost is sensitivity.
    """
    rows = min(len(values) for values in reference.values())
    block = max(1, min(window, rows // FULL_BLOCKS))
    starts = range(0, rows - block + 1, max(1, block // OVERLAP))
    margin = MARGIN if block == window else SHORT_MARGIN
    effects: dict[str, float] = {}
    stuck: dict[str, float] = {}
    for feature in features:
        values = reference[feature.name]
        blocks = [values[start : start + block] for start in starts]
        rests = [np.delete(values, slice(start, start + block)) for start in starts]
        pairs = zip(rests, blocks, strict=True)
        effects[feature.name] = max(distance(feature.kind, rest, part) for rest, part in pairs)
        stuck[feature.name] = max(map(commonest_share, blocks))
    return Null(
        threshold={name: margin * effect for name, effect in effects.items()},
        stuck=stuck,
        rows=rows,
        block_rows=block,
        blocks=len(starts),
        margin=margin,
        note=_note(rows, window, block, margin),
    )


def _note(rows: int, window: int, block: int, margin: float) -> str:
    if block == window:
        return ""
    return (
        f"the reference has {rows} rows, {rows / window:.1f} windows: its blocks have {block} rows "
        f"instead of {window} and the margin is {margin:.2f}; small drifts stay unseen"
    )
