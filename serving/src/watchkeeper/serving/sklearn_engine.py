"""The engine of a head without ONNX form: mlserver-sklearn's model, loaded with skops."""

from pathlib import Path

import pandas as pd
from mlserver import ModelSettings
from mlserver_sklearn import SKLearnModel

from watchkeeper.core.head import Head
from watchkeeper.core.signature import Columns
from watchkeeper.core.version import BrokenVersionError
from watchkeeper.pipeline import load_pipeline, values
from watchkeeper.serving.tensors import Array


class SklearnEngine(SKLearnModel):  # type: ignore[misc]
    """MLServer's model for scikit-learn, with two differences.

    It loads skops instead of pickle, because a pickle executes whatever it contains. It gets
    columns instead of a request, because MLServer guesses how to decode tensors and does not know
    ``decision_function`` and ``score_samples``.
    """

    def __init__(self, path: Path, head: Head, columns: list[str]) -> None:
        super().__init__(ModelSettings(name=head.score, implementation=SKLearnModel))
        self._head = head
        self._columns = columns
        try:
            self._model = load_pipeline(path)
        except BrokenVersionError:
            raise
        except Exception as error:  # a broken file can raise anything
            raise BrokenVersionError(f"{path}: skops cannot load it: {error}") from error
        self.ready = True

    def values(self, columns: Columns) -> Array:
        """Apply the method of the head; see :meth:`watchkeeper.serving.engine.Engine.values`."""
        return values(self._model, self._head, pd.DataFrame({n: columns[n] for n in self._columns}))
