"""The events of a rollout.

An event is written into the route's state together with the change that it reports. It stays there
until the ledger has it, so that no event is lost while the ledger is down. Ids follow from the
rollout, so that an event that is emitted twice is stored once.
"""

from watchkeeper.core.events import (
    Event,
    EventDetails,
    NumberReused,
    ProductionRegistered,
    ProductionUnregistered,
    Promoted,
    RolledBack,
    RouteRepaired,
    StepFinished,
    kind_of,
)
from watchkeeper.core.version import short_digest
from watchkeeper.registry import AGAIN_TAG, REUSED_TAG, ROLLOUT_TAG
from watchkeeper.rollout.state import RolloutState

REPEATED_SECONDS = 600.0  # a repeated change of a route is reported again after this time
ROLLED_BACK = "rolled-back: "  # the tag of a version that was taken off starts with this


def rollout_event(
    model: str, state: RolloutState, details: EventDetails, time: float, reason: str
) -> Event:
    """Return an event about the rollout of ``state``. A rollout has one event of each kind, and
    one for each canary step.
    """
    suffix = kind_of(details)
    if isinstance(details, StepFinished):
        suffix += f"-{details.percent}"
    return Event(
        id=f"{model}/v{state.version}/{suffix}/{state.started:.3f}",
        model=model,
        version=state.version,
        time=time,
        reason=reason,
        details=details,
    )


def promoted_again(model: str, state: RolloutState, time: float) -> Event:
    """Return the event that the previous version is production again, after a rollback."""
    return Event(
        id=f"{model}/v{state.stable}/promoted/{time:.3f}",
        model=model,
        version=state.stable,
        time=time,
        reason=f"back from v{state.version}: {state.reason}",
        details=Promoted(
            replaces=state.version,
            digest=state.digests.get(state.old, ""),
        ),
    )


def reused_event(
    model: str, version: int, tags: dict[str, str], first: str, time: float
) -> Event | None:
    """Return the event that a version was registered again, because its number was used before.

    Args:
        model: the model.
        version: the new number.
        tags: the tags of the version.
        first: the content that the old number stands for; "" if it is not known any more.
        time: when its rollout starts, in seconds since 1970.

    Returns:
        The event; None if it is an ordinary version.
    """
    if AGAIN_TAG not in tags:
        return None
    reused, content = int(tags[REUSED_TAG]), tags[AGAIN_TAG]
    reason = (
        f"the registry names other content by v{reused}, a number that was used before: "
        f"{short_digest(content)}, registered again as v{version}"
    )
    details = NumberReused(reused=reused, digest=first, other_digest=content)
    event_id = f"{model}/v{version}/{kind_of(details)}"
    return Event(event_id, model, version, time, reason, details)


def registration_event(
    model: str,
    version: int | None,
    details: ProductionRegistered | ProductionUnregistered,
    time: float,
    reason: str,
) -> Event:
    """Return the event that the registry has lost or found the production version."""
    return Event(
        id=f"{model}/v{version}/{kind_of(details)}/{time:.3f}",
        model=model,
        version=version,
        time=time,
        reason=reason,
        details=details,
    )


def repaired_event(
    model: str, version: int, details: RouteRepaired, time: float, reason: str
) -> Event:
    """Return the event that the route was written again, because somebody had changed it.

    Another tool may change it in every turn, so there is at most one event in ten minutes.
    """
    event_id = f"{model}/{kind_of(details)}/{details.part}/{time // REPEATED_SECONDS:.0f}"
    return Event(event_id, model, version, time, reason, details)


def first_rejections(model: str, tags: dict[int, dict[str, str]], time: float) -> tuple[Event, ...]:
    """Return the events of versions that were rejected before there was a route.

    Without a route no state stores them, so they are made from the versions' tags.
    """
    return tuple(
        Event(
            id=f"{model}/v{version}/rolled-back/first",
            model=model,
            version=version,
            time=time,
            reason=text[ROLLOUT_TAG].removeprefix(ROLLED_BACK),
            details=RolledBack(to=None, percent=0),
        )
        for version, text in sorted(tags.items())
        if text.get(ROLLOUT_TAG, "").startswith(ROLLED_BACK)
    )
