"""Values out of range are refused, or answered and flagged, according to the policy.

Numbers that are not finite are always refused.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sample_version
from conftest import HTTP, Server, Starter
from test_valid_requests import offline
from wire import ENCODINGS, Given, send, tensors

OUTSIDE: dict[str, tuple[Given, str]] = {
    "FP64 above": (
        Given("vibration", "FP64", [1.0, 200.5]),
        "row 1 is 200.5; it must be from 0 to",
    ),
    "FP64 below": (
        Given("vibration", "FP64", [-0.5, 1.0]),
        "row 0 is -0.5; it must be from 0 to 200",
    ),
    "FP64 enormous": (Given("vibration", "FP64", [3e38, 1.0]), "row 0 is 3e+38"),
    "FP64 without a maximum": (Given("running_hours", "FP64", [5.0, -1.0]), "row 1 is -1"),
    "two rows": (Given("vibration", "FP64", [999.0, -1.0]), "row 0 is 999, and 1 more rows"),
    "FP32": (Given("vibration", "FP32", [1.0, 200.5]), "row 1 is 200.5"),
    "INT8": (Given("vibration", "INT8", [-3, 1]), "row 0 is -3"),
    "INT16": (Given("vibration", "INT16", [1, 999]), "row 1 is 999"),
    "INT32": (Given("vibration", "INT32", [1, 999]), "row 1 is 999"),
    "INT64": (Given("vibration", "INT64", [1, 999]), "row 1 is 999"),
    "UINT8": (Given("vibration", "UINT8", [1, 201]), "row 1 is 201"),
    "UINT16": (Given("vibration", "UINT16", [1, 999]), "row 1 is 999"),
    "UINT32": (Given("vibration", "UINT32", [1, 999]), "row 1 is 999"),
    "UINT64": (Given("vibration", "UINT64", [1, 999]), "row 1 is 999"),
    "INT64 column above": (Given("strokes", "INT64", [1, 10**9 + 1]), "row 1 is 1000000001"),
    "INT64 column below": (Given("strokes", "INT32", [-1, 1]), "row 0 is -1"),
    "INT64 column far above": (
        Given("strokes", "UINT64", [1, 2**63 - 1]),
        "row 1 is 9223372036854775807",
    ),
    "category": (Given("grade", "BYTES", ["L", "X"]), "row 1 is 'X'; it must be one of L, M, H"),
    "no category": (Given("grade", "BYTES", ["", "X"]), "row 0 is '', and 1 more rows"),
    "category of any text": (Given("grade", "BYTES", ["L", "a\0\n\u2028é😀"]), "row 1 is "),
}


FLAG = '{"out_of_range": "flag"}'


@pytest.fixture(scope="module")
def tolerant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version whose encoder accepts unknown categories."""
    return sample_version.create_version(
        tmp_path_factory.mktemp("versions") / "tolerant", unknown="ignore"
    )


@pytest.fixture(scope="module")
def flagging(tolerant: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tolerant, tmp_path_factory.mktemp("flagging"), answer_policy=FLAG).start()
    yield running
    running.kill()


def request(given: Given) -> list[Given]:
    valid = tensors(sample_version.rows(2, seed=2))
    return [given if tensor.name == given.name else tensor for tensor in valid]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("case", OUTSIDE)
def test_out_of_range_is_refused_by_default(server: Server, encoding: str, case: str) -> None:
    given, rule = OUTSIDE[case]
    reply = send(server, encoding, request(given))
    assert reply.status in (400, "INVALID_ARGUMENT")
    assert f"column {given.name!r}: {rule}" in reply.error
    assert server.last().error == reply.error
    assert server.last().flags == []


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("case", OUTSIDE)
def test_out_of_range_is_answered_and_flagged(
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
    assert np.allclose(
        reply.outputs[sample_version.SCORE], expected[sample_version.SCORE], atol=1e-6
    )
    assert reply.outputs["risk_level"] == expected["risk_level"]


def test_value_that_the_model_rejects_is_refused_by_column(start: Starter) -> None:
    """The encoder of this version does not accept unknown categories."""
    server = start(answer_policy=FLAG).start()
    given, rule = OUTSIDE["category"]
    for encoding in ENCODINGS:
        reply = send(server, encoding, request(given))
        assert reply.status in (400, "INVALID_ARGUMENT"), reply
        assert f"column 'grade': {rule}; the model has no answer" in reply.error
        assert server.last().error == reply.error


def test_every_column_out_of_range_has_a_flag(flagging: Server) -> None:
    columns = {**sample_version.rows(1), "vibration": [999.0], "strokes": [-5]}
    reply = send(flagging, "json", tensors(columns))
    assert [flag.partition(":")[0] for flag in flagging.last().flags] == [
        "column 'vibration'",
        "column 'strokes'",
    ]
    assert reply.parameters["flags"] == "; ".join(flagging.last().flags)


def test_no_flags_in_range(flagging: Server) -> None:
    reply = send(flagging, "typed", tensors(sample_version.rows(3)))
    assert "flags" not in reply.parameters
    assert flagging.last().flags == []


NON_FINITE = [(d, float(v)) for d in ("FP64", "FP32") for v in ("nan", "inf", "-inf")]


@pytest.mark.parametrize("encoding", ["binary", "typed", "raw"])
@pytest.mark.parametrize(("datatype", "value"), [*NON_FINITE, ("FP64", 1e39)])
def test_non_finite_number_is_refused_by_every_policy(
    flagging: Server, encoding: str, datatype: str, value: float
) -> None:
    given = request(Given("vibration", datatype, [1.0, value]))
    reply = send(flagging, encoding, given)
    assert reply.status in (400, "INVALID_ARGUMENT")
    assert "column 'vibration': row 1 is" in reply.error
    assert "finite" in reply.error
    assert flagging.last().error == reply.error


def test_metadata_contains_the_policy(server: Server, flagging: Server) -> None:
    def parameters(which: Server) -> Any:
        return HTTP.get(f"{which.url}/v2/models/{sample_version.MODEL}").json()["parameters"]

    assert parameters(server)["out_of_range"] == "refuse"
    assert parameters(flagging)["out_of_range"] == "flag"
