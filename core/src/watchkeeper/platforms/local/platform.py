"""The local platform: processes, files and Envoy behind the interface of a platform."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from watchkeeper.contracts.names import check_model_name
from watchkeeper.platforms.interface import (
    Asks,
    Endpoints,
    PlatformError,
    Process,
    Route,
    Run,
    RunState,
    Serving,
)
from watchkeeper.platforms.local.clusters import KINDS, Endpoint, Kind
from watchkeeper.platforms.local.gateway import Gateway
from watchkeeper.platforms.local.home import Home, locked, read_struct, write_struct
from watchkeeper.platforms.local.pods import Pods
from watchkeeper.platforms.local.runs import Runs
from watchkeeper.platforms.local.supervisor import Supervisor

CONFIRM_SECONDS = 20.0
LOCK_SECONDS = 5.0


class LocalPlatform:
    """The system in the folder ``home``, which ``up`` has started."""

    def __init__(self, home: Path) -> None:
        self.home = Home(home)
        sockets = Path(self.home.read_installation().sockets)
        self.supervisor = Supervisor(self.home, sockets)
        self.gateway = Gateway(self.home.gateway, sockets)
        self.pods = Pods(self.home, self.supervisor)
        self._runs = Runs(self.home, self.supervisor)
        self._leases: dict[str, contextlib.ExitStack] = {}

    def endpoints(self) -> Endpoints:
        """Return where things are."""
        found = read_struct(self.home.endpoints_file, Endpoints)
        if found is None:
            raise PlatformError(f"{self.home.folder}: not running; 'watchkeeper up' starts it")
        return found

    def processes(self) -> list[Process]:
        """Return all processes of the system, for people."""
        return [
            Process(state.name, state.state.lower(), state.pid or None, str(self.home.log(name)))
            for name, state in sorted(self.supervisor.states().items())
        ]

    def serving(self, model: str) -> dict[int, Serving]:
        """Return what serves the model now, by version."""
        return {p.version: self.pods.state(p) for p in self.pods.all() if p.model == model}

    def serve(self, model: str, version: int) -> None:
        """Have a version served; returns at once."""
        self.pods.add(check_model_name(model), version)

    def retire(self, model: str, version: int) -> None:
        """Take the next step of stopping to serve a version, and return at once."""
        pod = self.pods.find(model, version)
        if pod is None:
            return
        route = self.route(model)
        if route is not None and route.weights.get(version, 0) > 0:
            raise PlatformError(f"{pod.name} has {route.weights[version]} % of the traffic: kept")
        if route is not None and self.gateway.ready():
            self._wait_until_confirmed(model)
        self.pods.retire(pod)

    def route(self, model: str) -> Route | None:
        """Return the route as it was written last, None before the first."""
        return read_struct(self.home.routes / f"{model}.json", Route)

    def set_route(self, model: str, route: Route) -> None:
        """Write weights and state in one step, and hand the weights to the gateway."""
        if model not in self.home.read_installation().models:
            raise PlatformError(f"{model}: not a model of this system; name it in 'watchkeeper up'")
        parts = self._parts(model, route)  # first, for it refuses what cannot be
        with self._route_lock(model):
            write_struct(self.home.routes / f"{model}.json", route)
            self._hand_over(model, parts)

    def confirmed(self, model: str) -> bool:
        """Tell whether the gateway now routes by exactly the weights of the route."""
        with self._route_lock(model):
            route = self.route(model)
            if route is None:
                return False
            parts = self._parts(model, route)
            self._hand_over(model, parts)  # what a stop between two files left undone
        return all(
            self.gateway.routes_by(model, kind, parts[kind]) for kind in KINDS if kind != "sidecar"
        )

    def asks(self, model: str) -> Asks:
        """Return what a person wants."""
        return read_struct(self._asks_file(model), Asks) or Asks()

    def ask(self, model: str, change: Callable[[Asks], Asks]) -> None:
        """Change what a person wants, from what stands; nobody else writes in between."""
        with locked(self.home.routes / f".{model}.asks.lock", LOCK_SECONDS) as mine:
            if not mine:
                raise PlatformError(f"{model}: another process does not let go of its orders")
            write_struct(self._asks_file(model), change(self.asks(model)))

    def check_run(self, run: Run) -> None:
        """Have training look at a run's parameters before it starts."""
        if run.parameters:
            self._runs.check(run)

    def create_run(self, run: Run) -> bool:
        """Start a training run; False when one of that name exists, whatever became of it."""
        check_model_name(run.model)
        return self._runs.create(run)

    def runs(self, model: str) -> dict[str, RunState]:
        """Return the model's training runs by name."""
        return self._runs.states(model)

    def acquire(self, lease: str) -> bool:
        """Take a lease, held as long as this object and its process; False while another's."""
        if lease not in self._leases:
            with contextlib.ExitStack() as stack:
                if not stack.enter_context(locked(self.home.leases / lease, 0)):
                    return False
                self._leases[lease] = stack.pop_all()
        return True

    def release(self, lease: str) -> None:
        """Let go of a lease, if we hold it."""
        if held := self._leases.pop(lease, None):
            held.close()

    def _parts(self, model: str, route: Route) -> dict[Kind, list[Endpoint]]:
        served = {p.version: p for p in self.pods.all() if p.model == model and not p.retiring}
        route.check(model, served)
        pods = {served[version]: w for version, w in sorted(route.weights.items()) if w > 0}
        # At equal shares the older one is stable.
        stable = max(pods, key=lambda pod: (pods[pod], -pod.version))
        return {
            "http": [pod.endpoint(pod.http, weight) for pod, weight in pods.items()],
            "grpc": [pod.endpoint(pod.grpc, weight) for pod, weight in pods.items()],
            "sidecar": [stable.endpoint(stable.sidecar)],
        }

    def _hand_over(self, model: str, parts: dict[Kind, list[Endpoint]]) -> None:
        for kind in KINDS:
            self.gateway.put(model, kind, parts[kind])

    @contextlib.contextmanager
    def _route_lock(self, model: str) -> Iterator[None]:
        """Let nobody hand over a route that was read before another one was written."""
        with locked(self.home.routes / f".{model}.lock", LOCK_SECONDS) as mine:
            if not mine:
                raise PlatformError(f"{model}: another process does not let go of its route")
            yield

    def _wait_until_confirmed(self, model: str) -> None:
        deadline = time.monotonic() + CONFIRM_SECONDS
        while not self.confirmed(model):
            if time.monotonic() > deadline:
                raise PlatformError(f"{model}: the gateway has not taken over its route yet")
            time.sleep(0.05)

    def _asks_file(self, model: str) -> Path:
        return self.home.routes / f"{model}.asks.json"
