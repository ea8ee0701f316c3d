"""The MLflow registry as the loop uses it: versions by number, aliases, tags, files."""

import os
import tempfile
from pathlib import Path

import mlflow.artifacts
import msgspec
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from watchkeeper.contracts.names import Alias, model_uri, parse_model_uri

RUN_TAG = "watchkeeper.run"
GATE_TAG = "watchkeeper.gate"  # "passed" or "rejected"
ROLLOUT_TAG = "watchkeeper.rollout"  # "promoted", or "rolled-back: <why>"

# MLflow's own defaults wait for minutes; our callers come back in their next turn.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")


class RegistryError(RuntimeError):
    """MLflow did not answer, or refused; try again next turn."""


class RegisteredVersion(msgspec.Struct, frozen=True):
    """One version as the registry lists it; ``created`` in seconds since 1970."""

    version: int
    run_id: str
    created: float
    tags: dict[str, str]


class Registry:
    """A client of one MLflow server; without ``uri`` MLFLOW_TRACKING_URI is taken."""

    def __init__(self, uri: str | None = None) -> None:
        self.client = MlflowClient(tracking_uri=uri, registry_uri=uri)

    def aliases(self, model: str) -> dict[str, int]:
        """Return all aliases of a model with their versions; empty for an unknown model."""
        try:
            found = self.client.get_registered_model(model).aliases
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return {}
            raise RegistryError(f"aliases of {model}: {error.message}") from error
        return {alias: int(version) for alias, version in found.items()}

    def versions(self, model: str) -> list[RegisteredVersion]:
        """Return all versions of a model, oldest first."""
        found: list[ModelVersion] = []
        token: str | None = None
        try:
            while True:
                page = self.client.search_model_versions(f"name='{model}'", page_token=token)
                found += page
                token = page.token
                if not token:
                    break
        except MlflowException as error:
            raise RegistryError(f"versions of {model}: {error.message}") from error
        return sorted((_registered(v) for v in found), key=lambda v: v.version)

    def set_alias(self, model: str, alias: Alias, version: int) -> None:
        """Point an alias at a version."""
        try:
            self.client.set_registered_model_alias(model, alias, str(version))
        except MlflowException as error:
            raise RegistryError(f"{model}: alias {alias} → {version}: {error.message}") from error

    def drop_alias(self, model: str, alias: Alias) -> None:
        """Remove an alias; harmless when it is not set."""
        try:
            self.client.delete_registered_model_alias(model, alias)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise RegistryError(f"{model}: drop alias {alias}: {error.message}") from error

    def tag(self, model: str, version: int, key: str, value: str) -> None:
        """Write one tag of a version."""
        try:
            self.client.set_model_version_tag(model, str(version), key, value)
        except MlflowException as error:
            raise RegistryError(f"{model} {version}: tag {key}: {error.message}") from error

    def download(self, uri: str, folder: Path) -> None:
        """Fetch the files of ``mlflow://<model>/<version>`` into ``folder``, whole or not at all.

        A folder that is there already is left as it is: versions never change.
        """
        model, version = parse_model_uri(uri)
        if folder.exists() and any(folder.iterdir()):
            return
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".download-") as draft:
            try:
                source = self.client.get_model_version_download_uri(model, str(version))
                got = mlflow.artifacts.download_artifacts(
                    artifact_uri=source, dst_path=draft, tracking_uri=self.client.tracking_uri
                )
            except (MlflowException, OSError) as error:  # requests' errors are OSErrors
                raise RegistryError(f"{model_uri(model, version)}: {error}") from error
            _place(Path(got), folder)


def _place(got: Path, folder: Path) -> None:
    """Move what was downloaded into a folder that may be a mount point, manifest last."""
    if not folder.exists():
        got.replace(folder)
        return
    for path in sorted(got.iterdir(), key=lambda p: p.name == "manifest.json"):
        path.replace(folder / path.name)


def _registered(found: ModelVersion) -> RegisteredVersion:
    return RegisteredVersion(
        version=int(found.version),
        run_id=found.run_id or "",
        created=found.creation_timestamp / 1000,
        tags=dict(found.tags),
    )
