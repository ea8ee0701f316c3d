"""The types that declare a model.

A model's package builds one :class:`Model` and names it by an entry point, see
:mod:`watchkeeper.training.models`. Nothing else in the project knows a model's columns.

    MODEL = Model(
        name="pump-failure",
        source=Source(query="SELECT id, flow, vibration, failed FROM pump_readings", id="id"),
        columns=(
            Column("flow", "FP64", unit="l/min", minimum=0.0),
            Column("vibration", "FP64", unit="mm/s", minimum=0.0),
        ),
        heads=(Head("failure_probability", features=scale, estimator=forest, label="failed"),),
        gate=Gate(floors={"roc_auc": 0.9}),
        answer=AnswerPolicy(
            labels=(Label("failure", "failure_probability", threshold=0.5),),
            risk=Risk("failure_probability", medium=0.2, high=0.6),
        ),
    )

A declaration that contradicts itself is refused when its module is imported, with an error that
lists the names it may use.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import msgspec
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline

from watchkeeper.core.answer import AnswerPolicy, outputs_of
from watchkeeper.core.names import check_model_name
from watchkeeper.core.policies import DriftPolicy, RolloutPolicy, override
from watchkeeper.core.signature import Column, Signature
from watchkeeper.training.metrics import METRICS, Metric

Method = Literal["predict_proba", "decision_function", "score_samples", "predict"]


class DeclarationError(ValueError):
    """A declaration contradicts itself; the message says where and which names are known."""


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Parameters of a training run, which ``--set name=value`` changes; a model adds its own.

    ``onnx`` "off" leaves the ONNX form out. ``search`` "off" skips the search. ``seed`` starts
    every random choice of the run.
    """

    onnx: Literal["on", "off"] = "on"
    search: Literal["on", "off"] = "on"
    seed: int = 0


class Refresh(msgspec.Struct, frozen=True):
    """One incremental SQL statement that aggregates other tables into the rows of the history.

    ``statement`` is an ``INSERT … SELECT`` that adds the missing rows to ``table``. It should read
    only what the new rows need. A primary key of the table prevents two runs at the same time from
    adding a row twice. ``create`` makes the table where it is missing; use ``IF NOT EXISTS``,
    because two first runs can start at the same time.
    """

    table: str
    create: str
    statement: str


class Source(msgspec.Struct, frozen=True):
    """The query on the operational database that returns the history.

    ``id`` names an integer column whose values rise in time and never change; it orders the rows.
    Columns that the declaration does not name are dropped, for example identifiers. ``refresh``
    runs before the query.
    """

    query: str
    id: str
    refresh: Refresh | None = None


class Split(msgspec.Struct, frozen=True):
    """Which rows are held out, and how many recent rows and reference rows are used.

    ``held_out`` is the share of the history, in whole blocks of ``block_rows`` consecutive ids.
    Neighbouring rows are alike, so a single held-out row would be half known. Blocks also give
    the reference sample stretches as long as the windows of the drift watch.

    ``recent_held_out`` is the share of labelled predictions, chosen by their ids. It is larger,
    because the gate uses only the held-out ones.

    ``group`` names a column of the source with the machine, person or place that a row is about.
    All rows of a group are on one side, predictions by their ``subject`` too. Then whole groups
    are held out, and no blocks. Name it if clients ask about groups that training does not know.

    ``max_duplicates`` is the largest share of rows of the history, from 0 to 1, that may have the
    features of an earlier row, beyond the share that the features allow by chance; see
    :mod:`watchkeeper.training.duplicates`. A table that is loaded twice has 0.5, an idle machine
    that repeats its readings has less. Duplicates below the limit are harmless, because equal rows
    are on one side of the split. 1.0 says that equal rows are observations of their own: there is
    no limit, and they are split like all other rows.

    ``recent_rows`` limits how many of the newest labelled predictions are read, and after a drift
    how many of the newest predictions of each version. Without a drift the newest
    ``reference_rows`` predictions of each version are read. A new regime needs at least
    ``minimum_reference`` rows to become the reference of the drift watch.

    Of the recent rows of a reference, one request, client, subject or payload may have its usual
    share plus ``max_share`` (0 to 1), see :mod:`watchkeeper.training.representative`. 1.0 is no
    limit.
    """

    block_rows: int = 500
    held_out: float = 0.3
    recent_held_out: float = 0.4
    group: str = ""
    max_duplicates: float = 0.3
    recent_rows: int = 50_000
    reference_rows: int = 5000
    minimum_reference: int = 200
    max_share: float = 0.1

    def __post_init__(self) -> None:
        for name in ("held_out", "recent_held_out", "max_duplicates", "max_share"):
            share = getattr(self, name)
            if not 0.0 <= share <= 1.0:
                raise DeclarationError(f"split: {name} is {share:g}; it must be from 0 to 1")


