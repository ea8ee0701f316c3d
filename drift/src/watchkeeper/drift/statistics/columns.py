"""Rows as columns of numbers, for requests and for the reference alike."""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from watchkeeper.core.drift_report import FeatureKind
from watchkeeper.core.record import OK
from watchkeeper.core.signature import Column
from watchkeeper.core.statistics import rounded
from watchkeeper.core.version import Manifest
from watchkeeper.ledger.observations import Observation

Values = NDArray[np.float64]  # of shape (rows,); NaN is a missing value
Columns = dict[str, Values]  # by the name of the feature, all of the same length
LARGEST = int(np.finfo(float).max)  # a larger integer has no floating-point number
SCORE_BITS = 16  # binary digits of a score that are compared


class Feature(msgspec.Struct, frozen=True):
    """A request column or a score that the watch compares.

    ``minimum`` and ``maximum`` bound the values of a numeric column, in ``unit``. ``categories``
    are the values of a categorical column, in the order of the signature.
    """

    name: str
    kind: FeatureKind
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    categories: tuple[str, ...] = ()


def watched_features(manifest: Manifest) -> tuple[Feature, ...]:
    """Return all request columns of a version, then all its scores, in their order."""
    scores = tuple(Feature(score, "score") for score in manifest.scores)
    return (*map(_feature, manifest.signature.inputs), *scores)


def _feature(column: Column) -> Feature:
    return Feature(
        name=column.name,
        kind="categorical" if column.categories else "numeric",
        unit=column.unit,
        minimum=column.minimum,
        maximum=column.maximum,
        categories=column.categories,
    )


def encode(feature: Feature, values: Sequence[Any]) -> Values:
    """Convert the values of a request to numbers.

    A category becomes its index in ``feature.categories``; a category that is not in the signature
    becomes the index after the last. A value of another type, and a number that is not finite or
    too large for a double, is missing (NaN). Scores are rounded: the form that serves adds in
    another order than the one that has scored the reference. Many rows can have the same score,
    such as the probability 1, and a difference in the last digit would move all of them.

    Returns:
        An array of shape (rows,).

    Example:
        >>> encode(Feature("grade", "categorical", categories=("L", "M")), ["M", "X", None])
        array([ 1.,  2., nan])
    """
    if feature.kind == "categorical":
        index = {category: float(n) for n, category in enumerate(feature.categories)}
        unknown = float(len(index))
        return np.array(
            [index.get(v, unknown) if isinstance(v, str) else np.nan for v in values], dtype=float
        )
    numbers = np.array([_number(v) for v in values], dtype=float)
    known = np.where(np.isfinite(numbers), numbers, np.nan)
    return rounded(known, SCORE_BITS, least_exponent=1) if feature.kind == "score" else known


def _number(value: object) -> float:
    if isinstance(value, float):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST:
        return float(value)
    return np.nan


def answered_rows(
    features: Sequence[Feature], requests: Sequence[Observation], limit: int
) -> Columns:
    """Return the newest ``limit`` rows of the answered requests, which are given oldest first."""
    answered = [request for request in requests if request.status == OK]
    return {
        feature.name: _concatenate(
            [encode(feature, _column_of(feature, request, limit)) for request in answered]
        )[-limit:]
        for feature in features
    }


def rows_after(requests: Sequence[Observation], time: float) -> int:
    """Return the number of rows of the answered requests after a record time."""
    return sum(max(r.rows, 0) for r in requests if r.status == OK and r.time > time)


def _column_of(feature: Feature, request: Observation, limit: int) -> list[Any]:
    """Return one value for each of the newest rows, at most ``limit``.

    A record may hold ``[value, ...]`` or ``[[value], ...]``, and fewer or more values than rows.
    """
    recorded = request.outputs if feature.kind == "score" else request.inputs
    values = recorded.get(feature.name)
    rows = max(request.rows, 0)
    newest = values[max(rows - limit, 0) : rows] if isinstance(values, list) else []
    flat = [v[0] if isinstance(v, list) and len(v) == 1 else v for v in newest]
    return flat + [None] * (min(rows, limit) - len(flat))


def _concatenate(arrays: list[Values]) -> Values:
    return np.concatenate(arrays) if arrays else np.empty(0)
