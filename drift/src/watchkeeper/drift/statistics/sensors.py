"""Broken sensors: request columns whose values are missing or stuck.

A broken sensor is an alert of its own. Its values say nothing about the operating conditions, so
its column, and the scores that depend on it, are left out of the verdict about drift.

A nullable column is broken only if all its values are missing, and the reference has no stretch of
rows as long as the window without any. A smaller share is compared like a category.

Values that are only unusual are no fault: a new category, a value beyond the declared range, or
zeros, which a machine sends while it stands still. They count as drift if there are enough of them.
"""

import re
from collections.abc import Sequence

import numpy as np

from watchkeeper.core.record import OK
from watchkeeper.core.signature import missing_name
from watchkeeper.core.stuck import most_common_share, stuck_value
from watchkeeper.drift.statistics.columns import Columns, Feature
from watchkeeper.ledger.observations import Observation

BAD_SHARE = 0.01  # of the rows missing; fewer are transmission errors
MINIMUM_BAD_ROWS = 3


def broken_sensors(
    features: Sequence[Feature],
    window: Columns,
    requests: Sequence[Observation],
    most_common_shares: dict[str, float],
    minimum_effect: float,
) -> dict[str, str]:
    """Return the broken columns, each with a description of the fault.

    Args:
        features: the features of the version; scores are skipped.
        window: the answered rows, by column.
        requests: all requests of the same time. A refused request counts against each column that
            its error names.
        most_common_shares: the share of the most common value in the reference, by column, and of
            the missing values of a nullable one, by its feature of the kind "missing".
        minimum_effect: the smallest effect that counts as drift.
    """
    refused = [request for request in requests if request.status != OK]
    faults: dict[str, str] = {}
    for feature in features:
        if not feature.is_column:
            continue
        values = window[feature.name]
        rows = len(values) + sum(max(request.rows, 1) for request in refused)
        name = re.compile(rf"\b{re.escape(feature.name)}\b")
        refused_rows = sum(max(r.rows, 1) for r in refused if r.error and name.search(r.error))
        limit = max(BAD_SHARE * rows, MINIMUM_BAD_ROWS)
        missing = int(np.isnan(values).sum())
        if feature.nullable:
            usual = most_common_shares[missing_name(feature.name)]
            missing = missing if len(values) and missing == len(values) and usual < 1 else 0
        if missing + refused_rows >= limit:
            faults[feature.name] = f"missing or refused in {missing + refused_rows} of {rows} rows"
            continue
        usual, categorical = most_common_shares[feature.name], feature.kind == "categorical"
        if stuck_value(values, usual, minimum_effect, categorical=categorical) is not None:
            share = most_common_share(values)
            faults[feature.name] = f"stuck: one value in {share:.0%} of the rows"
    return faults
