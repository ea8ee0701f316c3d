"""The engine of a head without an ONNX form: mlserver-sklearn's model, loaded from skops."""

from pathlib import Path

import pandas as pd
from mlserver import ModelSettings
from mlserver_sklearn import SKLearnModel

from watchkeeper.contracts.answer import Columns
from watchkeeper.contracts.version import BrokenVersionError, Head
from watchkeeper.pipeline import load_pipeline, score
from watchkeeper.serving.tensors import Array


class SkopsEngine(SKLearnModel):  # type: ignore[misc]
    """An SKLearnModel that is given columns and executes no pickle."""

    def __init__(self, path: Path, head: Head, columns: list[str]) -> None:
        super().__init__(ModelSettings(name=head.score, implementation=SKLearnModel))
        self._head = head
        self._columns = columns
        try:
            self._model = load_pipeline(path)
        except BrokenVersionError:
            raise
        except Exception as error:  # whatever its reader stumbles over
            raise BrokenVersionError(f"{path}: skops cannot load it: {error}") from error
        self.ready = True

    def score(self, columns: Columns) -> Array:
        """Apply the pipeline by its head's method."""
        return score(self._model, self._head, pd.DataFrame({n: columns[n] for n in self._columns}))
