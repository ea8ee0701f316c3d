"""Labels: clients report what turned out to be true for rows that were answered before.

Labels change what the next version learns, so clients need a token of their own. Every prediction
id must have a valid signature. The ledger handles repeated and contradicting labels.
"""

import hmac
import time
from collections.abc import Callable

import msgspec

from watchkeeper.core.prediction_id import InvalidPredictionIdError, verify
from watchkeeper.core.record import LabelRecord
from watchkeeper.core.tasks.base import InvalidLabelError, Task
from watchkeeper.serving.duplicate_names import refuse_duplicate_names
from watchkeeper.serving.errors import (
    NotFoundError,
    RequestError,
    TemporarilyUnavailableError,
    UnauthenticatedError,
)
from watchkeeper.serving.metrics import Metrics
from watchkeeper.serving.spool import SpoolWriter


class _Label(msgspec.Struct, forbid_unknown_fields=True):
    prediction_id: str
    row: int
    value: float | str


class _Feedback(msgspec.Struct, forbid_unknown_fields=True):
    labels: list[_Label]


_decoder = msgspec.json.Decoder(_Feedback)
_encoder = msgspec.json.Encoder()


class FeedbackHandler:
    """Accepts labels for one model and writes them to the spool.

    ``task`` returns the task that says what a label is, and None until the version is loaded.
    """

    def __init__(
        self,
        model: str,
        signing_key: bytes,
        token: str,
        spool: SpoolWriter,
        metrics: Metrics,
        *,
        task: Callable[[], Task | None],
    ) -> None:
        self._model = model
        self._signing_key = signing_key
        self._token = token.encode()
        self._spool = spool
        self._metrics = metrics
        self._task = task

    def authenticate(self, authorization: str) -> None:
        """Check the header ``Authorization: Bearer <token>``, before the body is read.

        Raises:
            UnauthenticatedError: The token is missing or wrong.
        """
        scheme, _, token = authorization.partition(" ")
        given = token.strip().encode("utf-8", "replace")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given, self._token):
            raise UnauthenticatedError(
                "feedback needs the header Authorization: Bearer <feedback token>"
            )

    def accept(self, model: str, client: str, body: bytes) -> int:
        """Write all labels of a body to the spool, or none.

        Args:
            model: The model in the path.
            client: The name of the client.
            body: ``{"labels": [{"prediction_id": "…", "row": 0, "value": 1}]}``; the value is a
                number or the name of a class, as the task of the version says.

        Returns:
            The number of labels.

        Raises:
            NotFoundError: This model never issued one of the prediction ids.
            TemporarilyUnavailableError: The spool has no room.
            RequestError: The body breaks another rule.
        """
        if model != self._model:
            raise NotFoundError(f"model {model!r} is not served here; {self._model!r} is")
        try:
            labels = _decoder.decode(body).labels
            refuse_duplicate_names(body, 1 + 3 * len(labels))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise RequestError(f"the body is not feedback: {error}") from error
        if not labels:
            raise RequestError("the body is not feedback: it has no labels")
        task = self._task()
        if task is None:
            raise TemporarilyUnavailableError(
                f"model {model!r} is still loading; send the labels again"
            )
        now = time.time()
        records = [self._record(label, task, client, now) for label in labels]
        if not self._spool.write(_encoder.encode_lines(records)):
            raise TemporarilyUnavailableError(
                "the spool has no room for labels now; send them again later"
            )
        self._metrics.labels.inc(len(labels))
        return len(labels)

    def _record(self, label: _Label, task: Task, client: str, now: float) -> LabelRecord:
        try:
            prediction = verify(self._signing_key, self._model, label.prediction_id)
        except InvalidPredictionIdError as error:
            raise NotFoundError(str(error)) from error
        if prediction.synthetic:
            raise RequestError(
                f"prediction {label.prediction_id!r}: its request was declared synthetic, and a "
                "synthetic request has no labels"
            )
        if not 0 <= label.row < prediction.rows:
            raise RequestError(
                f"prediction {label.prediction_id!r}: has no row {label.row}; it has "
                f"{prediction.rows}, counted from 0"
            )
        try:
            value = task.code(label.value)
        except InvalidLabelError as error:
            shown = repr(label.value) if isinstance(label.value, str) else f"{label.value:.15g}"
            raise RequestError(
                f"prediction {label.prediction_id!r}: the label of row {label.row} is {shown}; "
                f"{error}"
            ) from error
        return LabelRecord(
            prediction=prediction.request,
            row=label.row,
            model=self._model,
            version=prediction.version,
            value=value,
            time=now,
            client=client,
        )
