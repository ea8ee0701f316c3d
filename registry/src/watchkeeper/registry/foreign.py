"""Versions that somebody else has registered, with MLflow's own functions.

Their files are not those of :mod:`watchkeeper.core.version`. What they hold is described by
``MLmodel``, which is data: nothing is loaded here.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from watchkeeper.core.names import parse_registered, registered_uri
from watchkeeper.registry.client import RegisteredVersion, Registry, registered
from watchkeeper.registry.errors import NOT_FOUND, RegistryError, translated_errors
from watchkeeper.registry.tags import ABOVE_TAG, ADOPT_TAG, AGAIN_TAG, RUN_TAG

if TYPE_CHECKING:
    from mlflow.models import Model


def find_foreign(registry: Registry, uri: str) -> RegisteredVersion:
    """Return the version that ``models:/<name>/<version>`` or ``models:/<name>@<alias>`` names.

    Raises:
        InvalidNameError: the URI has another form.
        RegistryError: MLflow does not answer, has no such version (``not_found``), or a training
            run of ours has registered it (``not_found``).
    """
    name, version, alias = parse_registered(uri)
    number = registry.aliases(name).get(alias) if alias else version
    if number is None:
        raise RegistryError(f"{uri}: MLflow knows no such alias", NOT_FOUND)
    with translated_errors(uri):
        known = registered(registry.client.get_model_version(name, str(number)))
    if not _is_foreign(known):
        raise RegistryError(f"{uri}: a training run of Watchkeeper has registered it", NOT_FOUND)
    return known


def newest_foreign(registry: Registry, name: str, adopter: str) -> RegisteredVersion | None:
    """Return the newest version of a name that no training run of ours has registered.

    Args:
        registry: where to look.
        name: the name of the registered model.
        adopter: the model that the version must have a tag for; "" for any version.
    """
    for version in reversed(registry.versions(name)):
        if _is_foreign(version) and adopter in ("", version.tags.get(ADOPT_TAG)):
            return version
    return None


def identity(name: str, version: RegisteredVersion) -> str:
    """Return what identifies a version, also if the registered model is deleted and made again."""
    return f"{registered_uri(name, version.version)} created {version.created:.3f}"


def fetch_foreign(registry: Registry, name: str, version: int, folder: Path) -> Path:
    """Download the files of a version, and return the folder that has ``MLmodel``.

    Raises:
        RegistryError: MLflow or its storage does not answer, or has no files (``not_found``).
    """
    from mlflow.artifacts import download_artifacts  # noqa: PLC0415 - see client.py

    where = registered_uri(name, version)
    folder.mkdir(parents=True, exist_ok=True)
    with translated_errors(where):
        # Since MLflow 3 the files are not below a run, so the source is asked for.
        source = registry.client.get_model_version_download_uri(name, str(version))
        fetched = Path(
            download_artifacts(
                artifact_uri=source,
                dst_path=str(folder),
                tracking_uri=registry.client.tracking_uri,
            )
        )
    if not (fetched / "MLmodel").is_file():
        raise RegistryError(f"{where}: it has no file MLmodel", NOT_FOUND)
    return fetched


def read_flavours(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what ``MLmodel`` says, by the name of the flavour."""
    return dict(_read(folder).flavors)


def read_inputs(folder: Path) -> dict[str, str]:
    """Return the type of each input column by its name, in MLflow's words such as "double".

    Empty if the version has no signature, or one of a tensor without names.
    """
    signature = _read(folder).signature
    schema = None if signature is None else signature.inputs
    if schema is None or schema.is_tensor_spec() or not schema.has_input_names():
        return {}
    kinds = (str(getattr(kind, "name", kind)) for kind in schema.input_types())
    return dict(zip(schema.input_names(), kinds, strict=True))


def _read(folder: Path) -> "Model":
    from mlflow.models import Model  # noqa: PLC0415

    with translated_errors(str(folder / "MLmodel")):
        return Model.load(str(folder))


def _is_foreign(version: RegisteredVersion) -> bool:
    return not {RUN_TAG, AGAIN_TAG, ABOVE_TAG} & version.tags.keys()
