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

from watchkeeper.core import head as manifest_head
from watchkeeper.core.answer import AnswerPolicy, outputs_of
from watchkeeper.core.names import check_model_name
from watchkeeper.core.policies import DriftPolicy, RolloutPolicy, override
from watchkeeper.core.signature import Column, Signature, missing_name
from watchkeeper.core.tasks import UnknownTaskError, task_of
from watchkeeper.core.tasks.base import Better, Task
from watchkeeper.core.truths import MAX_NAME_LENGTH, Truth, truths_of
from watchkeeper.training.training_data import TrainingData


class DeclarationError(ValueError):
    """A declaration contradicts itself; the message says where and which names are known."""


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Parameters of a training run, which ``--set name=value`` changes; a model adds its own.

    ``onnx`` "off" leaves the ONNX form out. ``search`` "off" skips the search. ``seed`` starts
    every random choice of the run. ``adopt`` is MLflow's URI of the version that an adopting head
    takes, such as "models:/churn/12"; empty lets :class:`Adopt` choose.
    """

    onnx: Literal["on", "off"] = "on"
    search: Literal["on", "off"] = "on"
    seed: int = 0
    adopt: str = ""


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
    the reference sample stretches as long as the windows of the drift watch. 0 lets the blocks
    grow with the ids, from 10 rows to 500, see :func:`watchkeeper.training.split.block_numbers`.

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

    block_rows: int = 0
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
        if self.block_rows < 0:
            raise DeclarationError(
                f"split: block_rows is {self.block_rows}; it must be at least 1, or 0 for blocks "
                "that grow with the ids"
            )


class Outliers(msgspec.Struct, frozen=True):
    """Clip training features to the quartiles plus and minus ``factor`` times the IQR of the fold.

    Only for trees: a tree compares a value with thresholds, and no threshold lies beyond the
    clipped values. So clipping in training has the same effect as clipping in serving.
    """

    factor: float = 3.0


class Balance(msgspec.Struct, frozen=True):
    """SMOTE up to ``ratio`` positives per negative, in training folds of binary heads only."""

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

    The gate judges the heads that have a ``label``. ``floors`` are minimum values by metric, for
    metrics of which higher is better; ``ceilings`` are maximum values, for the others. The task of
    a head has the metrics, see :mod:`watchkeeper.core.tasks`. A metric of the main head has its
    plain name, such as "roc_auc"; one of another head begins with the score: "life.mae".
    ``max_label_rate`` is the largest
    share of rows, from 0 to 1, that an output label may mark. All of them hold on the held-out
    history.

    ``allowed`` names columns that may separate the outcomes alone. Without it a version with such
    a column is rejected, see :mod:`watchkeeper.training.leakage`.

    ``margin`` is the largest loss of quality against production that the lower confidence bound
    may show: of ROC AUC (binary) or balanced accuracy (multi-class), or the relative growth of the
    mean absolute error (regression). The usual margin of a task is 0.03, 0.03 and 0.2. One number
    is for the main head; write ``{"life": 0.3}`` for other heads, by their scores.
    Recent rows are compared when there are at least ``minimum_recent`` of them, with
    ``minimum_recent_positives`` positives (binary) or rows outside the most frequent class
    (multi-class).
    """

    floors: dict[str, float] = {}
    ceilings: dict[str, float] = {}
    max_label_rate: dict[str, float] = {}
    allowed: tuple[str, ...] = ()
    margin: float | dict[str, float] = {}
    minimum_recent: int = 100
    minimum_recent_positives: int = 10

    def __post_init__(self) -> None:
        for name, limit in self.ceilings.items():
            if not 0.0 <= limit < float("inf"):
                raise DeclarationError(
                    f"gate: the ceiling of {name!r} is {limit:g}; it must be a number from 0 on"
                )
        for kind, limits in (("floor", self.floors), ("max_label_rate", self.max_label_rate)):
            for name, limit in limits.items():
                if not 0.0 <= limit <= 1.0:
                    raise DeclarationError(
                        f"gate: the {kind} of {name!r} is {limit:g}; it must be from 0 to 1"
                    )
        for margin in self.margin.values() if isinstance(self.margin, dict) else [self.margin]:
            if not margin >= 0.0:
                raise DeclarationError(f"gate: margin is {margin:g}; it must not be negative")

    def margin_of(self, task: Task, *, is_main: bool) -> float:
        """Return the margin of a head: the declared one, or else the usual one of its task."""
        if isinstance(self.margin, dict):
            return self.margin.get(task.head.score, task.margin)
        return self.margin if is_main else task.margin


