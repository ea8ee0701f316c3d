"""The peer that many write themselves: FastAPI and joblib. ``uvicorn watchkeeper.bench...:app``."""

import os
from pathlib import Path

import joblib
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()
model = joblib.load(Path(os.environ["BENCH_FOLDER"]) / "model.joblib")


class Rows(BaseModel):
    """A request: rows of nine numbers."""

    rows: list[list[float]]


class Probabilities(BaseModel):
    """Its answer, one probability a row."""

    failure_probability: list[float]


@app.post("/predict")
def predict(request: Rows) -> Probabilities:
    """Answer."""
    scores = model.predict_proba(request.rows)[:, 1]
    return Probabilities(failure_probability=scores.tolist())
