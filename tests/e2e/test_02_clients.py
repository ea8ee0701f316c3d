"""tritonclient and the KServe SDK, over HTTP and gRPC, through the Gateway."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from declared_models import input_columns, model_with_categories
from installation import RELEASE, Installation
from kube import CommandError, kubectl, wait_until
from ledger_comparison import check_exact
from load import Load
from rollouts import current_scenario
from sample_requests import sample_row
from sqlalchemy import text
from tritonclient.utils import InferenceServerException

MODEL = model_with_categories()
ROW = sample_row(MODEL)
REQUESTS = 200
CATEGORY = next(column for column in input_columns(MODEL) if column.categories)
NUMBER = next(
    column for column in input_columns(MODEL) if column.unit and column.minimum is not None
)
BELOW = (NUMBER.minimum or 0.0) - 3.0
# An invalid row, and words of the error message.
INVALID: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "missing column": (
        {name: value for name, value in ROW.items() if name != NUMBER.name},
        (f"'{NUMBER.name}'", "missing"),
    ),
    "unknown column": ({**ROW, "colour": 3.0}, ("'colour'", "unknown")),
    "text instead of a number": ({**ROW, NUMBER.name: "much"}, (f"'{NUMBER.name}'", "BYTES")),
    "not finite": ({**ROW, NUMBER.name: float("nan")}, (f"'{NUMBER.name}'", "finite")),
    "out of range": (
        {**ROW, NUMBER.name: BELOW},
        (f"'{NUMBER.name}'", "row 0", f"{BELOW:g}", NUMBER.unit),
    ),
    "unknown category": (
        {**ROW, CATEGORY.name: "unknown"},
        (f"'{CATEGORY.name}'", "row 0", "'unknown'", ", ".join(CATEGORY.categories)),
    ),
}


def test_answers_equal_the_offline_prediction_and_are_in_the_ledger(
    installation: Installation,
) -> None:
    scenario = current_scenario(installation, MODEL)
    with Load(installation, MODEL, "clients", scenario=scenario) as load:
        wait_until(f"{REQUESTS} answers over each protocol", lambda: load.answered() >= REQUESTS)
    assert {answer.client for answer in load.answers()} == {
        "tritonclient-http",
        "tritonclient-grpc",
        "kserve-rest",
        "kserve-grpc",
    }
    check_exact(installation, load)


def test_the_owner_of_the_ledger_makes_views_that_show_all_predictions(
    installation: Installation,
) -> None:
    namespace = f"--namespace={installation.namespace}"
    command = ("watchkeeper", "data", "views", MODEL)
    with pytest.raises(CommandError, match="permission denied"):
        installation.in_cli(*command, "--create")
    owner = (
        "PGPASSWORD=$(cat /run/secrets/watchkeeper/database-password) "
        "psql --quiet -v ON_ERROR_STOP=1 -h 127.0.0.1 -U watchkeeper ledger"
    )
    database = ("exec", "-i", f"{RELEASE}-postgresql-0", namespace, "--", "sh", "-c", owner)
    kubectl(*database, given=installation.in_cli(*command))
    view = MODEL.replace("-", "_") + "_predictions"
    stored = "SELECT sum(rows) FROM predictions WHERE model = :model AND status = 'OK'"
    with installation.ledger.read() as connection:
        shown = connection.execute(text(f"SELECT count(*) FROM {view}")).scalar_one()  # noqa: S608
        assert shown == connection.execute(text(stored), {"model": MODEL}).scalar_one()
    assert shown >= 2 * REQUESTS


@pytest.fixture(scope="module", params=["http", "grpc"])
def client(request: pytest.FixtureRequest, installation: Installation) -> Iterator[Any]:
    """The module of tritonclient for a protocol, a client, and options of each request."""
    address = installation.endpoints().address
    if request.param == "http":
        with triton_http.InferenceServerClient(address) as made:
            yield triton_http, made, {"headers": {"Host": MODEL}}
    else:
        host = [("grpc.default_authority", MODEL)]
        with triton_grpc.InferenceServerClient(address, channel_args=host) as made:
            yield triton_grpc, made, {}


@pytest.mark.parametrize("case", INVALID)
def test_an_error_names_the_column_and_the_rule(client: Any, case: str) -> None:
    module, connection, options = client
    row, words = INVALID[case]
    datatypes = {column.name: column.datatype for column in input_columns(MODEL)}
    inputs = []
    for name, value in row.items():
        text = isinstance(value, str)
        integer = isinstance(value, int) and datatypes.get(name) == "INT64"
        datatype = "BYTES" if text else "INT64" if integer else "FP64"
        tensor = module.InferInput(name, [1], datatype)
        kind = {"BYTES": object, "INT64": np.int64, "FP64": float}[datatype]
        tensor.set_data_from_numpy(np.array([value], dtype=kind))
        inputs.append(tensor)
    with pytest.raises(InferenceServerException) as refused:
        connection.infer(MODEL, inputs, **options)
    assert refused.value.status() in ("400", "StatusCode.INVALID_ARGUMENT")
    for word in words:
        assert word in refused.value.message()