class Adopt(msgspec.Struct, frozen=True):
    """A head whose estimator is a version that somebody else registers in MLflow.

    ``model`` is the name of the registered model there. ``when`` says which version a run takes
    that names none: the newest ("each"), or the newest one with the tag ``watchkeeper.adopt`` and
    the name of this model as its value ("tag"). With "hand" every run must name one, as
    ``watchkeeper adopt`` does.

    ``trust`` "pickle" lets a training run open a version that is saved as a pickle. A pickle
    executes what is in it, with the rights of the training run: so whoever may register a version
    of ``model`` can then run code there. Servers never open one.
    """

    model: str
    when: Literal["hand", "tag", "each"] = "hand"
    trust: Literal["", "pickle"] = ""


class Head(msgspec.Struct, frozen=True):
    """One estimator of a model: its features, its task, and the column that holds its truth.

    ``features`` and ``estimator`` return new objects at each call, from the run's parameters. The
    features are transformers of scikit-learn. The estimator is of scikit-learn, XGBoost, LightGBM
    or CatBoost. ``method`` is the estimator's method that gives the values of a row; empty for the
    usual one of the task.

    ``train`` takes their place: a function of the model's package that fits and returns an
    estimator, see :mod:`watchkeeper.training.training_data`. It returns a pipeline of scikit-learn
    from the request columns on, or an estimator that is fitted with request columns. The rows come
    as they are, without ``outliers`` and ``balance``. ``adopt`` takes their place, too: the
    estimator is a version that somebody else has registered in MLflow.

    ``label`` names the source's column with the truth of this head. A head with a label is
    supervised: it is fitted on the rows whose truth is known, and the gate and the rollout judge
    it. The first one is the main head. A head without a label is unsupervised: it sees all
    training rows, without SMOTE and clipping.

    ``task`` says what the values and the labels are, see :mod:`watchkeeper.core.tasks`. Empty means
    "multiclass" with ``classes``, "anomaly" without a label, and "binary" otherwise.

    - ``binary``: labels are 0 and 1; the score is the probability of 1, or rises with it.
    - ``multiclass``: labels are the ``classes``, text or whole numbers. The scores are named
      ``<score>_<class>``, and the output ``<score>`` is the class with the largest one.
    - ``regression``: labels are finite numbers. ``interval`` is the level of a prediction interval,
      for example 0.9; its outputs are ``<score>_low`` and ``<score>_high``.
    - ``anomaly``: there are no labels.

    The ONNX form is kept when no score differs from the pipeline's by more than ``tolerance``,
    times the size of the largest score if that is above 1.
    """

    score: str
    features: Callable[[Any], BaseEstimator] | None = None
    estimator: Callable[[Any], BaseEstimator] | None = None
    method: manifest_head.Method | Literal[""] = ""
    label: str = ""
    tolerance: float = 1e-6
    task: str = ""
    classes: tuple[str, ...] = ()
    interval: float | None = None
    train: Callable[[TrainingData], Any] | None = None
    adopt: Adopt | None = None

    def describe(self, threshold: float = 0.5) -> manifest_head.Head:
        """Return the head as a manifest describes it before it is fitted.

        Args:
            threshold: the score from which on a row counts as positive.

        Raises:
            DeclarationError: there is no such task, or the head lacks what the task needs.
        """
        task = self.task or self._usual_task()
        interval = None if self.interval is None else manifest_head.Interval(self.interval, 0.0)
        head = manifest_head.Head(
            self.score,
            f"{self.score}.skops",
            self.method or "predict",
            task=task,
            label=self.label,
            classes=self.classes,
            threshold=threshold,
            interval=interval,
        )
        try:
            methods = task_of(head).methods
        except UnknownTaskError as error:
            raise DeclarationError(str(error)) from error
        if self.method and self.method not in methods:
            raise DeclarationError(
                f"head {self.score!r}: method {self.method!r} does not fit the task {task}; "
                f"methods are {_listed(methods)}"
            )
        return msgspec.structs.replace(head, method=self.method or methods[0])

    def _usual_task(self) -> str:
        if self.classes:
            return "multiclass"
        return "binary" if self.label else "anomaly"

    @property
    def supervised(self) -> bool:
        """Whether the head learns from labels."""
        return bool(self.label)

    def build(self, parameters: Parameters) -> Pipeline:
        """Return the unfitted pipeline from request columns to the score.

        Raises:
            DeclarationError: the head has no declared estimator.
        """
        if self.features is None or self.estimator is None:
            raise DeclarationError(f"head {self.score!r} has no declared estimator")
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
    answer: AnswerPolicy = AnswerPolicy()
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
        problems = [*_label_problems(self)]
        if not problems:
            problems = [
                *_estimator_problems(self),
                *_metric_problems(self),
                *_name_problems(self),
                *_parameter_problems(self),
            ]
        if problems:
            raise DeclarationError(f"model {self.name!r}: {'; '.join(problems)}")

    @property
    def main_head(self) -> Head:
        """The first head with a label. The search chooses parameters for it."""
        return next(head for head in self.heads if head.supervised)

    @property
    def target(self) -> str:
        """The source's column that holds the truth of the main head."""
        return self.main_head.label

    @property
    def task(self) -> Task:
        """The task of the main head."""
        return self.truths[0].task

    @property
    def truths(self) -> tuple[Truth, ...]:
        """The truths of the heads with a label, that of the main head first."""
        return truths_of(self.described(), self.main_head.describe(self.threshold(self.main_head)))

    def described(self) -> tuple[manifest_head.Head, ...]:
        """Return the heads as a manifest describes them before they are fitted."""
        return tuple(head.describe(self.threshold(head)) for head in self.heads)

    @property
    def scores(self) -> tuple[str, ...]:
        """The names of all scores, in order."""
        return tuple(name for head in self.described() for name in task_of(head).scores)

    @property
    def signature(self) -> Signature:
        """The columns of requests and answers."""
        return Signature(self.columns, outputs_of(self.described(), self.answer))

    @property
    def names(self) -> list[str]:
        """The names of the request columns, in order."""
        return [column.name for column in self.columns]

    @property
    def categories(self) -> list[str]:
        """The names of the request columns that hold categories."""
        return [column.name for column in self.columns if column.datatype == "BYTES"]

    def metric_name(self, truth: Truth, metric: str) -> str:
        """Return the name of a metric of a head: plain for the main head, else with its score."""
        score = truth.task.head.score
        return metric if score == self.main_head.score else f"{score}.{metric}"

    def threshold(self, head: Head) -> float:
        """Return the score from which on the gate's metrics count a row as positive.

        The threshold of the score's own output label, or else of HIGH risk, or else 0.5.
        """
        score, risk = head.score, self.answer.risk
        rising = (x for x in self.answer.labels if x.score == score and x.side == "above")
        thresholds = [x.threshold for x in rising]
        thresholds += [risk.high] if risk and risk.score == score else []
        return thresholds[0] if thresholds else 0.5


