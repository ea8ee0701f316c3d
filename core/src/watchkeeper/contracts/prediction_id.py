"""Prediction ids: one for each logical request, signed so that feedback can be checked offline.

    <request, 32 hex>-<version>-<rows>-<time, ms in hex>-<signature, 32 hex>

The request part comes from the gateway and stays the same when it retries, so that attempts
are told apart below it. The signature is HMAC-SHA256 (RFC 2104), cut to 128 bits, over model,
request, version, rows and time.
"""

import hmac
import re

import msgspec

_FORM = re.compile(
    r"([0-9a-f]{32})-([1-9][0-9]{0,9})-([1-9][0-9]{0,9})-([0-9a-f]{1,12})-([0-9a-f]{32})"
)


class InvalidPredictionIdError(ValueError):
    """An id that this model never gave out."""


class PredictionId(msgspec.Struct, frozen=True, gc=False):
    """What a prediction id says: request (32 hex digits), version, rows, time (s since 1970)."""

    request: str
    version: int
    rows: int
    time: float


def sign(key: bytes, model: str, prediction: PredictionId) -> str:
    """Write the id of a prediction."""
    milliseconds = round(prediction.time * 1000)
    said = f"{prediction.request}-{prediction.version}-{prediction.rows}-{milliseconds:x}"
    return f"{said}-{_signature(key, model, said)}"


def verify(key: bytes, model: str, text: str) -> PredictionId:
    """Read an id that a client sends back.

    Raises:
        InvalidPredictionIdError: it has another form, or this model did not sign it.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise InvalidPredictionIdError(f"prediction id {text[:120]!r} has not the form of one")
    said, _, signature = text.rpartition("-")
    if not hmac.compare_digest(signature, _signature(key, model, said)):
        raise InvalidPredictionIdError(f"prediction id {text!r} was not given out by {model!r}")
    return PredictionId(match[1], int(match[2]), int(match[3]), int(match[4], 16) / 1000)


def request_of(text: str) -> str:
    """The request part, which is the key of the ledger; no check of the signature."""
    return text.partition("-")[0]


def _signature(key: bytes, model: str, said: str) -> str:
    return hmac.digest(key, f"{model}-{said}".encode(), "sha256")[:16].hex()
