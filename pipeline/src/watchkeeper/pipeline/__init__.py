"""The offline form of a version: its scikit-learn pipelines, loaded without executing a pickle.

It defines what a version should answer. Training writes the answer of the version's example with
it, rollout compares live scores with it, and serving uses it for heads without an ONNX form.
"""

from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import skops.io
from numpy.typing import NDArray

from watchkeeper.core.answer import AnswerPolicy, answer
from watchkeeper.core.head import Head
from watchkeeper.core.signature import Columns
from watchkeeper.core.tasks import task_of
from watchkeeper.core.version import BrokenVersionError, Manifest, read_manifest

# What forests need beyond the types that skops trusts by default. A type in neither list is never
# constructed, whatever a version's files contain.
TRUSTED_TYPES: Final = ("numpy.dtype", "sklearn.tree._tree.Tree")


class OfflineModel:
    """A version's manifest and its pipelines, one per head.

    Example:
        model = load(Path("version"))
        model.answer({"flow": np.array([80.5]), "vibration": np.array([3.1])})
    """

    def __init__(self, manifest: Manifest, pipelines: dict[str, Any]) -> None:
        self.manifest = manifest
        self._pipelines = pipelines

    def scores(self, columns: Columns) -> Columns:
        """Score raw request columns, each of shape (rows,); returns one (rows,) array per score."""
        frame = pd.DataFrame({c.name: columns[c.name] for c in self.manifest.signature.inputs})
        found: Columns = {}
        for head in self.manifest.heads:
            found |= task_of(head).columns(values(self._pipelines[head.score], head, frame))
        return found

    def answer(self, columns: Columns, policy: AnswerPolicy | None = None) -> Columns:
        """Score request columns and turn the scores into an answer.

        Args:
            columns: raw request columns by name, each of shape (rows,).
            policy: replaces the version's own policy.

        Returns:
            All outputs and all scores, hidden ones too, each of shape (rows,).
        """
        manifest = self.manifest
        return answer(self.scores(columns), manifest.heads, policy or manifest.answer)


def values(pipeline: Any, head: Head, frame: pd.DataFrame) -> NDArray[np.float64]:
    """Apply a pipeline by its head's method; returns shape (rows,) or (rows, values)."""
    return np.asarray(getattr(pipeline, head.method)(frame), dtype=np.float64)


def load(folder: Path) -> OfflineModel:
    """Check a version's files and load its pipelines.

    Raises:
        BrokenVersionError: a file is missing or altered, or has a type that is not trusted.
    """
    manifest = read_manifest(folder)
    return OfflineModel(
        manifest, {head.score: load_pipeline(folder / head.pipeline) for head in manifest.heads}
    )


def load_pipeline(path: Path) -> Any:
    """Load one skops file.

    Raises:
        BrokenVersionError: the file has types that are not in :data:`TRUSTED_TYPES`. None of them
            is constructed.
    """
    untrusted = set(skops.io.get_untrusted_types(file=path)) - set(TRUSTED_TYPES)
    if untrusted:
        raise BrokenVersionError(f"{path}: holds types that are not trusted: {sorted(untrusted)}")
    return skops.io.load(path, trusted=list(TRUSTED_TYPES))
