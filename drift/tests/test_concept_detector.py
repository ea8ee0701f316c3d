"""The test for concept drift: its stated rate of false alarms, and how soon it sees a change."""

import bisect

import concept
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchkeeper.core.estimates import Estimate, Numbers
from watchkeeper.core.gate_report import HeldOutLoss
from watchkeeper.core.policies import DriftPolicy
from watchkeeper.drift.concept.baseline import LEAST_EFFECT, limit_of
from watchkeeper.drift.concept.completeness import block_loss, next_step
from watchkeeper.drift.concept.detector import detect
from watchkeeper.drift.concept.status import status_of
from watchkeeper.ledger.concept_blocks import ConceptBlock

POLICY = DriftPolicy(concept_label_delay=20_000.0)
BASELINE = HeldOutLoss(("history",), 3000, 50, Estimate(0.1, 0.09, 0.11))


@pytest.mark.parametrize("limit", [0.01, 0.1, 0.5])
def test_the_mean_time_to_a_false_alarm_is_as_stated_at_the_limit_itself(limit: float) -> None:
    random = np.random.default_rng(1)
    streams = [(random.random((20, 1000)) < limit).mean(axis=0) for _ in range(60)]
    lengths = [run_length_of(stream, limit, stated=100.0) for stream in streams]
    assert np.mean(lengths) >= 100.0
    assert np.std(lengths) > 0.0


def run_length_of(stream: Numbers, limit: float, stated: float) -> int:
    """Return the number of blocks until the first alarm; all of them if there is none."""
    return bisect.bisect_left(
        range(len(stream)), 1, key=lambda blocks: detect(stream[:blocks], limit, stated).alarms
    )


@pytest.mark.parametrize(
    "name",
    [
        "i.i.d.",
        "AR 0.9",
        "AR 0.9, held out by a hash",
        "i.i.d., labels 1 early",
        "i.i.d., labels 1 late",
    ],
)
def test_no_alarm_without_a_change_within_the_stated_rate(name: str) -> None:
    found = [concept.run(concept.CASES[name], seed, POLICY, 20_000) for seed in range(100, 130)]
    available = [one for one in found if "alarms" in one]
    assert len(available) >= 27
    # 600,000 rows, and one alarm in 1,000,000 rows is allowed: three or more have a chance of 2 %.
    assert sum(one["alarms"] for one in available) <= 2
    assert all(one["judged"] > 0.9 * one["rows"] for one in available)


def test_slow_losses_raise_few_alarms_because_held_out_rows_span_more_rows_of_the_traffic() -> None:
    found = [concept.run(concept.CASES["AR 0.99"], seed, POLICY) for seed in range(30)]
    available = [one for one in found if "alarms" in one]
    assert len(available) >= 15
    # In about 2,000,000 rows. Blocks of as many live rows as held-out ones raise ten.
    assert sum(one["alarms"] for one in available) <= 5


def test_labels_that_never_come_by_their_outcome_raise_no_alarm() -> None:
    case = concept.CASES["i.i.d., labels 1 early, 8 % of 0 never"]
    found = [concept.run(case, seed, POLICY, 20_000) for seed in range(10)]
    assert sum(one["alarms"] for one in found) == 0
    assert sum(one["judged"] for one in found) > 0.6 * sum(one["rows"] for one in found)


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("i.i.d., 5 % of labels flipped", 4500),
        ("i.i.d., 20 % of labels flipped", 1500),
        ("i.i.d., threshold moved by 1 logit", 5000),
    ],
)
def test_a_change_of_the_concept_is_seen(name: str, rows: int) -> None:
    found = [concept.run(concept.CASES[name], seed, POLICY) for seed in range(8)]
    assert np.median([one["delay"] for one in found]) <= rows
    assert abs(np.median([one["onset"] for one in found])) <= 200


losses = st.lists(st.floats(0.0, 1.0), max_size=80)


@settings(max_examples=100, deadline=None)
@given(losses, st.floats(0.001, 1.0), st.floats(0.1, 1e6))
def test_a_detection_is_about_the_blocks_that_it_names(
    values: list[float], limit: float, run_length: float
) -> None:
    found = detect(np.array(values), limit, run_length)
    assert 0.0 <= found.evidence <= 1.0
    if found.drifted:
        assert 0 <= found.first <= found.found < len(values)
        assert found.alarms >= 1
        assert found.evidence == 1.0


def test_a_drift_ends_when_the_loss_is_below_the_limit_again_and_can_come_back() -> None:
    calm, changed = np.full(60, 0.05), np.full(20, 0.3)
    assert not detect(calm, 0.1, 1000.0).drifted
    drifted = detect(np.concatenate([calm, changed]), 0.1, 1000.0)
    assert (drifted.drifted, drifted.first, drifted.alarms) == (True, 60, 1)
    after = detect(np.concatenate([calm, changed, calm]), 0.1, 1000.0)
    assert (after.drifted, after.alarms) == (False, 1)
    again = detect(np.concatenate([calm, changed, calm, changed]), 0.1, 1000.0)
    assert (again.drifted, again.first, again.alarms) == (True, 140, 2)


def test_a_drift_that_persists_is_not_ended_by_looking_often() -> None:
    random = np.random.default_rng(1)
    ended = 0
    for _ in range(200):
        drifted = random.binomial(20, 0.11, 300) / 20
        found = detect(np.concatenate([np.ones(20), drifted]), 0.1, 1000.0)
        ended += found.alarms > 1 or not found.drifted
    assert ended <= 0.15 * 200  # 40 % with a test after each block


@pytest.mark.parametrize(
    ("labelled", "age", "share", "step"),
    [
        (45, 0.0, 0.9, "judge"),
        (44, 0.0, 0.9, "wait"),
        (44, 99.9, 0.3, "wait"),
        (44, 100.0, 0.9, "skip"),
        (15, 100.0, 0.3, "judge"),
        (14, 100.0, 0.3, "skip"),
        (0, 0.0, 0.9, "wait"),
    ],
)
def test_a_block_waits_until_its_labels_are_complete_or_late(
    labelled: int, age: float, share: float, step: str
) -> None:
    policy = DriftPolicy(concept_label_share=share, concept_label_delay=100.0)
    assert next_step(50, labelled, age, policy) == step


def test_a_missing_label_of_a_complete_block_counts_as_no_error() -> None:
    assert block_loss(np.full(45, 0.1), 50) == pytest.approx(0.09)
    assert block_loss(np.full(15, 0.1), 50) == pytest.approx(0.1)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=50), st.integers(0, 50))
def test_the_loss_of_a_block_is_from_0_to_1(values: list[float], missing: int) -> None:
    assert 0.0 <= block_loss(np.array(values), len(values) + missing) <= 1.0


def test_the_limit_is_above_the_interval_by_the_effect_that_matters() -> None:
    assert limit_of(BASELINE, POLICY) == pytest.approx(0.11 + 0.01)
    perfect = HeldOutLoss(("history",), 3000, 50, Estimate(0.0, 0.0, 0.001))
    assert limit_of(perfect, POLICY) == pytest.approx(0.001 + LEAST_EFFECT)


def test_a_status_without_judged_blocks_says_what_it_waits_for() -> None:
    skipped = ConceptBlock(1.0, 2.0, 50, 3, None, "3 of 50 rows were labelled in time")
    for stored, reason in (([], "no block of rows"), ([skipped] * 50, "3 of 50 rows")):
        found = status_of(
            stored, label="x", measure="", baseline=BASELINE, limit=0.12, run_length=20_000.0
        )
        assert (found.state, found.loss.value) == ("waiting for labels", None)
        assert reason in found.reason
