"""What NetworkPolicies allow, by the rules of their API: nothing here enforces them."""

import ipaddress
from collections.abc import Callable
from typing import Any

import msgspec

Json = dict[str, Any]

ALL: Json = {}  # the peers of a rule that names none


class Place(msgspec.Struct, frozen=True):
    """One end of a connection: an address, and the pod that has it, if one does."""

    address: str
    pod: str = ""
    namespace: str = ""
    labels: dict[str, str] = {}
    ports: dict[str, tuple[str, int]] = {}  # protocol and number by name

    def __str__(self) -> str:
        return f"{self.namespace}/{self.pod}" if self.pod else self.address


class Rules:
    """All policies of a cluster, and the labels of its namespaces."""

    def __init__(self, policies: list[Json], namespaces: dict[str, dict[str, str]]) -> None:
        self._policies = policies
        self._namespaces = namespaces

    def refusal(self, source: Place, target: Place, port: int, protocol: str) -> str:
        """Say which end refuses a connection, nothing when both allow it."""
        what = f"{source} -> {target}:{port}/{protocol}"

        def fits(rule: Json) -> bool:
            return _port_allowed(rule.get("ports"), target, port, protocol)

        if not self._allows("Egress", source, target, fits):
            return f"{what}: the policies of the source do not allow it"
        if not self._allows("Ingress", target, source, fits):
            return f"{what}: the policies of the target do not allow it"
        return ""

    def governing(self, place: Place, direction: str) -> list[Json]:
        """Return the policies that govern a pod in a direction."""
        return [
            policy
            for policy in self._policies
            if place.pod
            and policy["metadata"]["namespace"] == place.namespace
            and direction in _directions(policy["spec"])
            and matches(policy["spec"].get("podSelector") or {}, place.labels)
        ]

    def _allows(
        self, direction: str, mine: Place, other: Place, fits: Callable[[Json], bool]
    ) -> bool:
        governing = self.governing(mine, direction)
        key, side = {"Egress": ("egress", "to"), "Ingress": ("ingress", "from")}[direction]
        return not governing or any(
            fits(rule)
            and any(self._is_peer(peer, policy, other) for peer in rule.get(side) or [ALL])
            for policy in governing
            for rule in policy["spec"].get(key) or []
        )

    def _is_peer(self, peer: Json, policy: Json, other: Place) -> bool:
        if peer is ALL:
            return True
        if block := peer.get("ipBlock"):
            address = ipaddress.ip_address(other.address)
            return address in ipaddress.ip_network(block["cidr"]) and not any(
                address in ipaddress.ip_network(one) for one in block.get("except") or []
            )
        if not other.pod:
            return False
        spaces = peer.get("namespaceSelector")
        right_space = (
            other.namespace == policy["metadata"]["namespace"]
            if spaces is None
            else matches(spaces, self._namespaces.get(other.namespace, {}))
        )
        return right_space and matches(peer.get("podSelector") or {}, other.labels)


def matches(selector: Json, labels: dict[str, str]) -> bool:
    """Tell whether a label selector selects these labels; the empty one selects all."""
    wanted = selector.get("matchLabels") or {}
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        _holds(expression, labels) for expression in selector.get("matchExpressions") or []
    )


def _directions(spec: Json) -> list[str]:
    """Return what a policy governs; one that does not say governs egress if it has such rules."""
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
    raise AssertionError(f"no such operator: {expression}")


def _port_allowed(ports: list[Json] | None, target: Place, port: int, protocol: str) -> bool:
    if not ports:
        return True
    for one in ports:
        if one.get("protocol", "TCP") != protocol:
            continue
        wanted = one.get("port")
        if isinstance(wanted, str):
            of, wanted = target.ports.get(wanted, ("", -1))
            if of != protocol:
                continue
        if wanted is None or wanted <= port <= one.get("endPort", wanted):
            return True
    return False
