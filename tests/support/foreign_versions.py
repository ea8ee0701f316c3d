"""Versions in MLflow of somebody who knows nothing of Watchkeeper, and the rows they are about."""

import contextlib
import io
import warnings
from typing import Any

import mlflow
import numpy as np
import pandas as pd


def customers(rows: int, seed: int) -> pd.DataFrame:
    """Return customers with age, calls, and whether they are gone."""
    random = np.random.default_rng(seed)
    age, calls = random.uniform(18.0, 90.0, rows), random.gamma(2.0, 2.0, rows)
    risk = calls - age / 20.0 + random.normal(0.0, 1.0, rows)
    return pd.DataFrame({"age": age, "calls": calls, "gone": (risk > 1.0).astype(int)}).round(4)


def register(
    flavour: Any, registered: str, *model: Any, experiment: str | None = None, **how: Any
) -> str:
    """Log a model by its flavour, register it, and return the URI of the version.

    Args:
        flavour: the module of MLflow, such as ``mlflow.sklearn``.
        registered: the name of the registered model.
        model: the model; none for ``mlflow.pyfunc``, which takes it by name.
        experiment: the id of the experiment; the default one without it.
        how: further arguments of ``log_model``.
    """
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        mlflow.start_run(experiment_id=experiment),
    ):
        warnings.simplefilter("ignore")
        info = flavour.log_model(*model, name="model", registered_model_name=registered, **how)
    return f"models:/{registered}/{info.registered_model_version}"
