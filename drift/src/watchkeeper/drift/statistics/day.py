"""The z-score of the last day: the distance of the live mean from that of the training rows.

Windows are a number of rows: days at a low rate, minutes at a high one. A slow change of the mean
shows in a day at any rate. The time is the record time. Each report continues the means of the
report before it, so a row counts once although windows overlap, and another sidecar can continue
at any time. A day is the present three hours and the 21 hours before them: shorter parts would
make the reports longer.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np

from watchkeeper.core.drift_report import DayPart, DriftReport, FeatureReport
from watchkeeper.drift.statistics.columns import Columns, Values, times_of_rows
from watchkeeper.drift.statistics.effects import z_score
from watchkeeper.drift.window import Window

PART_SECONDS: Final = 3 * 3600.0
PARTS: Final = 8


def with_day(
    features: Sequence[FeatureReport],
    columns: Columns,
    window: Window,
    *,
    rows: int,
    previous: DriftReport | None,
) -> tuple[FeatureReport, ...]:
    """Set ``day`` and ``z_day`` of the features that have a mean.

    Args:
        features: the compared features.
        columns: the answered rows of the window, by feature.
        window: the window.
        rows: the number of rows of a full window.
        previous: the report of the window before, if there is one.
    """
    times = times_of_rows(window.requests, rows)
    new = times > previous.window.end if previous else np.ones(len(times), dtype=bool)
    before = {each.name: each.day for each in previous.features} if previous else {}
    oldest = float(_starts(np.array([window.end]))[0]) - (PARTS - 1) * PART_SECONDS

    def continued(feature: FeatureReport) -> FeatureReport:
        if feature.z is None:
            return feature
        known = new & ~np.isnan(columns[feature.name])
        added = _parts(times[known], columns[feature.name][known])
        merged = _merged(before.get(feature.name, ()), added)
        day = tuple(part for part in merged if part.start >= oldest)
        count = sum(part.rows for part in day)
        if not count:
            return msgspec.structs.replace(feature, day=day, z_day=None)
        mean = sum(part.mean * (part.rows / count) for part in day)
        baseline, deviation = (feature.baseline[name] or 0.0 for name in ("mean", "std"))
        return msgspec.structs.replace(feature, day=day, z_day=z_score(mean, baseline, deviation))

    return tuple(map(continued, features))


def _starts(times: Values) -> Values:
    """Return the start of the part of the day that each time is in."""
    starts: Values = np.floor(times / PART_SECONDS) * PART_SECONDS
    return starts


def _parts(times: Values, values: Values) -> dict[float, DayPart]:
    """Return the mean of values (rows,) in each part, by its start."""
    starts = _starts(times)
    found = {}
    for start in np.unique(starts).tolist():
        inside = values[starts == start]
        # Divided first: the sum of values near the largest double is infinite.
        found[start] = DayPart(start, len(inside), float((inside / len(inside)).sum()))
    return found


def _merged(before: Sequence[DayPart], added: dict[float, DayPart]) -> list[DayPart]:
    merged = dict(added)
    for part in before:
        other = added.get(part.start)
        if other is None:
            merged[part.start] = part
            continue
        count = part.rows + other.rows
        mean = part.mean * (part.rows / count) + other.mean * (other.rows / count)
        merged[part.start] = DayPart(part.start, count, mean)
    return [merged[start] for start in sorted(merged)]
