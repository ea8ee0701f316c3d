"""A client of the MLflow registry: versions by number, aliases, tags and files."""

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import msgspec

from watchkeeper.core.names import Alias
from watchkeeper.core.settings import SettingsError, read_secret
from watchkeeper.registry.download import download, read_digest
from watchkeeper.registry.errors import (
    ALREADY_EXISTS,
    NOT_FOUND,
    RegistryError,
    translated_errors,
)
from watchkeeper.registry.tags import (
    ABOVE_TAG,
    AGAIN_TAG,
    DIGEST_TAG,
    REUSED_TAG,
    ROLLOUT_TAG,
    RUN_TAG,
)

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

# Importing MLflow takes 1.5 s, and half of all commands never call the registry. So the functions
# below import it when they need it.

# The defaults of MLflow wait for minutes. Our callers try again in their next turn.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
# With tqdm, which other libraries bring, MLflow would draw into the output of every download.
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

URI: Final = "MLFLOW_TRACKING_URI"
# What MLflow can use as a registry; of these only http and https are for a running system.
SCHEMES: Final = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "file")
PASSWORD: Final = "MLFLOW_TRACKING_PASSWORD"  # noqa: S105 - the name of a variable


class RegisteredVersion(msgspec.Struct, frozen=True):
    """One version in the registry.

    ``run_id`` is the id of MLflow's run, ``created`` is in seconds since 1970.
    """

    version: int
    run_id: str
    created: float
    tags: dict[str, str]

    @property
    def counts(self) -> bool:
        """Whether it is a version: one with a number that was used before only keeps the number."""
        above = self.tags.get(ABOVE_TAG, "")
        return self.version > int(above) if above.isdecimal() else True


