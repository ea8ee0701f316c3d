"""Routing of requests by the gateway of a local system."""

import collections
import concurrent.futures
import os
import signal
from collections.abc import Iterator
from functools import partial

import grpc
import httpx
import local_system
import pytest
from local_system import MODEL, OTHER, serve
from waiting import wait_for

from watchkeeper.platforms import Route
from watchkeeper.platforms.local import LocalPlatform
from watchkeeper.platforms.local.ports import free_port, is_free


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPlatform]:
    with local_system.running(tmp_path_factory.mktemp("system")) as platform:
        serve(platform, 1, 2)
        yield platform


@pytest.fixture
def v2(platform: LocalPlatform) -> Iterator[httpx.Client]:
    port = platform.home.read_config().ports.v2
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
        yield client


@pytest.fixture
def operations(platform: LocalPlatform) -> Iterator[httpx.Client]:
    port = platform.home.read_config().ports.operations
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
        yield client


def route(platform: LocalPlatform, weights: dict[int, int], model: str = MODEL) -> None:
    platform.set_route(model, Route(weights))
    wait_for(lambda: platform.confirmed(model))


def infer(client: httpx.Client, **headers: str) -> httpx.Response:
    return client.post(f"/v2/models/{MODEL}/infer", json={}, headers=headers)


def versions_over_http(client: httpx.Client, count: int) -> collections.Counter[str]:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: infer(client), range(count)))
    return collections.Counter(
        a.json()["version"] if a.is_success else str(a.status_code) for a in answers
    )


def call(platform: LocalPlatform, count: int, authority: str = "any") -> collections.Counter[str]:
    port = platform.home.read_config().ports.v2
    options = [("grpc.default_authority", authority)]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
        method = channel.unary_unary("/stand.In/Infer")
        pending = [method.future(b"", timeout=20) for _ in range(count)]
        return collections.Counter(future.result().decode() for future in pending)


def test_a_confirmed_weight_is_exact_to_one_request_with_both_protocols(
    platform: LocalPlatform, v2: httpx.Client
) -> None:
    """Envoy schedules by floating point deadlines: equal ones may swap, about once in 1,000."""
    route(platform, {1: 75, 2: 25})
    for counted in (versions_over_http(v2, 1000), call(platform, 1000)):
        assert counted.keys() == {"1", "2"}
        assert counted.total() == 1000
        assert abs(counted["2"] - 250) <= 1


def test_a_new_weight_holds_as_soon_as_it_is_confirmed(
    platform: LocalPlatform, v2: httpx.Client
) -> None:
    route(platform, {1: 100})
    for percent in (10, 25, 50):
        route(platform, {1: 100 - percent, 2: percent})
        assert versions_over_http(v2, 100)["2"] in (percent - 1, percent, percent + 1)
    route(platform, {2: 100})
    assert versions_over_http(v2, 50) == {"2": 50}
    assert call(platform, 50) == {"2": 50}


def test_feedback_and_readiness_take_no_share_of_the_canarys_requests(
    platform: LocalPlatform, v2: httpx.Client
) -> None:
    """A client that sends a label after each request must not send only labels to the canary."""
    route(platform, {1: 90, 2: 10})
    asked = collections.Counter[str]()
    labelled = collections.Counter[str]()
    for _ in range(100):
        asked[infer(v2).json()["version"]] += 1
        labelled[v2.post(f"/v2/models/{MODEL}/feedback", json={}).json()["version"]] += 1
    assert abs(asked["2"] - 10) <= 1
    assert abs(labelled["2"] - 10) <= 1


def test_no_request_fails_when_the_canary_is_killed(
    platform: LocalPlatform, v2: httpx.Client
) -> None:
    route(platform, {1: 90, 2: 10})
    victim = platform.supervisor.states()["server.pump-failure-v2"].pid
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = []
        for number, answer in enumerate(pool.map(lambda _: infer(v2), range(1000))):
            answers.append(answer.status_code)
            if number == 200:
                os.kill(victim, signal.SIGKILL)
    assert collections.Counter(answers) == {200: 1000}
    wait_for(lambda: platform.serving(MODEL)[2].state == "ready")
    wait_for(lambda: platform.confirmed(MODEL))


def test_no_grpc_call_fails_when_stable_is_killed(platform: LocalPlatform) -> None:
    route(platform, {1: 90, 2: 10})
    os.kill(platform.supervisor.states()["server.pump-failure-v1"].pid, signal.SIGKILL)
    assert call(platform, 1000).total() == 1000
    wait_for(lambda: platform.serving(MODEL)[1].state == "ready")
    wait_for(lambda: platform.confirmed(MODEL))


def test_the_only_server_gets_requests_as_soon_as_it_has_restarted(
    platform: LocalPlatform, v2: httpx.Client
) -> None:
    route(platform, {1: 100})
    for _ in range(2):
        before = platform.supervisor.states()["server.pump-failure-v1"].pid
        os.kill(before, signal.SIGKILL)
        wait_for(partial(restarted_under_requests, platform, v2, before))
        wait_for(lambda: platform.serving(MODEL)[1].state == "ready")
        assert infer(v2).status_code == 200


