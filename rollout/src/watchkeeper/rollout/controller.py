"""The controller of one model. A turn observes, decides, and carries out one action."""

import logging
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec

from watchkeeper.core.events import Event
from watchkeeper.core.policies import RolloutPolicy, override
from watchkeeper.core.version import BrokenVersionError
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.errors import LedgerError
from watchkeeper.ledger.events import (
    emit,
    first_digests,
    highest_version,
    promoted_versions,
)
from watchkeeper.platforms import Platform, PlatformError, Route
from watchkeeper.registry import DIGEST_TAG, Registry, RegistryError
from watchkeeper.rollout.actions import (
    Action,
    SetRoute,
    Wait,
    carry_out,
    changes_registry,
    describe,
)
from watchkeeper.rollout.events import first_rejections
from watchkeeper.rollout.evidence_reader import EvidenceReader
from watchkeeper.rollout.metrics import RolloutMetrics
from watchkeeper.rollout.observed import ObservedState, named_versions
from watchkeeper.rollout.phases import decide, version_in_question
from watchkeeper.rollout.state import RolloutState, parse, read_state
from watchkeeper.rollout.throttle import DependencyUnavailableError, Throttle
from watchkeeper.rollout.version_cache import Content, VersionCache

TAGS_SECONDS: Final = 30.0  # tags are read again after this time, or when an alias has moved

log = logging.getLogger(__name__)


