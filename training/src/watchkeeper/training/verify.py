"""Verification of an ONNX form where it can be wrong.

Two forms of trees agree almost everywhere and differ near thresholds, for missing values and for
unknown categories. Rows of the data rarely are there, so rows are made for it.
"""

from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from watchkeeper.core.head import Head
from watchkeeper.core.signature import DTYPES, MISSING_TEXT, Column
from watchkeeper.pipeline.scoring import features, score, score_features
from watchkeeper.pipeline.trees import Trees
from watchkeeper.training.missing import UNSEEN
from watchkeeper.training.onnx_form import difference, relative, session
from watchkeeper.training.onnx_trees import trees_model

MADE_ROWS: Final = 4000
MISSING_SHARE: Final = 0.1

Numbers = NDArray[np.float64]


def verify(
    form: bytes,
    trees: Trees | None,
    *,
    pipeline: Pipeline,
    head: Head,
    columns: tuple[Column, ...],
    rows: pd.DataFrame,
    tolerance: float,
) -> str:
    """Compare a form with its pipeline on rows that are made from some real ones.

    Args:
        form: the ONNX file.
        trees: the trees of the last step, if it has trees.
        pipeline: the fitted pipeline.
        head: its description.
        columns: the request columns.
        rows: real rows, with these columns.
        tolerance: the largest difference, see :func:`~watchkeeper.training.onnx_form.relative`.

    Returns:
        What differs, or "" if nothing does.
    """
    random = np.random.default_rng(0)
    if trees is not None:
        estimator = pipeline.steps[-1][1]
        if found := _verify_trees(trees, estimator, head, features(pipeline, rows), tolerance):
            return found
    made = _made_requests(pipeline, trees, columns, rows, random)
    try:
        expected = score(pipeline, head, made)
    except ValueError:  # the pipeline refuses a category that it has not seen
        return ""
    apart = difference(form, head, made, expected)
    return _told(apart, tolerance, _what(columns))


def _verify_trees(
    trees: Trees, estimator: Any, head: Head, typical: Numbers, tolerance: float
) -> str:
    """Compare trees with their estimator on features, also missing ones if it accepts them."""
    random = np.random.default_rng(0)
    made = on_thresholds(trees, typical, random)
    runner = session(trees_model(trees).SerializeToString())
    for values, what in (
        (made, "features on and next to its thresholds"),
        (_with_missing(made, random), "missing features"),
    ):
        try:
            expected = score_features(estimator, head, values)
        except ValueError:
            continue  # it refuses missing values
        (got,) = runner.run(None, {"features": values})
        scores = got if expected.ndim > 1 else got[:, 1 if got.shape[1] > 1 else 0]
        if told := _told(relative(scores, expected), tolerance, what):
            return told
    return ""


def on_thresholds(trees: Trees, typical: Numbers, random: np.random.Generator) -> Numbers:
    """Return rows of features (:data:`MADE_ROWS`, features) with values where trees decide.

    Values are on a threshold, the next number to it, or the float32 next to it. In half of the
    rows one value is replaced, in the others about half of them.
    """
    made = typical[random.integers(0, len(typical), MADE_ROWS)].copy()
    replaced = random.random(made.shape) < 0.5
    single = np.arange(MADE_ROWS) % 2 == 0
    replaced[single] = False
    replaced[single, random.integers(0, made.shape[1], int(single.sum()))] = True
    limits = np.array([0.0, trees.missing.nearly_zero, -trees.missing.nearly_zero])
    for feature, thresholds in enumerate(trees.thresholds()):
        values = around(np.concatenate([thresholds, limits, _unknown(trees, feature, thresholds)]))
        made[:, feature] = np.where(
            replaced[:, feature], random.choice(values, MADE_ROWS), made[:, feature]
        )
    return made


def around(values: Numbers) -> Numbers:
    """Return values with the doubles and the float32 numbers next to them, finite ones only."""
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
        near: list[Numbers] = [values, *(np.nextafter(values, side) for side in (-np.inf, np.inf))]
        near += [
            x.astype(np.float64)
            for x in (single, *(np.nextafter(single, np.float32(x)) for x in (-np.inf, np.inf)))
        ]
    found = np.unique(np.concatenate(near))
    return found[np.abs(found) < np.finfo(np.float32).max]


def _unknown(trees: Trees, feature: int, known: Numbers) -> Numbers:
    """Return categories that no tree knows, if the feature has categories."""
    if feature not in trees.whole.features or not len(known):
        return np.empty(0)
    return np.array([-1.0, -0.5, 0.5, float(known.max()) + 1.0, float(known.max()) + 1000.0])


def _with_missing(values: Numbers, random: np.random.Generator) -> Numbers:
    return np.where(random.random(values.shape) < MISSING_SHARE, np.nan, values)


def _made_requests(
    pipeline: Pipeline,
    trees: Trees | None,
    columns: tuple[Column, ...],
    rows: pd.DataFrame,
    random: np.random.Generator,
) -> pd.DataFrame:
    """Return rows with every category, thresholds in columns that are features, and no values.

    Values are missing in nullable columns only.
    """
    chosen = rows.iloc[random.integers(0, len(rows), MADE_ROWS)].reset_index(drop=True)
    features_of = {} if trees is None else _unchanged(features(pipeline, rows), rows, columns)
    for column in columns:
        if column.categories:
            known = [*column.categories, *([UNSEEN] if column.unseen == "accept" else [])]
            values: Any = random.choice(np.array(known, dtype=object), MADE_ROWS)
        elif trees is not None and column.name in features_of:
            thresholds = trees.thresholds()[features_of[column.name]]
            values = random.choice(around(np.append(thresholds, 0.0)), MADE_ROWS)
        else:
            continue
        replaced = random.random(MADE_ROWS) < 0.5
        mixed = np.where(replaced, values, chosen[column.name].to_numpy())
        chosen[column.name] = mixed.astype(DTYPES[column.datatype])
    for column in (each for each in columns if each.nullable):
        gone = random.random(MADE_ROWS) < MISSING_SHARE
        chosen.loc[gone, column.name] = MISSING_TEXT if column.categories else np.nan
    return chosen


def _unchanged(values: Numbers, rows: pd.DataFrame, columns: tuple[Column, ...]) -> dict[str, int]:
    """Return the feature of each numeric column that some feature repeats without a change."""
    found = {}
    for column in (c for c in columns if not c.categories):
        given = rows[column.name].to_numpy(dtype=np.float64)
        known = ~np.isnan(given)
        same = np.flatnonzero((values[known] == given[known, None]).all(axis=0))
        if len(same):
            found[column.name] = int(same[0])
    return found


def _what(columns: tuple[Column, ...]) -> str:
    missing = ", some missing," if any(column.nullable for column in columns) else ""
    return f"requests with values on its thresholds{missing} and all categories"


def _told(apart: float, tolerance: float, where: str) -> str:
    if apart <= tolerance:
        return ""
    return f"it differs by {apart:.1e} on {where}; {tolerance:.1e} is allowed"
