"""What a gateway says about the Gateway, the route and the policies of a model, in their status.

The functions return what the gateway does not do although it should, for people. A status about an
older generation does not count.
"""

import re
from collections.abc import Collection, Iterator

from watchkeeper.platforms.kube.api import GATEWAY, HTTP_ROUTE, Api, Json
from watchkeeper.platforms.kube.cluster_config import ClusterConfig


def gateway_problems(api: Api, config: ClusterConfig) -> list[str]:
    """Return why no listener of the Gateway takes the routes; empty if one does.

    A Gateway in another namespace cannot be read; the status of a route says if it is refused.
    """
    name, listener = str(config.gateway["name"]), config.gateway.get("sectionName")
    if config.gateway.get("namespace", api.namespace) != api.namespace:
        return []
    found = api.find(GATEWAY, name)
    if found is None:
        return [f"there is no Gateway {name} in namespace {api.namespace}"]
    names = [each["name"] for each in found["spec"]["listeners"]]
    if listener is not None and listener not in names:
        return [f"Gateway {name} has no listener {listener}; it has {', '.join(names)}"]
    statuses = [
        each
        for each in found.get("status", {}).get("listeners", [])
        if listener in (None, each["name"])
    ]
    refused = {each["name"]: _listener_problem(each, found) for each in statuses}
    if not all(refused.values()):
        return []
    return [f"Gateway {name}, listener {each}: {why}" for each, why in refused.items()]


def route_problems(api: Api, model: str) -> list[str]:
    """Return why the gateway does not accept the route of a model; empty if there is none."""
    found = api.find(HTTP_ROUTE, model)
    if found is None:
        return []
    return [
        f"the gateway does not accept HTTPRoute {model}: {_text(condition)}"
        for parent in found.get("status", {}).get("parents", [])
        for condition in _current(parent, found)
        if (condition["type"], condition["status"]) == ("Accepted", "False")
    ]


def policy_problem(policy: Json, own_rules: Collection[str]) -> str:
    """Return why the gateway does not apply a policy of a route, or "".

    Args:
        policy: The policy.
        own_rules: The rules of the route for which another policy of ours is in force instead.
    """
    name = f"{policy['kind']} {policy['metadata']['name']}"
    for ancestor in policy.get("status", {}).get("ancestors", []):
        for condition in _current(ancestor, policy):
            match condition["type"], condition["status"]:
                case "Accepted", "False" if condition.get("reason") != "TargetNotFound":
                    return f"the gateway does not apply {name}: {_text(condition)}"
                case "Overridden", "True" if not _named(condition) <= {*own_rules}:
                    return f"the gateway does not apply {name} to all requests: {_text(condition)}"
    return ""


def _listener_problem(status: Json, gateway: Json) -> str:
    for condition in _current(status, gateway):
        match condition["type"], condition["status"]:
            case ("Conflicted", "True") | ("Accepted" | "ResolvedRefs", "False"):
                return _text(condition)
    return ""


def _named(condition: Json) -> set[str]:
    """Return the rules that Envoy Gateway names: "... for these route rules: [grpc http]"."""
    found = re.search(r"route rules: \[(.*)\]", condition.get("message", ""))
    return set(found[1].split()) if found else {"unknown"}


def _current(status: Json, about: Json) -> Iterator[Json]:
    generation = about["metadata"]["generation"]
    for condition in status.get("conditions", []):
        if condition.get("observedGeneration", generation) == generation:
            yield condition


def _text(condition: Json) -> str:
    return f"{condition.get('reason', condition['type'])}: {condition.get('message', '')}"
