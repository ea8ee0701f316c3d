"""Registry, platform and ledger in memory, which fail where a test says so."""

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from watchkeeper.core.events import Event
from watchkeeper.core.policies import RolloutPolicy
from watchkeeper.ledger.events import CONTENT_EVENTS
from watchkeeper.platforms import PlatformError, RolloutCommands, Route, ServingStatus
from watchkeeper.registry import (
    AGAIN_TAG,
    DIGEST_TAG,
    GATE_TAG,
    NO_DIGEST,
    REUSED_TAG,
    ROLLOUT_TAG,
    RegistryError,
)
from watchkeeper.registry.errors import NOT_FOUND
from watchkeeper.rollout.actions import Action, carry_out
from watchkeeper.rollout.evidence import Evidence, Sample, Skew
from watchkeeper.rollout.observed import ObservedState
from watchkeeper.rollout.phases import decide, version_in_question
from watchkeeper.rollout.state import RolloutState, read_state

MODEL = "pump-failure"
POLICY = RolloutPolicy(
    step_seconds=6, minimum_requests=25, patience=60, watch_seconds=8, on_manual_move="direct"
)


class MemoryRegistry:
    """Aliases and tags of one model."""

    def __init__(self) -> None:
        self.alias: dict[str, int] = {}
        self.tags: dict[int, dict[str, str]] = {}
        self.foreign: set[int] = set()  # versions that no training run has registered
        self.up = True

    def register(self, version: int, gate: str = "passed", content: str = "") -> None:
        """Register a version; its content is that of its number if none is given."""
        self.tags[version] = {GATE_TAG: gate, DIGEST_TAG: content or f"content {version}"}
        if gate == "passed":
            self.alias["candidate"] = version

    def register_again(self, _model: str, version: int, content: str, above: int) -> None:
        self._check(version)
        self.tags[version][DIGEST_TAG] = content
        if any(tags.get(AGAIN_TAG) == content for tags in self.tags.values()):
            return
        new = {DIGEST_TAG: content, AGAIN_TAG: content, REUSED_TAG: str(version)}
        kept = {k: v for k, v in self.tags[version].items() if k != ROLLOUT_TAG}
        self.tags[above + 1] = {**kept, **new}

    def delete_model(self) -> None:
        """Delete the registered model by hand."""
        self.tags.clear()
        self.alias.clear()

    def delete_version(self, version: int) -> None:
        """Delete a version by hand. MLflow deletes its aliases, too."""
        self.tags.pop(version, None)
        self.alias = {alias: v for alias, v in self.alias.items() if v != version}

    def move_production(self, version: int) -> None:
        """Point the alias at a version, which no run of this simulation has registered before."""
        self.tags.setdefault(version, {DIGEST_TAG: f"content {version}"})
        self.alias["production"] = version

    def add_foreign(self, version: int, alias: str) -> None:
        """Register a version that is not one of Watchkeeper."""
        self.tags[version] = {DIGEST_TAG: NO_DIGEST}
        self.foreign.add(version)
        self.alias[alias] = version

    def replace(self, version: int, content: str, alias: str) -> None:
        """Delete the model, and register other content under a number of its own."""
        self.delete_model()
        self.register(version, content=content)
        self.alias = {alias: version}

    def replace_by_foreign(self, version: int) -> None:
        """Delete the model, and register something under a number of its own, as production."""
        self.delete_model()
        self.tags[version] = {DIGEST_TAG: NO_DIGEST}
        self.alias = {"production": version}

    def set_alias(self, _model: str, alias: str, version: int) -> None:
        self._check(version)
        self.alias[alias] = version

    def delete_alias(self, _model: str, alias: str) -> None:
        self._check()
        self.alias.pop(alias, None)

    def set_tag(self, _model: str, version: int, key: str, value: str) -> None:
        self._check(version)
        self.tags[version][key] = value

    def _check(self, version: int | None = None) -> None:
        if not self.up:
            raise RegistryError("the registry is down")
        if version is not None and version not in self.tags:
            raise RegistryError(f"there is no version {version}", NOT_FOUND)


