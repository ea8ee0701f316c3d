"""How ``mlflow.pyfunc`` loads a version whose first head is not scikit-learn's."""

from pathlib import Path
from typing import Any

import pandas as pd

from watchkeeper.pipeline import OfflineModel, load


class MlflowModel:
    """A version with the method that MLflow calls."""

    def __init__(self, model: OfflineModel) -> None:
        self._model = model

    def predict(self, frame: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:  # noqa: ARG002 - MLflow's interface
        """Return the outputs and scores of the version, one row for each row of columns."""
        return pd.DataFrame(self._model.answer({name: frame[name].to_numpy() for name in frame}))


def _load_pyfunc(path: str) -> MlflowModel:
    """Load the version in a folder; MLflow calls this function by its name."""
    return MlflowModel(load(Path(path)))
