"""Downloading the files of a version: exactly its own content, or nothing."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from watchkeeper.core.names import VersionAddress, parse_model_uri
from watchkeeper.core.version import MANIFEST, BrokenVersionError, digest
from watchkeeper.registry.errors import NOT_FOUND, RegistryError, translated_errors
from watchkeeper.registry.tags import DIGEST_TAG, FILES, NO_DIGEST

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


def download(client: "MlflowClient", uri: str, folder: Path) -> None:
    """Download the files of a version, all or none.

    If the URI has a digest, these are the files with this content: those of the version, or those
    of an MLflow run with this digest. The run remains when the version is deleted, and when its
    number names other content.

    Args:
        client: the client of MLflow.
        uri: the URI of the version, ``mlflow://<model>/<version>`` or
            ``mlflow://<model>/<version>/<digest>``.
        folder: where the files go. If the folder has any content, nothing is downloaded: the files
            of a version never change.

    Raises:
        InvalidNameError: the URI is malformed.
        RegistryError: the registry or its storage does not answer, or has no such version or no
            files of it (``not_found``).
    """
    address = parse_model_uri(uri)
    if folder.exists() and any(folder.iterdir()):
        return
    reason = "MLflow has no version and no run with this content"
    for source in _sources(client, address):
        try:
            _download_files(client, source, folder, address.digest)
        except RegistryError as error:
            if not error.not_found:
                raise
            reason = str(error)
        else:
            return
    raise RegistryError(f"{uri}: {reason}", NOT_FOUND)


def read_digest(client: "MlflowClient", model: str, version: int) -> str:
    """Return the digest of a version from its files.

    Returns:
        The digest; NO_DIGEST if the files have no manifest; "" if there are no files.

    Raises:
        RegistryError: the registry or its storage does not answer.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="watchkeeper-manifest-") as folder:
            source = _version_source(client, model, version)
            if not _has_manifest(client, source):
                return NO_DIGEST
            _fetch(client, f"{source}/{MANIFEST}", folder)
            return digest(Path(folder))
    except RegistryError as error:
        if not error.not_found:
            raise
        return ""


def _version_source(client: "MlflowClient", model: str, version: int) -> str:
    with translated_errors(f"{model} version {version}"):
        return str(client.get_model_version_download_uri(model, str(version)))


def _sources(client: "MlflowClient", address: VersionAddress) -> Iterator[str]:
    """Yield where the files of a version may be, the most likely place first."""
    model, version, wanted = address
    try:
        with translated_errors(f"{model} version {version}"):
            tags = client.get_model_version(model, str(version)).tags
        if not wanted or tags.get(DIGEST_TAG, wanted) == wanted:
            yield _version_source(client, model, version)
    except RegistryError as error:
        if not (wanted and error.not_found):
            raise
    if not wanted:
        return
    with translated_errors(f"runs of {model}"):
        experiment = client.get_experiment_by_name(model)
        runs = experiment and client.search_runs(
            [experiment.experiment_id], f"tags.`{DIGEST_TAG}` = '{wanted}'"
        )
    for run in runs or ():
        yield f"runs:/{run.info.run_id}/{FILES}"


def _download_files(client: "MlflowClient", source: str, folder: Path, wanted: str) -> None:
    """Download the files at an address of MLflow, all or none.

    Raises:
        RegistryError: the registry or its storage does not answer, or the address has no files or
            other content than ``wanted`` (``not_found``).
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    # An existing folder may be a volume: nothing can be written beside it, or moved into it from
    # another file system.
    parent = folder if folder.exists() else folder.parent
    with (
        tempfile.TemporaryDirectory(dir=parent, prefix=".download-") as draft,
        translated_errors(source),
    ):
        _has_manifest(client, source)  # a folder without files is not an error of MLflow
        downloaded = _fetch(client, source, draft)
        _check_digest(source, downloaded, wanted)
        _move_into(downloaded, folder)


def _has_manifest(client: "MlflowClient", source: str) -> bool:
    """Return whether the files at an address have a manifest.

    Raises:
        RegistryError: there are no files (``not_found``), or the storage does not answer.
    """
    # MLflow is imported late, see client.py.
    from mlflow.artifacts import list_artifacts  # noqa: PLC0415

    with translated_errors(source):
        files = list_artifacts(artifact_uri=source, tracking_uri=client.tracking_uri)
    if not files:
        raise RegistryError(f"no files at {source}", NOT_FOUND)
    return MANIFEST in {Path(file.path).name for file in files}


def _fetch(client: "MlflowClient", source: str, folder: str) -> Path:
    from mlflow.artifacts import download_artifacts  # noqa: PLC0415 - see above

    with translated_errors(source):
        return Path(
            download_artifacts(
                artifact_uri=source, dst_path=folder, tracking_uri=client.tracking_uri
            )
        )


def _check_digest(source: str, downloaded: Path, wanted: str) -> None:
    if not wanted:
        return
    try:
        found = digest(downloaded)
    except BrokenVersionError as error:
        raise RegistryError(f"{source}: no version: {error}", NOT_FOUND) from error
    if found != wanted:
        raise RegistryError(f"{source} has other content: {found} instead of {wanted}", NOT_FOUND)


def _move_into(downloaded: Path, folder: Path) -> None:
    """Move downloaded files into a folder that may be a mount point, the manifest last."""
    if not folder.exists():
        downloaded.replace(folder)
        return
    for path in sorted(downloaded.iterdir(), key=lambda p: p.name == MANIFEST):
        path.replace(folder / path.name)
