"""The files of the version that is rolled out: its policy, its gate report, its offline scores."""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from watchkeeper.core.gate_report import RECENT, read_report
from watchkeeper.core.names import model_uri, serving_name
from watchkeeper.core.signature import Columns
from watchkeeper.core.statistics import largest_difference
from watchkeeper.core.version import (
    GATE_REPORT,
    MANIFEST,
    BrokenVersionError,
    Manifest,
    read_manifest,
)
from watchkeeper.registry import Registry, RegistryError
from watchkeeper.rollout.evidence import Skew

if TYPE_CHECKING:
    from watchkeeper.pipeline import OfflineModel

Row = tuple[dict[str, Any], dict[str, Any]]  # inputs and outputs of one row, by column


log = logging.getLogger(__name__)


class Content(NamedTuple):
    """A version and its digest, "" where the digest is not known."""

    version: int
    digest: str = ""


class VersionCache:
    """Stores the files of one version of a model below the folder ``cache``."""

    def __init__(self, registry: Registry, model: str, cache: Path) -> None:
        self.registry = registry
        self.model = model
        self.cache = cache
        self._manifests: dict[Content, Manifest] = {}
        self._offline: tuple[Content, OfflineModel | BrokenVersionError] | None = None

    def fetch(self, content: Content) -> None:
        """Download the files of a version, unless they are there, and delete other versions.

        All other methods work without the registry.

        Raises:
            BrokenVersionError: the registry has no such version, or no longer has its files.
            RegistryError: the registry does not answer.
        """
        if self.has(content):
            return
        for other in self.cache.glob("*"):
            shutil.rmtree(other)
        self._manifests.clear()
        try:
            self.registry.download(model_uri(self.model, *content), self._folder(content))
        except RegistryError as error:
            if not error.not_found:
                raise
            raise BrokenVersionError(
                f"the registry has no files of version {content.version} ({error}); train a new "
                "version"
            ) from error

    def has(self, content: Content) -> bool:
        """Whether the files of a version are there."""
        return self._folder(content).is_dir()

    def manifest(self, content: Content) -> Manifest:
        """Return the manifest of a version.

        Raises:
            BrokenVersionError: a training run of this model did not register the version, or its
                files have changed since then.
        """
        version = content.version
        if content not in self._manifests:
            folder = self._folder(content)
            if folder.is_dir() and not (folder / MANIFEST).exists():
                raise BrokenVersionError(
                    f"version {version} is not a version of Watchkeeper: it has no {MANIFEST}; "
                    f"only a training run registers versions ('watchkeeper train {self.model}')"
                )
            manifest = read_manifest(folder, content.digest)
            if manifest.model != self.model:
                raise BrokenVersionError(
                    f"version {version} contains a version of the model {manifest.model!r}; "
                    f"register versions of {self.model!r} only ('watchkeeper train {self.model}')"
                )
            self._manifests[content] = manifest
        return self._manifests[content]

    def gate_shift(self, content: Content) -> dict[str, float]:
        """Return the mean shift of each score, new minus production, as the gate measured it.

        Only shifts on recent rows count: older rows do not predict what live traffic shows.
        """
        folder = self._folder(content)
        if not (folder / GATE_REPORT).exists():
            return {}
        report = read_report(folder)
        return {
            name: shift.mean.value
            for name, shift in report.score_shift.items()
            if shift.on == RECENT and shift.mean.value is not None
        }

    def load_offline(self, content: Content) -> None:
        """Load the offline form of a version, so that the first step does not wait for it."""
        if self._offline is None or self._offline[0] != content:
            # Imported late, because scikit-learn and pandas cost seconds and 80 MiB.
            from watchkeeper.pipeline import load  # noqa: PLC0415

            try:
                self._offline = content, load(self._folder(content))
            except BrokenVersionError as error:
                self._offline = content, error
                log.warning("%s version %d: %s", self.model, content.version, error)

    def skew(self, content: Content, rows: Sequence[Row]) -> Skew:
        """Compare the live scores of ``rows`` with the offline prediction for the same rows."""
        from watchkeeper.pipeline.frameworks import MissingLibraryError  # noqa: PLC0415

        self.load_offline(content)
        model = self._offline[1] if self._offline else BrokenVersionError("not loaded")
        if isinstance(model, MissingLibraryError):
            return Skew(len(rows), float("nan"), not_computed=str(model))
        if isinstance(model, BrokenVersionError):
            return Skew(len(rows), float("nan"), str(model))
        if not rows:
            return Skew(0, 0.0)
        try:
            expected = model.scores(_columns(model.manifest, [inputs for inputs, _ in rows]))
        except (KeyError, TypeError, ValueError) as failure:
            return Skew(len(rows), float("nan"), f"{type(failure).__name__}: {failure}")
        largest = [
            largest_difference(
                np.array([_number(outputs.get(name)) for _, outputs in rows]), scores
            )
            for name, scores in expected.items()
        ]
        return Skew(len(rows), float(np.max(largest)))

    def _folder(self, content: Content) -> Path:
        name = serving_name(self.model, content.version)
        return self.cache / (f"{name}-{content.digest}" if content.digest else name)


def _columns(manifest: Manifest, rows: Sequence[dict[str, Any]]) -> Columns:
    return {
        column.name: column.array([row[column.name] for row in rows])
        for column in manifest.signature.inputs
    }


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")
