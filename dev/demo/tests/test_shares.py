"""The test of all traffic shares accepts true shares and rejects wrong ones."""

import numpy as np
import pytest

from watchkeeper.demo.shares import LEVEL, CanaryStep, p_value

PLAN = ((2, 10), (2, 25), (2, 50), (3, 10))


def steps(random: np.random.Generator, requests: int, shift: float = 0.0) -> list[CanaryStep]:
    found = []
    for version, percent in PLAN:
        http, grpc = random.binomial(requests, percent / 100 + shift, 2).tolist()
        found.append(CanaryStep(version, percent, requests, http, requests, grpc, "pass", ""))
    return found


def test_true_shares_are_accepted() -> None:
    random = np.random.default_rng(1)
    found = [p_value(steps(random, 250)) for _ in range(400)]
    assert min(found) > LEVEL
    assert np.mean(np.array(found) < 0.05) <= 0.08  # as often as the level says, or less


@pytest.mark.parametrize("shift", [0.12, -0.08])
def test_wrong_shares_are_rejected(shift: float) -> None:
    random = np.random.default_rng(2)
    assert all(p_value(steps(random, 250, shift)) < LEVEL for _ in range(50))


def test_step_without_traffic_is_rejected() -> None:
    found = [CanaryStep(2, 25, 300, 75, 300, 0, "pass", "")]
    assert p_value(found) < LEVEL


def test_exact_shares_have_the_highest_p_value() -> None:
    assert p_value([CanaryStep(2, 10, 300, 30, 300, 30, "pass", "")]) == pytest.approx(1.0)


def test_steps_without_requests_are_accepted() -> None:
    assert p_value([]) == 1.0
    assert p_value([CanaryStep(2, 10, 0, 0, 0, 0, "pass", "")]) == 1.0


def test_many_requests_at_a_wrong_weight_do_not_overflow() -> None:
    assert p_value([CanaryStep(2, 10, 500_000, 250_000, 0, 0, "pass", "")]) == 0.0
