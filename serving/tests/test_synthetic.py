"""Synthetic requests are answered, recorded with their mark, and get no labels."""

from collections.abc import Iterator

import pytest
import sample_version
from conftest import HTTP, TOKEN, Server, Starter
from wire import ENCODINGS, Reply, call, grpc_message, http_body, post, tensors

HEADER = "x-watchkeeper-synthetic"
CLIENT = "x-watchkeeper-client"
OK = (200, "OK")


def ask(server: Server, encoding: str, **headers: str) -> Reply:
    given = tensors(sample_version.rows(2))
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if encoding in ("json", "binary"):
        body, needed = http_body(given, encoding == "binary")
        return post(server, body, {**needed, **named})
    message = grpc_message(given, encoding == "raw").SerializeToString()
    return call(server, message, tuple(named.items()))


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(("value", "synthetic"), [("true", True), ("false", False), (None, False)])
def test_the_record_of_an_answer_has_the_mark(
    server: Server, encoding: str, value: str | None, synthetic: bool
) -> None:
    before = server.metric("watchkeeper_synthetic_total")
    reply = ask(server, encoding, **({} if value is None else {HEADER: value}))
    assert reply.status in OK, reply.error
    assert len(reply.outputs[sample_version.SCORE]) == 2
    assert (server.last().synthetic, server.last().status) == (synthetic, "OK")
    assert server.metric("watchkeeper_synthetic_total") == before + synthetic


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("value", ["", "1", "True", "yes", "true, false", "x" * 200])
def test_another_value_is_refused_with_the_header_and_the_rule(
    server: Server, encoding: str, value: str
) -> None:
    reply = ask(server, encoding, **{HEADER: value})
    assert reply.status in (400, "INVALID_ARGUMENT")
    assert HEADER in reply.error
    assert "'true' or 'false'" in reply.error
    assert (server.last().error, server.last().synthetic) == (reply.error, True)


def test_a_header_that_is_given_twice_is_refused(server: Server) -> None:
    body, headers = http_body(tensors(sample_version.rows(1)), False)
    twice = [*headers.items(), (HEADER, "true"), (HEADER, "false")]
    response = HTTP.post(server.infer_url, content=body, headers=twice)
    assert response.status_code == 400
    assert HEADER in response.json()["error"]


def test_metadata_that_is_given_twice_is_refused(server: Server) -> None:
    message = grpc_message(tensors(sample_version.rows(1)), as_raw=True).SerializeToString()
    reply = call(server, message, ((HEADER, "true"), (HEADER, "false")))
    assert reply.status == "INVALID_ARGUMENT"
    assert HEADER in reply.error


@pytest.mark.parametrize("encoding", ["json", "raw"])
def test_labels_of_a_synthetic_request_are_refused(server: Server, encoding: str) -> None:
    ordinary, synthetic = (ask(server, encoding, **{HEADER: v}) for v in ("false", "true"))
    records = len(server.records())

    def report(*replies: Reply) -> tuple[int, str]:
        sent = [
            {"prediction_id": reply.parameters["prediction_id"], "row": 1, "value": 1}
            for reply in replies
        ]
        response = HTTP.post(
            f"{server.url}/v2/models/{sample_version.MODEL}/feedback",
            json={"labels": sent},
            headers={"authorization": f"Bearer {TOKEN}"},
        )
        return response.status_code, response.text

    status, error = report(ordinary, synthetic)
    assert (status, "synthetic" in error) == (400, True)
    assert synthetic.parameters["prediction_id"] in error
    assert len(server.records()) == records, "all labels of a body are accepted, or none"
    assert report(ordinary)[0] == 202


@pytest.fixture(scope="module")
def tested(version: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("load-tests")
    running = Server(version, home, synthetic_clients='["load test", "k6"]').start()  # type: ignore[arg-type]
    yield running
    running.kill()


@pytest.mark.parametrize("encoding", ["json", "raw"])
@pytest.mark.parametrize(
    ("headers", "synthetic"),
    [
        ({CLIENT: "load test"}, True),
        ({CLIENT: "load test", HEADER: "false"}, True),
        ({CLIENT: "k6"}, True),
        ({CLIENT: "load test 2"}, False),
        ({CLIENT: "line 4"}, False),
        ({CLIENT: "line 4", HEADER: "true"}, True),
    ],
)
def test_requests_of_declared_clients_are_synthetic(
    tested: Server, encoding: str, headers: dict[str, str], synthetic: bool
) -> None:
    reply = ask(tested, encoding, **headers)
    assert reply.status in OK, reply.error
    assert tested.last().synthetic == synthetic


def test_clients_that_are_no_list_of_names_stop_the_start(start: Starter) -> None:
    server = start(synthetic_clients='"k6"').spawn()
    assert server.process is not None
    assert server.process.wait(60) != 0
    assert "WATCHKEEPER_SYNTHETIC_CLIENTS" in server.log.read_text()
