"""ONNX: a model that somebody has exported, saved in the form in which it is served.

It gets request columns, so nothing comes before it in its pipeline. Its graph is changed to have
one input for each column and the scores as its output, see :mod:`.onnx_graph`.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from watchkeeper.core.head import Head
from watchkeeper.core.signature import Column
from watchkeeper.core.version import BrokenVersionError
from watchkeeper.pipeline.frameworks import (
    Framework,
    UnsupportedEstimatorError,
    file_of,
    library,
)
from watchkeeper.pipeline.onnx_form import OnnxForm
from watchkeeper.pipeline.trees import Trees, UnsupportedTreesError


class OnnxEstimator:
    """A form, with the methods of an estimator. All of them return the values of the head.

    Raises:
        BrokenVersionError: ONNX Runtime cannot load it.
        MissingLibraryError: ONNX Runtime is not installed.
    """

    def __init__(self, content: bytes, name: str) -> None:
        self.content = content
        self._form = OnnxForm(content, name)

    def predict(self, columns: pd.DataFrame) -> Any:
        """Return values of shape (rows,) or (rows, scores) from a frame of request columns."""
        return self._form(columns)

    predict_proba = decision_function = score_samples = predict


class Onnx(Framework):
    """Models in ONNX files: ``ModelProto`` of the library onnx, or the bytes of a file."""

    name = "onnx"
    library = "onnxruntime"
    takes_columns = True

    def recognises(self, estimator: Any) -> bool:
        """Whether it is an ONNX model, given or prepared."""
        kind = type(estimator)
        is_proto = kind.__name__ == "ModelProto" and kind.__module__.partition(".")[0] == "onnx"
        return is_proto or isinstance(estimator, (bytes, OnnxEstimator))

    def prepared(self, given: Any, head: Head, columns: tuple[Column, ...]) -> OnnxEstimator:
        """Return the model with one input for each column and the scores as its output."""
        # It imports onnx, which only training needs.
        from watchkeeper.pipeline.frameworks.onnx_graph import as_form  # noqa: PLC0415

        try:
            return OnnxEstimator(as_form(given, head, columns), "the ONNX model")
        except BrokenVersionError as error:
            raise UnsupportedEstimatorError(str(error)) from error

    def opened(self, folder: Path, flavour: dict[str, Any], head: Head) -> Any:  # noqa: ARG002
        """Read ``model.onnx``, also with data in other files of the folder."""
        path = file_of(folder, flavour, "data")
        onnx = library("onnx")
        try:
            return onnx.load(path)
        except Exception as error:  # a broken file can raise anything
            raise BrokenVersionError(f"{path.name}: is not an ONNX file: {error}") from error

    def save(self, estimator: OnnxEstimator, path: Path) -> None:
        """Write ``path.onnx``."""
        Path(f"{path}.onnx").write_bytes(estimator.content)

    def load(self, path: Path) -> OnnxEstimator:
        """Read ``path.onnx``."""
        file = Path(f"{path}.onnx")
        try:
            content = file.read_bytes()
        except OSError as error:
            raise BrokenVersionError(f"{file}: {error}") from error
        return OnnxEstimator(content, str(file))

    def trees(self, estimator: Any, method: str) -> Trees:  # noqa: ARG002
        """Say that there are none: the model is a form already."""
        raise UnsupportedTreesError("an ONNX model is not read as trees")

    def form(self, estimator: OnnxEstimator) -> bytes:
        """Return the content."""
        return estimator.content


FRAMEWORK = Onnx()
