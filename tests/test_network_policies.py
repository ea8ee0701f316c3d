"""The evaluator of NetworkPolicies that the story on a cluster judges connections by."""

from typing import Any

import pytest
from policies import Place, Rules, matches

Json = dict[str, Any]

SPACES = {
    "shop": {"kubernetes.io/metadata.name": "shop", "team": "sales"},
    "bank": {"kubernetes.io/metadata.name": "bank"},
}
WEB = Place("10.0.0.1", "web-1", "shop", {"app": "web"})
DATABASE = Place("10.0.0.2", "db-1", "shop", {"app": "db"}, {"sql": ("TCP", 5432)})
TELLER = Place("10.0.1.1", "teller-1", "bank", {"app": "web"})
STRANGER = Place("192.0.2.7")


def policy(spec: Json, namespace: str = "shop") -> Json:
    return {"metadata": {"name": "one", "namespace": namespace}, "spec": spec}


def allowed(
    source: Place, target: Place, *specs: Json, port: int = 5432, kind: str = "TCP"
) -> bool:
    rules = Rules([policy(spec) for spec in specs], SPACES)
    return not rules.refusal(source, target, port, kind)


def into(*rules: Json) -> Json:
    return {"podSelector": {"matchLabels": {"app": "db"}}, "ingress": list(rules)}


def test_what_no_policy_governs_is_open() -> None:
    assert allowed(WEB, DATABASE)
    assert allowed(STRANGER, DATABASE)
    assert allowed(WEB, DATABASE, {"podSelector": {"matchLabels": {"app": "other"}}})


def test_a_policy_without_rules_denies_all_in_its_directions() -> None:
    ingress: Json = {"podSelector": {}}
    assert not allowed(WEB, DATABASE, ingress)
    assert allowed(DATABASE, STRANGER, ingress)
    assert not allowed(DATABASE, STRANGER, {"podSelector": {}, "policyTypes": ["Egress"]})
    assert allowed(TELLER, STRANGER, {"podSelector": {}, "policyTypes": ["Egress"]}), "not its own"


def test_egress_rules_alone_govern_egress_and_deny_ingress() -> None:
    spec: Json = {"podSelector": {}, "egress": [{"to": [{"podSelector": {}}]}]}
    assert not allowed(WEB, STRANGER, spec)
    assert not allowed(STRANGER, WEB, spec), "policyTypes has Ingress where it is not given"


def test_both_ends_must_allow() -> None:
    out: Json = {
        "podSelector": {"matchLabels": {"app": "web"}},
        "policyTypes": ["Egress"],
        "egress": [{"to": [{"podSelector": {"matchLabels": {"app": "db"}}}]}],
    }
    assert allowed(WEB, DATABASE, out)
    assert not allowed(WEB, DATABASE, out, into())
    assert allowed(WEB, DATABASE, out, into({}))


def test_policies_add_up() -> None:
    assert allowed(WEB, DATABASE, {"podSelector": {}}, into({}))


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
def test_a_peer_is_who_all_of_its_selectors_select(peer: Json, web: bool, teller: bool) -> None:
    assert allowed(WEB, DATABASE, into({"from": [peer]})) is web
    assert allowed(TELLER, DATABASE, into({"from": [peer]})) is teller


def test_who_is_no_pod_is_selected_by_its_address_only() -> None:
    assert not allowed(STRANGER, DATABASE, into({"from": [{"namespaceSelector": {}}]}))
    assert not allowed(STRANGER, DATABASE, into({"from": [{"podSelector": {}}]}))
    assert allowed(STRANGER, DATABASE, into({"from": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}))


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
def test_a_port_is_the_targets_by_number_range_or_name(
    ports: list[Json], port: int, kind: str, good: bool
) -> None:
    assert allowed(WEB, DATABASE, into({"ports": ports}), port=port, kind=kind) is good


def test_peers_and_ports_of_a_rule_count_together_and_those_of_two_do_not() -> None:
    web = {"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": 80}]}
    other = {"from": [{"podSelector": {"matchLabels": {"app": "x"}}}], "ports": [{"port": 5432}]}
    assert not allowed(WEB, DATABASE, into(web))
    assert not allowed(WEB, DATABASE, into(web, other))
    assert allowed(WEB, DATABASE, into(web, {"ports": [{"port": 5432}]}))


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


def test_a_refusal_names_who_what_and_which_side() -> None:
    said = Rules([policy({"podSelector": {}})], SPACES).refusal(WEB, DATABASE, 5432, "TCP")
    assert said == "shop/web-1 -> shop/db-1:5432/TCP: the policies of the target do not allow it"
