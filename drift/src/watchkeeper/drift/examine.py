"""Examine one window: from its requests and the reference to a drift report."""

import msgspec

from watchkeeper.core.drift_report import (
    BrokenSensor,
    DriftReport,
    DriftVerdict,
    ReportReference,
    ReportWindow,
)
from watchkeeper.core.policies import DriftPolicy
from watchkeeper.drift.statistics.columns import answered_rows
from watchkeeper.drift.statistics.compare import compare
from watchkeeper.drift.statistics.confirmation import confirm
from watchkeeper.drift.statistics.day import with_day
from watchkeeper.drift.statistics.reference import Reference
from watchkeeper.drift.statistics.sensors import broken_sensors
from watchkeeper.drift.window import Window

MINIMUM_ANSWERED_SHARE = 0.5  # of the rows of a window; with fewer the verdict is "undecided"


def examine(
    window: Window, reference: Reference, policy: DriftPolicy, previous: DriftReport | None
) -> DriftReport:
    """Return the report of a window.

    Args:
        window: the requests of the window.
        reference: the reference of the version.
        policy: the policy in force.
        previous: the report of the window before, if there is one. A sensor that was already broken
            keeps its time ``since``, and a drift that was already seen keeps its confirmations.
    """
    columns = answered_rows(reference.features, window.requests, policy.window)
    rows = len(next(iter(columns.values())))
    variation = reference.variation
    faults = broken_sensors(
        reference.features,
        columns,
        window.requests,
        variation.most_common_shares,
        policy.minimum_effect,
    )
    decided = rows >= MINIMUM_ANSWERED_SHARE * policy.window
    features = confirm(
        compare(reference, columns, policy, faults),
        columns,
        window,
        reference,
        rows=policy.window,
        previous=previous,
        decided=decided,
    )
    features = with_day(features, columns, window, rows=policy.window, previous=previous)
    drifted = [feature.name for feature in features if feature.drifted]
    verdict: DriftVerdict
    if not decided:
        verdict, reason = "undecided", f"only {rows} of {policy.window} rows were answered"
    elif drifted:
        verdict, reason = "drifted", f"drift of {', '.join(drifted)}"
    elif faults:
        # Not "clean": a broken sensor may hide the drift of an open episode.
        verdict, reason = "undecided", f"broken sensors: {', '.join(faults)}"
    else:
        verdict, reason = "clean", "no feature differs more than the history varies by itself"
    broken_before = previous.sensors if previous else {}
    return DriftReport(
        verdict=verdict,
        reason=reason,
        window=ReportWindow(window.start, window.end, rows),
        features=features,
        sensors={
            name: BrokenSensor(
                fault, broken_before[name].since if name in broken_before else window.end
            )
            for name, fault in faults.items()
        },
        reference=ReportReference(
            rows=variation.rows,
            blocks=variation.blocks,
            block_rows=variation.block_rows,
            margin=variation.margin,
            note=variation.note,
            cannot_alarm=variation.cannot_alarm,
        ),
        policy=msgspec.to_builtins(policy),
    )
