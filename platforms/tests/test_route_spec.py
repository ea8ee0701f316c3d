"""An HTTPRoute is read as what the gateway does with it, whatever a person has written into it."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from watchkeeper.platforms import Route
from watchkeeper.platforms.kube.route_spec import parse, rules

MODEL = "pump-failure"
versions = st.integers(1, 9)


def http_route(rules_: list[dict[str, Any]]) -> dict[str, Any]:
    return {"metadata": {}, "spec": {"rules": rules_}}


@given(first=versions, second=versions, percent=st.integers(1, 99))
def test_a_route_is_read_as_written(first: int, second: int, percent: int) -> None:
    weights = {first: 100} if first == second else {first: percent, second: 100 - percent}
    assert parse(http_route(rules(MODEL, weights)), MODEL) == Route(weights)


@given(weights=st.dictionaries(versions, st.integers(0, 1_000_000), max_size=5))
def test_any_weights_are_read_as_the_shares_that_the_gateway_gives(weights: dict[int, int]) -> None:
    found = parse(http_route(rules(MODEL, weights)), MODEL)
    total = sum(weights.values())
    if total == 0:
        assert found is None
        return
    assert found is not None
    assert sum(found.weights.values()) == 100
    for version, weight in weights.items():
        assert abs(found.weights.get(version, 0) - 100 * weight / total) < 1


def test_a_route_to_something_else_is_no_route_of_the_model() -> None:
    (*others, last) = rules(MODEL, {1: 100})
    (backend,) = last["backendRefs"]
    for backends in ([], [{**backend, "name": "web"}]):
        assert parse(http_route([*others, {**last, "backendRefs": backends}]), MODEL) is None
    assert parse(http_route([]), MODEL) is None