class Registry:
    """A client of one MLflow server.

    All methods raise :class:`RegistryError` if MLflow does not answer within some seconds, or
    answers with an error::

        registry = Registry("http://127.0.0.1:5000")
        registry.set_alias("pump-failure", "candidate", 4)

    MLflow reads the user from MLFLOW_TRACKING_USERNAME and the password from
    MLFLOW_TRACKING_PASSWORD. MLFLOW_TRACKING_PASSWORD_FILE may name a file with the password.

    Args:
        uri: The URI of the server; MLFLOW_TRACKING_URI by default.
    """

    def __init__(self, uri: str | None = None) -> None:
        self._uri = uri

    @cached_property
    def client(self) -> "MlflowClient":
        """The client of MLflow itself.

        Raises:
            SettingsError: there is no address of a registry, or the file of the password is not
                readable.
        """
        from mlflow.tracking import MlflowClient  # noqa: PLC0415 - see above

        # Without an address, MLflow creates a database in the current folder.
        scheme = urlsplit(self._uri or os.environ.get(URI, "")).scheme.partition("+")[0]
        if scheme not in SCHEMES:
            given = f"its scheme is {scheme!r}" if scheme else "it is not set, or has no scheme"
            raise SettingsError(f"{URI} must be the URL of an MLflow server: {given}")
        if path := os.environ.get(f"{PASSWORD}_FILE"):
            os.environ[PASSWORD] = read_secret(f"{PASSWORD}_FILE={path}", path)
        return MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)

    def aliases(self, model: str) -> dict[str, int]:
        """Return the aliases of a model with their versions; empty for an unknown model."""
        try:
            with translated_errors(f"aliases of {model}"):
                found = self.client.get_registered_model(model).aliases
        except RegistryError as error:
            if error.not_found:
                return {}
            raise
        return {alias: int(version) for alias, version in found.items()}

    def versions(self, model: str) -> list[RegisteredVersion]:
        """Return all versions of a model, oldest first."""
        return [version for version in self._created(model) if version.counts]

    def create_version(
        self,
        model: str,
        source: str,
        run_id: str,
        *,
        tags: dict[str, str],
        once: str,
        above: int,
        description: str = "",
    ) -> RegisteredVersion:
        """Create a version whose number was never used, and the registered model if it is missing.

        After a registered model was deleted, MLflow counts from 1 again. It never counts a deleted
        version again, so a version is created and deleted until the number is high enough. It
        becomes visible to :meth:`versions` only with such a number, so a kill at any line leaves
        nothing that counts. The next call deletes what it left.

        Args:
            model: the model.
            source: the address of the files.
            run_id: the id of MLflow's run that has the files.
            tags: the tags of the version.
            once: the key of the tag that identifies the version. If versions have its value, the
                first one is returned and the others are deleted: another process, or a call whose
                answer was lost, has created them.
            above: the highest number that was used before.
            description: shown in MLflow.
        """
        self._create_registered_model(model)
        created = self._created(model)
        for left_over in created:
            if not left_over.counts:
                self._delete_version(model, left_over.version)
        if not any(v.counts and v.tags.get(once) == tags[once] for v in created):
            while True:
                with translated_errors(f"{model}: create a version"):
                    found = self.client.create_model_version(
                        model,
                        source=source,
                        run_id=run_id or None,
                        tags={**tags, ABOVE_TAG: str(above)},
                        description=description,
                        await_creation_for=0,  # its files exist, so the version is ready at once
                    )
                if int(found.version) > above:
                    break
                self._delete_version(model, int(found.version))
        same = [v for v in self.versions(model) if v.tags.get(once) == tags[once]]
        if not same:
            raise RegistryError(f"{model}: the new version was deleted at once", NOT_FOUND)
        for other in same[1:]:
            self._delete_version(model, other.version)
        return same[0]

    def register_again(self, model: str, version: int, content: str, above: int) -> None:
        """Register the content of a version under a number that was never used.

        The new version has the tag AGAIN_TAG, so that a repeated call creates no other one.

        Args:
            model: the model.
            version: a version whose number stood for other content before.
            content: the digest of the version.
            above: the highest number that was used before.
        """
        self.set_tag(model, version, DIGEST_TAG, content)
        with translated_errors(f"{model} version {version}"):
            found = self.client.get_model_version(model, str(version))
        judged = (ABOVE_TAG, ROLLOUT_TAG, RUN_TAG)  # they are about the old number
        tags = {key: value for key, value in found.tags.items() if key not in judged}
        self.create_version(
            model,
            str(found.source),
            found.run_id or "",
            tags={**tags, DIGEST_TAG: content, AGAIN_TAG: content, REUSED_TAG: str(version)},
            once=AGAIN_TAG,
            above=above,
            description=f"registered as version {version} before, a number that was used already",
        )

    def read_digest(self, model: str, version: int) -> str:
        """Return the digest of a version without a tag; see :func:`.download.read_digest`."""
        return read_digest(self.client, model, version)

    def _create_registered_model(self, model: str) -> None:
        try:
            with translated_errors(f"create the registered model {model}"):
                self.client.create_registered_model(model)
        except RegistryError as error:
            if error.code != ALREADY_EXISTS:
                raise

    def _delete_version(self, model: str, version: int) -> None:
        try:
            with translated_errors(f"{model}: delete version {version}"):
                self.client.delete_model_version(model, str(version))
        except RegistryError as error:
            if not error.not_found:
                raise

    def _created(self, model: str) -> list[RegisteredVersion]:
        """Return all versions in MLflow, oldest first, also those that only keep a number."""
        found: list[ModelVersion] = []
        token: str | None = None
        with translated_errors(f"versions of {model}"):
            while True:
                page = self.client.search_model_versions(f"name='{model}'", page_token=token)
                found += page
                token = page.token
                if not token:
                    break
        return sorted((registered(v) for v in found), key=lambda v: v.version)

    def set_alias(self, model: str, alias: Alias, version: int) -> None:
        """Point an alias at a version.

        MLflow writes an alias without a lock, and refuses one of two concurrent writers. This is
        not an error if the alias points at the version afterwards.
        """
        try:
            with translated_errors(f"{model}: set alias {alias} to version {version}"):
                self.client.set_registered_model_alias(model, alias, str(version))
        except RegistryError:
            if self.aliases(model).get(alias) != version:
                raise

    def delete_alias(self, model: str, alias: Alias) -> None:
        """Delete an alias, if it exists."""
        try:
            with translated_errors(f"{model}: delete alias {alias}"):
                self.client.delete_registered_model_alias(model, alias)
        except RegistryError as error:
            if not error.not_found:
                raise

    def set_tag(self, model: str, version: int, key: str, value: str) -> None:
        """Set one tag of a version."""
        with translated_errors(f"{model} version {version}: set tag {key}"):
            self.client.set_model_version_tag(model, str(version), key, value)

    def download(self, uri: str, folder: Path) -> None:
        """Download the files of a version, all or none; see :func:`.download.download`.

        Raises:
            InvalidNameError: the URI is malformed.
            RegistryError: the registry or its storage does not answer, or has no such version or no
                files of it (``not_found``).
        """
        download(self.client, uri, folder)


def registered(found: "ModelVersion") -> RegisteredVersion:
    """Return a version from what MLflow says of it."""
    return RegisteredVersion(
        version=int(found.version),
        run_id=found.run_id or "",
        created=found.creation_timestamp / 1000,
        tags=dict(found.tags),
    )
