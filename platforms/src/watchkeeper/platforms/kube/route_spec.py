"""The content of a model's HTTPRoute and its retry policy, and the way back to a :class:`Route`.

All rules have the same weights. Requests with the content type of gRPC go to the h2c port, all
others to the HTTP port. A version that is served with TLS has other ports. Paths that need no API
key have rules of their own, to which policies of the chart refer: health, readiness, and feedback,
for which the server itself checks a credential.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec

from watchkeeper.core.names import serving_name
from watchkeeper.core.open_calls import GRPC_CALLS, HTTP_PATHS
from watchkeeper.platforms.interface import SHOWN_STATE, UNREADABLE, Route
from watchkeeper.platforms.kube.api import FIELD_MANAGER, Json
from watchkeeper.platforms.kube.cluster_config import ClusterConfig

STATE: Final = "watchkeeper/rollout"  # the annotation with the state of the rollout
# Annotations with one value of the state each, because `kubectl wait` cannot look into JSON. Nobody
# decides by them.
SHOWN: Final = {key: f"watchkeeper/{key.replace('_', '-')}" for key in SHOWN_STATE}
# The ports of KServe's Services: the first port of the container is 80, others keep their number.
GRPC_PORT, HTTP_PORT = 9000, 80
WITH_TLS: Final = {GRPC_PORT: 9443, HTTP_PORT: 8443}
CLIENT_HEADER: Final = "x-watchkeeper-client"  # the client's name, set by the gateway only
REQUEST_SECONDS = 30
ATTEMPT_SECONDS = 10


def route_spec(
    model: str,
    weights: Mapping[int, int],
    config: ClusterConfig,
    *,
    encrypted: Collection[int] = (),
    protected: bool = True,
) -> Json:
    """Return the spec of a model's HTTPRoute; see HttpRoutes.write for the arguments."""
    return {
        "parentRefs": [config.gateway],
        "hostnames": list(config.model(model).hostnames),
        "rules": rules(
            model,
            weights,
            clients=config.clients and protected,
            filters=config.filters,
            encrypted=encrypted,
        ),
    }


def rules(
    model: str,
    weights: Mapping[int, int],
    *,
    clients: bool = False,
    filters: Sequence[Json] = (),
    encrypted: Collection[int] = (),
) -> list[Json]:
    """Return the rules, the most specific first.

    Args:
        model: The model's name.
        weights: Percentage of the traffic by version.
        clients: The gateway checks API keys and sets the client's name in a header. The rules
            remove that header wherever the gateway does not set it, so that no client can forge it.
        filters: Further filters of the rules that are not open to everybody.
        encrypted: The versions that are served with TLS.
    """
    grpc = {"type": "RegularExpression", "name": "content-type", "value": "application/grpc.*"}
    # A match of a path that is exact has no place for a version.
    open_http = [path.format(model=model) for path in HTTP_PATHS if "{version}" not in path]
    any_path: Json = {"path": {"type": "PathPrefix", "value": "/"}}
    matches: dict[str, tuple[list[Json], int]] = {
        "open-grpc": ([{**_exact(path), "headers": [grpc]} for path in GRPC_CALLS], GRPC_PORT),
        "open-http": ([_exact(path) for path in open_http], HTTP_PORT),
        "grpc": ([{**any_path, "headers": [grpc]}], GRPC_PORT),
        "http": ([any_path], HTTP_PORT),
    }
    remove_header = {
        "type": "RequestHeaderModifier",
        "requestHeaderModifier": {"remove": [CLIENT_HEADER]},
    }
    return [
        {
            "name": name,
            "matches": match,
            "filters": [remove_header]
            if name.startswith("open-")
            else [*([] if clients else [remove_header]), *filters],
            "backendRefs": [
                {
                    "group": "",
                    "kind": "Service",
                    "name": service_name(model, version),
                    "port": WITH_TLS[port] if version in encrypted else port,
                    "weight": weight,
                }
                for version, weight in sorted(weights.items())
                if weight > 0
            ],
            "timeouts": {"request": f"{REQUEST_SECONDS}s"},
        }
        for name, (match, port) in matches.items()
    ]


def service_name(model: str, version: int) -> str:
    """Return the name of the Service that KServe makes for a version."""
    return f"{serving_name(model, version)}-predictor"


def retry_policy(model: str) -> Json:
    """Return the spec of the BackendTrafficPolicy with the retries of a model's route.

    A request is repeated when its connection breaks, because inference changes nothing and the
    request keeps its id. 503 is the answer of a server that is not ready. An overloaded server
    answers with x-envoy-ratelimited or RESOURCE_EXHAUSTED, and such requests are not repeated.
    Envoy Gateway itself chooses an endpoint that was not tried before.
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


def annotations(state: Mapping[str, str]) -> dict[str, str]:
    """Return the annotations of the route for a state; a value that the state lacks is empty."""
    shown = {annotation: state.get(key, "") for key, annotation in SHOWN.items()}
    return {STATE: msgspec.json.encode(state).decode(), **shown}


def parse(found: Json, model: str) -> Route | None:
    """Return the route that an HTTPRoute describes; None if it sends nothing to any version.

    A person may have changed it. A Service of something else is left out. Weights that do not add
    up to 100 are proportions for the gateway, so they become percentages.
    """
    text = found["metadata"].get("annotations", {}).get(STATE, "{}")
    weights: dict[int, int] = {}
    prefix, suffix = service_name(model, 0).split("0")
    for backend in (found["spec"].get("rules") or [{}])[-1].get("backendRefs", []):
        version = backend["name"].removeprefix(prefix).removesuffix(suffix)
        if version.isdecimal() and backend["name"] == service_name(model, int(version)):
            weights[int(version)] = backend.get("weight", 1)
    try:
        state = msgspec.json.decode(text, type=dict[str, str])
    except msgspec.MsgspecError as error:
        state = {UNREADABLE: f"annotation {STATE}={text[:200]!r}: {error}"}
    percentages = _percentages({v: weight for v, weight in weights.items() if weight > 0})
    return Route(percentages, state, _changed_by(found["metadata"])) if percentages else None


def _changed_by(metadata: Json) -> dict[str, str]:
    """Return who has changed the rules and the state since they were applied, and when."""
    found: dict[str, list[str]] = {"weights": [], "state": []}
    for entry in metadata.get("managedFields", []):
        if entry["manager"] == FIELD_MANAGER:
            continue
        fields = entry.get("fieldsV1", {})
        who = f"{entry['manager']} at {entry.get('time', 'an unknown time')}"
        if "f:rules" in fields.get("f:spec", {}):
            found["weights"].append(who)
        if f"f:{STATE}" in fields.get("f:metadata", {}).get("f:annotations", {}):
            found["state"].append(who)
    return {part: ", ".join(people) for part, people in found.items() if people}


def _percentages(weights: Mapping[int, int]) -> dict[int, int]:
    """Return whole percentages that add up to 100, rounded by the largest remainder."""
    total = sum(weights.values())
    found = {version: 100 * weight // total for version, weight in weights.items()}
    by_remainder = sorted(weights, key=lambda version: -(100 * weights[version] % total))
    for version in by_remainder[: 100 - sum(found.values())]:
        found[version] += 1
    return {version: percentage for version, percentage in found.items() if percentage}


def _exact(path: str) -> Json:
    return {"path": {"type": "Exact", "value": path}}
