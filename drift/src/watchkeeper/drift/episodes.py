"""Episodes: the states of a drift, and every transition between them.

    from                 to                    when
    -------------------  --------------------  -----------------------------------------------------
    (no episode)         waiting-for-labels    a drift of the data that is seen ``confirm`` times in
                                               a row, or a concept drift
    waiting-for-labels   training              enough labels of each truth, if there is any, or
                                               ``label_timeout`` has passed, and
                                               the last run for a drift is far enough away
    waiting-for-labels   given-up              the same, after ``maximum_promotions`` promotions in
                                               a row without improvement, or without ``retrain``
    waiting-for-labels   clean                 ``clean_windows`` clean windows in a row, and the
                                               loss is known to be below its limit
    training             promoted              the version of the run is promoted
    training             cool-down             the run is rejected, fails, or is rolled back
    training             given-up              the same, in the last of ``maximum_attempts``
    cool-down            training              ``cool_down`` has passed, the drift persists, and
                                               the last run for a drift is far enough away
    cool-down, given-up  clean                 ``clean_windows`` clean windows in a row, and the
                                               loss is known to be below its limit
    promoted             cool-down, given-up   the promotion is rolled back
    unsettled states     promoted              another version is in production

A promotion that is rolled back counts as an attempt without a result. Otherwise a drift could start
any number of training runs that are each promoted for a moment.

Pure functions from the observed state to the next state: nothing here reads a clock or acts. The
episode controller calls them.
"""

from collections.abc import Iterable
from typing import Final, Literal

import msgspec

from watchkeeper.core.events import EpisodeState
from watchkeeper.core.policies import DriftPolicy
from watchkeeper.drift.statistics.streak import Streak
from watchkeeper.ledger.episodes import OPEN_STATES, Episode

# An episode in one of these states prevents a new one; "given-up" prevents it until data is clean.
UNSETTLED = (*OPEN_STATES, "given-up")


class RunOutcome(msgspec.Struct, frozen=True):
    """The outcome of a training run; "pending" until its version is promoted or it has ended.

    A pending outcome has a reason if the rollout of the version has started.
    """

    kind: Literal["pending", "promoted", "rejected", "failed", "rolled-back"]
    reason: str


class LabelCount(msgspec.Struct, frozen=True):
    """How many labels of one truth there are since the onset of an episode.

    ``truth`` is its name, empty if the version has no other. ``rows`` counts the labelled rows,
    ``rare`` those of the rare kind that a fit needs. ``rare_kind`` is its name, such as "positive";
    empty if the task has none.
    """

    rows: int
    rare: int
    rare_kind: str = ""
    truth: str = ""

    def __str__(self) -> str:
        """Say how many there are."""
        of_truth = f" with {self.truth!r}" if self.truth else ""
        rare = f", {self.rare} {self.rare_kind}" if self.rare_kind else ""
        return f"{self.rows} labelled rows{of_truth} since the onset{rare}"


class ConceptDrift(msgspec.Struct, frozen=True):
    """The concept drift of a version; ``labels`` is empty if there is none.

    ``labels`` are the truths of the heads whose live loss has risen. ``onset`` is the record time
    at which it has, seconds since 1970; of several heads the earliest. ``reason`` has the numbers.
    """

    labels: tuple[str, ...] = ()
    onset: float = 0.0
    reason: str = ""

    def __str__(self) -> str:
        """Name the drift."""
        return f"concept drift of {', '.join(self.labels)}"


NO_CONCEPT_DRIFT: Final = ConceptDrift()


class ObservedState(msgspec.Struct, frozen=True):
    """What a transition depends on.

    ``now`` is the record time of the newest request, seconds since 1970. ``streak`` is what the
    windows of the data show, ``concept`` what the labelled rows show. ``labels`` counts the labels
    of each truth that is waited for; it is empty if the version has none. ``recovered`` is True if
    labelled rows show a loss below the limit for each head that has drifted in the episode; it is
    False if nothing is known about one of them. ``outcome`` is that of the newest
    attempt. ``too_soon`` is True while the last training run for a drift of the model is too near.
    ``promotions`` counts the promotions in a row without improvement before the episode, see
    :func:`promotions_without_improvement`.
    """

    now: float
    streak: Streak
    labels: tuple[LabelCount, ...] = (LabelCount(0, 0),)
    outcome: RunOutcome = RunOutcome("pending", "")
    too_soon: bool = False
    promotions: int = 0
    concept: ConceptDrift = NO_CONCEPT_DRIFT
    recovered: bool = True


def open_episode(
    known: Iterable[Episode],
    streak: Streak,
    now: float,
    policy: DriftPolicy,
    *,
    model: str,
    version: int,
    concept: ConceptDrift = NO_CONCEPT_DRIFT,
) -> Episode | None:
    """Return a new episode if a drift is certain and no episode of the version is unsettled.

    A drift of the data is its cause, even if the loss has drifted, too.
    """
    earlier = [episode for episode in known if episode.version == version]
    of_data = streak.drifted >= policy.confirm
    if not (of_data or concept.labels) or any(e.state in UNSETTLED for e in earlier):
        return None
    in_data = (
        f"drift of {', '.join(streak.features)}, seen {streak.drifted} times in a row in "
        "different rows"
    )
    return Episode(
        id=f"{model}-v{version}-e{len(earlier) + 1}",
        model=model,
        version=version,
        state="waiting-for-labels",
        onset=streak.onset if of_data else concept.onset,
        opened=now,
        changed=now,
        attempt=0,
        reason=in_data if of_data else f"{concept}: {concept.reason}",
        cause="data" if of_data else "concept",
    )


