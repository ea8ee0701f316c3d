"""The gate's checks."""

import msgspec
import numpy as np
import pytest

from watchkeeper.core.estimates import Estimate, share
from watchkeeper.core.gate_report import Shift
from watchkeeper.core.head import Head
from watchkeeper.core.signature import Column, Output, Signature
from watchkeeper.core.tasks import task_of
from watchkeeper.core.tasks.base import Labelled
from watchkeeper.training.declaration import Gate
from watchkeeper.training.gate import (
    Comparison,
    floors,
    max_label_rate,
    noninferior,
    on_recent,
    shift,
    signature,
    superior,
    verdict,
)

TASK = task_of(Head("p", "p.skops", "predict_proba", label="failed"))
GATE = Gate(floors={"roc_auc": 0.9, "average_precision": 0.4}, margin=0.05)


def scored(rows: int, *, candidate: float, production: float, seed: int = 0) -> Comparison:
    """Make rows whose positives score so many standard deviations higher."""
    random = np.random.default_rng(seed)
    target = (random.random(rows) < 0.1).astype(float)
    noise = random.normal(size=rows)
    new, old = noise + candidate * target, noise + production * target
    return Comparison(TASK, Labelled(target, {"p": new}), Labelled(target, {"p": old}))


def measured(rows: Labelled) -> dict[str, Estimate]:
    return TASK.measure(rows, seed=0)


def test_floors_are_absolute() -> None:
    good = scored(3000, candidate=4.0, production=0.0)
    checks = floors(GATE, measured(good.candidate))
    assert [check.passed for check in checks] == [True, True]
    checks = floors(GATE, measured(good.production))
    assert [check.passed for check in checks] == [False, False]
    assert "at least 0.9 is required" in checks[0].reason


def test_an_undefined_metric_does_not_reach_its_floor() -> None:
    nothing = measured(Labelled(np.zeros(100), {"p": np.linspace(0, 1, 100)}))
    assert not any(check.passed for check in floors(GATE, nothing))


@pytest.mark.parametrize(("candidate", "passes"), [(2.0, True), (1.97, True), (1.2, False)])
def test_noninferior_allows_the_margin_and_no_more(candidate: float, passes: bool) -> None:
    rows = scored(3000, candidate=candidate, production=2.0)
    check = noninferior(GATE, rows, "the history")
    assert check.passed is passes
    assert "the history: ROC AUC" in check.reason


def test_an_answer_to_drift_must_be_superior_with_confidence() -> None:
    def passes(candidate: float, rows: int = 600) -> bool:
        compared = scored(rows, candidate=candidate, production=1.0)
        (check,) = on_recent(GATE, [compared], must_improve=True)
        return check.passed

    assert passes(2.5)
    assert not passes(1.0)
    assert not passes(0.5)
    assert not passes(2.5, rows=40), "too few rows are no evidence"


def test_of_several_heads_one_must_be_superior_and_the_others_not_worse() -> None:
    def judged(one: float, other: float) -> list[bool]:
        heads = [
            scored(600, candidate=better, production=1.0, seed=seed)
            for seed, better in enumerate((one, other))
        ]
        other_head = msgspec.structs.replace(heads[1], is_main=False)
        return [c.passed for c in on_recent(GATE, [heads[0], other_head], must_improve=True)]

    assert all(judged(2.5, 1.0))
    assert all(judged(1.0, 2.5))
    assert not all(judged(1.0, 1.0))
    assert not all(judged(2.5, 0.0)), "the other one is worse"


def test_several_equal_heads_look_superior_as_seldom_as_one() -> None:
    """At most 2.5 %, the error of one bound of a 95 % interval."""
    found = [
        superior([scored(200, candidate=1.0, production=1.0, seed=4 * n + k) for k in range(4)], "")
        for n in range(600)
    ]
    assert np.mean([check.passed for check in found]) <= 0.04  # 2.5 % plus twice its error


def test_an_answer_to_drift_without_recent_rows_is_rejected() -> None:
    (check,) = on_recent(GATE, [], must_improve=True)
    assert not check.passed
    assert "0 recent held-out rows" in check.reason


def test_any_other_version_must_be_noninferior_on_enough_recent_rows() -> None:
    same = scored(600, candidate=1.0, production=1.0)
    assert [c.passed for c in on_recent(GATE, [same], must_improve=False)] == [True]
    worse = scored(600, candidate=0.0, production=2.0)
    assert [c.passed for c in on_recent(GATE, [worse], must_improve=False)] == [False]
    assert on_recent(GATE, [scored(40, candidate=0.0, production=2.0)], must_improve=False) == []
    assert on_recent(GATE, [], must_improve=False) == []


def test_a_version_that_refuses_productions_requests_is_rejected() -> None:
    load = Column("load", "FP64", unit="Nm", maximum=300.0)
    outputs = (Output("score", "FP64"),)
    old = Signature((load,), outputs)
    assert signature(old, old).passed
    narrower = Signature((Column("load", "FP64", unit="Nm", maximum=80.0),), outputs)
    assert "narrower range" in signature(narrower, old).reason
    assert not signature(narrower, old).passed


def test_the_verdict_names_every_reason() -> None:
    rows = scored(3000, candidate=0.0, production=2.0)
    checks = [
        *floors(GATE, measured(rows.candidate)),
        noninferior(GATE, rows, "the history"),
    ]
    passed, reason = verdict(checks)
    assert not passed
    assert all(check.reason in reason for check in checks)


def test_the_shift_is_measured_on_the_same_rows() -> None:
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
def test_a_label_that_marks_too_many_rows_rejects_a_version(marked: int, passed: bool) -> None:
    bound = Gate(floors={}, max_label_rate={"anomaly_flag": 0.1})
    shares = {"anomaly_flag": share(np.arange(100) < marked, seed=0)}
    (check,) = max_label_rate(bound, shares)
    assert check.passed == passed
    assert f"anomaly_flag marks {marked / 100:.1%} of the rows" in check.reason
