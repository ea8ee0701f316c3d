"""A typical server without a framework for models: FastAPI and joblib, run by uvicorn."""

import os
from pathlib import Path

import joblib
import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()
predict_rows = getattr(
    joblib.load(Path(os.environ["BENCH_FOLDER"]) / "model.joblib"), os.environ["BENCH_METHOD"]
)


class Rows(BaseModel):
    """A request: rows of features."""

    rows: list[list[float]]


class Scores(BaseModel):
    """An answer: a score for each row, or one for each class."""

    scores: list[float] | list[list[float]]


@app.post("/predict")
def predict(request: Rows) -> Scores:
    """Return the scores of the rows."""
    scores = predict_rows(np.array(request.rows))
    if scores.ndim == 2 and scores.shape[1] == 2:
        scores = scores[:, 1]
    return Scores(scores=scores.tolist())
