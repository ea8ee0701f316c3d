"""One turn for one model: read the world, decide, take one step."""

import logging
import time
from collections.abc import Callable
from typing import Any

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from watchkeeper.contracts.policies import RolloutPolicy, override
from watchkeeper.contracts.version import BrokenVersionError
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.events import Event, emit
from watchkeeper.platforms import Platform, PlatformError, Route
from watchkeeper.registry import Registry, RegistryError
from watchkeeper.rollout.act import act, describe, in_registry
from watchkeeper.rollout.chronicle import refusals
from watchkeeper.rollout.decide import decide, subject
from watchkeeper.rollout.metrics import Metrics
from watchkeeper.rollout.observe import Observer
from watchkeeper.rollout.offline import Versions
from watchkeeper.rollout.state import BrokenStateError, State, parse
from watchkeeper.rollout.steps import SetRoute, Step, Wait
from watchkeeper.rollout.throttle import Throttle, UnavailableError
from watchkeeper.rollout.world import World

TAGS_SECONDS = 30.0  # tags are read again after so long, and whenever an alias has moved

log = logging.getLogger(__name__)


class Controller:
    """The rollout of one model. What it keeps in memory it could lose at any time."""

    def __init__(
        self,
        model: str,
        platform: Platform,
        registry: Registry,
        ledger: Ledger,
        versions: Versions,
        *,
        overrides: dict[str, Any] | None = None,
        metrics: Metrics | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.model = model
        self._lease = f"rollout-{model}"
        self.platform = platform
        self.registry = registry
        self.ledger = ledger
        self.versions = versions
        self.overrides = overrides or {}
        self.metrics = metrics or Metrics()
        self.observer = Observer(ledger, versions, model, clock)
        self._clock = clock
        self._guards = {
            name: Throttle(
                f"{model}: {name}", errors, self.metrics.errors.labels(model, name).inc, monotonic
            )
            for name, errors in {
                "platform": (PlatformError, BrokenStateError, OSError),
                "gateway": (PlatformError, OSError),
                "registry": (RegistryError, OSError),
                "ledger": (SQLAlchemyError,),
            }.items()
        }
        self._stored: set[str] = set()
        self._tags: tuple[dict[str, int], float, dict[int, dict[str, str]]] | None = None
        self._said: dict[str, str] = {}
        self._shown: dict[int, int] = {}

    def turn(self) -> Step | None:
        """Take one step; None without the lease, or while a dependency does not answer."""
        with self.metrics.turns.labels(self.model).time():
            try:
                return self._turn()
            except UnavailableError:
                return None
            except Exception:
                # A defect met by one model must not stop the rollouts of the others.
                log.exception("%s: the turn failed; nothing was changed by it", self.model)
                self.metrics.errors.labels(self.model, "defect").inc()
                return None

    def end(self) -> None:
        """Let go of the lease, so that the next process need not wait until it runs out."""
        try:
            with self._guards["platform"].guard():
                self.platform.release(self._lease)
        except UnavailableError:
            pass  # the guard has told why, and the lease runs out

    def _turn(self) -> Step | None:
        with self._guards["platform"].guard():
            leader = self.platform.acquire(self._lease)
        self.metrics.leader.labels(self.model).set(leader)
        if not leader:
            return None
        world = self._look()
        policy = self._policy(world)
        world = self._observe(world, policy)
        step = decide(world, policy, self._clock())
        self._say(step)
        self._count(world, step)
        with self._guards["registry" if in_registry(step) else "platform"].guard():
            self._tags = None if in_registry(step) else self._tags
            act(step, self.model, self.platform, self.registry)
        return step

    def _look(self) -> World:
        """Read what should serve and what does."""
        with self._guards["platform"].guard():
            asks = self.platform.asks(self.model)  # before the registry, see orders.py
        aliases, tags = self._registered()
        with self._guards["platform"].guard():
            route = self.platform.route(self.model)
            state = parse(route.state) if route else State()
            serving = self.platform.serving(self.model)
        self._show(route, state)
        return World(
            model=self.model,
            aliases=aliases,
            tags=tags,
            serving=serving,
            route=route,
            state=state,
            confirmed=route is not None
            and route.weights.keys() <= serving.keys()
            and self._confirmed(),
            asks=asks,
        )

    def _registered(self) -> tuple[dict[str, int] | None, dict[int, dict[str, str]]]:
        try:
            with self._guards["registry"].guard():
                aliases = self.registry.aliases(self.model)
                known = self._tags
                if known is None or known[0] != aliases or self._clock() - known[1] > TAGS_SECONDS:
                    tags = {v.version: v.tags for v in self.registry.versions(self.model)}
                    self._tags = known = (aliases, self._clock(), tags)
        except UnavailableError:
            return None, {}
        return aliases, known[2]

    def _confirmed(self) -> bool:
        try:
            with self._guards["gateway"].guard():
                return self.platform.confirmed(self.model)
        except UnavailableError:
            return False

    def _policy(self, world: World) -> RolloutPolicy:
        """The policy of the version in question, with the values that settings override."""
        version = subject(world)
        policy = RolloutPolicy()
        if version is not None:
            if not self.versions.has(version):
                with self._guards["registry"].guard():
                    self.versions.fetch(version)
            try:
                policy = self.versions.manifest(version).rollout
                if world.state.phase == "starting":
                    self.versions.warm(version)
            except BrokenVersionError as error:
                self._log("policy", str(error), f"{error}; the default policy counts")
        return override(policy, self.overrides)

    def _observe(self, world: World, policy: RolloutPolicy) -> World:
        """Tell the ledger what it does not know yet, and read what is to be judged."""
        try:
            with self._guards["ledger"].guard():
                self._tell(world)
                evidence, blind = self.observer.evidence(world.state, policy)
        except (UnavailableError, BrokenVersionError) as error:
            told = not self._untold(world)
            return msgspec.structs.replace(world, told=told, blind=str(error))
        return msgspec.structs.replace(world, told=True, evidence=evidence, blind=blind)

    def _tell(self, world: World) -> None:
        for event in self._untold(world):
            emit(self.ledger, event)
            self._stored.add(event.id)

    def _untold(self, world: World) -> list[Event]:
        events = world.state.untold
        if world.route is None:
            events = refusals(self.model, world.tags, self._clock())
        self._stored &= {event.id for event in events}
        return [event for event in events if event.id not in self._stored]

    def _say(self, step: Step) -> None:
        if isinstance(step, Wait):
            self._log("step", step.about, f"waits: {step.why}")
        else:
            self._log("step", repr(step), f"{describe(step)}: {step.why}")

    def _log(self, subject: str, key: str, text: str) -> None:
        """One line a decision: the same one again is no news."""
        if self._said.get(subject) != key:
            log.info("%s: %s", self.model, text)
            self._said[subject] = key

    def _show(self, route: Route | None, state: State) -> None:
        weights = route.weights if route else {}
        self.metrics.show(self.model, weights, self._shown, state.step if state.candidate else 0)
        self._shown = weights

    def _count(self, world: World, step: Step) -> None:
        self.metrics.actions.labels(self.model, type(step).__name__).inc()
        if isinstance(step, SetRoute):
            for finished in parse(step.route.state).steps[len(world.state.steps) :]:
                self.metrics.verdicts.labels(self.model, finished.verdict).inc()
