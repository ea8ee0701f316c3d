"""The offline form of a version: its sklearn pipelines, loaded without executing a pickle.

What a version *should* answer. Training makes the example's answer with it, the rollout
compares live scores with it, serving falls back to it where a head has no ONNX form.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import skops.io

from watchkeeper.contracts.answer import AnswerPolicy, Columns, answer
from watchkeeper.contracts.version import BrokenVersionError, Head, Manifest, read_manifest

# What forests need beyond the types that skops trusts by itself. A type that is in no list
# here is never constructed, whatever a version's files ask for.
TRUSTED_TYPES = ("numpy.dtype", "sklearn.tree._tree.Tree")


class OfflineModel:
    """The pipelines of a version, one a head."""

    def __init__(self, manifest: Manifest, pipelines: dict[str, Any]) -> None:
        self.manifest = manifest
        self._pipelines = pipelines

    def scores(self, columns: Columns) -> Columns:
        """Score raw request columns, each of shape (rows,); one (rows,) array a head."""
        frame = pd.DataFrame({c.name: columns[c.name] for c in self.manifest.signature.inputs})
        return {
            head.score: score(self._pipelines[head.score], head, frame)
            for head in self.manifest.heads
        }

    def answer(self, columns: Columns, policy: AnswerPolicy | None = None) -> Columns:
        """Score and answer by ``policy``, the version's own by default."""
        return answer(self.scores(columns), policy or self.manifest.answer)


def score(pipeline: Any, head: Head, frame: pd.DataFrame) -> np.ndarray[Any, np.dtype[Any]]:
    """Apply one pipeline by its head's method; of probabilities, the positive class's."""
    result = np.asarray(getattr(pipeline, head.method)(frame), dtype=np.float64)
    return result[:, 1] if head.method == "predict_proba" else result


def load(folder: Path) -> OfflineModel:
    """Load a version's pipelines after checking its files.

    Raises:
        BrokenVersionError: a file is not as sealed, or asks for a type that is not trusted.
    """
    manifest = read_manifest(folder)
    return OfflineModel(
        manifest, {head.score: load_pipeline(folder / head.pipeline) for head in manifest.heads}
    )


def load_pipeline(path: Path) -> Any:
    """Load one skops file, refusing types that nobody declared trusted."""
    untrusted = set(skops.io.get_untrusted_types(file=path)) - set(TRUSTED_TYPES)
    if untrusted:
        raise BrokenVersionError(f"{path}: holds types that are not trusted: {sorted(untrusted)}")
    return skops.io.load(path, trusted=list(TRUSTED_TYPES))
