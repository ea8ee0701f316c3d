"""A world in memory that keeps its promises to the controller, and breaks where it is told to."""

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from watchkeeper.contracts.policies import RolloutPolicy
from watchkeeper.ledger.events import Event
from watchkeeper.platforms import Asks, PlatformError, Route, Serving
from watchkeeper.registry import GATE_TAG, RegistryError
from watchkeeper.rollout.act import act
from watchkeeper.rollout.decide import decide
from watchkeeper.rollout.evidence import Evidence, Sample, Skew
from watchkeeper.rollout.state import State, parse
from watchkeeper.rollout.steps import Step
from watchkeeper.rollout.world import World

MODEL = "pump-failure"
POLICY = RolloutPolicy(
    step_seconds=6, minimum_requests=25, patience=60, watch_seconds=8, on_manual_move="direct"
)


class MemoryRegistry:
    """Aliases and tags of one model."""

    def __init__(self) -> None:
        self.alias: dict[str, int] = {}
        self.tags: dict[int, dict[str, str]] = {}
        self.up = True

    def register(self, version: int, gate: str = "passed") -> None:
        self.tags[version] = {GATE_TAG: gate}
        if gate == "passed":
            self.alias["candidate"] = version

    def set_alias(self, _model: str, alias: str, version: int) -> None:
        self._check()
        self.alias[alias] = version

    def drop_alias(self, _model: str, alias: str) -> None:
        self._check()
        self.alias.pop(alias, None)

    def tag(self, _model: str, version: int, key: str, value: str) -> None:
        self._check()
        self.tags[version][key] = value

    def _check(self) -> None:
        if not self.up:
            raise RegistryError("the registry is down")


class MemoryPlatform:
    """Serving that takes some turns to be ready, and a gateway that confirms some turns late."""

    def __init__(
        self, turns_to_ready: int = 2, turns_to_confirm: int = 1, turns_to_drain: int = 0
    ) -> None:
        self.pods: dict[int, int] = {}
        self.draining: dict[int, int] = {}
        self.broken: set[int] = set()
        self.servers: dict[int, int] = {}
        self.wanted_servers = 1
        self.fetching = False
        self.written: Route | None = None
        self.wants = Asks()
        self.up = True
        self._turns_to_ready = turns_to_ready
        self._turns_to_confirm = turns_to_confirm
        self._turns_to_drain = turns_to_drain
        self._unconfirmed = 0

    def serving(self, _model: str) -> dict[int, Serving]:
        self._check()
        return {
            version: msgspec.structs.replace(
                self._condition(version),
                outdated=self.servers.get(version, 1) != self.wanted_servers,
            )
            for version in self.pods
        }

    def serve(self, _model: str, version: int) -> None:
        self._check()
        if version in self.draining:
            self.retire(_model, version)
        else:
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

    def confirmed(self, _model: str) -> bool:
        return self.written is not None and self._unconfirmed == 0

    def asks(self, _model: str) -> Asks:
        return self.wants

    def ask(self, _model: str, change: Callable[[Asks], Asks]) -> None:
        self._check()
        self.wants = change(self.wants)

    def acquire(self, _lease: str) -> bool:
        return True

    def release(self, _lease: str) -> None:
        """Nobody else wants it."""

    def pass_time(self) -> None:
        passed = 0 if self.fetching else 1
        self.pods = {v: max(0, turns - passed) for v, turns in self.pods.items()}
        self._unconfirmed = max(0, self._unconfirmed - 1)
        self.draining = {v: max(0, turns - 1) for v, turns in self.draining.items()}

    def crash(self, version: int) -> None:
        if version in self.pods:
            self.pods[version] = 2 + self._turns_to_ready

    def _condition(self, version: int) -> Serving:
        if version in self.draining:
            return Serving(version, "retiring", "it is on its way out")
        if version in self.broken:
            return Serving(version, "failed", "its example is answered otherwise")
        if self.pods.get(version) == 0:
            return Serving(version, "ready")
        if self.fetching:
            return Serving(version, "waiting", "the registry does not answer")
        return Serving(version, "starting")

    def _check(self) -> None:
        if not self.up:
            raise PlatformError("the platform is down")


class Simulation:
    """Registry, platform, ledger and clock, and a controller that takes turns between them.

    ``quality`` says what traffic shows about a version: "good", "slow" or "failing".
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
        self.steps: list[Step] = []
        self.before: dict[int, int] = {}

    @property
    def state(self) -> State:
        route = self.platform.written
        return parse(route.state) if route else State()

    @property
    def weights(self) -> dict[int, int]:
        return self.platform.written.weights if self.platform.written else {}

    def forget(self) -> None:
        """Forget the steps taken so far."""
        self.steps.clear()
        self.before = self.weights

    def kinds(self) -> list[tuple[str, int | None]]:
        return [(e.kind, e.version) for e in sorted(self.events.values(), key=lambda e: e.time)]

    def look(self) -> World:
        state = self.state
        if self.ledger_up:
            self.events.update({e.id: e for e in state.untold if e.id not in self.events})
        evidence, blind = self._evidence(state) if self.ledger_up else (None, "the ledger is down")
        return World(
            model=MODEL,
            aliases=dict(self.registry.alias) if self.registry.up else None,
            tags=msgspec.to_builtins(self.registry.tags) if self.registry.up else {},
            serving=self.platform.serving(MODEL),
            route=self.platform.written,
            state=state,
            confirmed=self.platform.confirmed(MODEL),
            asks=self.platform.wants,
            evidence=evidence,
            blind=blind,
            told=all(e.id in self.events for e in state.untold),
        )

    def turn(self, fail: Callable[[], None] = lambda: None) -> Step | None:
        """Take one turn; ``fail`` runs between decision and act, and may raise."""
        self.now += 0.5
        self.platform.pass_time()
        try:
            step = decide(self.look(), self.policy, self.now)
            fail()
            act(step, MODEL, self.platform, self.registry)  # type: ignore[arg-type]
        except (PlatformError, RegistryError):
            return None
        self.steps.append(step)
        return step

    def run(self, until: Callable[["Simulation"], Any], turns: int = 400) -> None:
        for _ in range(turns):
            if until(self):
                return
            self.turn()
        raise AssertionError(f"not within {turns} turns: {self.state}, {self.steps[-3:]}")

    def settle(self) -> None:
        """Run until nothing is left to do."""
        quiet = 0
        for _ in range(1000):
            changed = self.turn()
            quiet = quiet + 1 if type(changed).__name__ == "Wait" else 0
            if quiet >= 20 and self.state.phase == "steady":
                return
        raise AssertionError(f"never settled: {self.state}, {self.steps[-3:]}")

    def _evidence(self, state: State) -> tuple[Evidence | None, str]:
        if state.since is None or state.phase not in ("canary", "watching"):
            return None, ""
        seconds = self.now - state.since
        return (
            Evidence(
                new=self._sample(state.new, seconds, self.weights.get(state.new, 0)),
                stable=self._sample(state.old, max(seconds, 6), 100 - state.step or 50),
                seconds=seconds,
                skew=Skew(50, 1e-9),
            ),
            "",
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
    """Return a world in which version 1 is in production."""
    simulation = Simulation(**options)
    simulation.registry.register(1)
    simulation.settle()
    assert simulation.state.production == 1
    assert simulation.registry.alias == {"production": 1}
    return simulation
