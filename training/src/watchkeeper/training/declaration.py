"""What a model's file declares: all that the training run has to know about it.

A model is one module in ``models``, named like the model with underscores, with a ``MODEL``.
Nothing else in the project knows a model's columns.
"""

from collections.abc import Callable
from typing import Any, Literal

import msgspec
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline

from watchkeeper.contracts.answer import AnswerPolicy, outputs_of
from watchkeeper.contracts.names import check_model_name
from watchkeeper.contracts.policies import DriftPolicy, RolloutPolicy
from watchkeeper.contracts.signature import Column, Signature

Method = Literal["predict_proba", "decision_function", "score_samples", "predict"]


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What ``--set name=value`` may change of every model; a model adds its own fields.

    ``onnx`` "off" leaves the ONNX form out, ``search`` "off" skips the search, ``seed`` starts
    every random choice of the run.
    """

    onnx: Literal["on", "off"] = "on"
    search: Literal["on", "off"] = "on"
    seed: int = 0


class Refresh(msgspec.Struct, frozen=True):
    """How rows that are aggregates of other tables come to be: by one incremental statement.

    ``statement`` adds to ``table`` the rows that are not there yet, an ``INSERT … SELECT``, and
    reads no more of the other tables than it must. A primary key of the table keeps runs at the
    same time from adding a row twice. ``create`` makes the table where it is missing, and
    should say ``IF NOT EXISTS`` for the sake of two first runs.
    """

    table: str
    create: str
    statement: str


class Source(msgspec.Struct, frozen=True):
    """Where the history is: a query on the operational database.

    ``id`` names a column of integers that rise in time and never change; rows are ordered by
    it. Further columns that the declaration does not name are dropped, identifiers among them.
    ``refresh``, if the rows are to be made first, runs before the query.
    """

    query: str
    id: str
    refresh: Refresh | None = None


class Split(msgspec.Struct, frozen=True):
    """Which rows are held out.

    Of the history, whole blocks of ``block_rows`` consecutive ids: rows next to each other are
    alike, so single held-out rows would be half known, and the reference sample needs
    stretches as long as the drift watch's windows. Of the labelled predictions, a share by
    their ids; it is larger, because the gate and the new reference live on these alone.
    ``recent_rows`` bounds how many of them are read, the newest. ``reference_rows`` bounds the
    reference sample; a new regime needs ``minimum_reference`` unseen rows to be described by them.
    """

    block_rows: int = 500
    held_out: float = 0.3
    recent_held_out: float = 0.4
    recent_rows: int = 50_000
    reference_rows: int = 5000
    minimum_reference: int = 200


class Outliers(msgspec.Struct, frozen=True):
    """Training features are clipped to the quartiles and ``factor`` times the IQR of the fold.

    A tree only asks on which side of a threshold a value lies, and no threshold comes to lie
    beyond the clipped values: clipping in training equals clipping when served.
    """

    factor: float = 3.0


class Balance(msgspec.Struct, frozen=True):
    """SMOTE until there are ``ratio`` positives a negative, in training folds only."""

    ratio: float
    neighbours: int = 5


class Search(msgspec.Struct, frozen=True):
    """Sets of parameters to try, by average precision over ``folds`` made of whole blocks.

    ``cheaper`` replaces parameters while trying, so that the search costs little: what is
    best with few trees is best with many.
    """

    candidates: tuple[dict[str, Any], ...] = ()
    folds: int = 3
    cheaper: dict[str, Any] = {}


class Gate(msgspec.Struct, frozen=True):
    """What a version must reach to become ``candidate``; judged on one score.

    ``floors`` by metric hold on the history's held-out rows, and so does ``most``, by label: the
    largest share of the rows that a label may mark. ``margin`` is how much worse than
    production in ROC AUC it may be, by the lower confidence bound. With fewer recent rows or
    positives than the minimum nothing is said about them.
    """

    score: str
    floors: dict[str, float]
    most: dict[str, float] = {}
    margin: float = 0.03
    minimum_recent: int = 100
    minimum_recent_positives: int = 10


class Head(msgspec.Struct, frozen=True):
    """One score: features and estimator (fresh ones at each call), and how to ask for it.

    Built-ins of scikit-learn only: they can be loaded without trusting anybody, and converted.
    An unsupervised head sees all training rows as they are, without labels, SMOTE and clipping.
    The ONNX form is kept when no score differs by more than ``tolerance``.
    """

    score: str
    features: Callable[[Any], BaseEstimator]
    estimator: Callable[[Any], BaseEstimator]
    method: Method = "predict_proba"
    supervised: bool = True
    tolerance: float = 1e-6

    def build(self, parameters: Parameters) -> Pipeline:
        """Return the pipeline from raw request columns to the score, not fitted yet."""
        return Pipeline(
            [("features", self.features(parameters)), ("estimator", self.estimator(parameters))]
        )


class Model(msgspec.Struct, frozen=True):
    """A model as declared. ``recent_weight`` is what all labelled predictions of the present
    regime weigh together in the fit, relative to the whole history."""

    name: str
    source: Source
    columns: tuple[Column, ...]
    target: str
    heads: tuple[Head, ...]
    gate: Gate
    answer: AnswerPolicy
    parameters: type[Parameters] = Parameters
    split: Split = Split()
    outliers: Outliers | None = None
    balance: Balance | None = None
    search: Search = Search()
    drift: DriftPolicy = DriftPolicy()
    rollout: RolloutPolicy = RolloutPolicy()
    recent_weight: float = 1.0

    def __post_init__(self) -> None:
        check_model_name(self.name)
        scores = {head.score for head in self.heads}
        asked = {self.gate.score, self.answer.risk.score, *(x.score for x in self.answer.labels)}
        if unknown := (asked | set(self.answer.hidden)) - scores:
            raise ValueError(f"{self.name}: no head makes the scores {sorted(unknown)}")
        if both := scores & set(self.names):
            raise ValueError(f"{self.name}: {sorted(both)} name a column and a score")
        if unknown := set(self.gate.most) - {label.name for label in self.answer.labels}:
            raise ValueError(f"{self.name}: the gate bounds {sorted(unknown)}, which is no label")

    @property
    def signature(self) -> Signature:
        """The columns of requests and answers."""
        scores = tuple(head.score for head in self.heads)
        return Signature(self.columns, outputs_of(scores, self.answer))

    @property
    def names(self) -> list[str]:
        """The names of the request columns, in order."""
        return [column.name for column in self.columns]

    @property
    def categories(self) -> list[str]:
        """The names of the request columns that hold categories."""
        return [column.name for column in self.columns if column.datatype == "BYTES"]

    @property
    def threshold(self) -> float:
        """From which score on the gate calls a row positive: its label's, or HIGH risk's."""
        score, risk = self.gate.score, self.answer.risk
        rising = (x for x in self.answer.labels if x.score == score and x.side == "above")
        thresholds = [x.threshold for x in rising] + [risk.high] * (risk.score == score)
        return thresholds[0] if thresholds else 0.5
