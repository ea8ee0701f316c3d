"""Routes: an HTTPRoute for each model, its weights and the rollout's state in one write.

All rules have the same weights: gRPC, told by its content type, goes to the h2c port, all else to
HTTP. What is open to everybody has rules of its own, for policies of the chart to name: health and
readiness, and feedback, which the server itself asks a credential for. Retries on Envoy Gateway
are a policy beside it: there it excludes by itself the endpoints that were tried before.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from watchkeeper.contracts.names import serving_name
from watchkeeper.platforms.interface import PlatformError, Route
from watchkeeper.platforms.kube.api import BACKEND_TRAFFIC_POLICY, HTTP_ROUTE, Api, Json
from watchkeeper.platforms.kube.installation import Installation
from watchkeeper.platforms.kube.labels import MODEL, PART_OF, WATCHKEEPER, check_ours

STATE: Final = "watchkeeper/rollout"
# The Services are KServe's: a container's first port becomes 80, others keep their number.
GRPC_PORT, HTTP_PORT = 9000, 80
OPEN_CALLS: Final = ("ServerLive", "ServerReady", "ModelReady")
OPEN_PATHS: Final = (
    "/v2/models/{model}/feedback",
    "/v2/models/{model}/ready",
    "/v2/health/live",
    "/v2/health/ready",
)
CLIENT: Final = "x-watchkeeper-client"  # by which the gateway names who calls
REQUEST_SECONDS = 30
ATTEMPT_SECONDS = 10
TRIES = 5  # a status that is written in between is no reason to wait for the next turn


class Routes:
    """The HTTPRoutes of all models in a namespace.

    Whoever has read a route overwrites only what he has read: a controller that has lost its lease
    without knowing does no harm.
    """

    def __init__(self, api: Api) -> None:
        self._api = api
        self._read: dict[str, Route | None] = {}

    def read(self, model: str) -> Route | None:
        """Return a model's route, None before the first."""
        found = self._api.find(HTTP_ROUTE, model)
        self._read[model] = None if found is None else parse(check_ours(found, model), model)
        return self._read[model]

    def write(self, model: str, route: Route, installation: Installation) -> None:
        """Write weights and state in one step.

        Raises:
            PlatformError: the route is not the one that was read last, or cannot be written.
        """
        labels = {PART_OF: WATCHKEEPER, MODEL: model}
        metadata: Json = {"name": model, "namespace": self._api.namespace, "labels": labels}
        if installation.retries:
            policy = {"metadata": metadata, "spec": retries(model)}
            self._api.apply(BACKEND_TRAFFIC_POLICY, policy)
        state = msgspec.json.encode(route.state).decode()
        metadata = {**metadata, "annotations": {STATE: state}}
        spec = _spec(model, route.weights, installation)
        for _ in range(TRIES):
            found = self._api.find(HTTP_ROUTE, model)
            now = None if found is None else parse(check_ours(found, model), model)
            if now != self._read.get(model, now):
                raise PlatformError(
                    f"HTTPRoute {model}: somebody else has written it since it was read"
                )
            guard = {"resourceVersion": found["metadata"]["resourceVersion"]} if found else {}
            if self._api.apply(HTTP_ROUTE, {"metadata": {**metadata, **guard}, "spec": spec}):
                self._read[model] = route
                return
        raise PlatformError(f"HTTPRoute {model}: it changes all the time; try again")

    def accepted(self, model: str, installation: Installation) -> bool:
        """Tell by its status whether the gateway has taken over the route as it should be.

        A status says that this generation was accepted, and no more: nothing in the Gateway API
        tells when the proxies route by it, which is a moment later. So a version without traffic
        may still get some requests; it answers them while it drains.
        """
        found = self._api.find(HTTP_ROUTE, model)
        if found is None:
            return False
        route = parse(check_ours(found, model), model)
        if not _holds(found["spec"], _spec(model, route.weights, installation)):
            return False  # somebody has changed one rule alone, or an upgrade the hosts
        said = found.get("status", {}).get("parents", [])
        generation = found["metadata"]["generation"]
        return all(
            any(_accepts(parent, ours, found, generation) for parent in said)
            for ours in found["spec"]["parentRefs"]
        )


