"""Drift reports read back as they were stored, also by another release."""

import msgspec

from watchkeeper.core.drift_report import (
    BrokenSensor,
    DriftReport,
    FeatureReport,
    ReportReference,
    ReportWindow,
    dump_report,
    parse_report,
)
from watchkeeper.core.policies import DriftPolicy

WINDOW = ReportWindow(start=1.0, end=2.0, rows=500)
FLOW = FeatureReport(
    name="flow",
    kind="numeric",
    test="ks",
    statistic=0.4,
    p_value=1e-9,
    effect_size=0.4,
    reference_threshold=0.2,
    z=None,
    baseline={"mean": 1.0, "std": None},
    window={"mean": 2.0, "std": 1.0},
    drifted=True,
)
REPORT = DriftReport(
    verdict="drifted",
    reason="drift of flow",
    window=WINDOW,
    features=(FLOW, msgspec.structs.replace(FLOW, name="grade", drifted=False)),
    sensors={"inlet_pressure": BrokenSensor("stuck", 1.5)},
    reference=ReportReference(2000, 13, 500, 1.5),
    policy=msgspec.to_builtins(DriftPolicy(window=300)),
)


def test_a_report_reads_back_as_it_was_stored() -> None:
    assert parse_report(dump_report(REPORT), window=WINDOW, drifted=True) == REPORT
    assert REPORT.drifted_features == ("flow",)


def test_missing_fields_have_defaults_and_unknown_fields_are_skipped() -> None:
    values = dump_report(REPORT)
    values["weather"] = "rain"
    values["policy"]["of_a_later_release"] = 1
    del values["format"], values["sensors"]
    read = parse_report(values, window=WINDOW, drifted=True)
    policy = {**REPORT.policy, "of_a_later_release": 1}
    assert read == msgspec.structs.replace(REPORT, sensors={}, policy=policy)


def test_an_unknown_form_keeps_window_and_verdict() -> None:
    read = parse_report({"verdict": "certain"}, window=WINDOW, drifted=True)
    assert (read.verdict, read.window, read.features) == ("drifted", WINDOW, ())
    assert "cannot read the report" in read.reason
    assert parse_report(None, window=WINDOW, drifted=False).verdict == "undecided"
