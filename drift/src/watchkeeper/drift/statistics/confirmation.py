"""Confirmation of a drift by rows that no earlier window has.

Windows overlap: a window shares most of its rows with the one before, and whatever made the first
one look drifted makes the next one look drifted, too. So only newer rows confirm a drifted window:
at least a quarter of a window, which must differ from the reference by more than blocks of this
length do in the history. Meanwhile every window must differ by more than the history does; it may
fall below the smallest effect that counts, near which windows would come and go. Each feature is
confirmed by itself.
"""

from collections.abc import Sequence

import msgspec

from watchkeeper.core.drift_report import DriftReport, FeatureReport
from watchkeeper.drift.statistics.columns import Columns, rows_after
from watchkeeper.drift.statistics.effects import effect_size
from watchkeeper.drift.statistics.reference import Reference
from watchkeeper.drift.statistics.reference_variation import PARTS
from watchkeeper.drift.window import Window


def confirm(
    features: Sequence[FeatureReport],
    columns: Columns,
    window: Window,
    reference: Reference,
    *,
    rows: int,
    previous: DriftReport | None,
    decided: bool,
) -> tuple[FeatureReport, ...]:
    """Set ``confirmations`` and ``confirmed_until`` of the features of a window.

    Args:
        features: the compared features.
        columns: the answered rows of the window, by feature.
        window: the window.
        reference: the reference of the version.
        rows: the number of rows of a full window.
        previous: the report of the window before, if there is one.
        decided: False if the window has no verdict; then nothing changes.
    """
    before = {feature.name: feature for feature in previous.features} if previous else {}

    def confirmed(feature: FeatureReport) -> FeatureReport:
        known = before.get(feature.name)
        count, until = (known.confirmations, known.confirmed_until) if known else (0, 0.0)
        if decided and not feature.left_out:
            if feature.effect_size < reference.variation.thresholds[-1][feature.name]:
                count, until = 0, 0.0
            elif _seen_again(feature, until) if count else feature.drifted:
                count, until = count + 1, window.end
        return msgspec.structs.replace(feature, confirmations=count, confirmed_until=until)

    def _seen_again(feature: FeatureReport, until: float) -> bool:
        parts = min(PARTS, PARTS * rows_after(window.requests, until) // rows)
        length = rows * parts // PARTS
        if not length:
            return False
        sample, newest = reference.samples[feature.name], columns[feature.name][-length:]
        limit = reference.variation.thresholds[parts - 1][feature.name]
        return effect_size(feature.kind, sample, newest) >= limit

    return tuple(map(confirmed, features))
