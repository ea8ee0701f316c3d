"""The reference: the rows that the drift watch compares a version's traffic with.

It must describe what the version is going to see. Usually that is the whole history that training
read, and the recent rows after it. After a drift it is the regime since the onset, or the watch
would raise the same alarm again at once. The file then also has the history before the onset: it
shows how much the conditions vary, which a short regime cannot.

A reference is representative or is not used: only values that describe the traffic are in it, see
:mod:`watchkeeper.training.representative`. The reference stays the history if too few rows are
left, or if a column or a score is constant in the recent rows and never was in the history.

The file has all these rows in time order. A score is empty in rows that the version was fitted on:
a forest scores known rows with more confidence, and its live scores would look like drift.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from watchkeeper.core.signature import missing_name
from watchkeeper.core.stuck import usual_share
from watchkeeper.core.version import ReferenceKind, Statistics
from watchkeeper.training.declaration import Model
from watchkeeper.training.fit import Fitted, score_head
from watchkeeper.training.recent import Recent
from watchkeeper.training.rows import Rows, ScoredRows, joined_scored

log = logging.getLogger(__name__)

FEW_WINDOWS = 4
SHUFFLED_ROWS = 500  # rows that show which columns a score depends on


class Reference(msgspec.Struct, frozen=True):
    """``rows`` in time order, with NaN as the score of a fitted row.

    The reference begins at row ``start``; the rows before it are history only. ``describes`` says
    what the reference describes. ``refused`` says why the recent rows are not in it.
    """

    rows: ScoredRows
    start: int
    describes: ReferenceKind
    refused: str = ""

    def columns(self) -> dict[str, "pd.Series[Any]"]:
        """Return columns and scores; a value that does not describe the traffic is missing."""
        rows = self.rows.rows
        # A large table is not copied where all values describe the traffic, as in the history.
        known = {
            name: column if (typical := rows.typical[:, place]).all() else column.where(typical)
            for place, (name, column) in enumerate(rows.columns.items())
        }
        return known | {name: pd.Series(values) for name, values in self.rows.scores.items()}

    def compared(self) -> ScoredRows:
        """Return the rows of the reference, without the history before it."""
        return self.rows.where(np.arange(len(self.rows)) >= self.start)


def choose_reference(
    fitted: Fitted, recent: Recent, model: Model, depends: Mapping[str, Sequence[str]] | None = None
) -> Reference:
    """Return the reference of a version.

    Args:
        fitted: the rows by their use, and their scores.
        recent: the recent rows, and the onset of the last drift that did not pass.
        model: its ``split`` has the smallest number of rows since an onset.
        depends: the request columns that each score depends on; a score that it does not name
            depends on all of them.
    """
    history = _in_order(fitted.train, fitted.held, np.unique(_keys(fitted.train, fitted.held)))
    since = _in_order(fitted.recent_train, fitted.unseen, recent.rows.key).typical()
    since = _without_scores_of_broken_columns(since, depends or {})
    minimum = model.split.minimum_reference
    refused = ""
    if constant := _constant(history, since, model):
        refused = f"{', '.join(constant)}: constant in {len(since)} rows, and never in the history"
    elif recent.regime is not None and len(since) < minimum:
        refused = f"only {len(since)} rows since the onset of the last drift; it needs {minimum}"
    describes: ReferenceKind = "history and recent" if len(since) else "history"
    start = 0
    if constant:
        since, describes = since.where(np.zeros(len(since), dtype=bool)), "history"
    elif recent.regime is not None and not refused:
        start, describes = len(history), "recent"
    if refused:
        again = ", and the watch may alarm again" if recent.regime is not None else ""
        log.warning(
            "the recent rows of %s cannot be the reference: %s; it describes the %s%s",
            model.name,
            refused,
            describes,
            again,
        )
    reference = Reference(joined_scored(history, since), start, describes, refused)
    if len(reference.rows) < FEW_WINDOWS * model.drift.window:
        log.warning(
            "history and recent rows are %d rows, %.1f windows of %d: too few for a good estimate "
            "of the usual variation",
            len(reference.rows),
            len(reference.rows) / model.drift.window,
            model.drift.window,
        )
    return reference


def dependencies(fitted: Fitted, model: Model) -> dict[str, list[str]]:
    """Return the request columns that each score depends on.

    A score depends on a column if it changes in some held-out row while the column is shuffled. So
    this holds for any pipeline, and a column that a pipeline drops is found.
    """
    chosen = np.zeros(len(fitted.held), dtype=bool)
    chosen[:: -(-len(chosen) // SHUFFLED_ROWS)] = True
    rows = fitted.held.rows.where(chosen)
    order = np.random.default_rng(0).permutation(len(rows))
    found: dict[str, list[str]] = {}
    for head in model.heads:
        pipeline = fitted.pipelines[head.score]
        for column in model.names:
            scores = score_head(head, pipeline, _shuffled(rows, column, order))
            for name, values in scores.items():
                depends = found.setdefault(name, [])
                if (values != fitted.held.scores[name][chosen]).any():
                    depends.append(column)
    return found


def write_parquet(
    path: Path, reference: Reference, depends: dict[str, list[str]], model: Model
) -> None:
    """Write the columns and scores of a reference into a Parquet file.

    Values that are missing, or do not describe the traffic, are empty. So a nullable column has
    another one beside it, :func:`~watchkeeper.core.signature.missing_name`: 1 where a row has no
    value, 0 where it has one, empty where that does not describe the traffic.

    Its metadata are ``describes``, ``start`` (a number), and ``depends`` (a JSON object with the
    request columns of each score).
    """
    columns = reference.columns()
    rows = reference.rows.rows
    for place, column in enumerate(model.columns):
        if column.nullable:
            gone = pd.Series(column.missing(rows.columns[column.name].to_numpy()))
            columns[column.name] = columns[column.name].mask(gone)
            columns[missing_name(column.name)] = gone.astype(float).where(rows.typical[:, place])
    table = pa.table(
        {
            name: pa.array(
                values.to_numpy(), mask=gone if (gone := values.isna().to_numpy()).any() else None
            )
            for name, values in columns.items()
        }
    )
    metadata = {
        "describes": reference.describes,
        "start": str(reference.start),
        "depends": json.dumps(depends),
    }
    pq.write_table(table.replace_schema_metadata(metadata), path, compression="zstd")


def baseline(reference: Reference, model: Model) -> dict[str, Statistics]:
    """Return mean and standard deviation of each numeric column and of each score."""
    known = {
        name: values[reference.start :].dropna().to_numpy()
        for name, values in reference.columns().items()
        if name not in model.categories
    }
    return {
        name: Statistics(float(np.mean(values)), float(np.std(values)))
        for name, values in known.items()
        if len(values)
    }


def _constant(history: ScoredRows, since: ScoredRows, model: Model) -> list[str]:
    """Return the numeric columns and scores that are constant, and never were in the history."""
    if len(since) < 2:
        return []
    before, after = (Reference(rows, 0, "history").columns() for rows in (history, since))
    found = []
    for name in (name for name in after if name not in model.categories):
        values = after[name].dropna().to_numpy(dtype=float)
        if len(values) > 1 and (values == values[0]).all():
            usual = usual_share(before[name].to_numpy(dtype=float), len(values))
            found += [name] * (usual < 1.0)
    return found


def _without_scores_of_broken_columns(
    rows: ScoredRows, depends: Mapping[str, Sequence[str]]
) -> ScoredRows:
    """Return the rows without scores that depend on a value which does not describe the traffic."""
    names = list(rows.rows.columns)
    scores = {}
    for name, values in rows.scores.items():
        needed = [place for place, x in enumerate(names) if x in depends.get(name, names)]
        scores[name] = np.where(rows.rows.typical[:, needed].all(axis=1), values, np.nan)
    return ScoredRows(rows.rows, scores)


def _in_order(seen: ScoredRows, unseen: ScoredRows, keys: NDArray[np.generic]) -> ScoredRows:
    """Return fitted and other rows in the order of their keys, without the scores of the fitted."""
    empty = {name: np.full(len(seen), np.nan) for name in seen.scores}
    rows = joined_scored(ScoredRows(seen.rows, empty), unseen)
    first = pd.Series(np.arange(len(keys)), index=keys)
    place = first[~first.index.duplicated()].reindex(rows.rows.key).to_numpy()
    order = np.argsort(place, kind="stable")
    return rows.take(order)


def _keys(*parts: ScoredRows) -> NDArray[np.generic]:
    return np.concatenate([part.rows.key for part in parts])


def _shuffled(rows: Rows, column: str, order: NDArray[np.int64]) -> Rows:
    columns = rows.columns.assign(**{column: rows.columns[column].to_numpy()[order]})
    return msgspec.structs.replace(rows, columns=columns)
