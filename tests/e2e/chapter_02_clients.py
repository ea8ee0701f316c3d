"""Clients outside: tritonclient and the KServe SDK, over HTTP and gRPC, through the Gateway."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from accounts import check_accounts
from installation import Installation
from kube import until
from load import Load
from rows import ROWS
from tritonclient.utils import InferenceServerException

MODEL = "ai4i-failure"
REQUESTS = 200
ROW = ROWS[MODEL]
# What is wrong, and what the answer says of it.
BAD: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "a column is missing": (
        {name: value for name, value in ROW.items() if name != "torque"},
        ("'torque'", "missing"),
    ),
    "a column too many": ({**ROW, "colour": 3.0}, ("'colour'", "unknown")),
    "text for a number": ({**ROW, "torque": "much"}, ("'torque'", "BYTES")),
    "no finite number": ({**ROW, "torque": float("nan")}, ("'torque'", "finite")),
    "outside the range": ({**ROW, "torque": -3.0}, ("'torque'", "row 0", "-3", "Nm")),
    "an unknown category": ({**ROW, "type": "X"}, ("'type'", "row 0", "'X'", "L, M, H")),
}


def test_answers_are_those_of_the_offline_prediction_and_in_the_ledger(
    installation: Installation,
) -> None:
    with Load(installation, MODEL, "clients") as load:
        until(f"{REQUESTS} answers over each protocol", lambda: load.answered() >= REQUESTS)
    assert {answer.client for answer in load.answers()} == {
        "tritonclient-http",
        "tritonclient-grpc",
        "kserve-rest",
        "kserve-grpc",
    }
    check_accounts(installation, load)


@pytest.fixture(scope="module", params=["http", "grpc"])
def client(request: pytest.FixtureRequest, installation: Installation) -> Iterator[Any]:
    """tritonclient over one of the protocols, and its module."""
    address = installation.endpoints().address
    if request.param == "http":
        with triton_http.InferenceServerClient(address) as made:
            yield triton_http, made, {"headers": {"Host": MODEL}}
    else:
        host = [("grpc.default_authority", MODEL)]
        with triton_grpc.InferenceServerClient(address, channel_args=host) as made:
            yield triton_grpc, made, {}


@pytest.mark.parametrize("case", BAD)
def test_an_error_names_the_column_and_the_rule(client: Any, case: str) -> None:
    kit, asking, options = client
    row, words = BAD[case]
    inputs = []
    for name, value in row.items():
        text = isinstance(value, str)
        tensor = kit.InferInput(name, [1], "BYTES" if text else "FP64")
        tensor.set_data_from_numpy(np.array([value], dtype=object if text else float))
        inputs.append(tensor)
    with pytest.raises(InferenceServerException) as refused:
        asking.infer(MODEL, inputs, **options)
    assert refused.value.status() in ("400", "StatusCode.INVALID_ARGUMENT")
    for word in words:
        assert word in refused.value.message()
