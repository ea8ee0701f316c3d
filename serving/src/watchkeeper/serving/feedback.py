"""Labels: clients report what turned out to be true for rows that were answered before.

Labels change what the next version learns, so clients need a token of their own. Every prediction
id must have a valid signature. The ledger handles repeated and contradicting labels.
"""

import hmac
import time
from collections.abc import Callable, Iterator

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
    value: float | str | msgspec.UnsetType = msgspec.UNSET
    labels: dict[str, float | str] | msgspec.UnsetType = msgspec.UNSET

    @property
    def names(self) -> int:
        """How many names its JSON object has, with those inside of it."""
        labels = () if self.labels is msgspec.UNSET else (self.labels, *self.labels)
        return 2 + (self.value is not msgspec.UNSET) + len(labels)


class _Feedback(msgspec.Struct, forbid_unknown_fields=True):
    labels: list[_Label]


_decoder = msgspec.json.Decoder(_Feedback)
_encoder = msgspec.json.Encoder()


class FeedbackHandler:
    """Accepts labels for one model and writes them to the spool.

    ``truths`` returns the tasks that say what a label is, by the name of the truth, that of the
    main head first. It returns None until the version is loaded.
    """

    def __init__(
        self,
        model: str,
        signing_key: bytes,
        token: str,
        spool: SpoolWriter,
        metrics: Metrics,
        *,
        truths: Callable[[], dict[str, Task] | None],
    ) -> None:
        self._model = model
        self._signing_key = signing_key
        self._token = token.encode()
        self._spool = spool
        self._metrics = metrics
        self._truths = truths

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
            body: ``{"labels": [{"prediction_id": "…", "row": 0, "labels": {"failed": 1}}]}``, or
                ``"value": 1`` in place of the inner ``labels`` for the truth of the main head. A
                value is a number or the name of a class, as the task of the head says.

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
            refuse_duplicate_names(body, 1 + sum(label.names for label in labels))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise RequestError(f"the body is not feedback: {error}") from error
        if not labels:
            raise RequestError("the body is not feedback: it has no labels")
        truths = self._truths()
        if truths is None:
            raise TemporarilyUnavailableError(
                f"model {model!r} is still loading; send the labels again"
            )
        if not truths:
            raise RequestError(
                f"model {model!r} has no labels: nothing turns out to be true of its scores"
            )
        now = time.time()
        records = [
            record for label in labels for record in self._records(label, truths, client, now)
        ]
        if not self._spool.write(_encoder.encode_lines(records)):
            raise TemporarilyUnavailableError(
                "the spool has no room for labels now; send them again later"
            )
        self._metrics.labels.inc(len(records))
        return len(records)

    def _records(
        self, label: _Label, truths: dict[str, Task], client: str, now: float
    ) -> Iterator[LabelRecord]:
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
        for name, value in _values(label, truths).items():
            try:
                code = truths[name].code(value)
            except InvalidLabelError as error:
                which = f"label {name!r}" if label.value is msgspec.UNSET else "label"
                shown = repr(value) if isinstance(value, str) else f"{value:.15g}"
                raise RequestError(
                    f"prediction {label.prediction_id!r}: the {which} of row {label.row} is "
                    f"{shown}; {error}"
                ) from error
            yield LabelRecord(
                prediction=prediction.request,
                row=label.row,
                model=self._model,
                version=prediction.version,
                value=code,
                time=now,
                client=client,
                name=name,
            )


def _values(label: _Label, truths: dict[str, Task]) -> dict[str, float | str]:
    """Return the values of a label by the name of their truth.

    Raises:
        RequestError: It names no truth of the version, or does not say which one it is about.
    """
    where = f"prediction {label.prediction_id!r}, row {label.row}"
    names = ", ".join(map(repr, truths))
    if label.value is not msgspec.UNSET:
        if label.labels is not msgspec.UNSET:
            raise RequestError(f"{where}: it has 'value' and 'labels'; send one of them")
        return {next(iter(truths)): label.value}
    if not label.labels:
        raise RequestError(f"{where}: it has neither 'value' nor 'labels' with a name: {names}")
    if unknown := [name for name in label.labels if name not in truths]:
        raise RequestError(f"{where}: unknown label {unknown[0]!r}; this model has {names}")
    return label.labels