class Controller:
    """Rolls out the versions of one model.

    Everything it keeps in memory is a cache: it may be lost at any time.

    Args:
        model: the model.
        platform: shows what serves, and changes it.
        registry: names what should serve.
        ledger: has the evidence, and stores the events.
        versions: has the files of the version that is rolled out.
        overrides: values that replace those of the policy of a version.
        metrics: shared by the controllers of all models.
        clock: returns the time in seconds since 1970.
        monotonic: returns seconds that never go back.
    """

    def __init__(
        self,
        model: str,
        platform: Platform,
        registry: Registry,
        ledger: Ledger,
        versions: VersionCache,
        *,
        overrides: dict[str, Any] | None = None,
        metrics: RolloutMetrics | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.model = self.name = model
        self.platform = platform
        self.registry = registry
        self.ledger = ledger
        self.versions = versions
        self.overrides = overrides or {}
        self.metrics = metrics or RolloutMetrics()
        self.evidence_reader = EvidenceReader(ledger, versions, model, clock)
        self._lease = f"rollout-{model}"
        self._clock = clock
        self._throttles = {
            name: Throttle(
                f"{model}: {name}", errors, self.metrics.errors.labels(model, name).inc, monotonic
            )
            for name, errors in {
                "platform": (PlatformError, OSError),
                "reconcile": (PlatformError, OSError),
                "gateway": (PlatformError, OSError),
                "registry": (RegistryError, OSError),
                "ledger": (LedgerError,),
            }.items()
        }
        self._published: set[str] = set()  # ids of events
        self._first_digests: dict[int, str] = {}
        self._read_digests: dict[tuple[int, float], str] = {}  # by number and time of creation
        self._tags: tuple[dict[str, int], float, dict[int, dict[str, str]]] | None = None
        self._logged: dict[str, str] = {}
        self._exported_weights: dict[int, int] = {}

    def turn(self) -> Action | None:
        """Take one turn.

        Returns:
            The action that was carried out. None without the lease, or while a dependency does not
            answer.
        """
        with self.metrics.turns.labels(self.model).time():
            try:
                return self._turn()
            except DependencyUnavailableError:
                return None
            except Exception:
                # A defect that one model meets must not stop the rollouts of the others.
                log.exception("%s: the turn failed; it changed nothing", self.model)
                self.metrics.errors.labels(self.model, "defect").inc()
                return None

    def end(self) -> None:
        """Release the lease, so that the next process need not wait until it expires."""
        try:
            with self._throttles["platform"].guard():
                self.platform.release(self._lease)
        except DependencyUnavailableError:
            pass  # the throttle has logged it, and the lease expires

    def _turn(self) -> Action | None:
        with self._throttles["platform"].guard():
            leader = self.platform.acquire(self._lease)
        self.metrics.leader.labels(self.model).set(leader)
        if not leader:
            return None
        observed = self._observe()
        policy, error = self._policy(observed)
        observed = msgspec.structs.replace(observed, policy=policy, version_error=error)
        observed = self._add_evidence(observed)
        # Not before the evidence: a step that ends now must contain all requests that were judged.
        action = decide(msgspec.structs.replace(observed, now=self._clock()))
        self._log_action(action)
        self._count(observed, action)
        if changes_registry(action):
            self._tags = None
        with self._throttles["registry" if changes_registry(action) else "platform"].guard():
            carry_out(action, self.model, self.platform, self.registry)
        return action

    def _observe(self) -> ObservedState:
        """Read commands, then the registry, then the rest of the platform.

        The platform finishes interrupted calls before anything is read. If it cannot, the turn goes
        on: a bad canary must lose its traffic although, for example, a policy is refused.
        """
        try:
            with self._throttles["reconcile"].guard():
                self.platform.reconcile(self.model)
        except DependencyUnavailableError:
            pass  # the throttle has logged and counted it
        with self._throttles["platform"].guard():
            # Before the registry: aliases that are older than a command must not make it stale.
            commands = self.platform.commands(self.model)
        aliases, tags = self._read_registry()
        with self._throttles["platform"].guard():
            route = self.platform.route(self.model)
            state, broken = read_state(route)
            serving = self.platform.serving(self.model)
        self._export(route, state)
        confirmed = (
            route is not None and route.weights.keys() <= serving.keys() and self._is_confirmed()
        )
        observed = ObservedState(
            model=self.model,
            now=self._clock(),
            aliases=aliases,
            tags=tags,
            serving=serving,
            route=route,
            state=state,
            confirmed=confirmed,
            commands=commands,
            broken_state=broken,
        )
        return self._add_first_digests(self._add_promoted(observed))

    def _add_promoted(self, observed: ObservedState) -> ObservedState:
        """Without a state, read what was promoted: somebody may have deleted the route.

        Raises:
            DependencyUnavailableError: there is no state, and the ledger does not answer.
        """
        if observed.route is not None and not observed.broken_state:
            return observed
        with self._throttles["ledger"].guard():
            promotions = promoted_versions(self.ledger, self.model)
        return msgspec.structs.replace(observed, promotions=promotions)

    def _add_first_digests(self, observed: ObservedState) -> ObservedState:
        """Read which content the ledger describes under the numbers that may serve."""
        named = named_versions(observed.aliases or {}, observed.tags)
        if observed.promoted is not None:
            named.add(observed.promoted)
        highest: int | None = None
        try:
            # A guard without a call would take the ledger for available.
            if unknown := named - self._first_digests.keys():  # what is known never changes
                with self._throttles["ledger"].guard():
                    self._first_digests |= first_digests(self.ledger, self.model, unknown)
            observed = msgspec.structs.replace(observed, first_digests=self._first_digests)
            if any(observed.is_reused(version) for version in named):
                with self._throttles["ledger"].guard():
                    highest = highest_version(self.ledger, self.model)
        except DependencyUnavailableError:
            pass  # the throttle has logged it
        return msgspec.structs.replace(observed, first_digests=self._first_digests, highest=highest)

    def _read_registry(self) -> tuple[dict[str, int] | None, dict[int, dict[str, str]]]:
        try:
            with self._throttles["registry"].guard():
                aliases = self.registry.aliases(self.model)
                cached = self._tags
                if (
                    cached is None
                    or cached[0] != aliases
                    or self._clock() - cached[1] > TAGS_SECONDS
                ):
                    tags = self._read_tags(aliases)
                    self._tags = cached = (aliases, self._clock(), tags)
        except DependencyUnavailableError:
            return None, {}
        return aliases, cached[2]

    def _read_tags(self, aliases: dict[str, int]) -> dict[int, dict[str, str]]:
        """Read the tags of all versions; those that are named get the digest of their files.

        Versions of an earlier release, and versions that a person has registered, have no such tag.
        """
        versions = self.registry.versions(self.model)
        tags = {v.version: v.tags for v in versions}
        for version in versions:
            untagged = DIGEST_TAG not in version.tags
            if untagged and version.version in named_versions(aliases, tags):
                key = (version.version, version.created)
                if key not in self._read_digests:
                    read = self.registry.read_digest(self.model, version.version)
                    self._read_digests[key] = read
                if self._read_digests[key]:
                    tags[version.version][DIGEST_TAG] = self._read_digests[key]
        return tags

    def _is_confirmed(self) -> bool:
        try:
            with self._throttles["gateway"].guard():
                return self.platform.confirmed(self.model)
        except DependencyUnavailableError:
            return False

    def _policy(self, observed: ObservedState) -> tuple[RolloutPolicy, str]:
        """Return the policy of the version in question, with the overrides of the settings.

        Also returns why the version cannot be used, or "". Then the default policy is in force.
        """
        version = version_in_question(observed)
        policy, problem = RolloutPolicy(), ""
        if version is not None and not observed.is_reused(version):
            content = Content(version, observed.digest(version))
            try:
                if not self.versions.has(content):
                    with self._throttles["registry"].guard():
                        self.versions.fetch(content)
                policy = self.versions.manifest(content).rollout
                if observed.state.phase == "starting":
                    self.versions.load_offline(content)
            except BrokenVersionError as error:
                problem = str(error)
                self._log("policy", problem, f"{problem}; the default policy is in force")
        return override(policy, self.overrides), problem

    def _add_evidence(self, observed: ObservedState) -> ObservedState:
        """Publish pending events, and read the evidence."""
        state = observed.state
        digest = observed.digest(state.version) if state.version is not None else ""
        try:
            with self._throttles["ledger"].guard():
                self._publish_events(observed)
                evidence, error = self.evidence_reader.read(state, observed.policy, digest)
        except (DependencyUnavailableError, BrokenVersionError) as failure:
            published = not self._unpublished(observed)
            return msgspec.structs.replace(
                observed, published=published, evidence_error=str(failure)
            )
        return msgspec.structs.replace(
            observed, published=True, evidence=evidence, evidence_error=error
        )

    def _publish_events(self, observed: ObservedState) -> None:
        for event in self._unpublished(observed):
            emit(self.ledger, event)
            self._published.add(event.id)

    def _unpublished(self, observed: ObservedState) -> list[Event]:
        events = observed.state.pending_events
        if observed.route is None:
            events = first_rejections(self.model, observed.tags, observed.now)
        self._published &= {event.id for event in events}
        return [event for event in events if event.id not in self._published]

    def _log_action(self, action: Action) -> None:
        if isinstance(action, Wait):
            self._log("action", action.key, f"waits: {action.reason}")
        else:
            self._log("action", repr(action), f"{describe(action)}: {action.reason}")

    def _log(self, subject: str, key: str, text: str) -> None:
        """Write one line per decision: a decision with the same ``key`` is not logged again."""
        if self._logged.get(subject) != key:
            log.info("%s: %s", self.model, text)
            self._logged[subject] = key

    def _export(self, route: Route | None, state: RolloutState) -> None:
        weights = route.weights if route else {}
        percent = state.canary_percent if state.candidate else 0
        self.metrics.set_traffic(self.model, weights, self._exported_weights, percent)
        self._exported_weights = weights
        self.metrics.unregistered.labels(self.model).set(state.unregistered_since is not None)

    def _count(self, observed: ObservedState, action: Action) -> None:
        self.metrics.actions.labels(self.model, type(action).__name__).inc()
        if isinstance(action, SetRoute):
            results = parse(action.route.state).step_results
            for result in results[len(observed.state.step_results) :]:
                self.metrics.verdicts.labels(self.model, result.verdict).inc()
