"""The MLflow registry as the loop uses it: versions by number, aliases, tags, files.

MLflow takes 1.5 s to import, and half of all commands never ask the registry: it is imported
when it is needed first.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from watchkeeper.contracts.names import Alias, model_uri, parse_model_uri
from watchkeeper.contracts.settings import read_secret

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

RUN_TAG = "watchkeeper.run"
CODE_TAG = "watchkeeper.code_version"
GATE_TAG = "watchkeeper.gate"  # "passed" or "rejected"
ROLLOUT_TAG = "watchkeeper.rollout"  # "promoted", or "rolled-back: <why>"

# MLflow's own defaults wait for minutes; our callers come back in their next turn.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")


PASSWORD = "MLFLOW_TRACKING_PASSWORD"  # noqa: S105  (the name of a variable)


class RegistryError(RuntimeError):
    """MLflow did not answer, or refused; try again next turn. ``code`` is MLflow's own."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code

    @property
    def refused(self) -> bool:
        """Tell whether MLflow lets this user not do it, which no later try changes."""
        return self.code in ("UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED", "PERMISSION_DENIED")


MISSING = "RESOURCE_DOES_NOT_EXIST"


class RegisteredVersion(msgspec.Struct, frozen=True):
    """One version as the registry lists it; ``created`` in seconds since 1970."""

    version: int
    run_id: str
    created: float
    tags: dict[str, str]


class Registry:
    """A client of one MLflow server; without ``uri`` MLFLOW_TRACKING_URI is taken.

    Its user is MLFLOW_TRACKING_USERNAME, with MLFLOW_TRACKING_PASSWORD, as MLflow reads them; the
    password may be given as a file, too, which MLFLOW_TRACKING_PASSWORD_FILE names.
    """

    def __init__(self, uri: str | None = None) -> None:
        self._uri = uri

    @cached_property
    def client(self) -> "MlflowClient":
        """MLflow's own client; SettingsError when the password's file cannot be read."""
        from mlflow.tracking import MlflowClient  # noqa: PLC0415  (see the module's docstring)

        if path := os.environ.get(f"{PASSWORD}_FILE"):
            os.environ[PASSWORD] = read_secret(f"{PASSWORD}_FILE={path}", path)
        return MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)

    def aliases(self, model: str) -> dict[str, int]:
        """Return all aliases of a model with their versions; empty for an unknown model."""
        try:
            with _asking(f"aliases of {model}"):
                found = self.client.get_registered_model(model).aliases
        except RegistryError as error:
            if error.code == MISSING:
                return {}
            raise
        return {alias: int(version) for alias, version in found.items()}

    def versions(self, model: str) -> list[RegisteredVersion]:
        """Return all versions of a model, oldest first."""
        found: list[ModelVersion] = []
        token: str | None = None
        with _asking(f"versions of {model}"):
            while True:
                page = self.client.search_model_versions(f"name='{model}'", page_token=token)
                found += page
                token = page.token
                if not token:
                    break
        return sorted((_registered(v) for v in found), key=lambda v: v.version)

    def set_alias(self, model: str, alias: Alias, version: int) -> None:
        """Point an alias at a version.

        Of two writers at once MLflow refuses one (its insert-or-update takes no lock): what
        counts is that the alias points where it should.
        """
        try:
            with _asking(f"{model}: alias {alias} → {version}"):
                self.client.set_registered_model_alias(model, alias, str(version))
        except RegistryError:
            if self.aliases(model).get(alias) != version:
                raise

    def drop_alias(self, model: str, alias: Alias) -> None:
        """Remove an alias; harmless when it is not set."""
        try:
            with _asking(f"{model}: drop alias {alias}"):
                self.client.delete_registered_model_alias(model, alias)
        except RegistryError as error:
            if error.code != MISSING:
                raise

    def tag(self, model: str, version: int, key: str, value: str) -> None:
        """Write one tag of a version."""
        with _asking(f"{model} {version}: tag {key}"):
            self.client.set_model_version_tag(model, str(version), key, value)

    def download(self, uri: str, folder: Path) -> None:
        """Fetch the files of ``mlflow://<model>/<version>`` into ``folder``, whole or not at all.

        A folder that is there already is left as it is: versions never change.
        """
        model, version = parse_model_uri(uri)
        if folder.exists() and any(folder.iterdir()):
            return
        folder.parent.mkdir(parents=True, exist_ok=True)
        # One that is there may be a volume, beside which nothing can be written or moved from.
        beside = folder if folder.exists() else folder.parent
        with (
            tempfile.TemporaryDirectory(dir=beside, prefix=".download-") as draft,
            _asking(model_uri(model, version)),
        ):
            from mlflow.artifacts import download_artifacts  # noqa: PLC0415  (see above)

            source = self.client.get_model_version_download_uri(model, str(version))
            got = download_artifacts(
                artifact_uri=source, dst_path=draft, tracking_uri=self.client.tracking_uri
            )
            _place(Path(got), folder)


@contextlib.contextmanager
def _asking(what: str) -> Iterator[None]:
    """Turn MLflow's errors, and those of a transfer, into ours, which name what was asked."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415  (see the module's docstring)

    try:
        yield
    except MlflowException as error:
        raise RegistryError(f"{what}: {error.message}", error.error_code) from error
    except OSError as error:  # as are the errors of requests
        raise RegistryError(f"{what}: {error}") from error


def _place(got: Path, folder: Path) -> None:
    """Move what was downloaded into a folder that may be a mount point, manifest last."""
    if not folder.exists():
        got.replace(folder)
        return
    for path in sorted(got.iterdir(), key=lambda p: p.name == "manifest.json"):
        path.replace(folder / path.name)


def _registered(found: "ModelVersion") -> RegisteredVersion:
    return RegisteredVersion(
        version=int(found.version),
        run_id=found.run_id or "",
        created=found.creation_timestamp / 1000,
        tags=dict(found.tags),
    )
