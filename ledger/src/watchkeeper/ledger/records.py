"""Storing the records that a sidecar has read from a spool.

A sidecar ships a batch again if it is not sure that the batch was stored. The ledger stores each
record once, because records have ids.
"""

from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection

from watchkeeper.core.record import LabelRecord, Prediction
from watchkeeper.ledger import tables as t
from watchkeeper.ledger.database import Ledger
from watchkeeper.ledger.deletions import drop_forgotten
from watchkeeper.ledger.gaps import StoredGap, store_gaps
from watchkeeper.ledger.idempotent_writes import run_transaction, upsert
from watchkeeper.ledger.labels import store_labels
from watchkeeper.ledger.predictions import store_predictions
from watchkeeper.ledger.spools import SpoolState


def store_records(
    ledger: Ledger,
    predictions: Sequence[Prediction],
    labels: Sequence[LabelRecord],
    spool: SpoolState,
    gaps: Sequence[StoredGap] = (),
) -> None:
    """Store a batch of records and the spool's progress in one transaction. Safe to repeat.

    Records of forgotten subjects are dropped, see :mod:`watchkeeper.ledger.deletions`.

    Args:
        ledger: The ledger to write.
        predictions: Attempts, in any order.
        labels: Labels, in any order; their predictions may arrive later.
        spool: How far the spool is shipped with this batch.
        gaps: Requests without a record.

    Raises:
        SQLAlchemyError: the ledger does not answer; nothing is stored, try again later.
    """

    def store(connection: Connection) -> None:
        accepted = drop_forgotten(connection, spool.model, predictions, labels)
        store_predictions(connection, accepted.predictions)
        store_labels(connection, accepted.labels)
        store_gaps(connection, gaps)
        upsert(connection, t.spools, msgspec.structs.asdict(spool))

    run_transaction(ledger, store)
