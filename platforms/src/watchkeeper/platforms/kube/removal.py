"""The end of a model that the values of the chart no longer contain.

First the gateway loses its route, then its servers drain and end, and its policies go last. So
nobody gets an answer without the credential that the policies ask for.
"""

from watchkeeper.platforms.interface import PlatformError
from watchkeeper.platforms.kube.api import HTTP_ROUTE, INFERENCE_SERVICE, LEASE, Api
from watchkeeper.platforms.kube.cluster_config import ClusterConfig
from watchkeeper.platforms.kube.inference_services import InferenceServices
from watchkeeper.platforms.kube.labels import MODEL, check_ours
from watchkeeper.platforms.kube.route_policies import RoutePolicies


class Removal:
    """The removal of models of one installation."""

    def __init__(self, api: Api, services: InferenceServices, policies: RoutePolicies) -> None:
        self._api = api
        self._services = services
        self._policies = policies

    def models(self, config: ClusterConfig) -> list[str]:
        """Return the models that have objects of this installation and are not in its values."""
        if not config.instance:
            return []  # written by an older chart: the objects could be those of another release
        found = {
            each["metadata"]["labels"].get(MODEL, "")
            for kind in (HTTP_ROUTE, INFERENCE_SERVICE)
            for each in self._api.all(kind, config.labels)
        }
        return sorted((found | self._policies.models(config.labels)) - {""} - config.models.keys())

    def step(self, model: str, config: ClusterConfig) -> None:
        """Take the next step of the removal of a model.

        Raises:
            PlatformError: The values contain the model.
        """
        if model not in self.models(config):
            raise PlatformError(f"{model}: in the values of the chart, so it is not removed")
        ours = {**config.labels, MODEL: model}
        if (route := self._api.find(HTTP_ROUTE, model)) is not None:
            version = check_ours(route, model)["metadata"]["resourceVersion"]
            self._api.delete(HTTP_ROUTE, model, version)
        elif self._api.all(INFERENCE_SERVICE, ours):
            for version in sorted(self._services.served(model, config.labels)):
                self._services.retire(model, version)
        else:
            self._api.delete(LEASE, f"rollout-{model}")
            self._policies.delete(model, config.labels)
