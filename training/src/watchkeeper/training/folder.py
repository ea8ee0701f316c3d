"""Writing a version's folder, in the layout of ``contracts.version``."""

from pathlib import Path
from typing import Any

import mlflow.sklearn
import msgspec
import numpy as np
import skops.io
from mlflow.models import Model as MlflowModel
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from sklearn.pipeline import Pipeline

from watchkeeper.contracts.answer import AnswerPolicy, Columns, answer
from watchkeeper.contracts.version import BASELINE, EXAMPLE, Example, Manifest, Statistics
from watchkeeper.pipeline import TRUSTED_TYPES
from watchkeeper.training.rows import Rows

_MLFLOW_TYPES = {"FP64": DataType.double, "INT64": DataType.long, "BYTES": DataType.string}


def write_pipelines(
    folder: Path, pipelines: dict[str, Pipeline], manifest: Manifest, example: Rows
) -> None:
    """Write one skops file a head, and MLflow's description of the first into ``folder``.

    ``folder`` must be empty or missing. Whoever knows MLflow and not us can load the first head
    by ``mlflow.pyfunc`` or ``mlflow.sklearn``.
    """
    main, *others = manifest.heads
    versions = manifest.lineage.dependencies
    mlflow.sklearn.save_model(
        pipelines[main.score],
        str(folder),
        serialization_format=mlflow.sklearn.SERIALIZATION_FORMAT_SKOPS,
        skops_trusted_types=list(TRUSTED_TYPES),
        pip_requirements=[
            f"{name}=={versions[name]}" for name in ("scikit-learn", "skops", "numpy", "pandas")
        ],
        signature=ModelSignature(
            inputs=Schema(
                [ColSpec(_MLFLOW_TYPES[c.datatype], c.name) for c in manifest.signature.inputs]
            )
        ),
        input_example=example.columns,
        pyfunc_predict_fn="predict_proba" if main.method == "predict_proba" else "predict",
    )
    described = MlflowModel.load(str(folder))
    flavour = described.flavors["sklearn"]
    (folder / flavour["pickled_model"]).rename(folder / main.pipeline)
    flavour["pickled_model"] = main.pipeline
    described.flavors["python_function"]["model_path"] = main.pipeline
    described.save(str(folder / "MLmodel"))
    for head in others:
        skops.io.dump(pipelines[head.score], folder / head.pipeline)


def write_baseline(folder: Path, baseline: dict[str, Statistics]) -> None:
    """Write the baseline statistics."""
    (folder / BASELINE).write_bytes(msgspec.json.format(msgspec.json.encode(baseline)))


def write_example(folder: Path, rows: Rows, scores: Columns, policy: AnswerPolicy) -> None:
    """Write rows and the version's answer to them; scores are of shape (rows,)."""
    example = Example(_lists(rows.as_columns()), _lists(answer(scores, policy)))
    (folder / EXAMPLE).write_bytes(msgspec.json.encode(example))


def example_rows(rows: Rows, score: np.ndarray[Any, Any]) -> Rows:
    """Choose rows from the lowest to the highest score (rows,), few but telling."""
    order = np.argsort(score, kind="stable")
    chosen = np.zeros(len(rows), dtype=bool)
    chosen[order[[int(q * (len(rows) - 1)) for q in (0.0, 0.5, 0.95, 1.0)]]] = True
    return rows.where(chosen)


def _lists(columns: Columns) -> dict[str, list[Any]]:
    return {name: values.tolist() for name, values in columns.items()}
