"""A short form of the simulation: few false alarms, and no late detection."""

from typing import Any

from alarms import CASES, run


def found(name: str, seeds: int) -> list[dict[str, Any]]:
    return [run(CASES[name], seed) for seed in range(seeds)]


def test_an_autocorrelated_stream_without_drift_opens_no_episode() -> None:
    assert sum(one["episodes"] for one in found("AR 0.9", 2)) == 0


def test_a_shift_of_independent_rows_is_seen_within_a_window() -> None:
    delays = sorted(one["delay"] for one in found("i.i.d., mean + 1", 3))
    assert delays[1] <= 375


def test_a_second_drift_is_seen_after_a_retraining() -> None:
    delays = [one["delay"] for one in found("AR 0.9 after a retraining, mean + 1", 2)]
    assert sum(delay is not None for delay in delays) >= 1
