"""The world as one turn sees it: what should serve, what does, and what was observed."""

import msgspec

from watchkeeper.platforms import Asks, Route, Serving
from watchkeeper.rollout.evidence import Evidence
from watchkeeper.rollout.state import State


class World(msgspec.Struct, frozen=True):
    """Everything that a decision is made from.

    ``aliases`` is None while the registry does not answer. ``confirmed``: the gateway routes by
    exactly the route's weights. ``evidence`` is None where there is nothing to judge, or, with
    ``blind`` telling why, nothing to judge by. ``told``: all events of ``state`` are stored.
    """

    model: str
    aliases: dict[str, int] | None
    tags: dict[int, dict[str, str]]
    serving: dict[int, Serving]
    route: Route | None
    state: State
    confirmed: bool
    asks: Asks = Asks()
    evidence: Evidence | None = None
    blind: str = ""
    told: bool = True

    @property
    def weights(self) -> dict[int, int]:
        """The traffic in percent by version; empty before the first route."""
        return self.route.weights if self.route else {}

    def alias(self, name: str) -> int | None:
        """The version that an alias points at."""
        return (self.aliases or {}).get(name)

    def tag(self, version: int | None, key: str) -> str:
        """A version's tag, "" where there is none."""
        return self.tags.get(version, {}).get(key, "") if version is not None else ""

    def served(self, version: int) -> bool:
        """Tell whether a version is served, or about to be; one that is retiring is not."""
        return version in self.serving and self.serving[version].state != "retiring"

    def outdated(self, version: int) -> bool:
        """Tell whether a version is served by other numbers of servers than are wanted."""
        return self.served(version) and self.serving[version].outdated

    def ready(self, version: int | None) -> bool:
        """Tell whether a version has answered its own example and can take traffic."""
        found = self.serving.get(version) if version is not None else None
        return found is not None and found.state == "ready"

    def waits(self, version: int | None) -> bool:
        """Tell whether a version waits for something outside of it."""
        found = self.serving.get(version) if version is not None else None
        return found is not None and found.state == "waiting"

    def failed(self, version: int | None) -> bool:
        """Tell whether the platform has given a version up."""
        found = self.serving.get(version) if version is not None else None
        return found is not None and found.state == "failed"

    def condition(self, version: int | None) -> str:
        """Describe how the serving of a version is going, for people."""
        found = self.serving.get(version) if version is not None else None
        if found is None:
            return f"v{version} is not served"
        return f"v{version} is {found.state}{': ' + found.reason if found.reason else ''}"