def promotions_without_improvement(
    known: Iterable[Episode], episode: Episode, policy: DriftPolicy
) -> int:
    """Count the promotions in a row, up to an episode, that did not end the drift of a model.

    Each of them answered an episode, and the next such episode, or ``episode``, opened less than
    ``policy.settled`` seconds later. A version that a person has trained and that was promoted ends
    the row.
    """
    count, opened = 0, episode.opened
    promoted = [e for e in known if e.state == "promoted" and e.opened < episode.opened]
    for before in sorted(promoted, key=lambda e: e.opened, reverse=True):
        if not before.attempt or opened - before.changed >= policy.settled:
            break
        count, opened = count + 1, before.opened
    return count


def close_replaced(episode: Episode, production: int, now: float) -> Episode | None:
    """Return the episode in state "promoted" if its version is no longer in production."""
    if episode.version == production or episode.state not in UNSETTLED:
        return None
    return _move(episode, "promoted", now, f"version {production} is in production now")


def next_state(episode: Episode, observed: ObservedState, policy: DriftPolicy) -> Episode | None:
    """Return the episode in its next state, or None if the state does not change."""
    match episode.state:
        case "waiting-for-labels":
            return _clean(episode, observed, policy) or _enough_labels(episode, observed, policy)
        case "training":
            return _run_ended(episode, observed, policy)
        case "cool-down":
            return _clean(episode, observed, policy) or _try_again(episode, observed, policy)
        case "given-up":
            return _clean(episode, observed, policy)
        case "promoted" if observed.outcome.kind == "rolled-back":
            return _run_ended(episode, observed, policy)  # the version and its drift are back
        case _:
            return None


def _clean(episode: Episode, observed: ObservedState, policy: DriftPolicy) -> Episode | None:
    windows = observed.streak.clean
    if windows < policy.clean_windows or observed.concept.labels or not observed.recovered:
        return None
    reason = f"{windows} clean windows in a row"
    if episode.cause == "concept":
        reason = f"the loss on labelled rows is below its limit again, and {reason}"
    return _move(episode, "clean", observed.now, reason)


def _enough_labels(
    episode: Episode, observed: ObservedState, policy: DriftPolicy
) -> Episode | None:
    reason = "; ".join(map(str, observed.labels)) or "the version has no labels to wait for"
    enough = (
        count.rows >= policy.minimum_labels and count.rare >= policy.minimum_positives
        for count in observed.labels
    )
    if not all(enough):
        if observed.now - episode.opened < policy.label_timeout:
            return None
        reason = f"the wait for labels timed out: {reason}"
    if not policy.retrain:
        reason = "no training run: retrain is off; look at the data, or train by hand"
        return _move(episode, "given-up", observed.now, reason)
    if observed.promotions >= policy.maximum_promotions:
        reason = (
            f"no training run: {observed.promotions} promotions in a row have not ended the drift; "
            "look at the data, or train by hand"
        )
        return _move(episode, "given-up", observed.now, reason)
    return None if observed.too_soon else _move(episode, "training", observed.now, reason)


def _run_ended(episode: Episode, observed: ObservedState, policy: DriftPolicy) -> Episode | None:
    outcome = observed.outcome
    if outcome.kind == "pending":
        return None
    if outcome.kind == "promoted":
        return _move(episode, "promoted", observed.now, outcome.reason)
    reason = f"attempt {episode.attempt} {outcome.kind}: {outcome.reason}"
    if episode.attempt >= policy.maximum_attempts:
        return _move(episode, "given-up", observed.now, f"{reason}; it was the last attempt")
    return _move(episode, "cool-down", observed.now, reason)


def _try_again(episode: Episode, observed: ObservedState, policy: DriftPolicy) -> Episode | None:
    waits = observed.now - episode.changed < policy.cool_down or observed.too_soon
    present = drift_in_words(observed.streak, observed.concept)
    if waits or not present:
        return None
    return _move(episode, "training", observed.now, f"the {present} persists")


def drift_in_words(streak: Streak, concept: ConceptDrift) -> str:
    """Name what has drifted at present; empty if nothing has."""
    of_data = f"drift of {', '.join(streak.features)}" if streak.drifted else ""
    return " and ".join(filter(None, (of_data, str(concept) if concept.labels else "")))


def _move(episode: Episode, state: EpisodeState, now: float, reason: str) -> Episode:
    # The record time may be the same in two turns, but the events of an episode have an order.
    changed = max(now, episode.changed + 0.001)
    return msgspec.structs.replace(episode, state=state, changed=changed, reason=reason)
