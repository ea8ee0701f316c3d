"""A head: where its estimator comes from, its task and its truth."""

from collections.abc import Callable
from typing import Any, Literal

import msgspec
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline

from watchkeeper.core import head as manifest_head
from watchkeeper.core.tasks import UnknownTaskError, task_of
from watchkeeper.training.declaration.errors import DeclarationError, listed
from watchkeeper.training.declaration.fit import Parameters
from watchkeeper.training.training_data import TrainingData


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
                f"methods are {listed(methods)}"
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
