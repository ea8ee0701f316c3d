"""The local platform: processes, files and Envoy behind the interface :class:`Platform`."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from watchkeeper.core.names import check_model_name
from watchkeeper.platforms.interface import (
    Announcement,
    Endpoints,
    PlatformError,
    Process,
    RolloutCommands,
    Route,
    RunState,
    ServingStatus,
    TrainingRun,
)
from watchkeeper.platforms.local.envoy_clusters import GRPC, WEIGHTED, Endpoint, Kind
from watchkeeper.platforms.local.gateway import Gateway
from watchkeeper.platforms.local.home import Home, last_message, locked, read_struct, write_struct
from watchkeeper.platforms.local.runs import Runs, program_name
from watchkeeper.platforms.local.served_versions import ServedVersions
from watchkeeper.platforms.local.supervisor import Supervisor
from watchkeeper.platforms.local.version_programs import ServedVersion

CONFIRM_SECONDS = 20.0
LOCK_SECONDS = 5.0


class LocalPlatform:
    """The system in the folder ``home``, which ``watchkeeper up`` has created and started.

    Raises:
        PlatformError: There is no system in the folder.
    """

    def __init__(self, home: Path) -> None:
        self.home = Home(home)
        sockets = Path(self.home.read_config().sockets)
        self.supervisor = Supervisor(self.home, sockets)
        self.gateway = Gateway(self.home.gateway, sockets)
        self.versions = ServedVersions(self.home, self.supervisor)
        self._runs = Runs(self.home, self.supervisor)
        self._leases: dict[str, contextlib.ExitStack] = {}

    def endpoints(self) -> Endpoints:
        """Return the URLs of the system."""
        found = read_struct(self.home.endpoints_file, Endpoints)
        if found is None:
            raise PlatformError(f"{self.home.folder}: not running; 'watchkeeper up' starts it")
        return found

    def processes(self) -> list[Process]:
        """Return all processes of the system."""
        return [
            Process(state.name, state.state.lower(), state.pid or None, str(self.home.log(name)))
            for name, state in sorted(self.supervisor.states().items())
        ]

    def serving(self, model: str) -> dict[int, ServingStatus]:
        """Return how each version of a model is served."""
        return {served.version: self.versions.status(served) for served in self.versions.all(model)}

    def serve(self, model: str, version: int, digest: str = "") -> None:
        """Serve a version; returns at once."""
        self.versions.add(check_model_name(model), version, digest)

    def retire(self, model: str, version: int) -> None:
        """Take the next step of the removal of a version."""
        served = self.versions.find(model, version)
        if served is None:
            return
        route = self.route(model)
        if route is not None and route.weights.get(version, 0) > 0:
            raise PlatformError(
                f"{served.name} has {route.weights[version]} % of the traffic, so it stays"
            )
        if route is not None and self.gateway.ready():
            self._apply_route(model)
            self._wait_until_confirmed(model)
        self.versions.retire(served)

    def route(self, model: str) -> Route | None:
        """Return the route as it was last written."""
        return read_struct(self.home.routes / f"{model}.json", Route)

    def set_route(self, model: str, route: Route) -> None:
        """Write weights and state in one step and hand the weights to the gateway."""
        if model not in self.home.read_config().models:
            raise PlatformError(
                f"{model}: not a model of this system; add it with 'watchkeeper up'"
            )
        endpoints = self._endpoints(model, route)  # before the write, because it checks the route
        with self._route_lock(model):
            write_struct(self.home.routes / f"{model}.json", route)
            self.gateway.write_endpoints(model, endpoints)

    def confirmed(self, model: str) -> bool:
        """Return whether the gateway uses exactly the weights of the route."""
        route = self.route(model)
        if route is None:
            return False
        endpoints = self._endpoints(model, route)
        return all(self.gateway.uses(model, kind, endpoints[kind]) for kind in WEIGHTED)

    def reconcile(self, model: str) -> None:
        """Start processes and runs that should exist, and hand the route to the gateway."""
        self.versions.reconcile(model)
        self._runs.reconcile(model)
        route, served = self.route(model), self._served(model)
        # The rollout controller handles a route to a version that is not served.
        if route is not None and route.weights.keys() <= served.keys():
            self._apply_route(model)

    def removed_models(self) -> list[str]:
        """Return the models that ``watchkeeper up`` no longer names, and that are still served."""
        served = {each.model for each in self.versions.all()}
        return sorted(served - set(self.home.read_config().models))

    def remove(self, model: str) -> None:
        """Delete the route of a model, then take the next step of the removal of its versions."""
        if model in self.home.read_config().models:
            raise PlatformError(f"{model}: a model of this system, so it is not removed")
        with self._route_lock(model):
            (self.home.routes / f"{model}.json").unlink(missing_ok=True)
        for served in self.versions.all(model):
            self.versions.retire(served)

    def commands(self, model: str) -> RolloutCommands:
        """Return the commands of people."""
        return read_struct(self._commands_file(model), RolloutCommands) or RolloutCommands()

    def change_commands(
        self, model: str, change: Callable[[RolloutCommands], RolloutCommands]
    ) -> None:
        """Replace the commands by ``change(commands)``, without losing concurrent changes."""
        with locked(self.home.routes / f".{model}.commands.lock", LOCK_SECONDS) as acquired:
            if not acquired:
                raise PlatformError(
                    f"{model}: another process has changed the commands for more than "
                    f"{LOCK_SECONDS:.0f} s; try again"
                )
            write_struct(self._commands_file(model), change(self.commands(model)))

    def check_run(self, run: TrainingRun) -> None:
        """Let training check the parameters of a run, if it has any."""
        if run.parameters:
            self._runs.check(run)

    def create_run(self, run: TrainingRun) -> bool:
        """Start a training run; return False if a run of that name exists, in any state."""
        check_model_name(run.model)
        return self._runs.create(run)

    def runs(self, model: str) -> dict[str, RunState]:
        """Return the state of the model's training runs by name."""
        return self._runs.states(model)

    def run_log(self, run: str) -> str:
        """Return the file with the log of a run."""
        return str(self.home.log(program_name(run)))

    def run_reason(self, run: str) -> str:
        """Return the last message in the log of a run that has failed."""
        state = self._runs.find(run)
        return last_message(self.home.log(program_name(run))) if state == "failed" else ""

    def is_refused(self, run: str) -> bool:
        """Return whether a run has ended with the exit code of a defect."""
        return self._runs.is_refused(run)

    def is_outdated(self, run: str) -> bool:  # noqa: ARG002
        """Return False: a run starts at once."""
        return False

    def configured_at(self) -> float:
        """Return when ``watchkeeper up`` has written the configuration."""
        return self.home.config_file.stat().st_mtime

    def problems(self, model: str) -> list[str]:  # noqa: ARG002
        """Return nothing: this gateway is ours alone."""
        return []

    def announce(self, announcement: Announcement) -> None:
        """Do nothing: on one machine `watchkeeper history` is the place of events."""

    def acquire(self, lease: str) -> bool:
        """Take a lease; this object holds it until it is released or the process ends."""
        if lease not in self._leases:
            with contextlib.ExitStack() as stack:
                if not stack.enter_context(locked(self.home.leases / lease, 0)):
                    return False
                self._leases[lease] = stack.pop_all()
        return True

    def release(self, lease: str) -> None:
        """Release a lease if this object holds it."""
        if held := self._leases.pop(lease, None):
            held.close()

    def _served(self, model: str) -> dict[int, ServedVersion]:
        """Return the versions that can take traffic."""
        return {each.version: each for each in self.versions.all(model) if not each.retiring}

    def _endpoints(self, model: str, route: Route) -> dict[Kind, list[Endpoint]]:
        """Return the endpoints of a route, by kind of cluster.

        The sidecar pages are those of the version with most traffic.

        Raises:
            PlatformError: See :meth:`Route.check`.
        """
        served = self._served(model)
        route.check(model, served)
        weights = {served[version]: w for version, w in sorted(route.weights.items()) if w > 0}
        # With equal weights the older version is the stable one.
        stable = max(weights, key=lambda each: (weights[each], -each.version))
        of_servers: dict[Kind, list[Endpoint]] = {
            kind: [
                each.endpoint(each.grpc if kind in GRPC else each.http, weight)
                for each, weight in weights.items()
            ]
            for kind in WEIGHTED
        }
        return {**of_servers, "sidecar": [stable.endpoint(stable.sidecar)]}

    def _apply_route(self, model: str) -> None:
        """Hand the stored route to the gateway. Files that are up to date are not written."""
        with self._route_lock(model):
            route = self.route(model)
            if route is not None:
                self.gateway.write_endpoints(model, self._endpoints(model, route))

    @contextlib.contextmanager
    def _route_lock(self, model: str) -> Iterator[None]:
        """Hold the lock for routes, so that the gateway never gets an older route than stored."""
        with locked(self.home.routes / f".{model}.lock", LOCK_SECONDS) as acquired:
            if not acquired:
                raise PlatformError(
                    f"{model}: another process has changed the route for more than "
                    f"{LOCK_SECONDS:.0f} s; try again"
                )
            yield

    def _wait_until_confirmed(self, model: str) -> None:
        deadline = time.monotonic() + CONFIRM_SECONDS
        while not self.confirmed(model):
            if time.monotonic() > deadline:
                raise PlatformError(f"{model}: the gateway does not use the new route yet")
            time.sleep(0.05)

    def _commands_file(self, model: str) -> Path:
        return self.home.routes / f"{model}.commands.json"
