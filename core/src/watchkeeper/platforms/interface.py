"""What the loop needs of the place it runs in.

Every call is idempotent and may be cut off at any line: the caller reads the world again in its
next turn and takes the step that is missing.
"""

from collections.abc import Callable, Collection
from typing import Literal, Protocol

import msgspec


class PlatformError(RuntimeError):
    """The platform did not do, or did not answer, what was asked; try again next turn."""


class RunRefusedError(ValueError):
    """Training refuses a run's parameters; the message says which it takes."""


class Serving(msgspec.Struct, frozen=True):
    """What serves one version. ``reason`` tells why it has failed, or what it waits for.

    "waiting" is for something outside of it, such as its files or room: no fault of its own.
    ``outdated``: not by as many servers as are wanted by now; :meth:`Platform.serve` changes that.
    """

    version: int
    state: Literal["waiting", "starting", "ready", "failed", "retiring"]
    reason: str = ""
    outdated: bool = False


class Route(msgspec.Struct, frozen=True):
    """Where a model's traffic goes, and why.

    ``weights`` are percentages by version and add up to 100; a version without traffic is not
    named. ``state`` belongs to the rollout controller and changes in the same write as the
    weights, so that the controller needs no memory of its own.
    """

    weights: dict[int, int]
    state: dict[str, str] = {}

    def check(self, model: str, served: Collection[int]) -> None:
        """Check that a model whose versions ``served`` can take traffic may be routed so.

        Raises:
            PlatformError: it may not.
        """
        if sum(self.weights.values()) != 100 or min(self.weights.values()) < 0:
            raise PlatformError(f"{model}: weights {self.weights} must add up to 100")
        for version, weight in sorted(self.weights.items()):
            if weight > 0 and version not in served:
                raise PlatformError(f"{model} version {version}: not served, so it gets no traffic")


class Asks(msgspec.Struct, frozen=True):
    """What a person wants of a model's rollout.

    ``paused`` holds the current step; ``promote`` takes that candidate through at once,
    ``abort`` takes that one off, ``rollback`` leaves that production version for ``previous``.
    The controller withdraws an order once it is carried out, or once its version is no longer
    what the order was given for: so none can come alive again in a later rollout.
    """

    paused: bool = False
    promote: int | None = None
    abort: int | None = None
    rollback: int | None = None

    @property
    def orders(self) -> dict[str, int]:
        """The orders that stand: the version by the name of each."""
        given = {"promote": self.promote, "abort": self.abort, "rollback": self.rollback}
        return {name: version for name, version in given.items() if version is not None}

    def without(self, orders: dict[str, int]) -> "Asks":
        """Return what is left when those orders are withdrawn; others given since stay."""
        gone = self.orders.items() & orders.items()
        return msgspec.structs.replace(self, **dict.fromkeys(name for name, _ in gone))


class Run(msgspec.Struct, frozen=True):
    """One training run; the name makes it happen once."""

    name: str
    model: str
    trigger: str
    episode: str | None = None
    replaces: int | None = None
    parameters: dict[str, str] = {}

    def arguments(self) -> list[str]:
        """Return the arguments of ``python -m watchkeeper.training``, in a Job and on a laptop."""
        arguments = [self.model, "--run", self.name, "--trigger", self.trigger]
        if self.episode is not None:
            arguments += ["--episode", self.episode]
        if self.replaces is not None:
            arguments += ["--replaces", str(self.replaces)]
        return [*arguments, *self.parameter_arguments()]

    def parameter_arguments(self) -> list[str]:
        """Return those of them that set parameters."""
        pairs = [f"{key}={value}" for key, value in sorted(self.parameters.items())]
        return [word for pair in pairs for word in ("--set", pair)]


RunState = Literal["running", "succeeded", "failed"]


class Endpoints(msgspec.Struct, frozen=True):
    """Where things are: URLs for people and clients, and what a component connects to.

    ``v2`` takes HTTP and gRPC on one port, shared by name: ``hosts`` has each model's host.
    """

    v2: str
    mlflow: str
    drift: str
    metrics: str
    ledger: str
    hosts: dict[str, str] = {}


class Process(msgspec.Struct, frozen=True):
    """One process or container of the system."""

    name: str
    state: str
    pid: int | None = None
    log: str = ""


class Platform(Protocol):
    """A laptop or a cluster."""

    def endpoints(self) -> Endpoints:
        """Return where things are; raises PlatformError when the system is not installed."""

    def processes(self) -> list[Process]:
        """Return all processes of the system, for people."""

    def serving(self, model: str) -> dict[int, Serving]:
        """Return what serves the model now, by version."""

    def serve(self, model: str, version: int) -> None:
        """Have a version served; returns at once, :meth:`serving` tells when it is ready.

        One that is served already gets as many servers as are wanted now, and goes on as it is.
        One that is retiring is first gone, and then begins anew: ask again until it is not.
        """

    def retire(self, model: str, version: int) -> None:
        """Stop serving a version: the server drains first, then its sidecar ships the tail.

        Returns at once; ask again until :meth:`serving` has it no more.
        """

    def route(self, model: str) -> Route | None:
        """Return the route as it was written last, None before the first."""

    def set_route(self, model: str, route: Route) -> None:
        """Write weights and state in one step, and hand the weights to the gateway."""

    def confirmed(self, model: str) -> bool:
        """Tell whether the gateway now routes by exactly the weights of the route."""

    def asks(self, model: str) -> Asks:
        """Return what a person wants."""

    def ask(self, model: str, change: Callable[[Asks], Asks]) -> None:
        """Change what a person wants, from what stands; nobody else writes in between."""

    def check_run(self, run: Run) -> None:
        """Have training look at a run's parameters before it starts, where that can be done.

        Raises:
            RunRefusedError: it would refuse them.
        """

    def create_run(self, run: Run) -> bool:
        """Start a training run; False when one of that name exists, whatever became of it."""

    def runs(self, model: str) -> dict[str, RunState]:
        """Return the model's training runs by name."""

    def acquire(self, lease: str) -> bool:
        """Take or renew a lease; False while another process holds it."""

    def release(self, lease: str) -> None:
        """Let go of a lease, if we hold it: others need not wait until it runs out."""
