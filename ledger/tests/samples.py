"""Sample records for the tests of the ledger, and the numbers of stored rows."""

import msgspec
from sqlalchemy import func, select

from watchkeeper.core.head import Head
from watchkeeper.core.record import OK, LabelRecord, Prediction
from watchkeeper.core.truths import truths_of
from watchkeeper.ledger import Ledger, tables
from watchkeeper.ledger.retention import remove_batch
from watchkeeper.ledger.spools import SpoolState

DAY = 86400.0
# The truths of a version, which tells whether a row failed and its remaining useful life.
FAILED, RUL = truths_of(
    (
        Head("failure", "failure.skops", "predict_proba", label="failed"),
        Head("life", "life.skops", "predict", task="regression", label="rul"),
    ),
    main=Head("failure", "failure.skops", "predict_proba", label="failed"),
)
NOW = 1000 * DAY


def prediction(number: int, time: float = 0.0, **changes: object) -> Prediction:
    one = Prediction(
        id=f"{number:032x}",
        attempt=2,
        model="m",
        version=1,
        protocol="http",
        client="test",
        time=time,
        latency=0.001,
        status=OK,
        rows=1,
        inputs={"x": [1.0]},
        outputs={"p": [0.1]},
    )
    return msgspec.structs.replace(one, **changes)


def failed_attempt(one: Prediction) -> Prediction:
    return msgspec.structs.replace(one, attempt=1, status="UNAVAILABLE", version=2)


def label(one: Prediction, value: float = 1.0) -> LabelRecord:
    return LabelRecord(one.id, 0, "m", 1, value, one.time + value, "test")


def spool(until: float, name: str = "s", **changes: object) -> SpoolState:
    return msgspec.structs.replace(SpoolState(name, "m", 1, until), **changes)


def row_counts(ledger: Ledger) -> dict[str, int]:
    with ledger.read() as connection:
        return {
            table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in (tables.predictions, tables.superseded, tables.labels)
        }


def remove_all(ledger: Ledger, before: float, now: float = NOW) -> None:
    while remove_batch(ledger, "m", before, now).any():
        pass
