"""One prediction with everything that the ledger has about it."""

import msgspec
from sqlalchemy import select

from watchkeeper.core.record import LabelRecord, Prediction, Protocol
from watchkeeper.ledger import tables as t
from watchkeeper.ledger.database import Ledger


class SupersededAttempt(msgspec.Struct, frozen=True):
    """An attempt whose answer the client did not see, because the gateway retried the request."""

    id: str
    attempt: int
    model: str
    version: int
    protocol: Protocol
    client: str
    time: float
    latency: float
    status: str
    error: str | None
    subject: str


class FoundPrediction(msgspec.Struct, frozen=True):
    """A prediction, its labels in the order of their rows, and its superseded attempts."""

    prediction: Prediction
    labels: list[LabelRecord]
    superseded: list[SupersededAttempt]


def find_prediction(ledger: Ledger, request: str) -> FoundPrediction | None:
    """Return the prediction for the request part of an id; None if the ledger does not have it.

    Raises:
        SQLAlchemyError: the ledger does not answer.
    """
    of_prediction = select(t.predictions).where(t.predictions.c.id == request)
    of_labels = (
        select(t.labels)
        .where(t.labels.c.prediction == request)
        .order_by(t.labels.c.row, t.labels.c.name)
    )
    of_attempts = (
        select(t.superseded).where(t.superseded.c.id == request).order_by(t.superseded.c.attempt)
    )
    with ledger.read() as connection:
        row = connection.execute(of_prediction).first()
        if row is None:
            return None
        return FoundPrediction(
            prediction=Prediction(**row._mapping),
            labels=[LabelRecord(**label._mapping) for label in connection.execute(of_labels)],
            superseded=[
                SupersededAttempt(**attempt._mapping) for attempt in connection.execute(of_attempts)
            ],
        )
