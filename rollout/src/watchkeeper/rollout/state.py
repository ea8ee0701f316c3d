"""The state of a rollout. It is stored with the route and is all that the controller remembers.

The route stores a text for each field, so that people can read and correct it. A number is its
decimal form, None and an empty list are "". The fields of :data:`JSON_FIELDS` are JSON. An event
that this release cannot read is written back as it was read, so that a rollout continues after a
return to an earlier release. These keys are read by people and by other components: ``phase``,
``candidate`` (the version on its way to production), ``canary_percent``, ``since`` (when the
gateway confirmed the weights, in seconds since 1970), ``verdict``, ``reason``, and those of
:data:`watchkeeper.platforms.SHOWN_STATE`.
"""

from typing import Any, Final, Literal

import msgspec

from watchkeeper.core.events import Event, Verdict, as_json, parse_event
from watchkeeper.platforms import UNREADABLE, Route

Phase = Literal[
    "steady", "starting", "canary", "promoting", "watching", "rolling-back", "returning"
]
JSON_FIELDS: Final = ("step_results", "baseline", "pending_events", "digests")
COMPARING: Final = ("canary", "watching", "returning")  # phases with an old and a new version
SHOWN: Final = 80  # characters of a text in an error message


class BrokenStateError(ValueError):
    """The state on a route is not one that the controller writes: somebody has changed it."""


class StepResult(msgspec.Struct, frozen=True):
    """One finished canary step.

    ``percent`` was in force from ``since``, when the gateway confirmed it, until just before
    ``until``, when the weights changed; both in seconds since 1970.
    """

    percent: int
    since: float
    until: float
    verdict: Verdict
    reason: str


class Window(msgspec.Struct, frozen=True):
    """The requests of ``version`` with ``since <= time < until``, in seconds since 1970."""

    version: int
    since: float
    until: float


class RolloutState(msgspec.Struct, frozen=True):
    """One rollout: the one in progress or the last one. All times are seconds since 1970.

    Attributes:
        phase: see :data:`watchkeeper.rollout.phases.PHASES`.
        production: the version that route and registry last agreed on.
        version: the version that is rolled out.
        stable: the version that it replaces, and that gets the traffic if it fails.
        started: the start of the rollout. It is part of the ids of its events.
        changed: the last write of the route.
        canary_percent: the traffic of ``version`` in per cent; 0 before the first step and after a
            rollback.
        since: when the gateway confirmed the weights; None until it does.
        verdict: the result of the last step or watch; "" while it is judged.
        reason: the last decision, for people.
        step_results: the finished steps.
        unready_since: since when ``version`` is not ready; None while it is ready.
        readiness_losses: how often it lost its readiness.
        blocked_at: when its start last waited for something that is no fault of its own.
        baseline: the window before the promotion. The watch compares with it.
        watch_until: when the watch ends, at the earliest.
        unregistered_since: since when the registry does not name ``production``, or None.
        pending_events: events that the ledger may not have yet.
        digests: the content of ``production``, ``version`` and ``stable``, by number, where it is
            known.
    """

    phase: Phase = "steady"
    production: int | None = None
    version: int | None = None
    stable: int | None = None
    started: float = 0.0
    changed: float = 0.0
    canary_percent: int = 0
    since: float | None = None
    verdict: Verdict | Literal[""] = ""
    reason: str = ""
    step_results: tuple[StepResult, ...] = ()
    unready_since: float | None = None
    readiness_losses: int = 0
    blocked_at: float | None = None
    baseline: Window | None = None
    watch_until: float | None = None
    unregistered_since: float | None = None
    pending_events: tuple[Event, ...] = ()
    digests: dict[int, str] = {}

    @property
    def versions(self) -> set[int]:
        """The versions that the state is about."""
        return {v for v in (self.production, self.version, self.stable) if v is not None}

    @property
    def new(self) -> int:
        """The version that is rolled out; raises BrokenStateError where there is none."""
        return self._required("version", self.version)

    @property
    def old(self) -> int:
        """The version that it replaces; raises BrokenStateError where there is none."""
        return self._required("stable", self.stable)

    @property
    def weights(self) -> dict[int, int]:
        """The traffic in per cent by version that the phase prescribes; empty if it is not known.

        An emptied state prescribes nothing, and neither does a rollout that replaces no version
        before its promotion.
        """
        match self.phase:
            case "steady":
                whole = self.production
            case "promoting" | "watching":
                whole = self.version
            case "canary":
                return {self.old: 100 - self.canary_percent, self.new: self.canary_percent}
            case _:
                whole = self.stable
        return {} if whole is None else {whole: 100}

    @property
    def ended(self) -> int | None:
        """The version whose rollout was the last one; None while it is in progress."""
        return self.version if self.phase == "steady" else None

    @property
    def rolled_back(self) -> int | None:
        """The version of the last rollout if it was taken off, after the rollout has ended."""
        return self.ended if self.ended != self.production else None

    @property
    def candidate(self) -> int | None:
        """The version that is on its way to production; None in other phases."""
        return self.version if self.phase in ("starting", "canary", "promoting") else None

    def dump(self) -> dict[str, str]:
        """Return the texts that the route stores."""
        values = {
            **{name: getattr(self, name) for name in self.__struct_fields__},
            "candidate": self.candidate,
            "ended": self.ended,
            "rolled_back": self.rolled_back,
            "pending_events": [as_json(event) for event in self.pending_events],
        }
        return {name: _text(value) for name, value in values.items()}

    def _required(self, name: str, value: int | None) -> int:
        if value is None:
            raise BrokenStateError(f"the route's state: phase {self.phase} without {name!r}")
        return value


def parse(texts: dict[str, str]) -> RolloutState:
    """Read the texts of a route. Missing keys have their defaults, unknown keys are ignored.

    Raises:
        BrokenStateError: a text is not a value of its field, or the phase has no version. The
            message shows the field.
    """
    if UNREADABLE in texts:
        raise BrokenStateError(f"the route's state: {texts[UNREADABLE]}")
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(RolloutState):
        text = texts.get(field.name, "")
        if not text:
            continue
        try:
            values[field.name] = _value(field.name, field.type, text)
        except msgspec.MsgspecError as error:
            raise BrokenStateError(
                f"the route's state: {field.name}={text[:SHOWN]!r}: {error}"
            ) from error
    state = RolloutState(**values)
    _check_consistent(state)
    return state


def _check_consistent(state: RolloutState) -> None:
    """Check that the phase can be carried out.

    Raises:
        BrokenStateError: it has no version, or no share that a canary can have.
    """
    if state.phase != "steady":
        _ = state.new
    if state.phase in COMPARING and state.old == state.new:
        raise BrokenStateError(f"the route's state: version and stable are both {state.new}")
    if state.phase == "canary" and not 0 < state.canary_percent < 100:
        raise BrokenStateError(
            f"the route's state: canary_percent={state.canary_percent}: expected 1 to 99"
        )


def read_state(route: Route | None) -> tuple[RolloutState, str]:
    """Return the state of a route, and what is wrong with it, or "".

    A state that cannot be read has the defaults, as that of a model without a route.
    """
    try:
        return parse(route.state) if route else RolloutState(), ""
    except BrokenStateError as error:
        return RolloutState(), str(error)


def _value(name: str, type_: Any, text: str) -> Any:
    if name == "pending_events":
        return tuple(parse_event(each) for each in msgspec.json.decode(text, type=list[Any]))
    value = msgspec.json.decode(text) if name in JSON_FIELDS else text
    return msgspec.convert(value, type_, strict=False)


def _text(value: object) -> str:
    if value in (None, [], (), {}):
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
