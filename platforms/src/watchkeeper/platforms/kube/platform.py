"""The cluster platform: Kubernetes objects behind the interface :class:`Platform`."""

from collections.abc import Callable

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
from watchkeeper.platforms.kube.api import POD, Api
from watchkeeper.platforms.kube.cluster_config import NAME, ClusterConfig, changed_at, read_config
from watchkeeper.platforms.kube.commands import change_commands, read_commands
from watchkeeper.platforms.kube.events import announce
from watchkeeper.platforms.kube.gateway_status import gateway_problems, route_problems
from watchkeeper.platforms.kube.http_routes import HttpRoutes
from watchkeeper.platforms.kube.inference_services import InferenceServices
from watchkeeper.platforms.kube.jobs import TrainingJobs
from watchkeeper.platforms.kube.labels import PART_OF, WATCHKEEPER
from watchkeeper.platforms.kube.leases import Leases
from watchkeeper.platforms.kube.pod_status import processes
from watchkeeper.platforms.kube.removal import Removal
from watchkeeper.platforms.kube.route_policies import RoutePolicies


class KubePlatform:
    """An installation of the chart.

    Args:
        namespace: The namespace of the release.
        training: The namespace of the training Jobs, if it is another one.
        name: The name of the installation in the chart (``fullnameOverride``).

    Raises:
        PlatformError: There are no credentials for a cluster.
    """

    def __init__(self, namespace: str, training: str = "", name: str = NAME) -> None:
        self._name = name
        self._api = Api(namespace)
        self._training = Api(training) if training not in ("", namespace) else self._api
        self._services = InferenceServices(self._api)
        self._routes = HttpRoutes(self._api)
        self._policies = RoutePolicies(self._api, self._services)
        self._removal = Removal(self._api, self._services, self._policies)
        self._jobs = TrainingJobs(self._training)
        self._leases = Leases(self._api)

    def close(self) -> None:
        """Close the connections to the API server."""
        for api in {self._api, self._training}:
            api.close()

    def endpoints(self) -> Endpoints:
        """Return the URLs of the system."""
        return self._config().endpoints

    def processes(self) -> list[Process]:
        """Return all containers of the system."""
        return [
            process
            for api in dict.fromkeys((self._api, self._training))
            for process in processes(api.all(POD, {PART_OF: WATCHKEEPER}))
        ]

    def serving(self, model: str) -> dict[int, ServingStatus]:
        """Return how each version of a model is served."""
        return self._services.statuses(model, self._config().models.get(model))

    def serve(self, model: str, version: int, digest: str = "") -> None:
        """Serve a version; returns at once."""
        template = self._config().model(check_model_name(model))
        self._services.add(model, version, digest, template)

    def retire(self, model: str, version: int) -> None:
        """Stop serving a version; it is "retiring" until its pods are gone."""
        if version not in self._services.served(model):
            return
        route = self._routes.read(model)
        if route is not None and route.weights.get(version, 0) > 0:
            raise PlatformError(
                f"{model} version {version} has {route.weights[version]} % of the traffic, "
                "so it stays"
            )
        if route is not None and not self.confirmed(model):
            raise PlatformError(f"{model}: the gateway has not accepted the route yet")
        self._services.retire(model, version)

    def route(self, model: str) -> Route | None:
        """Return the route as it was last written."""
        return self._routes.read(model)

    def set_route(self, model: str, route: Route) -> None:
        """Write weights and state in one step."""
        config = self._config()
        config.model(model)
        route.check(model, self._services.served(model))
        protected = True
        if self._routes.exists(model):
            protected = not self._policies.missing(model, config)
        else:  # the route would open the model without its policies
            self._policies.apply(model, config, self._policies.find(model))
        encrypted = self._services.encrypted(model)
        self._routes.write(model, route, config, encrypted=encrypted, protected=protected)

    def confirmed(self, model: str) -> bool:
        """Return whether the gateway has accepted the route as it is."""
        return self._accepted(model, self._config())

    def reconcile(self, model: str) -> None:
        """Restore the policies; the cluster's own controllers do the rest.

        A policy that is no longer wanted stays until the gateway has the route that goes with it.
        """
        config, found = self._config(), self._policies.find(model)
        self._policies.apply(model, config, found)
        unwanted = self._policies.unwanted(model, config, found)
        if unwanted and (self._routes.read(model) is None or self._accepted(model, config)):
            self._policies.delete_all(unwanted)

    def problems(self, model: str) -> list[str]:
        """Return what the gateway does not do for a model although it should."""
        config = self._config()
        return [
            *gateway_problems(self._api, config),
            *route_problems(self._api, model),
            *(self._policies.problems(model, config) if model in config.models else ()),
        ]

    def removed_models(self) -> list[str]:
        """Return the models that are not in the values of the chart, and still have objects."""
        return self._removal.models(self._config())

    def remove(self, model: str) -> None:
        """Take the next step of the removal of a model that is not in the values."""
        self._removal.step(model, self._config())

    def commands(self, model: str) -> RolloutCommands:
        """Return the commands of people."""
        return read_commands(self._api, self._name, model)

    def change_commands(
        self, model: str, change: Callable[[RolloutCommands], RolloutCommands]
    ) -> None:
        """Replace the commands by ``change(commands)``, without losing concurrent changes."""
        change_commands(self._api, self._name, model, change)

    def check_run(self, run: TrainingRun) -> None:
        """Do nothing: only training can check parameters, and it does when its Job starts."""

    def create_run(self, run: TrainingRun) -> bool:
        """Start a training run; return False if a run of that name exists, in any state."""
        check_model_name(run.model)
        return self._jobs.create(run)

    def runs(self, model: str) -> dict[str, RunState]:
        """Return the state of the model's training runs by name."""
        return self._jobs.states(model)

    def run_log(self, run: str) -> str:
        """Return the command that prints the log of a run."""
        return self._jobs.log(run)

    def run_reason(self, run: str) -> str:
        """Return why a run has failed or does not start; "" if the cluster does not say."""
        return self._jobs.reason(run)

    def is_refused(self, run: str) -> bool:
        """Return whether a run has ended with the exit code of a defect."""
        return self._jobs.is_refused(run)

    def is_outdated(self, run: str) -> bool:
        """Return whether a run does not start, and its template has changed since."""
        return self._jobs.is_outdated(run)

    def configured_at(self) -> float:
        """Return when the configuration was changed last, as ``managedFields`` has it."""
        return changed_at(self._api, self._name)

    def announce(self, announcement: Announcement) -> None:
        """Create Kubernetes Events about the route, or the installation, and the version."""
        announce(self._api, announcement, self._name)

    def acquire(self, lease: str) -> bool:
        """Take or renew a lease; return False while another process holds it."""
        return self._leases.acquire(lease)

    def release(self, lease: str) -> None:
        """Release a lease if this process holds it."""
        self._leases.release(lease)

    def _accepted(self, model: str, config: ClusterConfig) -> bool:
        encrypted = self._services.encrypted(model)
        return self._routes.accepted(model, config, encrypted=encrypted)

    def _config(self) -> ClusterConfig:
        return read_config(self._api, self._name)
