"""A small milling shop by the rules of AI4I 2020, for tests only."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy

from watchkeeper.contracts.record import LabelRecord, Prediction
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.store import SpoolState, ship

MEASURED = [
    "type",
    "air_temperature",
    "process_temperature",
    "rotational_speed",
    "torque",
    "tool_wear",
]
TARGET = "machine_failure"


def pieces(rows: int, seed: int = 0, *, changed: bool = False) -> pd.DataFrame:
    """Make pieces; when ``changed``, of a harder alloy in a hotter hall."""
    random = np.random.default_rng(seed)
    kind = random.choice(3, rows, p=(0.5, 0.3, 0.2))
    air = random.normal(310.0 if changed else 300.0, 2.0, rows)
    process = air + random.normal(10.0, 1.0, rows)
    torque = np.clip(random.normal(50.0 if changed else 40.0, 10.0, rows), 3.0, None)
    speed = 900.0 + 27300.0 / (torque + 5.7) + random.normal(0.0, 50.0, rows)
    wear = random.uniform(0.0, 230.0, rows).round()
    power = torque * speed * 2 * np.pi / 60
    low, high, strain = (6400.0, 12000.0, 16000.0) if changed else (3500.0, 9000.0, 11000.0)
    failed = (
        ((process - air < 8.6) & (speed < 1380.0))
        | (power < low)
        | (power > high)
        | (wear * torque > strain + 1000.0 * kind)
    )
    return pd.DataFrame(
        {
            "id": np.arange(1, rows + 1),
            "machine": "mill-7",
            "type": np.array(["L", "M", "H"], dtype=object)[kind],
            "air_temperature": air.round(1),
            "process_temperature": process.round(1),
            "rotational_speed": speed.round(),
            "torque": torque.round(1),
            "tool_wear": wear,
            TARGET: failed.astype(int),
        }
    )


def database(path: Path, table: pd.DataFrame, name: str = "machine_readings") -> str:
    """Write an operational database; return its URL."""
    url = f"sqlite:///{path}"
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        table.to_sql(name, connection, index=False)
    engine.dispose()
    return url


def predicted(
    ledger: Ledger, model: str, table: pd.DataFrame, *, version: int, since: float, labelled: int
) -> None:
    """Store a one-row prediction a row, one a second, and labels of the first ``labelled``."""
    predictions, labels = [], []
    for number, row in enumerate(table.to_dict("records")):
        name = f"{int(since):016x}{number:016x}"
        inputs: dict[str, Any] = {column: [row[column]] for column in MEASURED}
        asked: dict[str, Any] = {
            "attempt": 1,
            "model": model,
            "version": version,
            "protocol": "http",
            "client": "test",
            "time": since + number,
            "latency": 0.001,
            "status": "OK",
            "rows": 1,
        }
        predictions.append(Prediction(id=name, inputs=inputs, outputs={}, **asked))
        if number < labelled:
            labels.append(
                LabelRecord(
                    prediction=name,
                    row=0,
                    model=model,
                    version=version,
                    value=float(row[TARGET]),
                    time=since + number + 100.0,
                    client="test",
                )
            )
    state = SpoolState("spool", model, version, since + len(table))
    ship(ledger, predictions, labels, state)
