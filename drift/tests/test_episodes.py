import msgspec
import pytest

from watchkeeper.contracts.policies import DriftPolicy
from watchkeeper.drift.episodes import Facts, Outcome, advanced, next_run, opened, replaced
from watchkeeper.drift.statistics.streak import Streak, streak
from watchkeeper.ledger.episodes import Episode, State
from watchkeeper.ledger.reports import DriftReport

POLICY = DriftPolicy(
    confirm=2,
    clean_windows=3,
    minimum_labels=100,
    minimum_positives=10,
    label_timeout=1000.0,
    cool_down=50.0,
    maximum_attempts=2,
)
DRIFTED = Streak(drifted=2, onset=90.0, features=("torque",))
CLEAN = Streak(clean=3)


def episode(state: State, attempt: int = 0) -> Episode:
    return Episode("m-v1-e1", "m", 1, state, 90.0, 100.0, 100.0, attempt, "drift of torque")


def after(before: Episode, facts: Facts) -> str:
    following = advanced(before, facts, POLICY)
    return before.state if following is None else following.state


def test_an_episode_opens_when_drift_is_confirmed_and_no_sooner() -> None:
    once = msgspec.structs.replace(DRIFTED, drifted=1)
    assert opened([], once, 100.0, POLICY, model="m", version=1) is None
    found = opened([], DRIFTED, 100.0, POLICY, model="m", version=1)
    assert found is not None
    assert (found.id, found.state, found.onset, found.attempt) == (
        "m-v1-e1",
        "waiting-for-labels",
        90.0,
        0,
    )


@pytest.mark.parametrize("state", ["waiting-for-labels", "training", "cool-down", "given-up"])
def test_no_second_episode_opens_beside_an_unsettled_one(state: State) -> None:
    assert opened([episode(state)], DRIFTED, 100.0, POLICY, model="m", version=1) is None


def test_the_next_episode_of_a_version_has_the_next_number() -> None:
    found = opened([episode("clean")], DRIFTED, 100.0, POLICY, model="m", version=1)
    assert found is not None
    assert found.id == "m-v1-e2"
    other = opened([episode("training")], DRIFTED, 100.0, POLICY, model="m", version=2)
    assert other is not None
    assert other.id == "m-v2-e1"


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        (Facts(200.0, DRIFTED, labels=99, positives=99), "waiting-for-labels"),
        (Facts(200.0, DRIFTED, labels=500, positives=9), "waiting-for-labels"),
        (Facts(200.0, DRIFTED, labels=100, positives=10), "training"),
        (Facts(1099.0, DRIFTED), "waiting-for-labels"),
        (Facts(1100.0, DRIFTED), "training"),
        (Facts(200.0, CLEAN, labels=100, positives=10), "clean"),
        (Facts(200.0, Streak(clean=2)), "waiting-for-labels"),
    ],
)
def test_it_waits_for_labels_or_the_time_out_or_clean_windows(facts: Facts, state: str) -> None:
    assert after(episode("waiting-for-labels"), facts) == state


@pytest.mark.parametrize(
    ("kind", "attempt", "state"),
    [
        ("pending", 1, "training"),
        ("promoted", 1, "promoted"),
        ("rejected", 1, "cool-down"),
        ("failed", 1, "cool-down"),
        ("rolled-back", 1, "cool-down"),
        ("rejected", 2, "given-up"),
    ],
)
def test_a_training_ends_as_its_run_does(kind: str, attempt: int, state: str) -> None:
    outcome = msgspec.convert({"kind": kind, "reason": "so"}, Outcome)
    assert after(episode("training", attempt), Facts(200.0, CLEAN, outcome=outcome)) == state


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        (Facts(149.0, DRIFTED), "cool-down"),
        (Facts(150.0, DRIFTED), "training"),
        (Facts(150.0, Streak(clean=1)), "cool-down"),
        (Facts(110.0, CLEAN), "clean"),
    ],
)
def test_it_tries_again_after_the_cool_down_while_drift_persists(facts: Facts, state: str) -> None:
    assert after(episode("cool-down", 1), facts) == state


def test_a_given_up_episode_ends_with_clean_windows_only() -> None:
    assert after(episode("given-up", 2), Facts(9999.0, DRIFTED)) == "given-up"
    assert after(episode("given-up", 2), Facts(9999.0, CLEAN)) == "clean"


def test_a_promotion_settles_the_episodes_of_other_versions() -> None:
    settled = replaced(episode("training", 1), 2, 300.0)
    assert settled is not None
    assert settled.state == "promoted"
    assert replaced(episode("training", 1), 1, 300.0) is None
    assert replaced(episode("clean"), 2, 300.0) is None


def test_run_numbers_rise_over_everything_that_used_one() -> None:
    assert next_run("m", 1, []) == "m-v1-a1"
    assert next_run("m", 1, ["m-v1-a2", "m-v1-a10", "m-v2-a11", "m-v11-a12"]) == "m-v1-a11"
    assert next_run("m", 1, ["m-v1-ab", "m-v1-a-3"]) == "m-v1-a1"


def report(end: float, verdict: str) -> DriftReport:
    features = [{"name": "torque", "drifted": verdict == "drifted"}]
    told = {"verdict": verdict, "features": features}
    return DriftReport("m", 1, end - 10, end, verdict == "drifted", told)


def test_undecided_windows_neither_break_nor_lengthen_a_streak() -> None:
    said = streak([report(1, "clean"), report(2, "drifted"), report(3, "undecided")])
    assert (said.drifted, said.clean, said.features) == (1, 0, ("torque",))
    assert streak([report(1, "clean"), report(2, "undecided"), report(3, "clean")]).clean == 2
    assert streak([]) == Streak()


def test_the_onset_is_the_end_of_the_last_window_before_the_drift() -> None:
    ends = [(1, "clean"), (4, "clean"), (7, "drifted"), (9, "drifted")]
    assert streak([report(end, verdict) for end, verdict in ends]).onset == 4
    assert streak([report(7, "drifted")]).onset == -3
