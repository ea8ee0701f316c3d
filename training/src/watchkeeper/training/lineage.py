"""Where a version comes from: the versions of code and libraries that made it."""

import platform
from importlib import metadata

# What decides how a pipeline computes and how its files are read.
LIBRARIES = (
    "scikit-learn",
    "numpy",
    "pandas",
    "skops",
    "imbalanced-learn",
    "skl2onnx",
    "onnx",
    "onnxruntime",
    "mlflow-skinny",
)


def dependencies() -> dict[str, str]:
    """Return the versions of Python and of the libraries that matter."""
    return {"python": platform.python_version()} | {n: metadata.version(n) for n in LIBRARIES}


def code_version() -> str:
    """Return the version of this package; the caller may know a commit instead."""
    return metadata.version("watchkeeper-training")