def _label_problems(model: Model) -> Iterator[str]:
    labels = [head.label for head in model.heads if head.supervised]
    if not labels:
        yield (
            "one head at least must have a label, the column with its truth, and none has one; "
            f"heads are {_listed(head.score for head in model.heads) or 'none'}"
        )
    if twice := [name for name, count in Counter(labels).items() if count > 1]:
        yield f"{_listed(twice)}: each label can be the truth of one head only"
    for head in model.heads:
        if head.label in model.names:
            yield f"head {head.score!r}: its label {head.label!r} is also a request column"
        if len(head.label) > MAX_NAME_LENGTH:
            yield (
                f"head {head.score!r}: its label {head.label!r} has more than {MAX_NAME_LENGTH} "
                "characters; name it shorter in the source's query"
            )


def _estimator_problems(model: Model) -> Iterator[str]:
    for head in model.heads:
        is_given = head.train is not None or head.adopt is not None
        if [head.features is None, head.estimator is None] != [is_given] * 2:
            yield f"head {head.score!r} needs features and estimator, or else train, or else adopt"
        if not is_given or not head.supervised:
            continue
        rules = {"outliers": model.outliers, "balance": model.balance}
        for name in (name for name, rule in rules.items() if rule is not None):
            yield f"{name} prepares rows for a declared estimator, and {head.score!r} has none"
        if head.adopt is not None and model.search.candidates:
            yield f"search tries parameters, and the adopted estimator of {head.score!r} has none"


