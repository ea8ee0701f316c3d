"""Commands that run in the environment of training: they need its libraries and the models' code.

The output and the exit code are those of the program in that environment.
"""

import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from watchkeeper.cli.local_settings import LocalConfiguration, read_configuration, training_python
from watchkeeper.core.projects import Project, is_folder, write_metadata
from watchkeeper.core.settings import PREFIX
from watchkeeper.platforms import PlatformError, open_platform
from watchkeeper.registry.client import URI


def new(home: Path, arguments: Sequence[str]) -> int:
    """Write the project of a model; returns the exit code.

    Raises:
        SettingsError: the environment of training is missing.
    """
    return _run(training_python(home, os.environ), "new", arguments, _registry(home))


def check(home: Path, given: str, arguments: Sequence[str]) -> int:
    """Check a model, or all models of a project; returns the first exit code that is not 0.

    Args:
        home: the folder of the local system, whose settings apply; it need not exist.
        given: the name of a model, or the folder of a project.
        arguments: for the check itself.

    Raises:
        SettingsError, InvalidNameError: a setting cannot be used, or the folder is no project.
    """
    configuration = read_configuration(home, (given,) if is_folder(given) else (), os.environ)
    projects = {model: project for project in configuration.projects for model in project.models}
    for model in projects if is_folder(given) else (given,):
        code = _check(configuration, model, projects.get(model), arguments, _registry(home))
        if code:
            return code
    return 0


def _check(
    configuration: LocalConfiguration,
    model: str,
    project: Project | None,
    arguments: Sequence[str],
    registry: dict[str, str],
) -> int:
    environment = {f"{PREFIX}SOURCE_URL": configuration.settings.source_url, **registry}
    with tempfile.TemporaryDirectory(prefix="watchkeeper-project-") as workspace:
        if project is not None:
            write_metadata(project, Path(workspace))
            environment |= project.environment(Path(workspace))
        python = configuration.settings.python("training")
        return _run(python, "check", [model, *arguments], environment)


def _registry(home: Path) -> dict[str, str]:
    """Return the variable that names MLflow: the user's own, or that of the local system if any."""
    try:
        found = os.environ.get(URI) or open_platform(f"local:{home}").endpoints().mlflow
    except PlatformError:  # there is no system yet, and few models need MLflow for their check
        return {}
    return {URI: found}


def _run(python: str, program: str, arguments: Sequence[str], environment: dict[str, str]) -> int:
    command = [python, "-m", f"watchkeeper.training.{program}"]
    return subprocess.run(
        [*command, *arguments], env={**os.environ, **environment}, check=False
    ).returncode
