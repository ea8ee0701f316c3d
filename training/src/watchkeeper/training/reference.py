"""The reference sample: what the drift watch will hold a version's traffic against.

It must describe what the version is going to see. Usually that is the history; after a drift
it is the regime since its onset, or the watch would raise the old alarm again at once. Either
way only rows that the version was not fitted on: a forest is surer of rows that it knows, and
its live scores would look like drift.

Recent rows are the held-out share of the labelled ones and all that have no label yet. The
share is drawn by prediction id, so that early stretches are thinned out evenly in time; the
newest stretch, whose labels are still to come, is whole. Windows of a thinned stretch span more
time than windows of the watch, and so differ a little less among themselves.
"""

import logging

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from watchkeeper.contracts.answer import Columns
from watchkeeper.contracts.version import Statistics
from watchkeeper.training.declaration import Model
from watchkeeper.training.rows import Rows, joined
from watchkeeper.training.split import Parts

log = logging.getLogger(__name__)

FEW_WINDOWS = 4


def choose(parts: Parts, regime: float | None, model: Model) -> tuple[Rows, str]:
    """Return the rows of the reference, in time order, and what they describe."""
    most, least = model.split.reference_rows, model.split.minimum_reference
    if regime is not None and len(parts.unseen) >= least:
        rows, what = parts.unseen.newest(most), "recent"
    else:
        if regime is not None:
            log.warning(
                "only %d unseen rows since the onset of the last drift, %d are needed for a "
                "reference: it describes the history, and the watch may alarm again",
                len(parts.unseen),
                least,
            )
        rows = joined(parts.held, parts.unseen).newest(most)
        what = "history and recent" if len(parts.unseen) else "history"
    if len(rows) < FEW_WINDOWS * model.drift.window:
        log.warning(
            "the reference has %d rows, %.1f windows of %d: few to tell what is usual by",
            len(rows),
            len(rows) / model.drift.window,
            model.drift.window,
        )
    return rows, what


def to_parquet(rows: Rows, scores: Columns, what: str) -> bytes:
    """Write columns and scores, each of shape (rows,), as one Parquet file."""
    table = pa.table({**rows.as_columns(), **scores})
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata({"describes": what}), sink)
    return bytes(sink.getvalue())


def baseline(rows: Rows, scores: Columns, model: Model) -> dict[str, Statistics]:
    """Return mean and standard deviation of each numeric column and score."""
    numeric = {n: x for n, x in rows.as_columns().items() if n not in model.categories}
    return {
        name: Statistics(float(np.mean(values)), float(np.std(values)))
        for name, values in {**numeric, **scores}.items()
    }
