"""MLflow's python_function: code of somebody else that is logged beside its data.

To load it is to execute its code, with all rights of the process. So it is loaded only where the
image or the project of the model trusts the code, see :mod:`watchkeeper.core.adoption`. Rollout and
the command line never do. A function that is saved as a pickle is refused everywhere.
"""

import os
import shutil
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from watchkeeper.core.adoption import TRUSTED_CODE, YES
from watchkeeper.core.head import Head
from watchkeeper.core.version import BrokenVersionError
from watchkeeper.pipeline.frameworks import (
    Framework,
    UnsupportedEstimatorError,
    UntrustedCodeError,
    library,
)
from watchkeeper.pipeline.trees import Trees, UnsupportedTreesError

FROM_CODE: Final = "mlflow.pyfunc.loaders.code_model"  # what MLflow loads files of code with


class PythonFunction:
    """A function with the methods of an estimator; all of them return what the function returns.

    Attributes:
        folder: The files that MLflow has saved.
    """

    def __init__(self, folder: Path, model: Any) -> None:
        self.folder = folder
        self._model = model

    def predict(self, columns: pd.DataFrame) -> NDArray[np.float64]:
        """Return values of shape (rows,) or (rows, scores) from a frame of request columns."""
        values = np.asarray(self._model.predict(columns), dtype=np.float64)
        return values.reshape(-1) if values.shape[1:] == (1,) else values

    predict_proba = decision_function = score_samples = predict


class PythonFunctions(Framework):
    """Models of MLflow that consist of code: ``log_model(python_model="model.py")``."""

    name = "python_function"
    library = "mlflow"
    takes_columns = True
    executes_code = True

    def recognises(self, estimator: Any) -> bool:
        """Whether it is a function that this module has loaded."""
        return isinstance(estimator, PythonFunction)

    def opened(self, folder: Path, flavour: dict[str, Any], head: Head) -> PythonFunction:  # noqa: ARG002
        """Load the function, which executes its code."""
        loader = flavour.get("loader_module")
        if loader != FROM_CODE:
            raise UnsupportedEstimatorError(
                f"it is loaded by {loader}, and not from a file of code, so a server would have to "
                'open a pickle; log it with python_model="model.py", and mlflow.models.set_model '
                "in that file"
            )
        return self._loaded(folder)

    def save(self, estimator: PythonFunction, path: Path) -> None:
        """Copy MLflow's files to the folder ``path.mlflow``."""
        shutil.copytree(estimator.folder, f"{path}.mlflow")

    def load(self, path: Path) -> PythonFunction:
        """Load the function from the folder ``path.mlflow``, which executes its code."""
        folder = Path(f"{path}.mlflow")
        if not (folder / "MLmodel").is_file():
            raise BrokenVersionError(f"{folder}: it has no file MLmodel")
        return self._loaded(folder)

    def trees(self, estimator: Any, method: str) -> Trees:  # noqa: ARG002
        """Say that there are none."""
        raise UnsupportedTreesError("code is not read as trees")

    def _loaded(self, folder: Path) -> PythonFunction:
        if os.environ.get(TRUSTED_CODE) != YES:
            raise UntrustedCodeError(
                "the version contains code of its own, and this process executes none: an image "
                f"that trusts it sets {TRUSTED_CODE}={YES}, and a project on this machine has "
                "trusted_code = true in [tool.watchkeeper]"
            )
        library(self.library)
        from mlflow.pyfunc import load_model  # noqa: PLC0415 - it costs seconds

        try:
            return PythonFunction(folder, load_model(str(folder), suppress_warnings=True))
        except Exception as error:  # code can raise anything
            raise BrokenVersionError(
                f"{folder.name}: its code cannot be loaded: {type(error).__name__}: {error}; the "
                "image needs the packages of its requirements.txt"
            ) from error


FRAMEWORK = PythonFunctions()
