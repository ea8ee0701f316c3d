"""The ONNX form of a head, for processes without the library of its estimator."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from watchkeeper.core.version import BrokenVersionError
from watchkeeper.pipeline.frameworks import MissingLibraryError

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


class OnnxForm:
    """Computes the score of a head by ONNX Runtime.

    Args:
        form: the file, or its content.
        name: the file, for messages.

    Raises:
        BrokenVersionError: ONNX Runtime cannot load the file.
        MissingLibraryError: ONNX Runtime is not installed.
    """

    def __init__(self, form: Path | bytes, name: str) -> None:
        try:
            # Few processes need it.
            import onnxruntime  # noqa: PLC0415
        except ModuleNotFoundError as error:
            raise MissingLibraryError(f"{name}: ONNX Runtime is not installed here") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                form, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the errors of onnxruntime have no common class
            raise BrokenVersionError(f"{name}: ONNX Runtime cannot load it: {error}") from error

    def __call__(self, frame: pd.DataFrame) -> NDArray[np.float64]:
        """Return the values of the head, see :func:`~watchkeeper.pipeline.scoring.score`."""
        needed = [each.name for each in self._session.get_inputs()]
        feed = {name: frame[[name]].to_numpy() for name in needed}
        (found,) = self._session.run(None, feed)
        values = np.asarray(found, dtype=np.float64)
        return values.reshape(-1) if values.shape[1:] == (1,) else values
