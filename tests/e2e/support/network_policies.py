"""Evaluates NetworkPolicies by the rules of their API, without enforcing them."""

import ipaddress
from collections.abc import Callable
from typing import Any

import msgspec

Json = dict[str, Any]

ANY_PEER: Json = {}  # stands for the missing peers of a rule


class Endpoint(msgspec.Struct, frozen=True):
    """One end of a connection: an address, and the pod with this address, if there is one.

    ``ports`` maps the names of container ports to protocol and number.
    """

    address: str
    pod: str = ""
    namespace: str = ""
    labels: dict[str, str] = {}
    ports: dict[str, tuple[str, int]] = {}

    def __str__(self) -> str:
        return f"{self.namespace}/{self.pod}" if self.pod else self.address


class NetworkPolicies:
    """All policies of a cluster, and the labels of its namespaces by name."""

    def __init__(self, policies: list[Json], namespaces: dict[str, dict[str, str]]) -> None:
        self._policies = policies
        self._namespaces = namespaces

    def denial(self, source: Endpoint, target: Endpoint, port: int, protocol: str) -> str:
        """Return which end denies a connection, or an empty text if both ends allow it."""
        connection = f"{source} -> {target}:{port}/{protocol}"

        def has_port(rule: Json) -> bool:
            return _port_allowed(rule.get("ports"), target, port, protocol)

        if not self._allows("Egress", source, target, has_port):
            return f"{connection}: the policies of the source do not allow it"
        if not self._allows("Ingress", target, source, has_port):
            return f"{connection}: the policies of the target do not allow it"
        return ""

    def selecting(self, endpoint: Endpoint, direction: str) -> list[Json]:
        """Return the policies that select a pod and apply to a direction."""
        return [
            policy
            for policy in self._policies
            if endpoint.pod
            and policy["metadata"]["namespace"] == endpoint.namespace
            and direction in _directions(policy["spec"])
            and matches(policy["spec"].get("podSelector") or {}, endpoint.labels)
        ]

    def _allows(
        self, direction: str, endpoint: Endpoint, peer: Endpoint, has_port: Callable[[Json], bool]
    ) -> bool:
        policies = self.selecting(endpoint, direction)
        key, side = {"Egress": ("egress", "to"), "Ingress": ("ingress", "from")}[direction]
        return not policies or any(
            has_port(rule)
            and any(self._matches_peer(each, policy, peer) for each in rule.get(side) or [ANY_PEER])
            for policy in policies
            for rule in policy["spec"].get(key) or []
        )

    def _matches_peer(self, rule: Json, policy: Json, peer: Endpoint) -> bool:
        if rule is ANY_PEER:
            return True
        if block := rule.get("ipBlock"):
            address = ipaddress.ip_address(peer.address)
            return address in ipaddress.ip_network(block["cidr"]) and not any(
                address in ipaddress.ip_network(each) for each in block.get("except") or []
            )
        if not peer.pod:
            return False
        selector = rule.get("namespaceSelector")
        in_namespace = (
            peer.namespace == policy["metadata"]["namespace"]
            if selector is None
            else matches(selector, self._namespaces.get(peer.namespace, {}))
        )
        return in_namespace and matches(rule.get("podSelector") or {}, peer.labels)


def matches(selector: Json, labels: dict[str, str]) -> bool:
    """Return True if a label selector selects these labels. An empty selector selects all."""
    wanted = selector.get("matchLabels") or {}
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        _holds(expression, labels) for expression in selector.get("matchExpressions") or []
    )


def _directions(spec: Json) -> list[str]:
    """Return the directions of a policy. Without policyTypes, egress rules decide."""
    default = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]
    return spec.get("policyTypes") or default


def _holds(expression: Json, labels: dict[str, str]) -> bool:
    value = labels.get(expression["key"])
    match expression["operator"]:
        case "In":
            return value in expression["values"]
        case "NotIn":
            return value not in expression["values"]
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
    raise AssertionError(f"unknown operator: {expression}")


def _port_allowed(ports: list[Json] | None, target: Endpoint, port: int, protocol: str) -> bool:
    if not ports:
        return True
    for rule in ports:
        if rule.get("protocol", "TCP") != protocol:
            continue
        wanted = rule.get("port")
        if isinstance(wanted, str):
            named_protocol, wanted = target.ports.get(wanted, ("", -1))
            if named_protocol != protocol:
                continue
        if wanted is None or wanted <= port <= rule.get("endPort", wanted):
            return True
    return False
