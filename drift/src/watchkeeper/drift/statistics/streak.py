"""Streaks: consecutive windows with the same verdict."""

from collections.abc import Sequence

import msgspec

from watchkeeper.core.drift_report import DriftReport


class Streak(msgspec.Struct, frozen=True):
    """What the newest windows in a row show: ``drifted`` or ``clean``; the other one is 0.

    ``drifted`` is how often the drift of a feature was seen, each time in rows that no earlier one
    has; the drifted windows in a row may be more. ``clean`` is the number of windows. ``onset`` is
    the record time after which the drift began: the end of the last window before the drifted ones,
    in seconds since 1970. ``features`` have drifted in the newest window.
    """

    drifted: int = 0
    clean: int = 0
    onset: float = 0.0
    features: tuple[str, ...] = ()


def newest_streak(reports: Sequence[DriftReport]) -> Streak:
    """Return the streak that ends with the newest window.

    Args:
        reports: the reports of a version, oldest first. Undecided windows are skipped: they neither
            end a streak nor make it longer.
    """
    decided = [report for report in reports if report.verdict != "undecided"]
    if not decided:
        return Streak()
    newest = decided[-1]
    length = 0
    while length < len(decided) and decided[-1 - length].verdict == newest.verdict:
        length += 1
    if newest.verdict == "clean":
        return Streak(clean=length)
    first = decided[-length].window
    before = decided[-1 - length].window.end if length < len(decided) else first.start
    onset = max(before, first.start)
    seen = max((f.confirmations for f in newest.features if f.drifted), default=1)
    # A report of an earlier release has no confirmations: it counts as a first drifted window.
    return Streak(drifted=max(seen, 1), onset=onset, features=newest.drifted_features)
