"""The transitions of an episode, and streaks of windows."""

from typing import Any

import msgspec
import pytest
from pump import drift_report

from watchkeeper.core.drift_report import DriftVerdict
from watchkeeper.core.events import EpisodeState
from watchkeeper.core.policies import DriftPolicy
from watchkeeper.drift.episodes import (
    ConceptDrift,
    LabelCount,
    ObservedState,
    RunOutcome,
    close_replaced,
    next_state,
    open_episode,
    promotions_without_improvement,
)
from watchkeeper.drift.statistics.streak import Streak, newest_streak
from watchkeeper.ledger.episodes import Episode

POLICY = DriftPolicy(
    confirm=2,
    clean_windows=3,
    minimum_labels=100,
    minimum_positives=10,
    label_timeout=1000.0,
    cool_down=50.0,
    maximum_attempts=2,
)
DRIFTED = Streak(drifted=2, onset=90.0, features=("vibration",))
CLEAN = Streak(clean=3)
CONCEPT = ConceptDrift(("failure",), 70.0, "the loss is 0.2")
RUL = LabelCount(500, 500, truth="rul")


def episode(state: EpisodeState, attempt: int = 0) -> Episode:
    return Episode("m-v1-e1", "m", 1, state, 90.0, 100.0, 100.0, attempt, "drift of vibration")


def after(before: Episode, observed: ObservedState) -> str:
    following = next_state(before, observed, POLICY)
    return before.state if following is None else following.state


def test_an_episode_opens_when_drift_is_confirmed_and_not_before() -> None:
    once = msgspec.structs.replace(DRIFTED, drifted=1)
    assert open_episode([], once, 100.0, POLICY, model="m", version=1) is None
    found = open_episode([], DRIFTED, 100.0, POLICY, model="m", version=1)
    assert found is not None
    assert (found.id, found.state, found.onset, found.attempt) == (
        "m-v1-e1",
        "waiting-for-labels",
        90.0,
        0,
    )


def test_a_concept_drift_alone_opens_an_episode_that_says_so() -> None:
    found = open_episode([], CLEAN, 100.0, POLICY, model="m", version=1, concept=CONCEPT)
    assert found is not None
    assert (found.cause, found.onset) == ("concept", 70.0)
    assert found.reason == "concept drift of failure: the loss is 0.2"
    both = open_episode([], DRIFTED, 100.0, POLICY, model="m", version=1, concept=CONCEPT)
    assert both is not None
    assert (both.cause, both.onset) == ("data", 90.0)
    settled = [episode("given-up")]
    assert not open_episode(settled, CLEAN, 100.0, POLICY, model="m", version=1, concept=CONCEPT)


def test_an_episode_ends_clean_only_without_any_drift() -> None:
    for state in ("waiting-for-labels", "cool-down", "given-up"):
        assert after(episode(state), ObservedState(100.0, CLEAN)) == "clean"
        assert after(episode(state), ObservedState(100.0, CLEAN, concept=CONCEPT)) == state


def test_an_episode_stays_open_while_nobody_knows_whether_the_loss_is_low_again() -> None:
    for state in ("waiting-for-labels", "cool-down", "given-up"):
        unknown = ObservedState(100.0, CLEAN, recovered=False)
        assert after(msgspec.structs.replace(episode(state), cause="concept"), unknown) == state


def test_a_concept_drift_that_persists_starts_the_next_attempt() -> None:
    following = next_state(episode("cool-down", 1), ObservedState(200.0, CLEAN), POLICY)
    assert following is not None
    assert following.state == "clean"
    again = ObservedState(200.0, CLEAN, concept=CONCEPT)
    following = next_state(episode("cool-down", 1), again, POLICY)
    assert following is not None
    assert (following.state, following.reason) == (
        "training",
        "the concept drift of failure persists",
    )
    soon = ObservedState(120.0, CLEAN, concept=CONCEPT)
    assert next_state(episode("cool-down", 1), soon, POLICY) is None, "the cool-down is not over"


