"""The offline form of a version: its pipelines, loaded without executing a pickle.

It defines what a version should answer. Training writes the answer of the version's example with
it, rollout compares live scores with it, and serving uses it for heads without an ONNX form.
"""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from watchkeeper.core.answer import AnswerPolicy, answer
from watchkeeper.core.signature import Columns
from watchkeeper.core.tasks import task_of
from watchkeeper.core.version import Manifest, read_manifest
from watchkeeper.pipeline.files import load_pipeline
from watchkeeper.pipeline.frameworks import MissingLibraryError
from watchkeeper.pipeline.onnx_form import OnnxForm
from watchkeeper.pipeline.scoring import score

__all__ = ["MissingLibraryError", "OfflineModel", "load", "score"]

log = logging.getLogger(__name__)

Scorer = Callable[[pd.DataFrame], NDArray[np.float64]]
"""From the request columns to the values of a head, see :func:`score`."""


class OfflineModel:
    """A version's manifest and what computes its scores, one scorer per head.

    Example:
        model = load(Path("version"))
        model.answer({"flow": np.array([80.5]), "vibration": np.array([3.1])})
    """

    def __init__(self, manifest: Manifest, scorers: Mapping[str, Scorer]) -> None:
        self.manifest = manifest
        self._scorers = scorers

    def scores(self, columns: Columns) -> Columns:
        """Score raw request columns, each of shape (rows,); returns one (rows,) array per score."""
        frame = pd.DataFrame({c.name: columns[c.name] for c in self.manifest.signature.inputs})
        found: Columns = {}
        for head in self.manifest.heads:
            found |= task_of(head).columns(self._scorers[head.score](frame))
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


def load(folder: Path) -> OfflineModel:
    """Check a version's files and load its pipelines.

    A head whose library is not installed here is computed by its ONNX form, which training has
    compared with the library.

    Raises:
        BrokenVersionError: a file is missing or altered, or has a type that is not trusted.
        MissingLibraryError: the library of a head without ONNX form is not installed.
    """
    manifest = read_manifest(folder)
    scorers: dict[str, Scorer] = {}
    for head in manifest.heads:
        try:
            scorers[head.score] = partial(score, load_pipeline(folder, head), head)
        except MissingLibraryError as error:
            if head.onnx is None:
                raise
            log.info("%s: its ONNX form is used: %s", head.score, error)
            scorers[head.score] = OnnxForm(folder / head.onnx, str(folder / head.onnx))
    return OfflineModel(manifest, scorers)
