"""Read and write routes: one HTTPRoute per model, with weights and rollout state in one write."""

from collections.abc import Collection

from watchkeeper.platforms.interface import PlatformError, Route
from watchkeeper.platforms.kube.api import HTTP_ROUTE, Api, Json
from watchkeeper.platforms.kube.cluster_config import ClusterConfig
from watchkeeper.platforms.kube.labels import MODEL, check_ours
from watchkeeper.platforms.kube.route_spec import annotations, parse, route_spec

MAX_ATTEMPTS = 5  # a conflict with a write of the status is no reason to wait for the next turn


class HttpRoutes:
    """The HTTPRoutes of all models in a namespace.

    An instance overwrites a route only if it is still as it was last read. So a controller that has
    lost its lease without noticing it does no harm.
    """

    def __init__(self, api: Api) -> None:
        self._api = api
        self._last_read: dict[str, Route | None] = {}

    def read(self, model: str) -> Route | None:
        """Return a model's route, None if it has none that sends anything to a version."""
        found = self._api.find(HTTP_ROUTE, model)
        self._last_read[model] = None if found is None else parse(check_ours(found, model), model)
        return self._last_read[model]

    def exists(self, model: str) -> bool:
        """Return whether the model has an HTTPRoute, whatever it sends to which version."""
        return self._api.find(HTTP_ROUTE, model) is not None

    def write(
        self,
        model: str,
        route: Route,
        config: ClusterConfig,
        *,
        encrypted: Collection[int] = (),
        protected: bool = True,
    ) -> None:
        """Write weights and state in one step.

        The gateway calls the versions in ``encrypted`` with TLS. Without its policies
        (``protected`` is False), the route does not trust the header that names the client. Such a
        route is never accepted, so it is written again.

        Raises:
            PlatformError: The route is not as it was last read, or it cannot be written.
        """
        metadata: Json = {
            "name": model,
            "namespace": self._api.namespace,
            "labels": {**config.labels, MODEL: model},
            "annotations": annotations(route.state),
        }
        spec = route_spec(model, route.weights, config, encrypted=encrypted, protected=protected)
        for _ in range(MAX_ATTEMPTS):
            found = self._api.find(HTTP_ROUTE, model)
            current = None if found is None else parse(check_ours(found, model), model)
            if _content(current) != _content(self._last_read.get(model, current)):
                raise PlatformError(
                    f"HTTPRoute {model}: another process has changed it since it was read"
                )
            guard = {"resourceVersion": found["metadata"]["resourceVersion"]} if found else {}
            if self._api.apply(HTTP_ROUTE, {"metadata": {**metadata, **guard}, "spec": spec}):
                self._last_read[model] = route
                return
        raise PlatformError(f"HTTPRoute {model}: it keeps changing; try again")

    def accepted(
        self, model: str, config: ClusterConfig, *, encrypted: Collection[int] = ()
    ) -> bool:
        """Return whether the status says that the gateway has accepted the route as it should be.

        The status is about a generation of the route. The Gateway API does not report when the
        proxies use it, which is a moment later. Until then a version without traffic may get
        requests, and it answers them while it drains.
        """
        found = self._api.find(HTTP_ROUTE, model)
        if found is None:
            return False
        route = parse(check_ours(found, model), model)
        if route is None:
            return False
        wanted = route_spec(model, route.weights, config, encrypted=encrypted)
        if not _contains(found["spec"], wanted):
            return False  # a single rule was changed by hand, or the host names by an upgrade
        metadata = found["metadata"]
        if not config.labels.items() <= metadata["labels"].items():
            return False
        if not annotations(route.state).items() <= metadata.get("annotations", {}).items():
            return False
        statuses = found.get("status", {}).get("parents", [])
        return all(
            any(_accepts(status, parent, found) for status in statuses)
            for parent in found["spec"]["parentRefs"]
        )


def _content(route: Route | None) -> object:
    """Return what a controller has written; who has changed it does not count."""
    return None if route is None else (route.weights, route.state)


def _contains(found: object, wanted: object) -> bool:
    """Return whether an object has all that is wanted; defaults of the API server do not count."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        return all(_contains(found.get(key, []), wanted[key]) for key in wanted)
    if isinstance(found, list) and isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(_contains, found, wanted))
    return found == wanted


def _accepts(status: Json, parent: Json, route: Json) -> bool:
    """Return whether a status is about ``parent`` and the current generation, and positive."""
    namespace = {"namespace": route["metadata"]["namespace"]}
    if {**namespace, **status["parentRef"]} != {**namespace, **parent}:
        return False
    generation = route["metadata"]["generation"]
    positive = {
        condition["type"]
        for condition in status.get("conditions", [])
        if condition["status"] == "True" and condition.get("observedGeneration") == generation
    }
    return {"Accepted", "ResolvedRefs"} <= positive
