"""The interface between the control loops and the place where they run.

There are two implementations: :class:`watchkeeper.platforms.local.LocalPlatform` (processes on one
machine) and :class:`watchkeeper.platforms.kube.KubePlatform` (a Kubernetes cluster).

Rules for both:

- Methods that read (``endpoints``, ``processes``, ``serving``, ``route``, ``confirmed``,
  ``problems``, ``removed_models``, ``commands``, ``runs``, ``run_reason``, ``is_refused``,
  ``is_outdated``, ``configured_at``) change nothing. ``reconcile`` repairs what an interrupted call
  left.
- Every method is idempotent and may be killed at any line. The caller reads the state again in its
  next turn and calls the method that is missing.
- Every method raises :class:`PlatformError` if the platform does not answer or refuses.
"""

from collections.abc import Callable, Collection
from typing import Final, Literal, Protocol

import msgspec


class PlatformError(RuntimeError):
    """The platform does not answer, or refuses a call. Callers try again in their next turn."""


class RunRefusedError(ValueError):
    """A training run has parameters that training does not accept; the message names them."""


class ServingStatus(msgspec.Struct, frozen=True):
    """How one version is served.

    Attributes:
        version: The version's number.
        state: ``waiting`` means that the version waits for something outside of it, such as its
            files or a node with room; ``failed`` means that the version itself does not work.
        reason: Why it has failed, or what it waits for.
        digest: The content that is served, see :func:`watchkeeper.core.version.digest`; "" if it
            is not known.
        outdated: It does not have the number of servers that is configured now.
            :meth:`Platform.serve` changes that.
    """

    version: int
    state: Literal["waiting", "starting", "ready", "failed", "retiring"]
    reason: str = ""
    outdated: bool = False
    digest: str = ""


UNREADABLE: Final = "unreadable"  # see Route.state
# The keys of Route.state that are also shown one by one, so that people can wait for a value.
SHOWN_STATE: Final = ("phase", "production", "ended", "rolled_back")


class Route(msgspec.Struct, frozen=True):
    """The traffic split of one model, and the state of its rollout.

    Attributes:
        weights: Percentage of the traffic by version; the sum is 100. A version without traffic is
            not a key.
        state: Belongs to the rollout controller. It is written together with the weights, so that
            the controller needs no memory of its own. If somebody has written something else
            there on a cluster, it has the single key UNREADABLE.
        changed_by: Who has changed the "weights" or the "state" since they were written, and when,
            as far as the platform knows.
    """

    weights: dict[int, int]
    state: dict[str, str] = {}
    changed_by: dict[str, str] = {}

    def check(self, model: str, served: Collection[int]) -> None:
        """Check that this route can be written for a model whose versions ``served`` are served.

        Raises:
            PlatformError: The weights do not add up to 100, or a version with traffic is not
                served.
        """
        if sum(self.weights.values()) != 100 or min(self.weights.values()) < 0:
            raise PlatformError(f"{model}: weights {self.weights} must add up to 100")
        for version, weight in sorted(self.weights.items()):
            if weight > 0 and version not in served:
                raise PlatformError(
                    f"{model} version {version}: not served, so it cannot get traffic"
                )


class RolloutCommands(msgspec.Struct, frozen=True):
    """The commands of people for the rollout of one model.

    The rollout controller withdraws a command when it is carried out, or when its version is no
    longer the candidate or the production version that the command was given for. So an old
    command never acts on a later rollout.

    Attributes:
        paused: Stay at the current canary step.
        promote: Promote this candidate at once.
        abort: Stop the rollout of this candidate.
        rollback: Replace this production version by ``previous``.
    """

    paused: bool = False
    promote: int | None = None
    abort: int | None = None
    rollback: int | None = None

    @property
    def standing(self) -> dict[str, int]:
        """The commands that are not withdrawn: the version by the name of the command."""
        given = {"promote": self.promote, "abort": self.abort, "rollback": self.rollback}
        return {name: version for name, version in given.items() if version is not None}

    def without(self, commands: dict[str, int]) -> "RolloutCommands":
        """Return these commands without ``commands``; one for another version remains.

        Example:
            >>> RolloutCommands(promote=3, abort=2).without({"promote": 3, "abort": 1})
            RolloutCommands(paused=False, promote=None, abort=2, rollback=None)
        """
        gone = self.standing.items() & commands.items()
        return msgspec.structs.replace(self, **dict.fromkeys(name for name, _ in gone))


class TrainingRun(msgspec.Struct, frozen=True):
    """One training run.

    Attributes:
        name: Unique; a run of the same name is never started a second time.
        model: The model to train.
        trigger: Why, in words.
        episode: The drift episode that asks for the run.
        replaces: The version that the new one is compared with and would replace.
        parameters: Values for the training parameters that the model declares.
    """

    name: str
    model: str
    trigger: str
    episode: str | None = None
    replaces: int | None = None
    parameters: dict[str, str] = {}

    def arguments(self) -> list[str]:
        """Return the arguments of ``python -m watchkeeper.training`` for this run."""
        arguments = [self.model, "--run", self.name, "--trigger", self.trigger]
        if self.episode is not None:
            arguments += ["--episode", self.episode]
        if self.replaces is not None:
            arguments += ["--replaces", str(self.replaces)]
        return [*arguments, *self.parameter_arguments()]

    def parameter_arguments(self) -> list[str]:
        """Return the part of the arguments that sets parameters."""
        pairs = [f"{key}={value}" for key, value in sorted(self.parameters.items())]
        return [word for pair in pairs for word in ("--set", pair)]


