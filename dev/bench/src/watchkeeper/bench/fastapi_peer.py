"""A typical server without a framework for models: FastAPI and joblib, run by uvicorn."""

import os
from pathlib import Path

import joblib
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()
model = joblib.load(Path(os.environ["BENCH_FOLDER"]) / "model.joblib")


class Rows(BaseModel):
    """A request: rows of features."""

    rows: list[list[float]]


class Probabilities(BaseModel):
    """An answer: one probability per row."""

    failure_probability: list[float]


@app.post("/predict")
def predict(request: Rows) -> Probabilities:
    """Return the probabilities of the rows."""
    scores = model.predict_proba(request.rows)[:, 1]
    return Probabilities(failure_probability=scores.tolist())