def _metric_problems(model: Model) -> Iterator[str]:
    limits: tuple[tuple[str, dict[str, float], Better], ...] = (
        ("floors", model.gate.floors, "higher"),
        ("ceilings", model.gate.ceilings, "lower"),
    )
    for kind, named, better in limits:
        known = [
            model.metric_name(truth, name)
            for truth in model.truths
            for name, way in truth.task.metrics.items()
            if way == better
        ]
        if unknown := _unknown(named, known):
            yield (
                f"gate.{kind} name {unknown}; metrics of which {better} is better are "
                f"{_listed(known) or 'none'}"
            )
    if model.balance is not None and all(len(x.task.outcomes) != 2 for x in model.truths):
        found = _listed(truth.name for truth in model.truths)
        yield f"balance needs a label with two outcomes, and {found} have others"
    if model.balance is not None and (
        nullable := _listed(column.name for column in model.columns if column.nullable)
    ):
        yield (
            f"balance makes rows between neighbours, which need all values, and {nullable} may be "
            "missing; use class weights of the estimator instead"
        )


def _name_problems(model: Model) -> Iterator[str]:
    scores, risk = model.scores, model.answer.risk
    labels = [label.name for label in model.answer.labels]
    supervised = [truth.task.head.score for truth in model.truths]
    used = [
        ("answer.risk.score", [risk.score] if risk else [], scores, "scores"),
        ("answer.hidden", model.answer.hidden, scores, "scores"),
        *((f"label {x.name!r}", [x.score], scores, "scores") for x in model.answer.labels),
        ("gate.allowed", model.gate.allowed, model.names, "columns"),
        ("gate.margin", _margins(model.gate), supervised, "scores of heads with a label"),
        ("gate.max_label_rate", model.gate.max_label_rate, labels, "labels"),
    ]
    for where, names, known, what in used:
        if unknown := _unknown(names, known):
            yield f"{where} names {unknown}; {what} are {_listed(known) or 'none'}"
    of_tasks = (output.name for head in model.described() for output in task_of(head).outputs)
    watched = (missing_name(column.name) for column in model.columns if column.nullable)
    names = [*model.names, *watched, *scores, *of_tasks, *labels, *([risk.name] if risk else [])]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        yield f"{_listed(twice)}: columns, scores and outputs must have different names"


def _margins(gate: Gate) -> Iterable[str]:
    return gate.margin if isinstance(gate.margin, dict) else ()


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
