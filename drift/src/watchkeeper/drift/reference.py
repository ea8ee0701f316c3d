"""What a version is watched against: its reference sample and baseline, from its folder."""

from pathlib import Path

import pyarrow.parquet

from watchkeeper.contracts.policies import DriftPolicy
from watchkeeper.contracts.version import (
    REFERENCE,
    BrokenVersionError,
    Manifest,
    read_baseline,
)
from watchkeeper.drift.statistics.columns import encode, features_of
from watchkeeper.drift.statistics.null import measure
from watchkeeper.drift.statistics.reference import Reference


def load_reference(folder: Path, manifest: Manifest, policy: DriftPolicy) -> Reference:
    """Read a version's reference and measure its null; the manifest's seal is checked before.

    Raises:
        BrokenVersionError: a column is missing or there are no rows.
    """
    features = features_of(manifest)
    names = [feature.name for feature in features]
    try:
        table = pyarrow.parquet.read_table(folder / REFERENCE, columns=names)
    except (OSError, pyarrow.ArrowException) as error:
        raise BrokenVersionError(f"{folder / REFERENCE}: {error}") from error
    missing = set(names) - set(table.column_names)
    if missing or not table.num_rows:
        what = f"columns {sorted(missing)} are missing" if missing else "it has no rows"
        raise BrokenVersionError(f"{folder / REFERENCE}: {what}; the version cannot be watched")
    columns = {f.name: encode(f, table.column(f.name).to_pylist()) for f in features}
    null = measure(features, columns, policy.window)
    return Reference(features, columns, read_baseline(folder), null)
