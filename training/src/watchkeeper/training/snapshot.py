"""The snapshot: the table of all rows that a training run has read, as a Parquet file.

The same rows give the same bytes, so a run that starts again, and another version that is trained
on the same rows, store nothing new.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from watchkeeper.core.signature import DTYPES
from watchkeeper.core.snapshot import Snapshot
from watchkeeper.registry.snapshots import dvc_file
from watchkeeper.training.declaration import Model
from watchkeeper.training.rows import Rows

FILE: Final = "training-rows.parquet"
# Beside the request columns and the truths, with names that those hardly have.
KEY: Final = "watchkeeper.key"  # of the history: the id in the source
PART: Final = "watchkeeper.part"  # "history" or "recent"
GROUP: Final = "watchkeeper.group"  # of the history, where the split declares one
_TYPES: Final = {"f": pa.float64(), "i": pa.int64(), "O": pa.string()}  # by NumPy's kind
_PIECE: Final = 100_000  # rows in memory a second time


def write_dvc_file(folder: Path, snapshot: Snapshot | None) -> list[Path]:
    """Write the file by which ``dvc pull`` restores a snapshot; nothing without a snapshot."""
    if snapshot is None:
        return []
    path = folder / f"{FILE}.dvc"
    path.write_text(dvc_file(snapshot, FILE))
    return [path]


def write_rows(file: Path, model: Model, history: Rows, recent: Rows) -> None:
    """Write rows into a Parquet file: key, part, group, request columns and truths.

    A missing value and an unknown truth are null. So are key and group of a prediction: its subject
    may be forgotten later, and the table stays.
    """
    fields = [(KEY, pa.string()), (PART, pa.string())]
    fields += [(GROUP, pa.string())] * bool(model.split.group)
    fields += [(each.name, _TYPES[DTYPES[each.datatype].kind]) for each in model.columns]
    fields += [(truth.name, pa.float64()) for truth in model.truths]
    schema = pa.schema(fields)
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for part, rows in (("history", history), ("recent", recent)):
            for piece in _pieces(rows):
                unknown = pa.nulls(len(piece))
                columns = {
                    KEY: _texts(piece.key) if part == "history" else unknown,
                    PART: pa.repeat(part, len(piece)),
                }
                if model.split.group:
                    columns[GROUP] = _texts(piece.group) if part == "history" else unknown
                for each in model.columns:
                    values = piece.columns[each.name].to_numpy()
                    kind = schema.field(each.name).type
                    columns[each.name] = pa.array(values, kind, mask=each.missing(values))
                for truth in model.truths:
                    values = piece.others.get(truth.name, piece.target)
                    columns[truth.name] = pa.array(values, mask=np.isnan(values))
                writer.write_table(pa.table(columns).cast(schema))


def _pieces(rows: Rows) -> Iterator[Rows]:
    for start in range(0, len(rows), _PIECE):
        yield rows.take(np.arange(start, min(start + _PIECE, len(rows))))


def _texts(values: Any) -> pa.Array:
    return pa.array([str(value) for value in values], pa.string())
