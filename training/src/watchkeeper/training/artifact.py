"""Writing the files of a version, in the layout of :mod:`watchkeeper.core.version`."""

from pathlib import Path

import mlflow.sklearn
import msgspec
import numpy as np
from mlflow.models import Model as MlflowModel
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from sklearn.pipeline import Pipeline

from watchkeeper.core.answer import answer
from watchkeeper.core.signature import DTYPES
from watchkeeper.core.version import BASELINE, EXAMPLE, Example, Manifest, Statistics
from watchkeeper.pipeline.files import SKLEARN, save_pipeline
from watchkeeper.pipeline.frameworks import framework
from watchkeeper.pipeline.frameworks.sklearn import TRUSTED_TYPES
from watchkeeper.training.rows import Rows, ScoredRows

_MLFLOW_TYPES = {"f": DataType.double, "i": DataType.long, "O": DataType.string}  # by NumPy's kind
EXAMPLE_QUANTILES = (0.0, 0.5, 0.95, 1.0)


def write_pipelines(
    folder: Path, pipelines: dict[str, Pipeline], manifest: Manifest, example: Rows
) -> None:
    """Write the files of all pipelines, and MLflow's description of the first head.

    A user of MLflow can load the first head by ``mlflow.pyfunc``, and also by ``mlflow.sklearn`` if
    scikit-learn has fitted it. A head of another library needs ``watchkeeper-pipeline`` for that.

    Args:
        folder: must be empty or missing.
        pipelines: the fitted pipelines by score.
        manifest: names the files of the heads.
        example: rows for MLflow's input example.
    """
    main, *others = manifest.heads
    if main.framework == SKLEARN:
        _save_for_sklearn(folder, pipelines[main.score], manifest, example)
    else:
        others = [main, *others]
        _describe_for_pyfunc(folder, manifest)
    for head in others:
        save_pipeline(pipelines[head.score], folder, head)


def _save_for_sklearn(folder: Path, pipeline: Pipeline, manifest: Manifest, example: Rows) -> None:
    main = manifest.heads[0]
    mlflow.sklearn.save_model(
        pipeline,
        str(folder),
        serialization_format=mlflow.sklearn.SERIALIZATION_FORMAT_SKOPS,
        skops_trusted_types=list(TRUSTED_TYPES),
        pip_requirements=_requirements(manifest),
        signature=_mlflow_signature(manifest),
        input_example=example.columns,
        pyfunc_predict_fn="predict_proba" if main.method == "predict_proba" else "predict",
    )
    # MLflow chooses the file's name; the manifest has another one.
    description = MlflowModel.load(str(folder))
    flavour = description.flavors["sklearn"]
    (folder / flavour["pickled_model"]).rename(folder / main.pipeline)
    flavour["pickled_model"] = main.pipeline
    description.flavors["python_function"]["model_path"] = main.pipeline
    description.save(str(folder / "MLmodel"))


def _describe_for_pyfunc(folder: Path, manifest: Manifest) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    description = MlflowModel(signature=_mlflow_signature(manifest))
    description.add_flavor(
        "python_function",
        loader_module="watchkeeper.pipeline.mlflow_model",
        python_version=manifest.lineage.dependencies["python"],
    )
    description.save(str(folder / "MLmodel"))
    (folder / "requirements.txt").write_text("\n".join(_requirements(manifest)) + "\n")


def _requirements(manifest: Manifest) -> list[str]:
    versions = manifest.lineage.dependencies
    libraries = {framework(head.framework).library for head in manifest.heads} - {SKLEARN}
    names = ["scikit-learn", "skops", "numpy", "pandas", *sorted(libraries)]
    return [f"{name}=={versions[name]}" for name in names]


def _mlflow_signature(manifest: Manifest) -> ModelSignature:
    columns = manifest.signature.inputs
    return ModelSignature(
        inputs=Schema(
            [
                ColSpec(_MLFLOW_TYPES[DTYPES[c.datatype].kind], c.name, required=not c.nullable)
                for c in columns
            ]
        )
    )


def write_baseline(folder: Path, baseline: dict[str, Statistics]) -> None:
    """Write the baseline statistics."""
    (folder / BASELINE).write_bytes(msgspec.json.format(msgspec.json.encode(baseline)))


def write_example(folder: Path, example: ScoredRows, manifest: Manifest) -> None:
    """Write example rows and the version's answer to them."""
    columns = example.rows.as_columns()
    inputs = {each.name: each.listed(columns[each.name]) for each in manifest.signature.inputs}
    answered = answer(example.scores, manifest.heads, manifest.answer)
    outputs = {name: values.tolist() for name, values in answered.items()}
    (folder / EXAMPLE).write_bytes(msgspec.json.encode(Example(inputs, outputs)))


def choose_example(rows: ScoredRows, score: str) -> ScoredRows:
    """Choose a few rows from the lowest to the highest score, so that answers differ."""
    order = np.argsort(rows.scores[score], kind="stable")
    chosen = np.zeros(len(rows), dtype=bool)
    chosen[order[[int(q * (len(rows) - 1)) for q in EXAMPLE_QUANTILES]]] = True
    return rows.where(chosen)
