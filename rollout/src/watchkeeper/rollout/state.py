"""The state of a rollout, as it stands on the route beside the weights: all of the memory there is.

On the route it is a dictionary of texts. The keys that people and other components read:
``candidate``, ``step`` (percent), ``since`` (when the gateway confirmed the weights), ``verdict``,
``reason``; each is "" where there is none. Numbers and lists are JSON.
"""

from typing import Any, Literal

import msgspec

from watchkeeper.ledger.events import Event

Phase = Literal[
    "steady",  # production has all traffic
    "starting",  # the new version is served, but has no traffic yet
    "canary",  # it has its step's share
    "promoting",  # it has all traffic, and is becoming production in the registry
    "watching",  # it is production; the old one stays warm
    "rolling-back",  # stable has all traffic again, the new version is being taken off
    "returning",  # the previous version has all traffic again, and is becoming production
]


class BrokenStateError(ValueError):
    """A route carries a state that nobody wrote like this; only a person can tell what it means."""


class Finished(msgspec.Struct, frozen=True):
    """One traffic step that is over: ``percent`` held from ``since``, when the gateway confirmed
    it, until just before ``until``, the weights' next change.
    """

    percent: int
    since: float
    until: float
    verdict: str
    reason: str


class Window(msgspec.Struct, frozen=True):
    """What ``version`` was asked with ``since <= time < until``."""

    version: int
    since: float
    until: float


class State(msgspec.Struct, frozen=True):
    """One rollout, in progress or the last there was.

    ``production`` is the version last reconciled with the registry. ``version`` is whose rollout
    this is, ``stable`` what it replaces and where a failure goes, ``started`` its beginning and
    part of its events' ids. ``changed`` is the last write. ``unready`` is since when the new
    version is not ready, ``stumbles`` how often that happened; ``held`` is when its start was last
    seen to wait for something that is no fault of its own. ``window`` is what the watch compares
    with, frozen before the promotion. ``untold`` are events that may not be in the ledger yet.
    """

    phase: Phase = "steady"
    production: int | None = None
    version: int | None = None
    stable: int | None = None
    started: float = 0.0
    changed: float = 0.0
    step: int = 0
    since: float | None = None
    verdict: str = ""
    reason: str = ""
    steps: tuple[Finished, ...] = ()
    unready: float | None = None
    stumbles: int = 0
    held: float | None = None
    window: Window | None = None
    watch_until: float | None = None
    untold: tuple[Event, ...] = ()

    @property
    def new(self) -> int:
        """The version whose rollout is in progress."""
        return self._part("version", self.version)

    @property
    def old(self) -> int:
        """The version that it replaces."""
        return self._part("stable", self.stable)

    def _part(self, name: str, value: int | None) -> int:
        if value is None:
            raise BrokenStateError(f"the route's state: phase {self.phase} without {name!r}")
        return value

    @property
    def candidate(self) -> int | None:
        """The version that is on its way to production."""
        return self.version if self.phase in ("starting", "canary", "promoting") else None

    def dump(self) -> dict[str, str]:
        """Write the state as texts."""
        values = {**msgspec.to_builtins(self), "candidate": self.candidate}
        return {name: _text(value) for name, value in values.items()}


def parse(texts: dict[str, str]) -> State:
    """Read a state back; keys that are missing have their defaults, unknown ones are skipped.

    Raises:
        BrokenStateError: a value is not what was written.
    """
    given: dict[str, Any] = {}
    for field in msgspec.structs.fields(State):
        text = texts.get(field.name, "")
        if not text:
            continue
        try:
            if field.name in ("phase", "verdict", "reason"):
                given[field.name] = msgspec.convert(text, field.type)
            else:
                given[field.name] = msgspec.json.decode(text, type=field.type)
        except msgspec.MsgspecError as error:
            raise BrokenStateError(
                f"the route's state: {field.name}={text[:200]!r}: {error}; correct it, or "
                "empty the state and let the controller begin from the registry's aliases"
            ) from error
    return State(**given)


def _text(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
