"""Single requests with the headers of a client."""

from collections.abc import Mapping
from typing import Any

import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from declared_models import FIRST as MODEL
from installation import Installation
from kube import wait_until
from sample_requests import sample_row
from tritonclient.utils import InferenceServerException

from watchkeeper.core.prediction_id import request_of
from watchkeeper.demo.clients import tensors
from watchkeeper.demo.plants import find
from watchkeeper.ledger.lookup import find_prediction

# No credential, or a token for another audience
REJECTED = ("401", "StatusCode.UNAUTHENTICATED", "403", "StatusCode.PERMISSION_DENIED")
Headers = Mapping[str, str]


def infer(installation: Installation, protocol: str, headers: Headers, model: str = MODEL) -> str:
    """Send one row, and return the prediction id.

    Raises:
        InferenceServerException: the request is rejected or fails.
    """
    address, given = installation.endpoints().address, dict(headers)
    row, columns = sample_row(model), find(model).columns
    answer: Any
    if protocol == "http":
        with triton_http.InferenceServerClient(address) as client:
            inputs = tensors(triton_http.InferInput, columns, row)
            answer = client.infer(model, inputs, headers={"Host": model, **given})
        return str(answer.get_response()["parameters"]["prediction_id"])
    host = [("grpc.default_authority", model)]
    with triton_grpc.InferenceServerClient(address, channel_args=host) as client:
        inputs = tensors(triton_grpc.InferInput, columns, row)
        answer = client.infer(model, inputs, headers=given)
    return str(answer.get_response().parameters["prediction_id"].string_param)


def is_rejected(
    installation: Installation, protocol: str, headers: Headers, model: str = MODEL
) -> bool:
    """Return True if the gateway rejects a request with these headers."""
    try:
        infer(installation, protocol, headers, model)
    except InferenceServerException as error:
        if error.status() in REJECTED:
            return True
        raise
    return False


def is_answered(installation: Installation, protocol: str, headers: Headers, model: str) -> bool:
    """Return True if a request with these headers gets a prediction."""
    try:
        infer(installation, protocol, headers, model)
    except (InferenceServerException, OSError):
        return False
    return True


def check_recorded(installation: Installation) -> None:
    """Send a request, and wait for its record in the ledger."""
    prediction = request_of(infer(installation, "http", {}))
    wait_until("its record", lambda: find_prediction(installation.ledger, prediction))
