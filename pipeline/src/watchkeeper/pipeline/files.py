"""The files of a pipeline: the steps before the last one by skops, the estimator by its framework.

The framework of scikit-learn writes both into one file.
"""

from pathlib import Path
from typing import Any

from sklearn.pipeline import Pipeline

from watchkeeper.core.head import Head
from watchkeeper.pipeline.frameworks import framework, framework_of
from watchkeeper.pipeline.frameworks.sklearn import load_skops, save_skops

SKLEARN = "sklearn"
NO_STEPS = ("columns", "passthrough")  # saved for a pipeline of one step, which gets the columns


def framework_name(pipeline: Any) -> str:
    """Return the name of the framework of a pipeline's last step, as in manifests.

    Raises:
        UnsupportedEstimatorError: No framework can save it.
    """
    return framework_of(pipeline.steps[-1][1]).name


def save_pipeline(pipeline: Any, folder: Path, head: Head) -> None:
    """Write the files of a head into a folder.

    Raises:
        UnsupportedEstimatorError: The files could not be loaded again.
    """
    if head.framework == SKLEARN:
        save_skops(pipeline, folder / head.pipeline)
        return
    *before, (_, estimator) = pipeline.steps
    save_skops(Pipeline(before or [NO_STEPS]), folder / head.pipeline)
    framework(head.framework).save(estimator, _own_files(folder, head))


def load_pipeline(folder: Path, head: Head) -> Any:
    """Load the pipeline of a head; :func:`watchkeeper.pipeline.scoring.score` applies it.

    Raises:
        BrokenVersionError: A file is missing or broken, or has a type that is not trusted.
        MissingLibraryError: The library of the estimator is not installed.
    """
    if head.framework == SKLEARN:
        return load_skops(folder / head.pipeline)
    estimator = framework(head.framework).load(_own_files(folder, head))
    steps = [x for x in load_skops(folder / head.pipeline).steps if tuple(x) != NO_STEPS]
    return Pipeline([*steps, ("estimator", estimator)])


def _own_files(folder: Path, head: Head) -> Path:
    return folder / f"{head.score}.estimator"