def test_a_concept_drift_has_the_same_brakes() -> None:
    labels = (LabelCount(500, 500),)
    waiting, present = (
        episode("waiting-for-labels"),
        ObservedState(200.0, CLEAN, labels=labels, concept=CONCEPT),
    )
    assert after(waiting, present) == "training"
    assert after(waiting, msgspec.structs.replace(present, too_soon=True)) == "waiting-for-labels"
    assert after(waiting, msgspec.structs.replace(present, promotions=3)) == "given-up"
    reporting = msgspec.structs.replace(POLICY, retrain=False)
    following = next_state(waiting, present, reporting)
    assert following is not None
    assert following.state == "given-up"


@pytest.mark.parametrize("state", ["waiting-for-labels", "training", "cool-down", "given-up"])
def test_no_second_episode_opens_while_one_is_unsettled(state: EpisodeState) -> None:
    assert open_episode([episode(state)], DRIFTED, 100.0, POLICY, model="m", version=1) is None


def test_the_next_episode_of_a_version_has_the_next_number() -> None:
    found = open_episode([episode("clean")], DRIFTED, 100.0, POLICY, model="m", version=1)
    assert found is not None
    assert found.id == "m-v1-e2"
    other = open_episode([episode("training")], DRIFTED, 100.0, POLICY, model="m", version=2)
    assert other is not None
    assert other.id == "m-v2-e1"


@pytest.mark.parametrize(
    ("observed", "state"),
    [
        (ObservedState(200.0, DRIFTED, labels=(LabelCount(99, 99),)), "waiting-for-labels"),
        (ObservedState(200.0, DRIFTED, labels=(LabelCount(500, 9),)), "waiting-for-labels"),
        (ObservedState(200.0, DRIFTED, labels=(LabelCount(100, 10),)), "training"),
        (ObservedState(200.0, DRIFTED, labels=(LabelCount(100, 10), RUL)), "training"),
        (ObservedState(200.0, DRIFTED, labels=(LabelCount(99, 10), RUL)), "waiting-for-labels"),
        (ObservedState(200.0, DRIFTED, labels=(RUL, LabelCount(99, 10))), "waiting-for-labels"),
        (ObservedState(200.0, DRIFTED, labels=()), "training"),
        (ObservedState(1099.0, DRIFTED), "waiting-for-labels"),
        (ObservedState(1100.0, DRIFTED), "training"),
        (ObservedState(200.0, CLEAN, labels=(LabelCount(100, 10),)), "clean"),
        (ObservedState(200.0, Streak(clean=2)), "waiting-for-labels"),
    ],
)
def test_an_episode_waits_for_labels_a_time_out_or_clean_windows(
    observed: ObservedState, state: str
) -> None:
    assert after(episode("waiting-for-labels"), observed) == state


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
def test_an_episode_in_training_follows_the_outcome_of_its_run(
    kind: str, attempt: int, state: str
) -> None:
    outcome = msgspec.convert({"kind": kind, "reason": "so"}, RunOutcome)
    assert (
        after(episode("training", attempt), ObservedState(200.0, CLEAN, outcome=outcome)) == state
    )


@pytest.mark.parametrize(
    ("observed", "state"),
    [
        (ObservedState(149.0, DRIFTED), "cool-down"),
        (ObservedState(150.0, DRIFTED), "training"),
        (ObservedState(150.0, Streak(clean=1)), "cool-down"),
        (ObservedState(110.0, CLEAN), "clean"),
    ],
)
def test_an_episode_trains_again_after_the_cool_down_while_drift_persists(
    observed: ObservedState, state: str
) -> None:
    assert after(episode("cool-down", 1), observed) == state


ENOUGH = ObservedState(200.0, DRIFTED, labels=(LabelCount(100, 10),))


