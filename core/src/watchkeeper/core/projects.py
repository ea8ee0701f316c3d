"""Projects of models: folders that are used from where they are, without an installation.

A project is a folder with a ``pyproject.toml`` and the Python package of one or several models::

    [project.entry-points."watchkeeper.models"]
    pump-failure = "pump_failure.model:MODEL"

    [tool.watchkeeper]
    source = "readings.csv"     # a table in the folder, or the SQLAlchemy URL of a database
    adopt.pump-failure = {model = "pumps", when = "each"}   # versions of MLflow, if it adopts some
    trusted_code = true         # if these versions consist of code, execute it

Python finds entry points in the metadata of installed packages. :func:`write_metadata` writes these
few files for a project, so that a process whose ``PYTHONPATH`` has them finds its models as it
finds installed ones. ``python -m watchkeeper.core.projects FOLDER METADATA`` does the same in the
image of a model.
"""

import os
import shutil
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

import msgspec

from watchkeeper.core.adoption import TRUSTED_CODE, YES, AdoptionRule
from watchkeeper.core.exit_codes import EXIT_FATAL, EXIT_SUCCESS
from watchkeeper.core.names import MODELS_GROUP, InvalidNameError, check_model_name
from watchkeeper.core.settings import PREFIX

PYPROJECT: Final = "pyproject.toml"


class ProjectError(ValueError):
    """A folder is not the project of a model; the message says what is missing."""


class Project(msgspec.Struct, frozen=True):
    """A project.

    Attributes:
        folder: Its absolute path.
        name: The name of its package.
        version: The version of its package.
        models: Where each model is declared, by name, as ``module:attribute``.
        source: The URL of the operational data on this machine; "" if the project names none.
        adopt: Which versions of MLflow its models adopt without a person, by model.
        trusted_code: Whether training and servers may execute the code that versions consist of.
    """

    folder: Path
    name: str
    version: str
    models: dict[str, str]
    source: str = ""
    adopt: dict[str, AdoptionRule] = {}
    trusted_code: bool = False

    @property
    def code(self) -> Path:
        """The folder that its modules are imported from."""
        source = self.folder / "src"
        return source if source.is_dir() else self.folder

    def environment(self, metadata: Path) -> dict[str, str]:
        """Return the variables by which a process finds the models and their data.

        Args:
            metadata: The folder that :func:`write_metadata` has filled.
        """
        paths = [str(self.code), str(metadata), os.environ.get("PYTHONPATH", "")]
        variables = {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}
        if self.source:
            variables[f"{PREFIX}SOURCE_URL"] = self.source
        if self.trusted_code:
            variables[TRUSTED_CODE] = YES
        return variables


def is_folder(name: str) -> bool:
    """Return whether a text names a folder rather than a model: it has a ``/``, or is ``.``.

    Example:
        >>> is_folder("./pump-failure"), is_folder("pump-failure")
        (True, False)
    """
    return os.sep in name or name in (".", "..")


def read_project(folder: Path) -> Project:
    """Read the ``pyproject.toml`` of a project.

    Raises:
        ProjectError: It is missing, cannot be read, or declares no model.
    """
    folder = folder.resolve()
    path = folder / PYPROJECT
    try:
        given: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        cause = error.strerror if isinstance(error, OSError) else error
        raise ProjectError(f"{path}: {cause}; 'watchkeeper new' writes a project") from error
    try:
        project = msgspec.convert(given.get("project", {}), _Project)
        tool = msgspec.convert(given.get("tool", {}).get("watchkeeper", {}), _Tool)
    except msgspec.ValidationError as error:
        raise ProjectError(f"{path}: {error}") from error
    models = project.entry_points.get(MODELS_GROUP, {})
    if not models:
        raise ProjectError(
            f'{path}: it declares no model; add [project.entry-points."{MODELS_GROUP}"] with a '
            'line such as: pump-failure = "pump_failure.model:MODEL"'
        )
    for model in models:
        try:
            check_model_name(model)
        except InvalidNameError as error:
            raise ProjectError(f"{path}: {error}") from error
    if unknown := next((model for model in tool.adopt if model not in models), None):
        raise ProjectError(f"{path}: tool.watchkeeper.adopt: it declares no model {unknown!r}")
    source = _source(folder, tool.source)
    return Project(
        folder, project.name, project.version, models, source, tool.adopt, tool.trusted_code
    )


def write_metadata(project: Project, folder: Path) -> None:
    """Write the metadata of a project's package into a folder, as an installation does.

    Metadata of another package, or of another version of this one, are removed.
    """
    known = folder / f"{project.name.replace('-', '_')}-{project.version}.dist-info"
    known.mkdir(parents=True, exist_ok=True)
    (known / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project.name}\nVersion: {project.version}\n"
    )
    lines = [f"{name} = {declared}\n" for name, declared in sorted(project.models.items())]
    (known / "entry_points.txt").write_text("".join([f"[{MODELS_GROUP}]\n", *lines]))
    for other in folder.glob("*.dist-info"):
        if other != known:
            shutil.rmtree(other)


class _Project(msgspec.Struct, rename="kebab"):
    """The table ``project`` of a ``pyproject.toml``; its version may be dynamic."""

    name: str
    version: str = "0"
    entry_points: dict[str, dict[str, str]] = {}


class _Tool(msgspec.Struct, forbid_unknown_fields=True):
    """The table ``tool.watchkeeper`` of a ``pyproject.toml``."""

    source: str = ""
    adopt: dict[str, AdoptionRule] = {}
    trusted_code: bool = False


def _source(folder: Path, given: str) -> str:
    return f"csv:///{folder / given}" if given and "://" not in given else given


def main(arguments: list[str]) -> int:
    """Write the metadata of the project in the first folder into the second one."""
    try:
        folder, metadata = map(Path, arguments)
        write_metadata(read_project(folder), metadata)
    except ValueError as error:
        print(f"watchkeeper.core.projects FOLDER METADATA: {error}", file=sys.stderr)
        return EXIT_FATAL
    return EXIT_SUCCESS


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
