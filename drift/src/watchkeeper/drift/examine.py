"""Examining one window: everything that ``/drift`` shows and the ledger keeps about it."""

from typing import Any

import msgspec

from watchkeeper.contracts.policies import DriftPolicy
from watchkeeper.drift.statistics.columns import answered
from watchkeeper.drift.statistics.compare import compare
from watchkeeper.drift.statistics.reference import Reference
from watchkeeper.drift.statistics.sensors import broken
from watchkeeper.drift.window import Window

ENOUGH = 0.5  # of a window answered: with fewer rows nothing is decided


def examine(
    window: Window, reference: Reference, policy: DriftPolicy, before: dict[str, Any]
) -> dict[str, Any]:
    """Return the report of a window: verdict, reason, features, sensors, null and policy.

    ``before`` is the report of the window before, or empty: a sensor that was broken in it
    already keeps the time from which on it is.
    """
    columns = answered(reference.features, window.requests, policy.window)
    rows = len(next(iter(columns.values())))
    bad = broken(
        reference.features, columns, window.requests, reference.null.stuck, policy.minimum_effect
    )
    features = compare(reference, columns, policy, bad)
    drifted = [feature.name for feature in features if feature.drifted]
    if rows < ENOUGH * policy.window:
        verdict, reason = "undecided", f"only {rows} of {policy.window} rows were answered"
    elif drifted:
        verdict, reason = "drifted", f"drift of {', '.join(drifted)}"
    elif bad:
        # Not clean either: what the broken sensor hides may be the drift of an episode.
        verdict, reason = "undecided", f"broken sensors: {', '.join(bad)}"
    else:
        verdict, reason = "clean", "no feature differs more than the reference does by itself"
    known = before.get("sensors", {})
    return {
        "verdict": verdict,
        "reason": reason,
        "window": {"start": window.start, "end": window.end, "rows": rows},
        "features": [msgspec.to_builtins(feature) for feature in features],
        "sensors": {
            name: {"what": what, "since": known.get(name, {"since": window.end})["since"]}
            for name, what in bad.items()
        },
        "reference": {
            "rows": reference.null.rows,
            "blocks": reference.null.blocks,
            "block_rows": reference.null.block_rows,
            "margin": reference.null.margin,
            "note": reference.null.note,
        },
        "policy": msgspec.to_builtins(policy),
    }
