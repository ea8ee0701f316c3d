"""The gate's checks: each passes what it should and stops what it should."""

import numpy as np
import pytest

from watchkeeper.contracts.signature import Column, Output, Signature
from watchkeeper.training.declaration import Gate
from watchkeeper.training.gate import (
    Comparison,
    Shift,
    accepts,
    floors,
    most,
    no_worse,
    on_recent,
    shift,
    verdict,
)
from watchkeeper.training.measure import metrics, share

GATE = Gate("score", floors={"roc_auc": 0.9, "average_precision": 0.4}, margin=0.05)


def scored(rows: int, *, candidate: float, production: float, seed: int = 0) -> Comparison:
    """Make rows whose positives score so many standard deviations higher."""
    random = np.random.default_rng(seed)
    target = (random.random(rows) < 0.1).astype(float)
    noise = random.normal(size=rows)
    return Comparison(target, noise + candidate * target, noise + production * target)


def test_floors_are_absolute() -> None:
    good = scored(3000, candidate=4.0, production=0.0)
    checks = floors(GATE, metrics(good.target, good.candidate, 0.5, seed=0))
    assert [check.passed for check in checks] == [True, True]
    checks = floors(GATE, metrics(good.target, good.production, 0.5, seed=0))
    assert [check.passed for check in checks] == [False, False]
    assert "at least 0.9 is wanted" in checks[0].reason


def test_a_floor_that_cannot_be_measured_is_not_reached() -> None:
    nothing = metrics(np.zeros(100), np.linspace(0, 1, 100), 0.5, seed=0)
    assert not any(check.passed for check in floors(GATE, nothing))


@pytest.mark.parametrize(("candidate", "passes"), [(2.0, True), (1.97, True), (1.2, False)])
def test_no_worse_allows_the_margin_and_no_more(candidate: float, passes: bool) -> None:
    rows = scored(3000, candidate=candidate, production=2.0)
    check = no_worse(GATE, rows, "the history", seed=0)
    assert check.passed is passes
    assert "the history: ROC AUC" in check.reason


def test_an_answer_to_drift_must_be_better_for_certain() -> None:
    def passes(candidate: float, rows: int = 600) -> bool:
        compared = scored(rows, candidate=candidate, production=1.0)
        (check,) = on_recent(GATE, compared, must_improve=True, seed=0)
        return check.passed

    assert passes(2.5)
    assert not passes(1.0)
    assert not passes(0.5)
    assert not passes(2.5, rows=40), "too few rows to tell are no proof"


def test_an_answer_to_drift_without_recent_rows_is_rejected() -> None:
    (check,) = on_recent(GATE, None, must_improve=True, seed=0)
    assert not check.passed
    assert "0 recent held-out rows" in check.reason


def test_any_other_version_must_be_no_worse_on_recent_rows_if_there_are_enough() -> None:
    same = scored(600, candidate=1.0, production=1.0)
    assert [c.passed for c in on_recent(GATE, same, must_improve=False, seed=0)] == [True]
    worse = scored(600, candidate=0.0, production=2.0)
    assert [c.passed for c in on_recent(GATE, worse, must_improve=False, seed=0)] == [False]
    assert (
        on_recent(GATE, scored(40, candidate=0.0, production=2.0), must_improve=False, seed=0) == []
    )
    assert on_recent(GATE, None, must_improve=False, seed=0) == []


def test_a_version_that_productions_clients_cannot_call_is_rejected() -> None:
    torque = Column("torque", "FP64", unit="Nm", maximum=300.0)
    outputs = (Output("score", "FP64"),)
    old = Signature((torque,), outputs)
    assert accepts(old, old).passed
    narrower = Signature((Column("torque", "FP64", unit="Nm", maximum=80.0),), outputs)
    assert "narrower range" in accepts(narrower, old).reason
    assert not accepts(narrower, old).passed


def test_the_verdict_names_every_reason() -> None:
    rows = scored(3000, candidate=0.0, production=2.0)
    checks = [
        *floors(GATE, metrics(rows.target, rows.candidate, 0.5, seed=0)),
        no_worse(GATE, rows, "the history", seed=0),
    ]
    passed, reason = verdict(checks)
    assert not passed
    assert all(check.reason in reason for check in checks)


def test_the_shift_is_what_the_same_rows_would_score_otherwise() -> None:
    random = np.random.default_rng(0)
    production = random.random(1000)
    found = shift(production / 2, production, "recent", seed=0)
    assert isinstance(found, Shift)
    assert found.mean.value == pytest.approx(-production.mean() / 2)
    assert found.mean.low is not None
    assert found.mean.high is not None
    assert found.mean.low < found.mean.value < found.mean.high
    assert found.candidate["0.5"] == pytest.approx(found.production["0.5"] / 2)


@pytest.mark.parametrize(("marked", "passed"), [(3, True), (10, True), (11, False), (90, False)])
def test_a_label_that_marks_too_many_rows_stops_a_version(marked: int, passed: bool) -> None:
    bound = Gate("score", floors={}, most={"anomaly_flag": 0.1})
    shares = {"anomaly_flag": share(np.arange(100) < marked, seed=0)}
    (check,) = most(bound, shares)
    assert check.passed == passed
    assert f"anomaly_flag marks {marked / 100:.1%} of the rows" in check.reason
