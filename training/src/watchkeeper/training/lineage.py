"""Where a version comes from: the versions of code and libraries that made it."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path

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

CODE = (":/training", ":/core")  # what a training run executes, from the top of the checkout
GIT_SECONDS = 10.0


def dependencies() -> dict[str, str]:
    """Return the versions of Python and of the libraries that matter."""
    return {"python": platform.python_version()} | {n: metadata.version(n) for n in LIBRARIES}


def code_version() -> str:
    """Return the commit of the checkout that this code lies in, with ``-dirty`` where it differs.

    Looked at in the run itself: code may change while the system is up. Where it is installed, the
    version of this package; the caller may know better.
    """
    mine = Path(__file__)
    if _git(mine.parent, "ls-files", "--error-unmatch", mine.name):
        commit = _git(mine.parent, "rev-parse", "--short=12", "HEAD")
        changed = _git(mine.parent, "status", "--porcelain", "--", *CODE)
        if commit and changed is not None:
            return f"{commit}-dirty" if changed else commit
    return metadata.version("watchkeeper-training")


def _git(folder: Path, *arguments: str) -> str | None:
    """Return what git says; None where it does not know."""
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=GIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
