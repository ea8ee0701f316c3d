"""Rows as columns: what the tests compare, from requests and from the reference alike."""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from watchkeeper.contracts.record import OK
from watchkeeper.contracts.signature import Column
from watchkeeper.contracts.version import Manifest
from watchkeeper.ledger.observations import Observation

Kind = Literal["numeric", "categorical", "score"]
Values = NDArray[np.float64]
Columns = dict[str, Values]  # numbers; a category is its place in the signature, NaN is missing


class Feature(msgspec.Struct, frozen=True):
    """One column that is watched."""

    name: str
    kind: Kind
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    categories: tuple[str, ...] = ()


def features_of(manifest: Manifest) -> tuple[Feature, ...]:
    """All request columns and then all scores of a version, in order."""
    scores = tuple(Feature(score, "score") for score in manifest.scores)
    return (*map(_feature, manifest.signature.inputs), *scores)


def _feature(column: Column) -> Feature:
    return Feature(
        column.name,
        "categorical" if column.categories else "numeric",
        column.unit,
        column.minimum,
        column.maximum,
        column.categories,
    )


def encode(feature: Feature, values: Sequence[Any]) -> Values:
    """Turn values as they came into numbers, shape (rows,); what is not of its kind is missing.

    A category that the signature does not name gets the place after the last.
    """
    if feature.kind == "categorical":
        place = {category: float(n) for n, category in enumerate(feature.categories)}
        unknown = float(len(place))
        return np.array(
            [place.get(v, unknown) if isinstance(v, str) else np.nan for v in values], dtype=float
        )
    return np.array(
        [v if isinstance(v, int | float) and not isinstance(v, bool) else np.nan for v in values],
        dtype=float,
    )


def answered(features: Sequence[Feature], requests: Sequence[Observation], rows: int) -> Columns:
    """Return the newest ``rows`` answered rows, each row of a request counting as one."""
    taken = [request for request in requests if request.status == OK]
    return {
        feature.name: _join([encode(feature, _cells(feature, request)) for request in taken])[
            -rows:
        ]
        for feature in features
    }


def _cells(feature: Feature, request: Observation) -> list[Any]:
    """Return one value a row, whatever the record holds: a list, or [[value], ...]."""
    held = request.outputs if feature.kind == "score" else request.inputs
    values = held.get(feature.name)
    values = values if isinstance(values, list) else []
    flat = [v[0] if isinstance(v, list) and len(v) == 1 else v for v in values]
    return (flat + [None] * request.rows)[: request.rows]


def _join(parts: list[Values]) -> Values:
    return np.concatenate(parts) if parts else np.empty(0)
