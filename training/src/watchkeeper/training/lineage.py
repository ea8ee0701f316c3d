"""Where a version comes from: the versions of the code and of the libraries that made it."""

import importlib.util
import platform
import subprocess
from collections.abc import Iterable
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Final

from watchkeeper.pipeline.files import framework_name
from watchkeeper.pipeline.frameworks import framework
from watchkeeper.training.models import entry_point

# These libraries decide what a pipeline computes and how its files are read.
LIBRARIES: Final = (
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

# The folders at the top of the checkout whose code a training run executes.
CODE: Final = (":/training", ":/core", ":/ledger", ":/registry", ":/pipeline")
GIT_SECONDS: Final = 10.0


def dependencies(model: str, pipelines: Iterable[Any] = ()) -> dict[str, str]:
    """Return the versions of Python, of :data:`LIBRARIES`, and of the model's own package.

    The libraries that have fitted ``pipelines`` are added by the names under which Python imports
    them, because one library may come in several distributions.
    """
    versions = {"python": platform.python_version()}
    versions |= {name: metadata.version(name) for name in LIBRARIES}
    for library in {framework(framework_name(each)).library for each in pipelines} - {"sklearn"}:
        versions[library] = str(import_module(library).__version__)
    entry = entry_point(model)
    if entry is not None and entry.dist is not None:
        versions[entry.dist.name] = entry.dist.version
    return versions


def package_folder(model: str) -> Path | None:
    """Return the folder of the Python package that declares a model; None without one."""
    entry = entry_point(model)
    spec = importlib.util.find_spec(entry.module.partition(".")[0]) if entry else None
    return Path(spec.origin).resolve().parent if spec and spec.origin else None


def code_version(package: Path | None = None) -> str:
    """Return the commit of the checkout that this code is in, with ``-dirty`` where it differs.

    The difference is looked for in :data:`CODE` and in ``package``, the folder of the model's
    package, if that is in the same checkout. A run looks for itself, because code can change while
    the system is up. Installed code has no checkout and returns the version of this package.
    """
    here = Path(__file__).resolve()
    top = _git(here.parent, "rev-parse", "--show-toplevel")
    if top and _git(here.parent, "ls-files", "--error-unmatch", here.name):
        ours = package is not None and package.is_relative_to(top)
        folders = [*CODE, str(package)] if ours else [*CODE]
        commit = _git(here.parent, "rev-parse", "--short=12", "HEAD")
        changed = _git(here.parent, "status", "--porcelain", "--", *folders)
        if commit and changed is not None:
            return f"{commit}-dirty" if changed else commit
    return metadata.version("watchkeeper-training")


def _git(folder: Path, *arguments: str) -> str | None:
    """Return git's output; None where git fails, is missing, or takes too long."""
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
