"""Drift reports: the result of one comparison of a window of requests with the reference.

The sidecar makes one report for each window, stores it in the ledger and returns it at ``/drift``.
A report that an earlier or a later release has written is read like an event: missing fields have
their defaults, unknown fields are skipped.
"""

from typing import Any, Final, Literal

import msgspec

FORMAT: Final = 1  # raised when a field changes its meaning

DriftVerdict = Literal["drifted", "clean", "undecided"]
# "missing" says of a nullable column whether a row has no value.
FeatureKind = Literal["numeric", "categorical", "missing", "score"]
# "mean" and "std" of a numeric column or a score; the share of each category of a categorical one,
# or of the rows with and without a value.
# A value that is not finite is stored as None.
Summary = dict[str, float | None]


class ReportWindow(msgspec.Struct, frozen=True):
    """The window: record times of its first and last request, seconds since 1970.

    ``rows`` counts the answered rows that were compared.
    """

    start: float
    end: float
    rows: int = 0


class DayPart(msgspec.Struct, frozen=True, array_like=True):
    """The mean of a feature in three hours of the record time; a list in JSON.

    ``start`` is their start, seconds since 1970. ``rows`` counts the values.
    """

    start: float
    rows: int
    mean: float


class FeatureReport(msgspec.Struct, frozen=True, kw_only=True):
    """The comparison of one feature: a request column, its missing values, or a score.

    ``statistic`` is the statistic of ``test``, ``p_value`` its p-value after Bonferroni
    correction. ``effect_size`` is from 0 to 1; the feature has drifted if the test rejects *and*
    the effect is at least ``reference_threshold``. ``z`` is the z-score of the window's mean, in
    standard deviations of the baseline; None for categories. ``left_out`` says why the feature does
    not count for the verdict; it is empty if the feature counts. ``confirmations`` is how often the
    drift of the feature was seen in a row, each time in rows that no earlier one has;
    ``confirmed_until`` is the record time of the last of these rows, seconds since 1970. ``z_day``
    is the z-score of the mean of the last day, and ``day`` are the means of its parts; None and
    empty for categories.
    """

    name: str
    kind: FeatureKind
    test: Literal["ks", "chi2"]
    statistic: float
    p_value: float
    effect_size: float
    reference_threshold: float = 0.0
    z: float | None
    baseline: Summary
    window: Summary
    drifted: bool
    left_out: str = ""
    confirmations: int = 0
    confirmed_until: float = 0.0
    z_day: float | None = None
    day: tuple[DayPart, ...] = ()


class BrokenSensor(msgspec.Struct, frozen=True):
    """A request column that is missing or stuck.

    ``what`` describes the fault. ``since`` is the record time of the first window in a row that
    shows one, seconds since 1970.
    """

    what: str
    since: float


class ReportReference(msgspec.Struct, frozen=True):
    """The reference that the window was compared with.

    It has ``rows`` rows. ``blocks`` contiguous blocks of ``block_rows`` rows measure how much the
    reference varies by itself; ``margin`` multiplies this variation. ``note`` is a warning about a
    reference that is too short; it is empty otherwise. ``cannot_alarm`` are the features that vary
    so much by themselves that no window can differ more: the watch does not see their drift.
    """

    rows: int = 0
    blocks: int = 0
    block_rows: int = 0
    margin: float = 0.0
    note: str = ""
    cannot_alarm: tuple[str, ...] = ()


class DriftReport(msgspec.Struct, frozen=True, kw_only=True):
    """The result for one window.

    ``verdict`` is "undecided" if too few rows were answered, or if a sensor is broken and no other
    feature has drifted. ``sensors`` are the broken sensors by column. ``policy`` has the
    values in force as plain values, so that a release with other values can read the report.
    """

    verdict: DriftVerdict
    reason: str
    window: ReportWindow
    features: tuple[FeatureReport, ...] = ()
    sensors: dict[str, BrokenSensor] = {}
    reference: ReportReference = ReportReference()
    policy: dict[str, Any] = {}
    format: int = FORMAT

    @property
    def drifted_features(self) -> tuple[str, ...]:
        """The names of the features that have drifted, in the order of the report."""
        return tuple(feature.name for feature in self.features if feature.drifted)


def dump_report(report: DriftReport) -> dict[str, Any]:
    """Return a report as plain values, for JSON."""
    values: dict[str, Any] = msgspec.to_builtins(report)
    return values


def parse_report(values: Any, *, window: ReportWindow, drifted: bool) -> DriftReport:
    """Read a report back from plain values.

    Args:
        values: what :func:`dump_report` returned, in this or in another release.
        window: the window of the report.
        drifted: whether the verdict is "drifted".

    Returns:
        The report. If this release cannot read ``values``, a report without features that has
        the given window, and the verdict "drifted" or "undecided".
    """
    try:
        return msgspec.convert(values, DriftReport)
    except msgspec.ValidationError as error:
        return DriftReport(
            verdict="drifted" if drifted else "undecided",
            reason=f"this release cannot read the report: {error}",
            window=window,
        )
