"""A version's files, fetched once: its policy, what its gate measured, and its offline scores."""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from watchkeeper.contracts.answer import Columns
from watchkeeper.contracts.names import model_uri, serving_name
from watchkeeper.contracts.version import (
    GATE_REPORT,
    BrokenVersionError,
    Manifest,
    read_manifest,
)
from watchkeeper.registry import Registry
from watchkeeper.rollout.evidence import Skew

if TYPE_CHECKING:
    from watchkeeper.pipeline import OfflineModel

Row = tuple[dict[str, Any], dict[str, Any]]  # one row's inputs and outputs, by column

RECENT = "recent"

log = logging.getLogger(__name__)


class _Estimate(msgspec.Struct, frozen=True):
    value: float | None


class _Shift(msgspec.Struct, frozen=True):
    on: str
    mean: _Estimate


class _GateReport(msgspec.Struct, frozen=True):
    """What the analysis needs of ``gate.json``."""

    score_shift: dict[str, _Shift] = {}


class Versions:
    """The version of one model that is in question, its files kept below ``cache``."""

    def __init__(self, registry: Registry, model: str, cache: Path) -> None:
        self.registry = registry
        self.model = model
        self.cache = cache
        self._manifests: dict[int, Manifest] = {}
        self._loaded: tuple[int, OfflineModel | None, str] | None = None

    def fetch(self, version: int) -> None:
        """Fetch a version's files unless they are here; raises RegistryError.

        Everything else works without the registry from then on.
        """
        if self.has(version):
            return
        for other in self.cache.glob("*"):  # one version is in question at a time
            shutil.rmtree(other)
        self._manifests.clear()
        self.registry.download(model_uri(self.model, version), self._folder(version))

    def has(self, version: int) -> bool:
        """Tell whether a version's files are here."""
        return self._folder(version).is_dir()

    def manifest(self, version: int) -> Manifest:
        """Read a version's manifest; raises BrokenVersionError."""
        if version not in self._manifests:
            self._manifests[version] = read_manifest(self._folder(version))
        return self._manifests[version]

    def gate_shift(self, version: int) -> dict[str, float]:
        """Return the mean shift of each score, new minus production, where the gate measured it
        on recent rows; older ones do not tell what live traffic will show.
        """
        path = self._folder(version) / GATE_REPORT
        if not path.exists():
            return {}
        report = msgspec.json.decode(path.read_bytes(), type=_GateReport)
        return {
            name: shift.mean.value
            for name, shift in report.score_shift.items()
            if shift.on == RECENT and shift.mean.value is not None
        }

    def warm(self, version: int) -> None:
        """Load the offline form now, so that the first judgement does not wait for it."""
        if self._loaded is None or self._loaded[0] != version:
            # Not before it is needed: scikit-learn and pandas cost seconds and 80 MiB.
            from watchkeeper.pipeline import load  # noqa: PLC0415

            try:
                self._loaded = version, load(self._folder(version)), ""
            except BrokenVersionError as error:
                self._loaded = version, None, str(error)
                log.warning("%s version %d: %s", self.model, version, error)

    def skew(self, version: int, rows: Sequence[Row]) -> Skew:
        """Compare live scores with the offline prediction for the same rows."""
        self.warm(version)
        model, broken = self._loaded[1:] if self._loaded else (None, "not loaded")
        if model is None:
            return Skew(len(rows), float("nan"), broken)
        if not rows:
            return Skew(0, 0.0)
        try:
            expected = model.scores(_columns(model.manifest, [inputs for inputs, _ in rows]))
        except (KeyError, TypeError, ValueError) as error:
            return Skew(len(rows), float("nan"), f"{type(error).__name__}: {error}")
        differences = [
            np.abs(scores - np.array([_number(outputs.get(name)) for _, outputs in rows]))
            for name, scores in expected.items()
        ]
        return Skew(len(rows), float(np.max(differences)))

    def _folder(self, version: int) -> Path:
        return self.cache / serving_name(self.model, version)


def _columns(manifest: Manifest, rows: Sequence[dict[str, Any]]) -> Columns:
    kinds = {"FP64": np.float64, "INT64": np.int64, "BYTES": object}
    return {
        column.name: np.array([row[column.name] for row in rows], dtype=kinds[column.datatype])
        for column in manifest.signature.inputs
    }


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")
