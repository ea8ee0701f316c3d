"""An estimator that was not fitted by us: as a pipeline of a version, and checked.

It comes from a model's own training function, or from a version that somebody else has registered.
"""

from typing import Any, Final

import msgspec
import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline

from watchkeeper.core.head import Head
from watchkeeper.core.tasks import task_of
from watchkeeper.pipeline import score
from watchkeeper.pipeline.files import framework_name
from watchkeeper.pipeline.frameworks import UnsupportedEstimatorError, framework_of
from watchkeeper.training import CannotTrainError
from watchkeeper.training.capabilities import method_of
from watchkeeper.training.declaration import Head as DeclaredHead
from watchkeeper.training.declaration import Model
from watchkeeper.training.declared_code import explained
from watchkeeper.training.rows import Rows

CHECKED_ROWS: Final = 200
ROUNDED: Final = 1e-6  # probabilities of float32 may be so much above 1


def as_pipeline(given: Any, head: DeclaredHead, model: Model, rows: Rows) -> Pipeline:
    """Return a given estimator as a pipeline from request columns to the values of a head.

    A pipeline of scikit-learn stays as it is. Any other estimator gets the columns that it was
    fitted with, in that order, or all of them if it does not say.

    Args:
        given: what a training function has returned, or what a version in MLflow holds.
        head: the head that it is for.
        model: the declaration.
        rows: rows that the estimator must accept; there is at least one.

    Raises:
        CannotTrainError: it is not fitted for these columns, lacks a method that the task needs, or
            returns something else than finite values of the task.
    """
    where = f"head {head.score!r}"
    if given is None:
        raise CannotTrainError(f"{where}: None was returned, and not a fitted estimator")
    given = getattr(given, "best_estimator_", given)  # of a search by scikit-learn
    try:
        pipeline = _with_columns(given, head, model, rows)
        name = framework_name(pipeline)
    except UnsupportedEstimatorError as error:
        raise CannotTrainError(f"{where}: {error}") from error
    declared, estimator = head.describe(), pipeline.steps[-1][1]
    method = method_of(declared, estimator)
    if not hasattr(estimator, method):
        raise CannotTrainError(
            f"{where}: {type(estimator).__name__} of {name} has no method {method}, which the task "
            f"{declared.task} needs"
        )
    _check_classes(estimator, declared, where)
    _check_values(pipeline, msgspec.structs.replace(declared, method=method), rows, where)
    return pipeline


def _with_columns(given: Any, head: DeclaredHead, model: Model, rows: Rows) -> Pipeline:
    where = f"head {head.score!r}"
    if isinstance(given, Pipeline):
        *before, last = given.steps
        if before:
            return given
        given = last[1]
    framework = framework_of(given)
    given = framework.prepared(given, head.describe(), model.columns)
    if framework.takes_columns:
        return Pipeline([("estimator", given)])
    try:
        names = framework.feature_names(given) or model.names
    except Exception as error:  # a library raises errors of its own
        raise CannotTrainError(f"{where}: its estimator is not fitted: {error}") from error
    if set(names).isdisjoint(model.names) and len(names) == len(model.names):
        names = model.names  # made-up names of an estimator that was fitted on an array
    if unknown := [name for name in names if name not in model.names]:
        raise CannotTrainError(
            f"{where}: its estimator was fitted with {unknown[0]!r}, which is no request column; "
            f"columns are {', '.join(model.names)}"
        )
    if texts := [c.name for c in model.columns if c.name in names and c.categories]:
        raise CannotTrainError(
            f"{where}: its estimator would get the text of column {texts[0]!r}; return a Pipeline "
            "whose first step turns all columns into numbers"
        )
    columns = ColumnTransformer([("columns", "passthrough", names)]).fit(rows.columns)
    return Pipeline([("features", columns), ("estimator", given)])


def _check_classes(estimator: Any, head: Head, where: str) -> None:
    """Check that the classes of a classifier are those of the task, in their order."""
    found = getattr(estimator, "classes_", None)
    if found is None:
        return
    names, kind = [str(each) for each in found], type(estimator).__name__
    task = task_of(head)
    if not task.outcomes:
        if head.label:
            raise CannotTrainError(
                f"{where}: {kind} is a classifier, and the task {head.task} needs numbers"
            )
        return
    places = [f"{outcome:g}" for outcome in task.outcomes]
    known = [places, [task.name(outcome) for outcome in task.outcomes]]
    if len(places) == 2:
        known.append(["False", "True"])
    if _plain(names) not in known:
        raise CannotTrainError(
            f"{where}: {kind} knows the classes {', '.join(names[:10])}, in this order; the task "
            f"{head.task} needs {', '.join(known[1])}, or their numbers {', '.join(places)}"
        )


def _plain(names: list[str]) -> list[str]:
    """Return names of classes without the fraction of whole numbers."""
    return [name.removesuffix(".0") for name in names]


def _check_values(pipeline: Pipeline, head: Head, rows: Rows, where: str) -> None:
    some = rows.columns.iloc[:: -(-len(rows) // CHECKED_ROWS)]
    with explained(f"{where}: its estimator cannot predict from the request columns"):
        values = score(pipeline, head, some)
    count = len(task_of(head).scores)
    expected = (len(some),) if count == 1 else (len(some), count)
    if values.shape != expected:
        raise CannotTrainError(
            f"{where}: {head.method} returns values of shape {values.shape} for {len(some)} rows; "
            f"the task {head.task} needs {expected}"
        )
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values.reshape(len(some), -1)).all(axis=1))[0])
        shown = some.iloc[[row]].to_dict("records")[0]
        raise CannotTrainError(
            f"{where}: {head.method} returns {values[row]} for the row {shown}; every value must "
            "be a finite number"
        )
    if head.method == "predict_proba" and not (np.abs(values - 0.5) <= 0.5 + ROUNDED).all():
        raise CannotTrainError(
            f"{where}: predict_proba returns values from {values.min():g} to {values.max():g}, and "
            "probabilities are from 0 to 1; declare the head's method if they are other scores"
        )
