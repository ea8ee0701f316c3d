"""The engine of a head without ONNX form: the library that has fitted it, on its native files."""

from pathlib import Path

import pandas as pd

from watchkeeper.core.head import Head
from watchkeeper.core.signature import Columns
from watchkeeper.pipeline import score
from watchkeeper.pipeline.files import load_pipeline
from watchkeeper.serving.tensors import Array


class NativeEngine:
    """Applies the pipeline of a head.

    Raises:
        BrokenVersionError: A file cannot be loaded, or has a type that is not trusted.
        MissingLibraryError: The library is not installed in this image.
    """

    def __init__(self, folder: Path, head: Head, columns: list[str]) -> None:
        self._head = head
        self._columns = columns
        self._pipeline = load_pipeline(folder, head)

    def values(self, columns: Columns) -> Array:
        """Apply the method of the head; see :meth:`watchkeeper.serving.engine.Engine.values`."""
        frame = pd.DataFrame({name: columns[name] for name in self._columns})
        return score(self._pipeline, self._head, frame)