def restarted_under_requests(platform: LocalPlatform, v2: httpx.Client, before: int) -> bool:
    """Send a request, so that the gateway notices the end; return whether the server is new."""
    infer(v2)
    return platform.supervisor.states()["server.pump-failure-v1"].pid != before


def test_reconcile_writes_an_outdated_endpoint_file_again(platform: LocalPlatform) -> None:
    route(platform, {1: 100})
    stale = (platform.home.gateway / MODEL / "http.json").read_bytes()
    route(platform, {1: 75, 2: 25})
    (platform.home.gateway / MODEL / ".stale").write_bytes(stale)
    (platform.home.gateway / MODEL / ".stale").replace(platform.home.gateway / MODEL / "http.json")
    for _ in range(2):
        assert not platform.confirmed(MODEL), "reading hands nothing to the gateway"
    platform.reconcile(MODEL)
    wait_for(lambda: platform.confirmed(MODEL))
    assert b'"v2"' in (platform.home.gateway / MODEL / "http.json").read_bytes()


def test_a_retry_goes_to_another_version_with_the_same_request_id(
    platform: LocalPlatform, v2: httpx.Client
) -> None:
    route(platform, {1: 50, 2: 50})
    for _ in range(10):
        answer = v2.post(f"/v2/models/{MODEL}/second-try")
        assert answer.status_code == 200
        seen = answer.json()["headers"]
        assert seen["x-envoy-attempt-count"] == "2"
        other = {"1": 2, "2": 1}[answer.json()["version"]]
        log = platform.home.log(f"server.{MODEL}-v{other}")
        wait_for(lambda log=log, seen=seen: seen["x-request-id"] in log.read_text())


def test_a_request_that_an_overloaded_server_rejects_is_not_retried(
    platform: LocalPlatform, v2: httpx.Client
) -> None:
    route(platform, {1: 50, 2: 50})
    answers = [v2.post(f"/v2/models/{MODEL}/overloaded") for _ in range(10)]
    assert {(a.status_code, a.headers["retry-after"]) for a in answers} == {(503, "1")}
    logs = [platform.home.log(f"server.{MODEL}-v{version}") for version in (1, 2)]

    def rejected() -> int:
        return sum(log.read_text().count("rejected") for log in logs)

    wait_for(lambda: rejected() >= 10)
    assert rejected() == 10


def test_a_call_that_an_overloaded_server_rejects_is_not_retried(
    platform: LocalPlatform,
) -> None:
    route(platform, {1: 50, 2: 50})
    port = platform.home.read_config().ports.v2
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        method = channel.unary_unary("/stand.In/Overloaded")
        for number in range(10):
            with pytest.raises(grpc.RpcError) as error:
                method(b"", timeout=20)
            assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert error.value.details() == "attempt 1", number


def test_the_gateway_sets_the_request_id(platform: LocalPlatform, v2: httpx.Client) -> None:
    route(platform, {1: 100})
    forged = {"x-request-id": "mine", "x-envoy-attempt-count": "7", "x-envoy-max-retries": "0"}
    seen = infer(v2, **forged).json()["headers"]
    assert seen["x-request-id"] != "mine"
    assert len(seen["x-request-id"].replace("-", "")) == 32
    assert seen["x-envoy-attempt-count"] == "1"
    assert "x-envoy-max-retries" not in seen
    assert infer(v2).json()["headers"]["x-request-id"] != seen["x-request-id"]


def test_host_or_path_selects_the_model_on_the_shared_port(
    platform: LocalPlatform, v2: httpx.Client
) -> None:
    serve(platform, 5, model=OTHER)
    route(platform, {1: 100})
    route(platform, {5: 100}, OTHER)
    assert infer(v2).json()["version"] == "1"
    assert infer(v2, host=MODEL).json()["version"] == "1"
    assert infer(v2, host=f"{OTHER}:8080").json()["version"] == "5"
    assert infer(v2, host=f"{OTHER}.example.com").json()["version"] == "5"
    assert v2.post(f"/v2/models/{OTHER}/versions/5/infer").json()["version"] == "5"
    assert v2.get("/v2/health/ready").json()["version"] == "1"
    assert call(platform, 1, OTHER) == {"5": 1}
    assert call(platform, 1) == {"1": 1}


def test_drift_and_metrics_have_stable_urls(
    platform: LocalPlatform, operations: httpx.Client
) -> None:
    for weights, production in ({1: 75, 2: 25}, "1"), ({2: 100}, "2"):
        route(platform, weights)
        for path in ("/drift", f"/drift/{MODEL}"):
            answer = operations.get(path).json()
            assert (answer["version"], answer["page"]) == (production, "/drift")
        assert operations.get(f"/metrics/{MODEL}").json()["page"] == "/metrics"
    assert operations.get("/drift/nothing").status_code == 404


def test_an_error_of_the_gateway_has_a_body_of_the_v2_protocol(v2: httpx.Client) -> None:
    answer = v2.post(f"/v2/models/{MODEL}/infer", content=b"x" * (64 * 1024 * 1024 + 1))
    assert answer.status_code == 413
    assert answer.json()["error"].startswith("gateway: ")


def test_a_port_in_use_is_not_free(platform: LocalPlatform) -> None:
    port = platform.home.read_config().ports.v2
    assert not is_free(port)
    assert free_port(port) != port
