"""Broken sensors: values that are missing, out of range or stuck.

They are an alert of their own. A feature in this state says nothing about the machines, so it
is left out of the decision about drift, together with the scores that depend on it.
"""

import re
from collections.abc import Sequence

import numpy as np

from watchkeeper.contracts.record import OK
from watchkeeper.drift.statistics.columns import Columns, Feature, Values
from watchkeeper.drift.statistics.effects import commonest_share
from watchkeeper.ledger.observations import Observation

BAD_SHARE = 0.01  # of a window missing or out of range; fewer are noise of the wire
# A stuck share moves the Kolmogorov-Smirnov statistic by at most itself: caught here at half
# the smallest effect that counts as drift, a sensor is called broken before it looks drifted.
STUCK_PART_OF_EFFECT = 0.5


def broken(
    features: Sequence[Feature],
    window: Columns,
    requests: Sequence[Observation],
    stuck: dict[str, float],
    minimum_effect: float,
) -> dict[str, str]:
    """Return the broken columns with what is wrong with each, in words.

    ``window`` holds the answered rows, ``requests`` all of the same time, of which the refused
    ones count against the columns that their error names.
    """
    refused = [request for request in requests if request.status != OK]
    found: dict[str, str] = {}
    for feature in features:
        if feature.kind == "score":
            continue
        values = window[feature.name]
        rows = len(values) + sum(max(request.rows, 1) for request in refused)
        word = re.compile(rf"\b{re.escape(feature.name)}\b")
        named = sum(max(r.rows, 1) for r in refused if r.error and word.search(r.error))
        limit = max(BAD_SHARE * rows, 3)
        missing, outside = int(np.isnan(values).sum()), _outside(feature, values)
        allowed = stuck[feature.name] + STUCK_PART_OF_EFFECT * minimum_effect
        share = commonest_share(values) if len(values) else 0.0
        if missing + named >= limit:
            found[feature.name] = f"missing or refused in {missing + named} of {rows} rows"
        elif outside >= limit:
            found[feature.name] = f"out of range in {outside} of {rows} rows"
        elif feature.kind == "numeric" and share > allowed:
            found[feature.name] = f"stuck: one value in {share:.0%} of the rows"
    return found


def _outside(feature: Feature, values: Values) -> int:
    if feature.kind == "categorical":
        return int((values >= len(feature.categories)).sum())
    low = -np.inf if feature.minimum is None else feature.minimum
    high = np.inf if feature.maximum is None else feature.maximum
    return int(((values < low) | (values > high)).sum())