class Outliers(msgspec.Struct, frozen=True):
    """Clip training features to the quartiles plus and minus ``factor`` times the IQR of the fold.

    Only for trees: a tree compares a value with thresholds, and no threshold lies beyond the
    clipped values. So clipping in training has the same effect as clipping in serving.
    """

    factor: float = 3.0


class Balance(msgspec.Struct, frozen=True):
    """SMOTE up to ``ratio`` positives per negative, in training folds only."""

    ratio: float
    neighbours: int = 5


class Search(msgspec.Struct, frozen=True):
    """Sets of parameters to compare by average precision over ``folds`` of whole blocks.

    ``cheaper`` replaces parameters during the search to save time, for example fewer trees.
    """

    candidates: tuple[dict[str, Any], ...] = ()
    folds: int = 3
    cheaper: dict[str, Any] = {}


class Gate(msgspec.Struct, frozen=True):
    """What a version must reach on held-out rows to become the candidate.

    The gate judges the score of the head that has a ``label``. ``floors`` are minimum values by
    metric, one of :data:`~watchkeeper.training.metrics.METRICS`. ``max_label_rate`` is the largest
    share of rows, from 0 to 1, that an output label may mark. Both hold on the held-out history.

    ``allowed`` names columns that may separate the outcomes alone. Without it a version with such
    a column is rejected, see :mod:`watchkeeper.training.leakage`.

    ``margin`` is the largest loss of ROC AUC against production that the lower confidence bound
    may show. Recent rows are compared when there are at least ``minimum_recent`` of them with
    ``minimum_recent_positives`` positives.
    """

    floors: dict[Metric, float]
    max_label_rate: dict[str, float] = {}
    allowed: tuple[str, ...] = ()
    margin: float = 0.03
    minimum_recent: int = 100
    minimum_recent_positives: int = 10

    def __post_init__(self) -> None:
        if unknown := _unknown(self.floors, METRICS):
            raise DeclarationError(f"gate: floors name {unknown}; metrics are {_listed(METRICS)}")
        for kind, limits in (("floor", self.floors), ("max_label_rate", self.max_label_rate)):
            for name, limit in limits.items():
                if not 0.0 <= limit <= 1.0:
                    raise DeclarationError(
                        f"gate: the {kind} of {name!r} is {limit:g}; it must be from 0 to 1"
                    )
        if not self.margin >= 0.0:
            raise DeclarationError(f"gate: margin is {self.margin:g}; it must not be negative")


