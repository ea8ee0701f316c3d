"""Rows as columns of numbers, for requests and for the reference alike."""

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from watchkeeper.core.drift_report import FeatureKind
from watchkeeper.core.record import OK
from watchkeeper.core.signature import MISSING_TEXT, Column, missing_name
from watchkeeper.core.statistics import rounded
from watchkeeper.core.version import Manifest
from watchkeeper.ledger.observations import Observation

Values = NDArray[np.float64]  # of shape (rows,); NaN is a missing value
Columns = dict[str, Values]  # by the name of the feature, all of the same length
LARGEST = int(np.finfo(float).max)  # a larger integer has no floating-point number
SCORE_BITS = 16  # binary digits of a score that are compared


PRESENCE = ("present", "missing")  # the values of a feature of the kind "missing", as 0 and 1


class Feature(msgspec.Struct, frozen=True):
    """A request column, the missing values of a nullable one, or a score that the watch compares.

    ``minimum`` and ``maximum`` bound the values of a numeric column, in ``unit``. ``categories``
    are the values of a categorical column, in the order of the signature. ``nullable`` says that
    values may be missing without a fault. ``of`` is the column of a feature of the kind "missing".
    """

    name: str
    kind: FeatureKind
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    categories: tuple[str, ...] = ()
    nullable: bool = False
    of: str = ""

    @property
    def column(self) -> str:
        """The name of its values in records."""
        return self.of or self.name

    @property
    def is_column(self) -> bool:
        """Whether it is a request column itself."""
        return self.kind in ("numeric", "categorical")

    @property
    def is_discrete(self) -> bool:
        """Whether its values are shares of categories, and no numbers with an order."""
        return self.kind in ("categorical", "missing")


def watched_features(manifest: Manifest) -> tuple[Feature, ...]:
    """Return all request columns of a version, what may be missing, and all scores, in order.

    A time goes on without any drift, so timestamps are not compared.
    """
    columns = manifest.signature.inputs
    compared = (column for column in columns if column.datatype != "TIMESTAMP")
    missing = (missing_feature(column.name) for column in columns if column.nullable)
    scores = (Feature(score, "score") for score in manifest.scores)
    return (*map(_feature, compared), *missing, *scores)


def missing_feature(column: str) -> Feature:
    """Return the feature that says whether a nullable column has a value."""
    return Feature(missing_name(column), "missing", categories=PRESENCE, of=column)


def _feature(column: Column) -> Feature:
    return Feature(
        name=column.name,
        kind="categorical" if column.categories else "numeric",
        unit=column.unit,
        minimum=column.minimum,
        maximum=column.maximum,
        categories=column.categories,
        nullable=column.nullable,
    )


def encode(feature: Feature, values: Sequence[Any]) -> Values:
    """Convert the values of a request to numbers.

    A category becomes its index in ``feature.categories``; a category that is not in the signature
    becomes the index after the last. A value of another type, and a number that is not finite or
    too large for a double, is missing (NaN). Scores are rounded: the form that serves adds in
    another order than the one that has scored the reference. Many rows can have the same score,
    such as the probability 1, and a difference in the last digit would move all of them. Of a
    feature of the kind "missing", the values are those of its column.

    Returns:
        An array of shape (rows,).

    Example:
        >>> encode(Feature("grade", "categorical", categories=("L", "M")), ["M", "X", None])
        array([ 1.,  2., nan])
    """
    if feature.kind == "missing":
        return np.array([float(_is_missing(value)) for value in values], dtype=float)
    if feature.kind == "categorical":
        if feature.nullable:
            values = [None if value == MISSING_TEXT else value for value in values]
        index = {category: float(n) for n, category in enumerate(feature.categories)}
        unknown = float(len(index))
        return np.array(
            [index.get(v, unknown) if isinstance(v, str) else np.nan for v in values], dtype=float
        )
    numbers = np.array([_number(v) for v in values], dtype=float)
    known = np.where(np.isfinite(numbers), numbers, np.nan)
    return rounded(known, SCORE_BITS, least_exponent=1) if feature.kind == "score" else known


def _is_missing(value: object) -> bool:
    is_nan = isinstance(value, float) and math.isnan(value)
    return value is None or value == MISSING_TEXT or is_nan


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


def times_of_rows(requests: Sequence[Observation], limit: int) -> Values:
    """Return the record times of the rows that :func:`answered_rows` returns."""
    answered = [request for request in requests if request.status == OK]
    counts = [min(max(request.rows, 0), limit) for request in answered]
    return np.repeat(np.array([request.time for request in answered], dtype=float), counts)[-limit:]


def rows_after(requests: Sequence[Observation], time: float) -> int:
    """Return the number of rows of the answered requests after a record time."""
    return sum(max(r.rows, 0) for r in requests if r.status == OK and r.time > time)


def _column_of(feature: Feature, request: Observation, limit: int) -> list[Any]:
    """Return one value for each of the newest rows, at most ``limit``.

    A record may hold ``[value, ...]`` or ``[[value], ...]``, and fewer or more values than rows.
    """
    recorded = request.outputs if feature.kind == "score" else request.inputs
    values = recorded.get(feature.column)
    rows = max(request.rows, 0)
    newest = values[max(rows - limit, 0) : rows] if isinstance(values, list) else []
    flat = [v[0] if isinstance(v, list) and len(v) == 1 else v for v in newest]
    return flat + [None] * (min(rows, limit) - len(flat))


def _concatenate(arrays: list[Values]) -> Values:
    return np.concatenate(arrays) if arrays else np.empty(0)