@pytest.mark.parametrize(
    ("state", "change", "following"),
    [
        ("waiting-for-labels", {"too_soon": True}, "waiting-for-labels"),
        ("cool-down", {"too_soon": True}, "cool-down"),
        ("waiting-for-labels", {"promotions": 2}, "training"),
        ("waiting-for-labels", {"promotions": 3}, "given-up"),
        ("waiting-for-labels", {"promotions": 3, "too_soon": True}, "given-up"),
        (
            "waiting-for-labels",
            {"promotions": 3, "labels": (LabelCount(99, 99),)},
            "waiting-for-labels",
        ),
    ],
)
def test_no_training_starts_too_soon_or_after_three_promotions_in_vain(
    state: EpisodeState, change: dict[str, Any], following: str
) -> None:
    assert after(episode(state, 1), msgspec.structs.replace(ENOUGH, **change)) == following


def chain(*steps: tuple[float, float, int], opened: float = 1000.0) -> int:
    """Count the promotions in vain before an episode.

    Each step is an earlier episode that ended with a promotion: opened, changed, attempt.
    """
    known = [
        Episode(f"e{n}", "m", n, "promoted", at, at, changed, attempt, "")
        for n, (at, changed, attempt) in enumerate(steps)
    ]
    new = Episode("new", "m", 9, "waiting-for-labels", opened, opened, opened, 0, "")
    policy = msgspec.structs.replace(POLICY, settled=100.0)
    return promotions_without_improvement([*known, new], new, policy)


def test_without_retrain_a_drift_starts_no_run() -> None:
    policy = msgspec.structs.replace(POLICY, retrain=False)
    enough = ObservedState(200.0, DRIFTED, labels=(LabelCount(100, 10),))
    following = next_state(episode("waiting-for-labels"), enough, policy)
    assert following is not None
    assert following.state == "given-up"
    assert "retrain is off" in following.reason


def test_promotions_in_vain_are_those_that_a_drift_follows_soon() -> None:
    assert chain() == 0
    assert chain((800, 890, 1)) == 0, "no drift for the time that settles it"
    assert chain((800, 910, 1)) == 1
    assert chain((600, 710, 1), (800, 910, 2)) == 2
    assert chain((600, 690, 1), (800, 910, 1)) == 1, "the first one had helped"
    assert chain((600, 710, 1), (800, 910, 0)) == 0, "a person has trained the last version"
    assert chain((1200, 1300, 1)) == 0


def test_only_clean_windows_end_a_given_up_episode() -> None:
    assert after(episode("given-up", 2), ObservedState(9999.0, DRIFTED)) == "given-up"
    assert after(episode("given-up", 2), ObservedState(9999.0, CLEAN)) == "clean"


def test_a_promotion_settles_the_episodes_of_other_versions() -> None:
    settled = close_replaced(episode("training", 1), 2, 300.0)
    assert settled is not None
    assert settled.state == "promoted"
    assert close_replaced(episode("training", 1), 1, 300.0) is None
    assert close_replaced(episode("clean"), 2, 300.0) is None


def test_a_report_of_an_earlier_release_counts_as_a_first_drifted_window() -> None:
    old = drift_report(1.0, "drifted", confirmations=0)
    assert newest_streak([old, old]).drifted == 1


def streak(*windows: tuple[float, DriftVerdict]) -> Streak:
    """Return the streak of windows, given by their ends and verdicts."""
    return newest_streak([drift_report(end, verdict) for end, verdict in windows])


def test_undecided_windows_neither_break_nor_lengthen_a_streak() -> None:
    found = streak((1, "clean"), (2, "drifted"), (3, "undecided"))
    assert (found.drifted, found.clean, found.features) == (1, 0, ("vibration",))
    assert streak((1, "clean"), (2, "undecided"), (3, "clean")).clean == 2
    assert streak() == Streak()


def test_the_onset_is_the_end_of_the_last_window_before_the_drift() -> None:
    assert streak((1, "clean"), (4, "clean"), (7, "drifted"), (9, "drifted")).onset == 4
    assert streak((7, "drifted")).onset == -3
