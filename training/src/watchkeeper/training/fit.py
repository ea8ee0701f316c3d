"""Stage 4, fit: one pipeline per head, and the scores of every row.

The order within every training set, a fold or all rows: SMOTE on the raw rows, features, clipping
to the quartiles of the real rows, fit. Held-out rows take no part. An unsupervised head, which may
look for outliers, gets features and fit only. A head with a function of its own gets the raw rows.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from watchkeeper.core import head as manifest_head
from watchkeeper.core.signature import Columns
from watchkeeper.core.tasks import task_of
from watchkeeper.pipeline import score
from watchkeeper.pipeline.files import framework_name, save_pipeline
from watchkeeper.pipeline.frameworks import UnsupportedEstimatorError
from watchkeeper.pipeline.scoring import dense
from watchkeeper.training import CannotTrainError
from watchkeeper.training.balance import balanced
from watchkeeper.training.capabilities import accepts_weights, method_of
from watchkeeper.training.declaration import Head, Model, Outliers, Parameters
from watchkeeper.training.declared_code import explained
from watchkeeper.training.given_estimator import as_pipeline
from watchkeeper.training.missing import advice, check_answers
from watchkeeper.training.own_function import call_train, weights
from watchkeeper.training.rows import Rows, ScoredRows, joined
from watchkeeper.training.split import Parts

Numbers = NDArray[np.float64]


class Fitted(msgspec.Struct, frozen=True):
    """The heads, their fitted pipelines by score, and the scores of all rows.

    The parts are those of :class:`watchkeeper.training.split.Parts`. Each row is scored once, here.
    Export, judge and seal look scores up. ``consequences`` has a sentence about each thing that an
    estimator cannot do.
    """

    heads: tuple[manifest_head.Head, ...]
    pipelines: dict[str, Pipeline]
    train: ScoredRows
    held: ScoredRows
    recent_train: ScoredRows
    unseen: ScoredRows
    consequences: list[str] = []


def fit(model: Model, parameters: Parameters, parts: Parts) -> Fitted:
    """Fit all heads on the training rows, and score all rows."""
    pipelines = {
        head.score: fit_head(
            head, model, parameters, parts.train, parts.recent_train, blocks=parts.blocks
        )
        for head in model.heads
    }
    for head in model.heads:
        _check_files(head, pipelines[head.score])
        check_answers(described(head, pipelines[head.score]), pipelines[head.score], model, parts)

    def scored(rows: Rows) -> ScoredRows:
        scores: Columns = {}
        for head in model.heads:
            scores |= score_head(head, pipelines[head.score], rows)
        return ScoredRows(rows, scores)

    held = scored(parts.held)
    return Fitted(
        tuple(
            _calibrated(described(head, pipelines[head.score], model.threshold(head)), held)
            for head in model.heads
        ),
        pipelines,
        train=scored(parts.train),
        held=held,
        recent_train=scored(parts.recent_train),
        unseen=scored(parts.unseen),
        consequences=[
            sentence
            for head in model.heads
            for sentence in _consequences(head, pipelines[head.score], parts)
        ],
    )


def _calibrated(head: manifest_head.Head, held: ScoredRows) -> manifest_head.Head:
    if not head.label:
        return head
    try:
        return task_of(head).calibrated(held.about(head.label).truth())
    except ValueError as error:
        raise CannotTrainError(f"head {head.score!r}: {error}") from error


def _consequences(head: Head, pipeline: Pipeline, parts: Parts) -> Iterator[str]:
    estimator = pipeline.steps[-1][1]
    kind, declared = type(estimator).__name__, head.describe()
    method = method_of(declared, estimator)
    if head.supervised and len(parts.recent_train) and not accepts_weights(estimator):
        yield (
            f"{head.score}: {kind} accepts no sample_weight, so each of the "
            f"{len(parts.recent_train)} recent rows counts as much as a row of the history"
        )
    if method != declared.method:
        yield (
            f"{head.score}: {kind} has no {declared.method}, so the score is what {method} "
            "returns, and no probability; choose the thresholds of the answer policy for it"
        )


def fit_head(
    head: Head,
    model: Model,
    parameters: Parameters,
    old: Rows,
    recent: Rows,
    *,
    blocks: NDArray[np.int64],
) -> Pipeline:
    """Fit the pipeline of one head on rows of the history and on recent rows.

    The recent rows together weigh ``recent_weight`` times the history, however few they are: the
    version must fit what happens now and keep what it knew.

    Args:
        head: the head.
        model: the declaration.
        parameters: of the run.
        old: rows of the history.
        recent: labelled rows of the present regime.
        blocks: the numbers of the blocks of ``old``, as :class:`.Parts` has them.

    Raises:
        CannotTrainError: features or estimator of the head refuse the rows, or its function does
            not return an estimator that can be used.
    """
    if head.supervised:
        blocks = blocks[old.knows(head.label)]
        old, recent = old.about(head.label), recent.about(head.label)
    if head.train is not None:
        given = call_train(head, model, parameters, old, recent, blocks=blocks)
        return as_pipeline(given, head, model, old)
    what = f"head {head.score!r} of {model.name}: cannot fit {len(old)} rows of history"
    with explained(what, advice(model.columns, old, recent)):
        return _fit(head, model, parameters, old, recent)


def _fit(head: Head, model: Model, parameters: Parameters, old: Rows, recent: Rows) -> Pipeline:
    columns, target, weight = _training_set(head, model, parameters, old, recent)
    pipeline = head.build(parameters)
    framework_name(pipeline)  # an estimator of no known framework is refused before it is fitted
    features, estimator = pipeline.named_steps["features"], pipeline.named_steps["estimator"]
    values = dense(features.fit_transform(columns))
    if model.outliers is not None and head.supervised:
        real = dense(features.transform(joined(old, recent).columns))
        values = clipped(values, real, model.outliers)
    more = {"sample_weight": weight} if accepts_weights(estimator) else {}
    if head.supervised:
        truth = target.astype(np.int64) if task_of(head.describe()).outcomes else target
        estimator.fit(values, truth, **more)
    else:
        estimator.fit(values, **more)
    return pipeline


def _check_files(head: Head, pipeline: Pipeline) -> None:
    """Write the files of a fitted pipeline once, so that a run does not fail after its judgement.

    Raises:
        CannotTrainError: they could not be loaded again.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            save_pipeline(pipeline, Path(folder), described(head, pipeline))
        except UnsupportedEstimatorError as error:
            raise CannotTrainError(f"head {head.score!r}: {error}") from error