class Head(msgspec.Struct, frozen=True):
    """One score of a model: its features, its estimator, and the column that holds its truth.

    ``features`` and ``estimator`` return new objects at each call, from the run's parameters. The
    features are transformers of scikit-learn. The estimator is of scikit-learn, XGBoost, LightGBM
    or CatBoost. ``method`` is the estimator's method that gives one number per row.

    ``label`` names the source's column with the truth of this score, 0 or 1. A head with a label
    is supervised, and its score is what the gate and the rollout judge. A head without a label is
    unsupervised: it sees all training rows, without SMOTE and clipping.

    The ONNX form is kept when no score differs from the pipeline's by more than ``tolerance``,
    times the size of the largest score if that is above 1.
    """

    score: str
    features: Callable[[Any], BaseEstimator]
    estimator: Callable[[Any], BaseEstimator]
    method: Method = "predict_proba"
    label: str = ""
    tolerance: float = 1e-6

    @property
    def supervised(self) -> bool:
        """Whether the head learns from labels."""
        return bool(self.label)

    def build(self, parameters: Parameters) -> Pipeline:
        """Return the unfitted pipeline from request columns to the score."""
        return Pipeline(
            [("features", self.features(parameters)), ("estimator", self.estimator(parameters))]
        )


class Model(msgspec.Struct, frozen=True):
    """The declaration of a model.

    ``recent_weight`` is the total weight of all labelled predictions of the present regime in the
    fit, relative to the whole history.

    Raises:
        DeclarationError: names in the declaration do not fit together.
        InvalidNameError: ``name`` cannot be the name of a model.
    """

    name: str
    source: Source
    columns: tuple[Column, ...]
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
        problems = [*_label_problems(self), *_name_problems(self), *_parameter_problems(self)]
        if problems:
            raise DeclarationError(f"model {self.name!r}: {'; '.join(problems)}")

    @property
    def judged_head(self) -> Head:
        """The head whose score the gate and the rollout judge: the one with a label."""
        return next(head for head in self.heads if head.supervised)

    @property
    def target(self) -> str:
        """The source's column that holds the truth of the judged score."""
        return self.judged_head.label

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
        """The judged score from which on the gate's metrics count a row as positive.

        The threshold of the score's own output label, or else of HIGH risk, or else 0.5.
        """
        score, risk = self.judged_head.score, self.answer.risk
        rising = (x for x in self.answer.labels if x.score == score and x.side == "above")
        thresholds = [x.threshold for x in rising] + [risk.high] * (risk.score == score)
        return thresholds[0] if thresholds else 0.5


def _label_problems(model: Model) -> Iterator[str]:
    supervised = [head.score for head in model.heads if head.supervised]
    if len(supervised) != 1:
        found = f"{_listed(supervised)} have one" if supervised else "none has one"
        yield (
            f"exactly one head must have a label, the column with its truth, and {found}; "
            f"heads are {_listed(head.score for head in model.heads) or 'none'}"
        )
    for head in model.heads:
        if head.label in model.names:
            yield f"head {head.score!r}: its label {head.label!r} is also a request column"


def _name_problems(model: Model) -> Iterator[str]:
    scores = [head.score for head in model.heads]
    labels = [label.name for label in model.answer.labels]
    used = [
        ("answer.risk.score", [model.answer.risk.score], scores, "scores"),
        ("answer.hidden", model.answer.hidden, scores, "scores"),
        *((f"label {x.name!r}", [x.score], scores, "scores") for x in model.answer.labels),
        ("gate.allowed", model.gate.allowed, model.names, "columns"),
        ("gate.max_label_rate", model.gate.max_label_rate, labels, "labels"),
    ]
    for where, names, known, what in used:
        if unknown := _unknown(names, known):
            yield f"{where} names {unknown}; {what} are {_listed(known) or 'none'}"
    names = [*model.names, *scores, *labels, model.answer.risk.name]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        yield f"{_listed(twice)}: columns, scores and outputs must have different names"


def _parameter_problems(model: Model) -> Iterator[str]:
    for changes in (*model.search.candidates, model.search.cheaper):
        known = [field.name for field in msgspec.structs.fields(model.parameters)]
        if unknown := _unknown(changes, known):
            yield f"search names {unknown}; parameters are {_listed(known)}"
            continue
        try:
            override(model.parameters(), changes)
        except msgspec.ValidationError as error:
            yield f"search: {changes}: {error}"


def _unknown(names: Iterable[str], known: Iterable[str]) -> str:
    return _listed(name for name in names if name not in set(known))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)
