"""The observed state: everything that a decision depends on."""

from functools import cached_property

import msgspec

from watchkeeper.core.names import CANDIDATE, PRODUCTION
from watchkeeper.core.policies import RolloutPolicy
from watchkeeper.core.version import short_digest
from watchkeeper.platforms import RolloutCommands, Route, ServingStatus
from watchkeeper.registry import AGAIN_TAG, DIGEST_TAG, GATE_TAG, NO_DIGEST, ROLLOUT_TAG
from watchkeeper.rollout.analysis import judge_step, judge_watch
from watchkeeper.rollout.evidence import Evidence, Judgement
from watchkeeper.rollout.state import RolloutState


def named_versions(aliases: dict[str, int], tags: dict[int, dict[str, str]]) -> set[int]:
    """Return the versions that a decision may be about: with an alias, or not decided yet."""
    undecided = {
        version
        for version, found in tags.items()
        if found.get(GATE_TAG) == "passed" and ROLLOUT_TAG not in found
    }
    return undecided | set(aliases.values()) & tags.keys()


class ObservedState(msgspec.Struct, frozen=True, dict=True):
    """Registry, platform and ledger as one turn sees them. ``dict`` allows the cached property.

    Attributes:
        model: the model.
        now: the time of the turn, in seconds since 1970.
        aliases: the registry's aliases; None while the registry does not answer.
        tags: the tags of each version; empty while the registry does not answer. Versions that an
            alias names have DIGEST_TAG; it is NO_DIGEST if their files have no manifest.
        serving: what serves each version.
        route: weights and state as they were written last; None before the first route.
        state: the state of the route, decoded; the defaults if there is no route, or if its state
            is broken.
        broken_state: what is wrong with the state of the route; "" if nothing is.
        confirmed: whether the gateway routes by exactly the weights of the route.
        commands: the commands of people.
        policy: the policy in force for the version that the turn is about.
        evidence: what to judge; None if there is nothing to judge or it cannot be read.
        evidence_error: why there is no evidence, where there should be some.
        published: whether the ledger has all events of ``state``.
        promotions: the versions that were promoted, the last one first, as the ledger has them;
            only where no state says what serves.
        first_digests: the content that the ledger describes under a number, for the versions that
            an alias names.
        highest: the highest number of a version that the ledger knows; None if it is not read.
        version_error: why the files of the version that the turn is about cannot be used, or "".
            It is permanent: another try does not help.
    """

    model: str
    now: float
    aliases: dict[str, int] | None
    tags: dict[int, dict[str, str]]
    serving: dict[int, ServingStatus]
    route: Route | None
    state: RolloutState
    confirmed: bool
    commands: RolloutCommands = RolloutCommands()
    policy: RolloutPolicy = RolloutPolicy()
    evidence: Evidence | None = None
    evidence_error: str = ""
    published: bool = True
    promotions: tuple[int, ...] = ()
    first_digests: dict[int, str] = {}
    highest: int | None = None
    version_error: str = ""
    broken_state: str = ""

    @cached_property
    def judgement(self) -> Judgement | None:
        """What the evidence says; None without evidence."""
        if self.evidence is None:
            return None
        judge = judge_watch if self.state.phase == "watching" else judge_step
        return judge(self.evidence, self.policy)

    @property
    def weights(self) -> dict[int, int]:
        """The traffic in per cent by version; empty before the first route."""
        return self.route.weights if self.route else {}

    @property
    def promoted(self) -> int | None:
        """The version that was promoted last; only where no state says what serves."""
        return self.promotions[0] if self.promotions else None

    @property
    def trusted_version(self) -> int:
        """The version that gets all traffic if the state of the route is broken.

        It is the version that was promoted last, if the route gives it traffic. If not, it was
        rolled back: then it is the version with the most traffic that was promoted before. The
        aliases do not count, because a person may have pointed them at a version that is not
        judged yet.
        """
        by_traffic = sorted(self.weights, key=lambda version: -self.weights[version])
        if self.promoted is None:
            return by_traffic[0]
        if self.promoted in self.weights:
            return self.promoted
        return next((v for v in by_traffic if v in self.promotions), self.promoted)

    @property
    def first_version(self) -> int | None:
        """The version that gets all traffic while there is no route; None if there is none.

        The candidate is first only if nothing was promoted before: it is not judged yet.
        """
        production, promoted = self.alias(PRODUCTION), self.promoted
        if production is not None:
            return production
        if promoted is not None and (self.is_registered(promoted) or self.is_served(promoted)):
            return promoted
        return self.alias(CANDIDATE)

    @property
    def rollback_commanded(self) -> bool:
        """Whether a person commands to leave the version that is production."""
        production = self.state.production
        return production is not None and self.commands.rollback == production

    def alias(self, name: str) -> int | None:
        """Return the version that an alias points at."""
        return (self.aliases or {}).get(name)

    def tag(self, version: int | None, key: str) -> str:
        """Return a tag of a version; "" if it has no such tag."""
        return self.tags.get(version, {}).get(key, "") if version is not None else ""

    def known_digest(self, version: int) -> str:
        """Return the content that a number stands for outside of the registry; "" if unknown.

        What serves decides, then what the ledger describes.
        """
        served = self.serving.get(version)
        return (
            self.state.digests.get(version)
            or (served.digest if served else "")
            or self.first_digests.get(version, "")
        )

    def digest(self, version: int) -> str:
        """Return the content that a number stands for; "" if nobody knows."""
        registered = self.tag(version, DIGEST_TAG)
        return self.known_digest(version) or ("" if registered == NO_DIGEST else registered)

    def is_reused(self, version: int) -> bool:
        """Whether the registry names other content by the number than what it stands for."""
        known, registered = self.known_digest(version), self.tag(version, DIGEST_TAG)
        return bool(known and registered) and known != registered

    def registered_again(self, content: str) -> int | None:
        """Return the version that was created for content under a reused number, or None."""
        found = [v for v, tags in self.tags.items() if tags.get(AGAIN_TAG) == content]
        return min(found, default=None)

    def is_registered(self, version: int | None) -> bool:
        """Whether the registry has a version and its content.

        Unknown versions count as registered in an outage.
        """
        if self.aliases is None:
            return True
        return version is not None and version in self.tags and not self.is_reused(version)

    def is_served(self, version: int) -> bool:
        """Whether a version is served or starts; a version that is retiring is not."""
        return version in self.serving and self.serving[version].state != "retiring"

    def is_outdated(self, version: int) -> bool:
        """Whether a version is served by another number of servers than is configured."""
        return self.is_served(version) and self.serving[version].outdated

    def is_ready(self, version: int | None) -> bool:
        """Whether a version has answered its own example and can take traffic."""
        return self._serving_state(version) == "ready"

    def is_blocked(self, version: int | None) -> bool:
        """Whether the start of a version waits for something that is no fault of its own."""
        return self._serving_state(version) == "waiting"

    def has_failed(self, version: int | None) -> bool:
        """Whether the platform no longer tries to start a version, or serves other content."""
        return self._serving_state(version) == "failed"

    def condition(self, version: int | None) -> str:
        """Describe for people how a version is served."""
        found = self.serving.get(version) if version is not None else None
        if found is None:
            return f"v{version} is not served"
        if self._has_other_content(found):
            wanted, served = self.state.digests[found.version], found.digest
            return (
                f"v{version} is served with other content: {short_digest(served)} instead of "
                f"{short_digest(wanted)}"
            )
        return f"v{version} is {found.state}{': ' + found.reason if found.reason else ''}"

    def _serving_state(self, version: int | None) -> str:
        found = self.serving.get(version) if version is not None else None
        if found is not None and self._has_other_content(found):
            return "failed"
        return found.state if found else ""

    def _has_other_content(self, served: ServingStatus) -> bool:
        wanted = self.state.digests.get(served.version, "")
        return bool(wanted and served.digest) and wanted != served.digest