def score_head(head: Head, pipeline: Pipeline, rows: Rows) -> Columns:
    """Score rows with a fitted pipeline; returns one array of shape (rows,) per score.

    Raises:
        CannotTrainError: features or estimator of the head refuse the rows.
    """
    task = task_of(described(head, pipeline))
    if not len(rows):
        return {name: np.empty(0) for name in task.scores}
    with explained(f"head {head.score!r}: cannot score {len(rows)} rows"):
        return task.columns(score(pipeline, task.head, rows.columns))


def described(head: Head, pipeline: Pipeline, threshold: float = 0.5) -> manifest_head.Head:
    """Return a fitted head as a manifest describes it, without its ONNX form.

    Args:
        head: the declaration.
        pipeline: the fitted pipeline.
        threshold: the score from which on a row counts as positive.
    """
    declared = head.describe(threshold)
    return msgspec.structs.replace(
        declared,
        method=method_of(declared, pipeline.steps[-1][1]),
        framework=framework_name(pipeline),
    )


def clipped(values: Numbers, real: Numbers, rule: Outliers) -> Numbers:
    """Clip each feature of ``values`` (rows, features) by the quartiles of ``real``.

    A feature whose quartiles coincide has no spread that could define an outlier, and stays. A
    missing value stays missing.
    """
    known = np.where(np.isnan(real).all(axis=0), 0.0, real)  # a feature without values has none
    low, high = np.nanquantile(known, (0.25, 0.75), axis=0)
    reach = rule.factor * (high - low)
    reach[reach == 0.0] = np.inf
    return np.clip(values, low - reach, high + reach)


def _repeated(old: Rows, recent: Rows, weight: float) -> tuple[Rows, Rows]:
    """Repeat rows of the part with too few, so that the recent rows weigh what they should.

    Estimators that learn what is usual use weights little or not at all: an isolation forest draws
    rows without them.
    """
    if not weight or not len(recent):
        return old, recent
    if len(recent) < weight * len(old):
        return old, _resized(recent, weight * len(old))
    return _resized(old, len(recent) / weight), recent


def _resized(rows: Rows, count: float) -> Rows:
    return rows.take(np.resize(np.arange(len(rows)), round(count)))


def _training_set(
    head: Head, model: Model, parameters: Parameters, old: Rows, recent: Rows
) -> tuple[pd.DataFrame, Numbers, Numbers]:
    """Return columns, target (rows,) and weight (rows,) of the rows to fit."""
    if not head.supervised:
        old, recent = _repeated(old, recent, model.recent_weight)
    sources = [(old.columns, old.target), (recent.columns, recent.target)]
    if len(task_of(head.describe()).outcomes) == 2:
        sources = [balanced(*source, model, parameters.seed) for source in sources]
    (old_columns, old_target), (new_columns, new_target) = sources
    if not len(new_target):
        return old_columns, old_target, np.ones(len(old_target))
    # Synthetic rows count, so that the two regimes have the declared weights in the fit.
    return (
        pd.concat([old_columns, new_columns], ignore_index=True),
        np.concatenate([old_target, new_target]),
        weights(model, len(old_target), len(new_target)),
    )
