"""Variation of the history: how much its blocks differ from a reference, without drift.

Operating conditions wander. Rows that are near in time are alike, so a contiguous block of a
history differs from the rest by far more than a test for exchangeable rows allows. A window has
drifted only if its effect is larger than the largest effect of the history's own blocks, times a
margin.

A long reference is compared with its own blocks: each block with all other rows. A reference that
begins after a drift is often short. It has seen only one stretch of the conditions, and so differs
from later windows for a reason of its own. Therefore blocks of the longer history before it are
compared with stretches of that history that are as long as the reference.
"""

from collections.abc import Sequence

import msgspec
import numpy as np

from watchkeeper.core.stuck import BLOCKS_PER_LENGTH, block_length, blocks, usual_share
from watchkeeper.drift.statistics.columns import Columns, Feature, Values
from watchkeeper.drift.statistics.effects import effect_size, effect_sizes

PARTS = 4  # of a window: the lengths for which the variation is measured
MOST_REFERENCES = 8  # stretches of the history that stand for a short reference
# The largest effect of few blocks says little about the largest effect to come. The margin is 2 for
# four stretches, 1.5 for sixteen, and goes to 1.
MARGIN_OF_ONE = 2.0
NEVER = 2.0  # a threshold that no effect reaches: an effect is at most 1


class ReferenceVariation(msgspec.Struct, frozen=True):
    """The variation of a history, by feature, and how it was measured.

    ``thresholds`` are the largest effect of a block: of a quarter of a window, two quarters, three,
    and a whole window. The last one is multiplied by the margin. The others only confirm what a
    whole window has shown, and the history has more blocks of their length. A threshold above 1
    means that the feature wanders so much that no window can be distinguished from it.
    ``most_common_shares`` are the largest share that one value has in a block of a window's length.
    The other fields are those of :class:`watchkeeper.core.drift_report.ReportReference`, for the
    request columns.
    """

    thresholds: tuple[dict[str, float], ...]
    most_common_shares: dict[str, float]
    rows: int
    block_rows: int
    blocks: int
    margin: float
    note: str = ""

    @property
    def cannot_alarm(self) -> tuple[str, ...]:
        """The features whose threshold no window can reach, in their order."""
        return tuple(name for name, limit in self.thresholds[-1].items() if limit > 1)


def measure_variation(
    features: Sequence[Feature], history: Columns, window: int, *, start: int = 0
) -> ReferenceVariation:
    """Measure the variation of a history.

    Args:
        features: the features to measure.
        history: their values in time order, shape (rows,) each, at least one row. Missing values,
            such as the scores of rows that the version was fitted on, are left out.
        window: the number of rows of a window. A history that is shorter than four windows has
            shorter blocks. Short blocks vary more and the margin is larger, so small drifts are not
            detected.
        start: where the reference begins; the rows before it are history only.
    """
    lengths = [window * part // PARTS for part in range(1, PARTS)]
    largest = [
        {f.name: _largest(f, history[f.name], length, start)[0] for f in features}
        for length in lengths
    ]
    limits = {f.name: _largest(f, history[f.name], window, start) for f in features}
    whole = {name: effect * margin(stretches) for name, (effect, stretches) in limits.items()}
    shares = {
        feature.name: _usual_share(feature, history[feature.name], window)
        for feature in features
        if feature.kind != "score"
    }
    # Broken columns have missing values: the numbers are those of the column with the fewest.
    columns = [history[name] for name in shares] or list(history.values())
    fullest = max(columns, key=lambda values: len(_known(values[start:])))
    rows = len(_known(fullest[start:]))
    past = len(_measured(_known(fullest[:start]), _known(fullest[start:]))[0])
    length = block_length(past, window)
    return ReferenceVariation(
        thresholds=(*largest, whole),
        most_common_shares=shares,
        rows=rows,
        block_rows=length,
        blocks=len(range(0, past - length + 1, max(1, length // BLOCKS_PER_LENGTH))),
        margin=margin(max(past, 1) / length),
        note=_note(past, window, length),
    )


def margin(stretches: float) -> float:
    """Return the margin for a history that is so many blocks long."""
    return float(1 + MARGIN_OF_ONE / np.sqrt(stretches))


def start_of(feature: Feature, history: Values, start: int) -> int:
    """Return where the reference of a feature begins.

    A request column that was broken since ``start`` is compared with the history before it.
    """
    broken = feature.kind != "score" and bool(np.isnan(history[start:]).all())
    return 0 if broken else start


def _largest(feature: Feature, history: Values, length: int, start: int) -> tuple[float, float]:
    """Return the largest effect of a block, and how many blocks long the history is."""
    begin = start_of(feature, history, start)
    before, since = history[:begin], history[begin:]
    if not feature.nullable:  # rows without a value do not describe the traffic
        before, since = _known(before), _known(since)
    past, reference_rows = _measured(before, since)
    length = block_length(len(past), length)
    if len(past) <= length:
        return NEVER, 1.0  # a single row, or none
    measured = blocks(past, length)
    if reference_rows == len(past):
        # The effect of a block against all rows, converted to that against all other rows.
        known, of_block = len(_known(past)), (~np.isnan(measured)).sum(axis=1)
        scale = known / np.maximum(known - of_block, 1)
        effects = scale * _effects(feature, _known(past), measured)
    else:
        effects = _effects_on_stretches(feature, past, measured, reference_rows)
    return float(effects.max()), len(past) / length


def _measured(before: Values, reference: Values) -> tuple[Values, int]:
    """Return the rows whose blocks are measured, and how many rows the reference has.

    They are the rows before a reference that is shorter than they are, and else the reference.
    """
    return (before if len(before) > len(reference) else reference), len(reference)


def _effects_on_stretches(feature: Feature, past: Values, blocks: Values, rows: int) -> Values:
    """Return the effects of blocks of a history on stretches of it, which have ``rows`` rows."""
    length = blocks.shape[1]
    begin = np.arange(len(blocks)) * max(1, length // BLOCKS_PER_LENGTH)
    count = max(1, min(MOST_REFERENCES, len(past) // max(rows, 1)))
    found = []
    for first in np.linspace(0, len(past) - rows, count).astype(int):
        apart = (begin + length <= first) | (begin >= first + rows)
        if rows and apart.any():
            stretch = _known(past[first : first + rows])
            found.append(_effects(feature, stretch, blocks[apart]))
    return np.concatenate(found) if found else np.array([NEVER])


def _effects(feature: Feature, reference: Values, blocks: Values) -> Values:
    """Return the effects of blocks on known values in any order.

    A block of a nullable column has as many values as it has in a window of the same length.
    """
    reference = np.sort(reference)
    if not np.isnan(blocks).any():
        return effect_sizes(feature.kind, reference, blocks)
    return np.array([effect_size(feature.kind, reference, block) for block in blocks])


def _usual_share(feature: Feature, history: Values, window: int) -> float:
    """Return the largest share of one value in a block; of the missing rows, for their feature."""
    if feature.kind != "missing":
        return usual_share(history, window)
    known = _known(history)
    return float(blocks(known, window).mean(axis=1).max()) if len(known) else 0.0


def _known(values: Values) -> Values:
    return values[~np.isnan(values)]


def _note(rows: int, window: int, length: int) -> str:
    if length == window:
        return ""
    factor = margin(max(rows, 1) / length)
    return (
        f"the reference has only {rows} rows, {rows / window:.1f} windows: its blocks have "
        f"{length} rows instead of {window} and the margin is {factor:.2f}; small "
        "drifts are not detected"
    )