class MemoryPlatform:
    """Servers that are ready after some turns, and a gateway that confirms some turns late."""

    def __init__(
        self, turns_to_ready: int = 2, turns_to_confirm: int = 1, turns_to_drain: int = 0
    ) -> None:
        self.pods: dict[int, int] = {}
        self.draining: dict[int, int] = {}
        self.broken: set[int] = set()
        self.digests: dict[int, str] = {}  # what the servers of a version fetched
        self.servers: dict[int, int] = {}
        self.wanted_servers = 1
        self.fetching = False
        self.written: Route | None = None
        self.standing_commands = RolloutCommands()
        self.up = True
        self._turns_to_ready = turns_to_ready
        self._turns_to_confirm = turns_to_confirm
        self._turns_to_drain = turns_to_drain
        self._unconfirmed = 0

    def serving(self, _model: str) -> dict[int, ServingStatus]:
        self._check()
        return {
            version: msgspec.structs.replace(
                self._condition(version),
                outdated=self.servers.get(version, 1) != self.wanted_servers,
                digest=self.digests.get(version, ""),
            )
            for version in self.pods
        }

    def serve(self, _model: str, version: int, digest: str = "") -> None:
        self._check()
        if version in self.draining:
            self.retire(_model, version)
        else:
            if version not in self.pods:
                self.digests[version] = digest
            self.pods.setdefault(version, self._turns_to_ready)
            self.servers[version] = self.wanted_servers

    def retire(self, _model: str, version: int) -> None:
        self._check()
        assert version not in (self.written.weights if self.written else {}), "it has traffic"
        assert self.confirmed(MODEL) or self.written is None, "the gateway may still send to it"
        if version in self.pods and self.draining.setdefault(version, self._turns_to_drain) == 0:
            del self.pods[version], self.draining[version]

    def route(self, _model: str) -> Route | None:
        self._check()
        return self.written

    def set_route(self, _model: str, route: Route) -> None:
        self._check()
        assert sum(route.weights.values()) == 100
        assert all(weight > 0 for weight in route.weights.values())
        before = self.written.weights if self.written else {}
        for version, weight in route.weights.items():
            if weight > before.get(version, 0):
                assert self._condition(version).state == "ready", f"v{version} gets traffic"
        if before != route.weights:
            self._unconfirmed = self._turns_to_confirm
        self.written = route

    def edit(self, weights: dict[int, int]) -> None:
        """Change the weights by hand, if all versions are served; the gateway takes them."""
        if self.written is not None and weights.keys() <= self.pods.keys():
            self.written = Route(weights, self.written.state)

    def delete_route(self) -> None:
        self.written = None

    def break_state(self) -> None:
        if self.written is not None:
            self.written = Route(
                self.written.weights, {"phase": "elsewhere"}, {"state": "somebody"}
            )

    def confirmed(self, _model: str) -> bool:
        return self.written is not None and self._unconfirmed == 0

    def reconcile(self, _model: str) -> None:
        self._check()

    def commands(self, _model: str) -> RolloutCommands:
        return self.standing_commands

    def change_commands(
        self, _model: str, change: Callable[[RolloutCommands], RolloutCommands]
    ) -> None:
        self._check()
        self.standing_commands = change(self.standing_commands)

    def acquire(self, _lease: str) -> bool:
        return True

    def release(self, _lease: str) -> None:
        """No other process wants it."""

    def pass_time(self) -> None:
        passed = 0 if self.fetching else 1
        self.pods = {v: max(0, turns - passed) for v, turns in self.pods.items()}
        self._unconfirmed = max(0, self._unconfirmed - 1)
        self.draining = {v: max(0, turns - 1) for v, turns in self.draining.items()}

    def crash(self, version: int) -> None:
        if version in self.pods:
            self.pods[version] = 2 + self._turns_to_ready

    def _condition(self, version: int) -> ServingStatus:
        if version in self.draining:
            return ServingStatus(version, "retiring", "it drains")
        if version in self.broken:
            return ServingStatus(version, "failed", "its example has another answer")
        if self.pods.get(version) == 0:
            return ServingStatus(version, "ready")
        if self.fetching:
            return ServingStatus(version, "waiting", "the registry does not answer")
        return ServingStatus(version, "starting")

    def _check(self) -> None:
        if not self.up:
            raise PlatformError("the platform is down")


