"""Episodes: what to do about a drift. All rules of the state machine are on this page.

    (drifted ``confirm`` times in a row) → waiting-for-labels → training ─→ promoted
                                                 │    ↑            │
                                        clean ←──┤    │ drift persists
                                                 └─ cool-down ←── rejected, failed, rolled back
                                                                   │
                                        clean ←── given-up ←───────┘ ``maximum_attempts`` reached

A promotion that is rolled back later counts as an attempt that came to nothing, so that a drift
cannot train for ever by being promoted for a moment.

Pure functions from what is known to the next state: nothing here reads a clock or acts.
"""

from collections.abc import Iterable
from typing import Literal

import msgspec

from watchkeeper.contracts.names import run_name
from watchkeeper.contracts.policies import DriftPolicy
from watchkeeper.drift.statistics.streak import Streak
from watchkeeper.ledger.episodes import OPEN_STATES, Episode, State

UNSETTLED = (*OPEN_STATES, "given-up")  # a given-up episode forbids another until it is clean


class Outcome(msgspec.Struct, frozen=True):
    """What became of a run: "pending" until it has been promoted or has come to nothing."""

    kind: Literal["pending", "promoted", "rejected", "failed", "rolled-back"]
    reason: str


class Facts(msgspec.Struct, frozen=True):
    """What is known at record time ``now``; ``labels`` and ``positives`` count since the onset."""

    now: float
    streak: Streak
    labels: int = 0
    positives: int = 0
    outcome: Outcome = Outcome("pending", "")


def opened(
    known: Iterable[Episode],
    streak: Streak,
    now: float,
    policy: DriftPolicy,
    *,
    model: str,
    version: int,
) -> Episode | None:
    """Return a new episode if the drift is confirmed and no other one is unsettled."""
    earlier = [episode for episode in known if episode.version == version]
    if streak.drifted < policy.confirm or any(e.state in UNSETTLED for e in earlier):
        return None
    return Episode(
        id=f"{model}-v{version}-e{len(earlier) + 1}",
        model=model,
        version=version,
        state="waiting-for-labels",
        onset=streak.onset,
        opened=now,
        changed=now,
        attempt=0,
        reason=f"drift of {', '.join(streak.features)} in {streak.drifted} windows in a row",
    )


def advanced(episode: Episode, facts: Facts, policy: DriftPolicy) -> Episode | None:
    """Return the episode in its next state, or None while it stays in this one."""
    match episode.state:
        case "waiting-for-labels":
            return _clean(episode, facts, policy) or _labelled(episode, facts, policy)
        case "training":
            return _ended(episode, facts, policy)
        case "cool-down":
            return _clean(episode, facts, policy) or _cooled(episode, facts, policy)
        case "given-up":
            return _clean(episode, facts, policy)
        case "promoted" if facts.outcome.kind == "rolled-back":
            return _ended(episode, facts, policy)  # its version is back, and so is its drift
        case _:
            return None


def replaced(episode: Episode, production: int, now: float) -> Episode | None:
    """Close an episode of a version that is no longer in production."""
    if episode.version == production or episode.state not in UNSETTLED:
        return None
    return _to(episode, "promoted", now, f"version {production} is in production now")


def next_run(model: str, version: int, taken: Iterable[str]) -> str:
    """Name the next run of a version: its number is above all that anybody has used."""
    prefix = run_name(model, version, 0)[:-1]
    numbers = (name.removeprefix(prefix) for name in taken if name.startswith(prefix))
    return run_name(model, version, 1 + max((int(n) for n in numbers if n.isdigit()), default=0))


def _clean(episode: Episode, facts: Facts, policy: DriftPolicy) -> Episode | None:
    if facts.streak.clean < policy.clean_windows:
        return None
    return _to(episode, "clean", facts.now, f"{facts.streak.clean} clean windows in a row")


def _labelled(episode: Episode, facts: Facts, policy: DriftPolicy) -> Episode | None:
    counted = f"{facts.labels} labelled rows since the onset, {facts.positives} positive"
    if facts.labels >= policy.minimum_labels and facts.positives >= policy.minimum_positives:
        return _to(episode, "training", facts.now, counted)
    if facts.now - episode.opened >= policy.label_timeout:
        return _to(episode, "training", facts.now, f"waited long enough: {counted}")
    return None


def _ended(episode: Episode, facts: Facts, policy: DriftPolicy) -> Episode | None:
    outcome = facts.outcome
    if outcome.kind == "pending":
        return None
    if outcome.kind == "promoted":
        return _to(episode, "promoted", facts.now, outcome.reason)
    reason = f"attempt {episode.attempt} {outcome.kind}: {outcome.reason}"
    if episode.attempt >= policy.maximum_attempts:
        return _to(episode, "given-up", facts.now, f"{reason}; it was the last one")
    return _to(episode, "cool-down", facts.now, reason)


def _cooled(episode: Episode, facts: Facts, policy: DriftPolicy) -> Episode | None:
    if facts.now - episode.changed < policy.cool_down or not facts.streak.drifted:
        return None
    features = ", ".join(facts.streak.features)
    return _to(episode, "training", facts.now, f"the drift of {features} persists")


def _to(episode: Episode, state: State, now: float, reason: str) -> Episode:
    # Record time may stand still between two turns; the events of an episode keep their order.
    changed = max(now, episode.changed + 0.001)
    return msgspec.structs.replace(episode, state=state, changed=changed, reason=reason)
