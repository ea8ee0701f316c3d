"""What the last windows in a row say together."""

from collections.abc import Sequence

import msgspec

from watchkeeper.ledger.reports import DriftReport


class Streak(msgspec.Struct, frozen=True):
    """How many of the newest decided windows were ``drifted``, or ``clean``, in a row.

    One of the two is 0. ``onset`` is the end of the last window before the drifted ones: drift
    began after it. ``features`` are those that drifted in the newest drifted window.
    """

    drifted: int = 0
    clean: int = 0
    onset: float = 0.0
    features: tuple[str, ...] = ()


def streak(reports: Sequence[DriftReport]) -> Streak:
    """Read reports, oldest first; undecided windows break no streak and make none longer."""
    decided = [report for report in reports if report.report["verdict"] != "undecided"]
    if not decided:
        return Streak()
    newest = decided[-1]
    run = 0
    while run < len(decided) and decided[-1 - run].drifted == newest.drifted:
        run += 1
    if not newest.drifted:
        return Streak(clean=run)
    first = decided[-run]
    before = decided[-1 - run].window_end if run < len(decided) else first.window_start
    features = tuple(f["name"] for f in newest.report["features"] if f["drifted"])
    return Streak(drifted=run, onset=max(before, first.window_start), features=features)