RunState = Literal["running", "succeeded", "failed"]


class Endpoints(msgspec.Struct, frozen=True):
    """URLs of the system, for people, clients and components.

    Attributes:
        v2: HTTP and gRPC of all models, on one port.
        mlflow: The registry.
        drift: The drift reports of the sidecars.
        metrics: The metrics of the sidecars.
        ledger: The ledger's database.
        hosts: The host name of each model at ``v2``.
    """

    v2: str
    mlflow: str
    drift: str
    metrics: str
    ledger: str
    hosts: dict[str, str] = {}


class Process(msgspec.Struct, frozen=True):
    """One process or container of the system, as shown to people.

    ``log`` is a file, or the command that prints the log.
    """

    name: str
    state: str
    pid: int | None = None
    log: str = ""


class Announcement(msgspec.Struct, frozen=True):
    """An event of a model, as shown to people beside the objects of the platform.

    Attributes:
        id: The id of the event; an announcement with the same id is shown once.
        model: The model.
        version: The version that it is about; None if it is about the whole model.
        reason: One word in CamelCase, such as "Promoted".
        message: The reason for people.
        warning: Somebody should look at it.
        time: When it was decided, in seconds since 1970.
    """

    id: str
    model: str
    version: int | None
    reason: str
    message: str
    warning: bool
    time: float


class Platform(Protocol):
    """Where the control loops run: one machine or a cluster."""

    def endpoints(self) -> Endpoints:
        """Return the URLs of the system.

        Raises:
            PlatformError: The system is not installed or not running.
        """

    def processes(self) -> list[Process]:
        """Return all processes of the system."""

    def serving(self, model: str) -> dict[int, ServingStatus]:
        """Return how each version of a model is served; a version that is gone is not a key."""

    def serve(self, model: str, version: int, digest: str = "") -> None:
        """Serve a version. Returns at once; :meth:`serving` reports when it is ready.

        With ``digest`` its servers fetch this content or nothing, also if the version is deleted.
        A version that is served already keeps running and gets the configured number of servers.
        A version that is retiring must be gone before it can start again: call this method again
        until it does.
        """

    def retire(self, model: str, version: int) -> None:
        """Stop serving a version: the server drains, then the sidecar ships the last records.

        Returns before that is done. Call it again until :meth:`serving` no longer has the version.

        Raises:
            PlatformError: The version has traffic, or the gateway may still send some to it.
        """

    def route(self, model: str) -> Route | None:
        """Return the route as it is, None if there is none that sends anything to a version."""

    def set_route(self, model: str, route: Route) -> None:
        """Write weights and state in one step and hand the weights to the gateway.

        Raises:
            PlatformError: See :meth:`Route.check`; or another process has written the route.
        """

    def confirmed(self, model: str) -> bool:
        """Return whether the gateway uses exactly the weights of the route."""

    def reconcile(self, model: str) -> None:
        """Finish what an interrupted call or a crash left undone for a model.

        Each turn of the rollout controller calls this method before it reads. It starts processes
        and runs that should exist, moves servers away from ports that other programs have taken,
        and hands the route to the gateway again. In a cluster, the cluster's own controllers do
        this, and the method restores the policies that protect the route and the servers.
        """

    def removed_models(self) -> list[str]:
        """Return the models that are no longer configured, and still have a route or servers."""

    def remove(self, model: str) -> None:
        """Take the next step of the removal of a model: its route, then its servers.

        Call it again until :meth:`removed_models` no longer has the model.

        Raises:
            PlatformError: The model is configured.
        """

    def commands(self, model: str) -> RolloutCommands:
        """Return the commands of people for a model's rollout."""

    def change_commands(
        self, model: str, change: Callable[[RolloutCommands], RolloutCommands]
    ) -> None:
        """Replace the commands by ``change(commands)``, without losing concurrent changes."""

    def check_run(self, run: TrainingRun) -> None:
        """Let training check the parameters of a run before it starts, where that is possible.

        Raises:
            RunRefusedError: Training does not accept them.
        """

    def create_run(self, run: TrainingRun) -> bool:
        """Start a training run; return False if a run of that name exists, in any state."""

    def runs(self, model: str) -> dict[str, RunState]:
        """Return the state of the model's training runs by name."""

    def run_log(self, run: str) -> str:
        """Return where the log of a run is: a file, or the command that prints it."""

    def run_reason(self, run: str) -> str:
        """Return why a run has failed or does not start, as far as the platform knows, or ""."""

    def is_refused(self, run: str) -> bool:
        """Return whether a run has failed for a reason that only people can remove.

        Its exit code was :data:`watchkeeper.core.exit_codes.EXIT_FATAL`: a defect of the
        declaration, of the data or of a setting.
        """

    def is_outdated(self, run: str) -> bool:
        """Return whether a run does not start, and would start in another way now."""

    def configured_at(self) -> float:
        """Return when the system was configured last, in seconds since 1970."""

    def problems(self, model: str) -> list[str]:
        """Return what the gateway does not do for a model although it should, for people.

        Nobody here can repair that: somebody else's policy or Gateway is in the way, for example.
        """

    def announce(self, announcement: Announcement) -> None:
        """Show an event beside the objects that it is about, where the platform has such a place.

        An announcement that was made before changes nothing.
        """

    def acquire(self, lease: str) -> bool:
        """Take or renew a lease; return False while another process holds it."""

    def release(self, lease: str) -> None:
        """Release a lease if this process holds it, so that others need not wait until it ends."""
