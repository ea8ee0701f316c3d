"""The evaluation of NetworkPolicies, which the end-to-end scenarios use."""

from typing import Any

import pytest
from network_policies import Endpoint, NetworkPolicies, matches

Json = dict[str, Any]

NAMESPACES = {
    "shop": {"kubernetes.io/metadata.name": "shop", "team": "sales"},
    "bank": {"kubernetes.io/metadata.name": "bank"},
}
WEB = Endpoint("10.0.0.1", "web-1", "shop", {"app": "web"})
DATABASE = Endpoint("10.0.0.2", "db-1", "shop", {"app": "db"}, {"sql": ("TCP", 5432)})
TELLER = Endpoint("10.0.1.1", "teller-1", "bank", {"app": "web"})
EXTERNAL = Endpoint("192.0.2.7")


def policy(spec: Json, namespace: str = "shop") -> Json:
    return {"metadata": {"name": "one", "namespace": namespace}, "spec": spec}


def allowed(
    source: Endpoint, target: Endpoint, *specs: Json, port: int = 5432, kind: str = "TCP"
) -> bool:
    policies = NetworkPolicies([policy(spec) for spec in specs], NAMESPACES)
    return not policies.denial(source, target, port, kind)


def ingress(*rules: Json) -> Json:
    return {"podSelector": {"matchLabels": {"app": "db"}}, "ingress": list(rules)}


def test_a_pod_that_no_policy_selects_allows_all() -> None:
    assert allowed(WEB, DATABASE)
    assert allowed(EXTERNAL, DATABASE)
    assert allowed(WEB, DATABASE, {"podSelector": {"matchLabels": {"app": "other"}}})


def test_a_policy_without_rules_denies_all_in_its_directions() -> None:
    empty: Json = {"podSelector": {}}
    assert not allowed(WEB, DATABASE, empty)
    assert allowed(DATABASE, EXTERNAL, empty)
    assert not allowed(DATABASE, EXTERNAL, {"podSelector": {}, "policyTypes": ["Egress"]})
    assert allowed(TELLER, EXTERNAL, {"podSelector": {}, "policyTypes": ["Egress"]}), (
        "a policy of another namespace"
    )


def test_egress_rules_alone_govern_egress_and_deny_ingress() -> None:
    spec: Json = {"podSelector": {}, "egress": [{"to": [{"podSelector": {}}]}]}
    assert not allowed(WEB, EXTERNAL, spec)
    assert not allowed(EXTERNAL, WEB, spec), "without policyTypes, Ingress is included"


def test_both_ends_must_allow() -> None:
    out: Json = {
        "podSelector": {"matchLabels": {"app": "web"}},
        "policyTypes": ["Egress"],
        "egress": [{"to": [{"podSelector": {"matchLabels": {"app": "db"}}}]}],
    }
    assert allowed(WEB, DATABASE, out)
    assert not allowed(WEB, DATABASE, out, ingress())
    assert allowed(WEB, DATABASE, out, ingress({}))


def test_one_of_several_policies_is_enough() -> None:
    assert allowed(WEB, DATABASE, {"podSelector": {}}, ingress({}))


@pytest.mark.parametrize(
    ("peer", "web", "teller"),
    [
        ({"podSelector": {"matchLabels": {"app": "web"}}}, True, False),
        ({"namespaceSelector": {}}, True, True),
        ({"namespaceSelector": {"matchLabels": {"team": "sales"}}}, True, False),
        (
            {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "bank"}},
                "podSelector": {"matchLabels": {"app": "web"}},
            },
            False,
            True,
        ),
        ({"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "x"}}}, False, False),
        ({"ipBlock": {"cidr": "10.0.0.0/23"}}, True, True),
        ({"ipBlock": {"cidr": "10.0.0.0/23", "except": ["10.0.1.0/24"]}}, True, False),
    ],
)
def test_all_selectors_of_a_peer_must_match(peer: Json, web: bool, teller: bool) -> None:
    assert allowed(WEB, DATABASE, ingress({"from": [peer]})) is web
    assert allowed(TELLER, DATABASE, ingress({"from": [peer]})) is teller


def test_only_an_address_block_selects_an_address_without_a_pod() -> None:
    assert not allowed(EXTERNAL, DATABASE, ingress({"from": [{"namespaceSelector": {}}]}))
    assert not allowed(EXTERNAL, DATABASE, ingress({"from": [{"podSelector": {}}]}))
    assert allowed(EXTERNAL, DATABASE, ingress({"from": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}))


@pytest.mark.parametrize(
    ("ports", "port", "kind", "good"),
    [
        ([{"port": 5432}], 5432, "TCP", True),
        ([{"port": 5432}], 5432, "UDP", False),
        ([{"port": 5432}], 5433, "TCP", False),
        ([{"port": 5432, "protocol": "UDP"}], 5432, "UDP", True),
        ([{"port": 5000, "endPort": 6000}], 5432, "TCP", True),
        ([{"port": 5000, "endPort": 5100}], 5432, "TCP", False),
        ([{"port": "sql"}], 5432, "TCP", True),
        ([{"port": "sql"}], 80, "TCP", False),
        ([{"port": "other"}], 5432, "TCP", False),
        ([{"protocol": "UDP"}], 5432, "TCP", False),
        ([{"port": 80}, {"port": 5432}], 5432, "TCP", True),
    ],
)
def test_a_port_is_a_number_a_range_or_a_name(
    ports: list[Json], port: int, kind: str, good: bool
) -> None:
    assert allowed(WEB, DATABASE, ingress({"ports": ports}), port=port, kind=kind) is good


def test_peers_and_ports_must_match_in_the_same_rule() -> None:
    web = {"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": 80}]}
    other = {"from": [{"podSelector": {"matchLabels": {"app": "x"}}}], "ports": [{"port": 5432}]}
    assert not allowed(WEB, DATABASE, ingress(web))
    assert not allowed(WEB, DATABASE, ingress(web, other))
    assert allowed(WEB, DATABASE, ingress(web, {"ports": [{"port": 5432}]}))


@pytest.mark.parametrize(
    ("expression", "good"),
    [
        ({"key": "app", "operator": "In", "values": ["web", "db"]}, True),
        ({"key": "app", "operator": "In", "values": ["db"]}, False),
        ({"key": "app", "operator": "NotIn", "values": ["db"]}, True),
        ({"key": "none", "operator": "NotIn", "values": ["db"]}, True),
        ({"key": "app", "operator": "Exists"}, True),
        ({"key": "none", "operator": "Exists"}, False),
        ({"key": "none", "operator": "DoesNotExist"}, True),
    ],
)
def test_expressions_select_labels(expression: Json, good: bool) -> None:
    assert matches({"matchExpressions": [expression]}, {"app": "web"}) is good


def test_a_denial_names_both_ends_the_port_and_the_side() -> None:
    denial = NetworkPolicies([policy({"podSelector": {}})], NAMESPACES).denial(
        WEB, DATABASE, 5432, "TCP"
    )
    assert denial == "shop/web-1 -> shop/db-1:5432/TCP: the policies of the target do not allow it"
