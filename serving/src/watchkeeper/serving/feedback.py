"""Labels, by the same door as requests: what turned out to be true for rows answered before.

They steer training, so they need a credential of their own, and every prediction id in them is
checked by its signature. Duplicates and contradictions are settled in the ledger.
"""

import hmac
import time

import msgspec

from watchkeeper.contracts.prediction_id import InvalidPredictionIdError, verify
from watchkeeper.contracts.record import LabelRecord
from watchkeeper.serving.dataplane import MAX_CLIENT, DataPlane
from watchkeeper.serving.refusals import NotFound, Refused, Unauthenticated, Unavailable
from watchkeeper.serving.repeated import refuse_repeated


class _Label(msgspec.Struct, forbid_unknown_fields=True):
    prediction_id: str
    row: int
    value: float


class _Feedback(msgspec.Struct, forbid_unknown_fields=True):
    labels: list[_Label]


_decoder = msgspec.json.Decoder(_Feedback)
_encoder = msgspec.json.Encoder()


class Feedback:
    """Takes labels for one model and writes them to the spool."""

    def __init__(self, plane: DataPlane, token: str) -> None:
        self._plane = plane
        self._token = token.encode()

    def authenticate(self, authorization: str) -> None:
        """Check the header ``Authorization: Bearer <token>``, before the body is read.

        Raises:
            Unauthenticated: it is missing or wrong.
        """
        scheme, _, token = authorization.partition(" ")
        given = token.strip().encode("utf-8", "replace")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given, self._token):
            raise Unauthenticated(
                "feedback needs the header Authorization: Bearer <feedback token>"
            )

    def accept(self, model: str, client: str, body: bytes) -> int:
        """Keep all labels of a body, or none; returns how many.

        Raises:
            Refused: the body breaks a rule, or names a prediction that was not given out here.
            Unavailable: there is no room for them now.
        """
        plane = self._plane
        if model != plane.model:
            raise NotFound(f"model {model!r} is not served here; {plane.model!r} is")
        try:
            labels = _decoder.decode(body).labels
            refuse_repeated(body, 1 + 3 * len(labels))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise Refused(f"the body is no feedback: {error}") from error
        if not labels:
            raise Refused("the body is no feedback: it has no labels")
        now = time.time()
        records = [self._record(label, client, now) for label in labels]
        lines = _encoder.encode_lines(records)
        if not plane.spool.write(lines):
            raise Unavailable("the spool has no room for labels now; send them again later")
        plane.metrics.labels.inc(len(labels))
        return len(labels)

    def _record(self, label: _Label, client: str, now: float) -> LabelRecord:
        try:
            prediction = verify(self._plane.key, self._plane.model, label.prediction_id)
        except InvalidPredictionIdError as error:
            raise NotFound(str(error)) from error
        if not 0 <= label.row < prediction.rows:
            raise Refused(
                f"prediction {label.prediction_id!r}: has no row {label.row}; it has "
                f"{prediction.rows}, counted from 0"
            )
        return LabelRecord(
            prediction=prediction.request,
            row=label.row,
            model=self._plane.model,
            version=prediction.version,
            value=label.value,
            time=now,
            client=client[:MAX_CLIENT],
        )