class Simulation:
    """Registry, platform, ledger and clock, and the decisions of a controller.

    ``quality`` is what the evidence shows about a version: "good" (the default), "slow", "failing",
    or "bad-in-production" (slow with all traffic).
    """

    def __init__(self, policy: RolloutPolicy = POLICY, **platform: int) -> None:
        self.registry = MemoryRegistry()
        self.platform = MemoryPlatform(**platform)
        self.policy = policy
        self.quality: dict[int, str] = {}
        self.ledger_up = True
        self.traffic = True
        self.now = 1000.0
        self.events: dict[str, Event] = {}
        self.actions: list[Action] = []
        self.weights_before: dict[int, int] = {}

    @property
    def state(self) -> RolloutState:
        return read_state(self.platform.written)[0]

    @property
    def weights(self) -> dict[int, int]:
        return self.platform.written.weights if self.platform.written else {}

    def forget(self) -> None:
        """Forget the actions so far."""
        self.actions.clear()
        self.weights_before = self.weights

    def kinds(self) -> list[tuple[str, int | None]]:
        return [(e.kind, e.version) for e in sorted(self.events.values(), key=lambda e: e.time)]

    def observe(self) -> ObservedState:
        state, broken = read_state(self.platform.written)
        if self.ledger_up:
            self.events.update({e.id: e for e in state.pending_events if e.id not in self.events})
        evidence = self._evidence(state) if self.ledger_up else None
        observed = ObservedState(
            model=MODEL,
            now=self.now,
            policy=self.policy,
            aliases=dict(self.registry.alias) if self.registry.up else None,
            tags=msgspec.to_builtins(self.registry.tags) if self.registry.up else {},
            serving=self.platform.serving(MODEL),
            route=self.platform.written,
            state=state,
            confirmed=self.platform.confirmed(MODEL),
            commands=self.platform.standing_commands,
            evidence=evidence,
            evidence_error="" if self.ledger_up else "the ledger is down",
            published=all(e.id in self.events for e in state.pending_events),
            promotions=self._promotions() if broken or self.platform.written is None else (),
            broken_state=broken,
            first_digests=self._first_digests() if self.ledger_up else {},
            highest=self._highest() if self.ledger_up else None,
        )
        is_foreign = version_in_question(observed) in self.registry.foreign
        return msgspec.structs.replace(
            observed, version_error="it has no manifest" if is_foreign else ""
        )

    def train_again(self) -> None:
        """Delete the model by hand, and register a version as a training run does."""
        self.registry.delete_model()
        self.registry.register(self._highest() + 1)

    def _promotions(self) -> tuple[int, ...]:
        """Return what was promoted, as a ledger that answers has it: the last promotion first."""
        found = [version for kind, version in self.kinds() if kind == "promoted"]
        return tuple(version for version in reversed(found) if version is not None)

    def turn(self, fail: Callable[[], None] = lambda: None) -> Action | None:
        """Take one turn. ``fail`` runs between the decision and the action, and may raise."""
        self.now += 0.5
        self.platform.pass_time()
        has_state = self.platform.written is not None and not read_state(self.platform.written)[1]
        if not has_state and not self.ledger_up:
            return None
        try:
            action = decide(self.observe())
            fail()
            carry_out(action, MODEL, self.platform, self.registry)  # type: ignore[arg-type]
        except (PlatformError, RegistryError):
            return None
        self.actions.append(action)
        return action

    def run(self, until: Callable[["Simulation"], Any], turns: int = 400) -> None:
        for _ in range(turns):
            if until(self):
                return
            self.turn()
        raise AssertionError(f"not within {turns} turns: {self.state}, {self.actions[-3:]}")

    def settle(self) -> None:
        """Run until there is nothing to do."""
        quiet = 0
        for _ in range(1000):
            changed = self.turn()
            quiet = quiet + 1 if type(changed).__name__ == "Wait" else 0
            if quiet >= 20 and self.state.phase == "steady":
                return
        raise AssertionError(f"never settled: {self.state}, {self.actions[-3:]}")

    def _first_digests(self) -> dict[int, str]:
        found: dict[int, str] = {}
        for event in sorted(self.events.values(), key=lambda e: e.time):
            details = event.details
            if event.version is not None and isinstance(details, CONTENT_EVENTS) and details.digest:
                found.setdefault(event.version, details.digest)
        return found

    def _highest(self) -> int:
        return max((e.version or 0 for e in self.events.values()), default=0)

    def _evidence(self, state: RolloutState) -> Evidence | None:
        if state.since is None or state.phase not in ("canary", "watching"):
            return None
        seconds = self.now - state.since
        return Evidence(
            new=self._sample(state.new, seconds, self.weights.get(state.new, 0)),
            stable=self._sample(state.old, max(seconds, 6), 100 - state.canary_percent or 50),
            seconds=seconds,
            skew=Skew(50, 1e-9),
        )

    def _sample(self, version: int, seconds: float, percent: int) -> Sample:
        random_ = np.random.default_rng([version, int(seconds * 10)])
        count = int(seconds * percent * 0.6) if self.traffic else 0
        times = random_.lognormal(np.log(0.002), 0.3, count)
        errors = 0
        match self.quality.get(version, "good"):
            case "slow":
                times += 0.04
            case "failing":
                errors = count // 2
            case "bad-in-production" if percent == 100:
                times += 0.04
        return Sample(version, {"http": times, "grpc": times.copy()}, {"http": errors})


def first_version(**options: Any) -> Simulation:
    """Return a simulation in which version 1 is production."""
    simulation = Simulation(**options)
    simulation.registry.register(1)
    simulation.settle()
    assert simulation.state.production == 1
    assert simulation.registry.alias == {"production": 1}
    return simulation
