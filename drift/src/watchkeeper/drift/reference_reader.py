"""Read the reference and the baseline of a version from its folder."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet

from watchkeeper.core.policies import DriftPolicy
from watchkeeper.core.version import (
    REFERENCE,
    BrokenVersionError,
    Manifest,
    read_baseline,
)
from watchkeeper.drift.statistics.columns import Feature, Values, encode, watched_features
from watchkeeper.drift.statistics.reference import Reference, make_reference


def read_reference(folder: Path, manifest: Manifest, policy: DriftPolicy) -> Reference:
    """Read the reference of a version and measure its variation.

    Args:
        folder: the folder of the version; ``read_manifest`` has verified its files.
        manifest: the manifest of the version.
        policy: the policy in force, for the number of rows of a window.

    Raises:
        BrokenVersionError: the reference cannot be read, misses a column, or has no rows.
    """
    features = watched_features(manifest)
    names = [feature.name for feature in features]
    path = folder / REFERENCE
    try:
        table = pyarrow.parquet.read_table(path, columns=names)
        # Versions of earlier releases have no metadata: all their rows are the reference.
        metadata = table.schema.metadata or {}
        start = int(metadata.get(b"start", 0))
        depends = json.loads(metadata.get(b"depends", b"{}"))
    except (OSError, pyarrow.ArrowException, ValueError) as error:
        raise BrokenVersionError(f"{path}: {error}") from error
    missing = set(names) - set(table.column_names)
    if missing or not 0 <= start < table.num_rows:
        fault = (
            f"columns {sorted(missing)} are missing"
            if missing
            else f"the table has {table.num_rows} rows, and the reference begins at row {start}"
        )
        raise BrokenVersionError(f"{path}: {fault}; the version cannot be watched")
    columns = {f.name: _values(f, table.column(f.name)) for f in features}
    return make_reference(
        features,
        columns,
        policy.window,
        start=start,
        baseline=read_baseline(folder),
        depends=depends,
    )


def _values(feature: Feature, column: pyarrow.ChunkedArray) -> Values:
    """Return the values of a feature; an empty one does not describe the traffic, or is missing."""
    if feature.kind == "missing":  # it has a column of its own, of 0 and 1
        return np.array(column.to_pylist(), dtype=float)
    return encode(feature, column.to_pylist())
