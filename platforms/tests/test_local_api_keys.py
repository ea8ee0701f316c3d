"""API keys at the gateway of a local system."""

import functools
from collections.abc import Iterator

import grpc
import httpx
import local_system
import pytest
from local_system import MODEL, serve
from waiting import wait_for

from watchkeeper.platforms import Route
from watchkeeper.platforms.local import LocalPlatform
from watchkeeper.platforms.local.api_keys import NAME_HEADER, read_keys

KEYS = {"line 4": "a key of line four", "the lab": "a-key-of-the-lab-0"}
KEYS = {name: key.replace(" ", "-") for name, key in KEYS.items()}
INFER = f"/v2/models/{MODEL}/infer"
FORGED = {NAME_HEADER: "another client"}
post = functools.partial(httpx.post, timeout=60.0)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPlatform]:
    with local_system.running(tmp_path_factory.mktemp("system")) as platform:
        serve(platform, 1)
        platform.set_route(MODEL, Route({1: 100}))
        wait_for(lambda: platform.confirmed(MODEL))
        declare(platform, KEYS)
        wait_for(lambda: post(url(platform, INFER)).status_code == 401)
        yield platform


def declare(platform: LocalPlatform, keys: dict[str, str]) -> None:
    installation = platform.home.read_config()
    platform.gateway.declare(installation.models, installation.ports, keys)


def url(platform: LocalPlatform, path: str) -> str:
    return f"http://127.0.0.1:{platform.home.read_config().ports.v2}{path}"


def seen(response: httpx.Response) -> dict[str, str]:
    """The headers that the server got."""
    assert response.status_code == 200, response.text
    found: dict[str, str] = response.json()["headers"]
    return found


@pytest.mark.parametrize("header", ["x-api-key", "authorization"])
@pytest.mark.parametrize("host", ["any", MODEL])
def test_the_gateway_replaces_a_key_by_the_name_of_the_client(
    platform: LocalPlatform, header: str, host: str
) -> None:
    for name, key in KEYS.items():
        headers = {header: f"Bearer {key}" if header == "authorization" else key, "host": host}
        got = seen(post(url(platform, INFER), headers={**headers, **FORGED}))
        assert got[NAME_HEADER] == name
        assert key not in str(got)


@pytest.mark.parametrize(
    "headers", [{}, {"x-api-key": "wrong"}, {"authorization": "Bearer wrong"}, {"x-api-key": ""}]
)
@pytest.mark.parametrize(
    "path",
    [
        INFER,
        f"/v2/models/{MODEL}/versions/1/infer",
        f"/v2/models/{MODEL}",
        f"/v2/models/{MODEL}?a=/ready",
        f"/v2/models/{MODEL}/infer?/v2/health/live",
        f"/v2/health/live/../../models/{MODEL}/infer",
        f"/v2/models/{MODEL}/feedback/../infer",
        f"/v2/models/{MODEL}//infer",
        "/v2",
    ],
)
def test_requests_without_a_valid_key_get_401_with_a_body_of_the_v2_protocol(
    platform: LocalPlatform, path: str, headers: dict[str, str]
) -> None:
    response = post(url(platform, path), headers={**headers, **FORGED})
    assert response.status_code == 401
    assert list(response.json()) == ["error"]


@pytest.mark.parametrize(
    "path",
    [
        f"/v2/models/{MODEL}/feedback",
        f"/v2/models/{MODEL}/ready",
        f"/v2/models/{MODEL}/versions/1/ready",
        "/v2/health/live",
        "/v2/health/ready",
    ],
)
def test_feedback_and_health_need_no_key_and_accept_no_client_name(
    platform: LocalPlatform, path: str
) -> None:
    token = {"authorization": "Bearer the token for labels"}
    got = seen(post(url(platform, path), headers={**token, **FORGED}))
    assert got["authorization"] == token["authorization"]
    assert NAME_HEADER not in got


def call(platform: LocalPlatform, method: str, *metadata: tuple[str, str]) -> str:
    port = platform.home.read_config().ports.v2
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            answered: bytes = channel.unary_unary(method)(b"", metadata=metadata, timeout=20)
        except grpc.RpcError as error:
            return str(error.code().name)
    return answered.decode()


def test_grpc_calls_need_a_key(platform: LocalPlatform) -> None:
    key = KEYS["line 4"]
    assert call(platform, "/stand.In/Infer", ("x-api-key", key)) == "1"
    assert call(platform, "/stand.In/Infer", ("authorization", f"Bearer {key}")) == "1"
    assert call(platform, "/stand.In/Infer") == "UNAUTHENTICATED"
    assert call(platform, "/stand.In/Infer", ("x-api-key", "wrong")) == "UNAUTHENTICATED"
    # The stand-in does not implement it, but the gateway forwards it.
    for health in ("/inference.GRPCInferenceService/ServerReady", "/grpc.health.v1.Health/Check"):
        assert call(platform, health) == "UNIMPLEMENTED"
    for other in ("/grpc.health.v1.Health/CheckX", "/grpcxhealth.v1.Health/Check"):
        assert call(platform, other) == "UNAUTHENTICATED"


def test_keys_change_without_a_restart_of_the_gateway(platform: LocalPlatform) -> None:
    pid = platform.supervisor.states()["gateway"].pid
    new = {"a new one": "its-key-for-a-while"}

    def status(key: str) -> int:
        return post(url(platform, INFER), headers={"x-api-key": key}).status_code

    try:
        declare(platform, new)
        wait_for(lambda: status(new["a new one"]) == 200)
        assert status(KEYS["line 4"]) == 401
        declare(platform, {})
        wait_for(lambda: status("none at all") == 200)
        got = seen(post(url(platform, INFER), headers=FORGED))
        assert got[NAME_HEADER] == FORGED[NAME_HEADER]
    finally:
        declare(platform, KEYS)
        wait_for(lambda: status(new["a new one"]) == 401)
    assert platform.supervisor.states()["gateway"].pid == pid


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[]", "JSON"),
        ("line-4: key", "JSON"),
        ('{"a": 5}', "JSON"),
        ('{"": "0123456789abcdef"}', "name"),
        ('{"é": "0123456789abcdef"}', "name"),
        ('{"a": "short"}', "shorter"),
        ('{"a": "0123456789 abcdef"}', "spaces"),
        ('{"a": "0123456789abcdef", "b": "0123456789abcdef"}', "same key"),
    ],
)
def test_read_keys_rejects_keys_that_cannot_be_used(text: str, word: str) -> None:
    with pytest.raises(ValueError, match=word) as caught:
        read_keys(text)
    assert "0123456789" not in str(caught.value)


def test_read_keys_reads_no_text_as_no_keys() -> None:
    assert read_keys(" \n") == {}
    assert read_keys('{"a": "0123456789abcdef"}') == {"a": "0123456789abcdef"}
