"""The cluster behind the interface of a platform."""

from collections.abc import Callable

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
from watchkeeper.platforms.kube.api import POD, Api
from watchkeeper.platforms.kube.asks import change_asks, read_asks
from watchkeeper.platforms.kube.installation import read_installation
from watchkeeper.platforms.kube.labels import PART_OF, WATCHKEEPER
from watchkeeper.platforms.kube.leases import Leases
from watchkeeper.platforms.kube.pods import processes
from watchkeeper.platforms.kube.routes import Routes
from watchkeeper.platforms.kube.runs import Runs
from watchkeeper.platforms.kube.serving import InferenceServices


class KubePlatform:
    """What the chart installed in ``namespace``; its training runs are Jobs in ``training``."""

    def __init__(self, namespace: str, training: str = "") -> None:
        self._api = Api(namespace)
        self._training = Api(training) if training not in ("", namespace) else self._api
        self._services = InferenceServices(self._api)
        self._routes = Routes(self._api)
        self._runs = Runs(self._training)
        self._leases = Leases(self._api)

    def close(self) -> None:
        """Close the connections to the API server."""
        for api in {self._api, self._training}:
            api.close()

    def endpoints(self) -> Endpoints:
        """Return where things are."""
        return read_installation(self._api).endpoints

    def processes(self) -> list[Process]:
        """Return all containers of the system, for people."""
        return [
            process
            for api in dict.fromkeys((self._api, self._training))
            for process in processes(api.all(POD, {PART_OF: WATCHKEEPER}))
        ]

    def serving(self, model: str) -> dict[int, Serving]:
        """Return what serves the model now, by version."""
        return self._services.states(model, read_installation(self._api).models.get(model))

    def serve(self, model: str, version: int) -> None:
        """Have a version served; returns at once."""
        template = read_installation(self._api).model(check_model_name(model))
        self._services.add(model, version, template)

    def retire(self, model: str, version: int) -> None:
        """Stop serving a version; returns at once, it is "retiring" until its tail is shipped."""
        if version not in self._services.served(model):
            return
        route = self._routes.read(model)
        if route is not None and route.weights.get(version, 0) > 0:
            share = route.weights[version]
            raise PlatformError(f"{model} version {version} has {share} % of the traffic: kept")
        if route is not None and not self.confirmed(model):
            raise PlatformError(f"{model}: the gateway has not taken over its route yet")
        self._services.retire(model, version)

    def route(self, model: str) -> Route | None:
        """Return the route as it was written last, None before the first."""
        return self._routes.read(model)

    def set_route(self, model: str, route: Route) -> None:
        """Write weights and state in one step; the gateway reads them there."""
        installation = read_installation(self._api)
        installation.model(model)
        route.check(model, self._services.served(model))
        self._routes.write(model, route, installation)

    def confirmed(self, model: str) -> bool:
        """Tell whether the gateway now routes by exactly the weights of the route."""
        return self._routes.accepted(model, read_installation(self._api))

    def asks(self, model: str) -> Asks:
        """Return what a person wants."""
        return read_asks(self._api, model)

    def ask(self, model: str, change: Callable[[Asks], Asks]) -> None:
        """Change what a person wants, from what stands; nobody else writes in between."""
        change_asks(self._api, model, change)

    def check_run(self, run: Run) -> None:
        """Do nothing: only training can tell, and its Job says by its exit code that it refuses."""

    def create_run(self, run: Run) -> bool:
        """Start a training run; False when one of that name exists, whatever became of it."""
        check_model_name(run.model)
        return self._runs.create(run)

    def runs(self, model: str) -> dict[str, RunState]:
        """Return the model's training runs by name."""
        return self._runs.states(model)

    def acquire(self, lease: str) -> bool:
        """Take or renew a lease; False while another process holds it."""
        return self._leases.acquire(lease)

    def release(self, lease: str) -> None:
        """Let go of a lease, if we hold it: others need not wait until it runs out."""
        self._leases.release(lease)
