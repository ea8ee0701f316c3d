"""The reference that a window is compared with."""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from watchkeeper.core.version import Statistics
from watchkeeper.drift.statistics.columns import Columns, Feature
from watchkeeper.drift.statistics.reference_variation import (
    ReferenceVariation,
    measure_variation,
    start_of,
)


class Reference(msgspec.Struct, frozen=True):
    """The reference of a version.

    ``samples`` are the known values of each feature, sorted. ``baseline`` is the published mean and
    standard deviation of each numeric column and score. ``depends`` has the request columns that a
    score depends on; a score that it does not name depends on all of them.
    """

    features: tuple[Feature, ...]
    samples: Columns
    baseline: Mapping[str, Statistics]
    variation: ReferenceVariation
    depends: Mapping[str, Sequence[str]] = {}


def make_reference(
    features: tuple[Feature, ...],
    columns: Columns,
    window: int,
    *,
    start: int = 0,
    baseline: Mapping[str, Statistics] | None = None,
    depends: Mapping[str, Sequence[str]] | None = None,
) -> Reference:
    """Return a reference and measure its variation.

    Args:
        features: the features of the version, request columns first.
        columns: their values in time order, shape (rows,) each; a missing value is NaN.
        window: the number of rows of a window.
        start: where the reference begins; the rows before it only measure the variation.
        baseline: the published baseline.
        depends: the request columns that each score depends on.
    """
    known = {f.name: columns[f.name][start_of(f, columns[f.name], start) :] for f in features}
    return Reference(
        features=features,
        samples={name: np.sort(values[~np.isnan(values)]) for name, values in known.items()},
        baseline=baseline or {},
        variation=measure_variation(features, columns, window, start=start),
        depends=depends or {},
    )
