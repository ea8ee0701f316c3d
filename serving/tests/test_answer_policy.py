"""Outside the declared range or categories: refused, or answered and flagged, as the policy says.

What is no finite number is refused whatever the policy says.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import a_version
import numpy as np
import pytest
from conftest import HTTP, Server, Starter
from test_valid_requests import offline
from wire import ENCODINGS, Given, send, tensors

OUTSIDE: dict[str, tuple[Given, str]] = {
    "FP64 above": (Given("torque", "FP64", [1.0, 200.5]), "row 1 is 200.5; it must be from 0 to"),
    "FP64 below": (Given("torque", "FP64", [-0.5, 1.0]), "row 0 is -0.5; it must be from 0 to 200"),
    "FP64 enormous": (Given("torque", "FP64", [3e38, 1.0]), "row 0 is 3e+38"),
    "FP64 without a maximum": (Given("tool_wear", "FP64", [5.0, -1.0]), "row 1 is -1"),
    "two rows": (Given("torque", "FP64", [999.0, -1.0]), "row 0 is 999, and 1 more rows"),
    "FP32": (Given("torque", "FP32", [1.0, 200.5]), "row 1 is 200.5"),
    "INT8": (Given("torque", "INT8", [-3, 1]), "row 0 is -3"),
    "INT16": (Given("torque", "INT16", [1, 999]), "row 1 is 999"),
    "INT32": (Given("torque", "INT32", [1, 999]), "row 1 is 999"),
    "INT64": (Given("torque", "INT64", [1, 999]), "row 1 is 999"),
    "UINT8": (Given("torque", "UINT8", [1, 201]), "row 1 is 201"),
    "UINT16": (Given("torque", "UINT16", [1, 999]), "row 1 is 999"),
    "UINT32": (Given("torque", "UINT32", [1, 999]), "row 1 is 999"),
    "UINT64": (Given("torque", "UINT64", [1, 999]), "row 1 is 999"),
    "INT64 column above": (Given("strokes", "INT64", [1, 10**9 + 1]), "row 1 is 1000000001"),
    "INT64 column below": (Given("strokes", "INT32", [-1, 1]), "row 0 is -1"),
    "INT64 column far above": (
        Given("strokes", "UINT64", [1, 2**63 - 1]),
        "row 1 is 9223372036854775807",
    ),
    "category": (Given("type", "BYTES", ["L", "X"]), "row 1 is 'X'; it must be one of L, M, H"),
    "no category": (Given("type", "BYTES", ["", "X"]), "row 0 is '', and 1 more rows"),
    "category of any text": (Given("type", "BYTES", ["L", "a\0\n\u2028é😀"]), "row 1 is "),
}


FLAG = '{"out_of_range": "flag"}'


@pytest.fixture(scope="module")
def tolerant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version whose encoder takes categories that it does not know."""
    return a_version.make(tmp_path_factory.mktemp("versions") / "tolerant", unknown="ignore")


@pytest.fixture(scope="module")
def flagging(tolerant: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tolerant, tmp_path_factory.mktemp("flagging"), answer_policy=FLAG).start()
    yield running
    running.kill()


def request(given: Given) -> list[Given]:
    valid = tensors(a_version.rows(2, seed=2))
    return [given if tensor.name == given.name else tensor for tensor in valid]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("case", OUTSIDE)
def test_by_default_it_is_refused(server: Server, encoding: str, case: str) -> None:
    given, rule = OUTSIDE[case]
    reply = send(server, encoding, request(given))
    assert reply.status in (400, "INVALID_ARGUMENT")
    assert f"column {given.name!r}: {rule}" in reply.error
    assert server.last().error == reply.error
    assert server.last().flags == []


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("case", OUTSIDE)
def test_a_version_that_flags_answers_and_says_so(
    flagging: Server, tolerant: Path, encoding: str, case: str
) -> None:
    given, rule = OUTSIDE[case]
    reply = send(flagging, encoding, request(given))
    assert reply.status in (200, "OK"), reply.error
    assert f"column {given.name!r}: {rule}" in reply.parameters["flags"]
    record = flagging.last()
    assert record.flags == [reply.parameters["flags"]]
    assert record.inputs[given.name] == given.values
    assert record.outputs == reply.outputs
    columns = {tensor.name: tensor.values for tensor in request(given)}
    expected = offline(tolerant, columns)
    assert np.allclose(reply.outputs[a_version.SCORE], expected[a_version.SCORE], atol=1e-6)
    assert reply.outputs["risk_level"] == expected["risk_level"]


def test_what_the_model_itself_does_not_know_is_refused_by_column(start: Starter) -> None:
    """The encoder of this version takes the known categories only."""
    server = start(answer_policy=FLAG).start()
    given, rule = OUTSIDE["category"]
    for encoding in ENCODINGS:
        reply = send(server, encoding, request(given))
        assert reply.status in (400, "INVALID_ARGUMENT"), reply
        assert f"column 'type': {rule}; the model has no answer" in reply.error
        assert server.last().error == reply.error


def test_several_columns_outside_are_flagged_one_by_one(flagging: Server) -> None:
    columns = {**a_version.rows(1), "torque": [999.0], "strokes": [-5]}
    reply = send(flagging, "json", tensors(columns))
    assert [flag.partition(":")[0] for flag in flagging.last().flags] == [
        "column 'torque'",
        "column 'strokes'",
    ]
    assert reply.parameters["flags"] == "; ".join(flagging.last().flags)


def test_nothing_is_flagged_in_range(flagging: Server) -> None:
    reply = send(flagging, "typed", tensors(a_version.rows(3)))
    assert "flags" not in reply.parameters
    assert flagging.last().flags == []


NO_NUMBERS = [(d, float(v)) for d in ("FP64", "FP32") for v in ("nan", "inf", "-inf")]


@pytest.mark.parametrize("encoding", ["binary", "typed", "raw"])
@pytest.mark.parametrize(("datatype", "value"), [*NO_NUMBERS, ("FP64", 1e39)])
def test_no_policy_answers_what_is_no_finite_number(
    flagging: Server, encoding: str, datatype: str, value: float
) -> None:
    given = request(Given("torque", datatype, [1.0, value]))
    reply = send(flagging, encoding, given)
    assert reply.status in (400, "INVALID_ARGUMENT")
    assert "column 'torque': row 1 is" in reply.error
    assert "finite" in reply.error
    assert flagging.last().error == reply.error


def test_the_metadata_tells_the_policy(server: Server, flagging: Server) -> None:
    def told(which: Server) -> Any:
        return HTTP.get(f"{which.url}/v2/models/{a_version.MODEL}").json()["parameters"]

    assert told(server)["out_of_range"] == "refuse"
    assert told(flagging)["out_of_range"] == "flag"