def rules(model: str, weights: Mapping[int, int], *, clients: bool = False) -> list[Json]:
    """Return the rules, from the narrowest; the last one takes what is left.

    With ``clients`` the gateway tells the server who calls, where a key is asked for; nobody else
    may.
    """
    grpc = {"type": "RegularExpression", "name": "content-type", "value": "application/grpc.*"}
    open_grpc = [f"/inference.GRPCInferenceService/{call}" for call in OPEN_CALLS]
    open_http = [path.format(model=model) for path in OPEN_PATHS]
    anything: Json = {"path": {"type": "PathPrefix", "value": "/"}}
    found: dict[str, tuple[list[Json], int]] = {
        "open-grpc": ([{**_exactly(path), "headers": [grpc]} for path in open_grpc], GRPC_PORT),
        "open-http": ([_exactly(path) for path in open_http], HTTP_PORT),
        "grpc": ([{**anything, "headers": [grpc]}], GRPC_PORT),
        "http": ([anything], HTTP_PORT),
    }
    unforged = {"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": [CLIENT]}}
    return [
        {
            "name": name,
            "matches": matches,
            "filters": [] if clients and name in ("grpc", "http") else [unforged],
            "backendRefs": [
                {
                    "group": "",
                    "kind": "Service",
                    "name": _service(model, version),
                    "port": port,
                    "weight": weight,
                }
                for version, weight in sorted(weights.items())
                if weight > 0
            ],
            "timeouts": {"request": f"{REQUEST_SECONDS}s"},
        }
        for name, (matches, port) in found.items()
    ]


def _exactly(path: str) -> Json:
    return {"path": {"type": "Exact", "value": path}}


def _spec(model: str, weights: Mapping[int, int], installation: Installation) -> Json:
    return {
        "parentRefs": [installation.gateway],
        "hostnames": list(installation.model(model).hostnames),
        "rules": rules(model, weights, clients=installation.clients),
    }


def retries(model: str) -> Json:
    """Return the policy: what was cut off is repeated, what an overloaded server refused is not.

    An inference changes nothing and its id stays the same. 503 is a server that is not ready yet;
    one that is overloaded says x-envoy-ratelimited or RESOURCE_EXHAUSTED.
    """
    return {
        "targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": model}],
        "retry": {
            "numRetries": 3,
            "perRetry": {
                "timeout": f"{ATTEMPT_SECONDS}s",
                "backOff": {"baseInterval": "10ms", "maxInterval": "200ms"},
            },
            "retryOn": {
                "triggers": [
                    "connect-failure",
                    "refused-stream",
                    "reset",
                    "unavailable",
                    "cancelled",
                    "retriable-status-codes",
                ],
                "httpStatusCodes": [503],
            },
        },
    }


def parse(found: Json, model: str) -> Route:
    """Read a route back.

    Raises:
        PlatformError: somebody has written something that is no route of ours.
    """
    text = found["metadata"].get("annotations", {}).get(STATE, "{}")
    weights: dict[int, int] = {}
    prefix, suffix = _service(model, 0).split("0")
    for backend in (found["spec"].get("rules") or [{}])[-1].get("backendRefs", []):
        version = backend["name"].removeprefix(prefix).removesuffix(suffix)
        if not version.isdecimal() or backend["name"] != _service(model, int(version)):
            raise PlatformError(
                f"HTTPRoute {model}: {backend['name']!r} serves no version; put {prefix}<n>{suffix}"
            )
        weights[int(version)] = backend.get("weight", 1)
    try:
        state = msgspec.json.decode(text, type=dict[str, str])
    except msgspec.MsgspecError as error:
        raise PlatformError(
            f"HTTPRoute {model}, {STATE}={text[:200]!r}: {error}; correct it"
        ) from error
    weights = {version: weight for version, weight in weights.items() if weight > 0}
    if sum(weights.values()) != 100:
        raise PlatformError(
            f"HTTPRoute {model}: weights {weights} must add up to 100; correct them"
        )
    return Route(weights, state)


def _service(model: str, version: int) -> str:
    return f"{serving_name(model, version)}-predictor"


def _holds(found: object, wanted: object) -> bool:
    """Tell whether an object says all that is wanted; what the API server adds does not count."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        return all(_holds(found.get(key, []), wanted[key]) for key in wanted)
    if isinstance(found, list) and isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(_holds, found, wanted))
    return found == wanted


def _accepts(parent: Json, ours: Json, route: Json, generation: int) -> bool:
    """Tell whether a controller's word about a parent is about ours, as it is, and good."""
    here = {"namespace": route["metadata"]["namespace"]}
    if {**here, **parent["parentRef"]} != {**here, **ours}:
        return False
    good = {
        condition["type"]
        for condition in parent.get("conditions", [])
        if condition["status"] == "True" and condition.get("observedGeneration") == generation
    }
    return {"Accepted", "ResolvedRefs"} <= good
