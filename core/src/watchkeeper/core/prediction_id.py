"""Prediction ids: one for each request, signed so that feedback is checked without a database.

    <request, 32 hex>-<version>-<rows>-<time, ms in hex>-<signature, 32 hex>

The time of a synthetic request ends with an "s".

The gateway sets the request part, and keeps it when it retries. All attempts at a request share it,
so it is the key of the ledger. The signature is HMAC-SHA256 (RFC 2104), truncated to 128 bits, of
model, request, version, rows and time::

    text = sign(key, "pump-failure", PredictionId("0" * 32, version=3, rows=1, time=time.time()))
    assert verify(key, "pump-failure", text).version == 3
"""

import hmac
import re

import msgspec

_PATTERN = re.compile(
    r"([0-9a-f]{32})-([1-9][0-9]{0,9})-([1-9][0-9]{0,9})-([0-9a-f]{1,12})(s?)-([0-9a-f]{32})"
)


class InvalidPredictionIdError(ValueError):
    """A text that is not a prediction id of this model."""


class PredictionId(msgspec.Struct, frozen=True, gc=False):
    """The content of a prediction id.

    Attributes:
        request: The request part, 32 hexadecimal digits.
        version: The version that answered.
        rows: The number of rows of the request.
        time: When the request arrived, in seconds since 1970, to the millisecond.
        synthetic: Whether the request was declared synthetic; then it gets no labels.
    """

    request: str
    version: int
    rows: int
    time: float
    synthetic: bool = False


def sign(key: bytes, model: str, prediction: PredictionId) -> str:
    """Return the text of a prediction id.

    Args:
        key: The secret key of the installation.
        model: The model that answered.
        prediction: The content of the id.
    """
    milliseconds = round(prediction.time * 1000)
    mark = "s" if prediction.synthetic else ""
    content = f"{prediction.request}-{prediction.version}-{prediction.rows}-{milliseconds:x}{mark}"
    return f"{content}-{_signature(key, model, content)}"


def verify(key: bytes, model: str, text: str) -> PredictionId:
    """Read a prediction id that a client sends back.

    Args:
        key: The secret key of the installation.
        model: The model that the client names.
        text: The prediction id.

    Raises:
        InvalidPredictionIdError: the text has another form, or the signature does not match.
    """
    match = _PATTERN.fullmatch(text)
    if match is None:
        raise InvalidPredictionIdError(f"{text[:120]!r} does not have the form of a prediction id")
    content, _, signature = text.rpartition("-")
    if not hmac.compare_digest(signature, _signature(key, model, content)):
        raise InvalidPredictionIdError(f"prediction id {text!r} does not belong to model {model!r}")
    return PredictionId(
        match[1], int(match[2]), int(match[3]), int(match[4], 16) / 1000, bool(match[5])
    )


def request_of(text: str) -> str:
    """Return the request part of a prediction id, without a check of the signature."""
    return text.partition("-")[0]


def _signature(key: bytes, model: str, content: str) -> str:
    return hmac.digest(key, f"{model}-{content}".encode(), "sha256")[:16].hex()
