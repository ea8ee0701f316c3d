"""Data for the model ``pump-failure``: readings, an operational database, predictions."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy
from pump_failure import GRADES, MODEL

from watchkeeper.core.record import LabelRecord, Prediction
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.records import store_records
from watchkeeper.ledger.spools import SpoolState

COLUMNS = MODEL.names
NUMERIC = [name for name in COLUMNS if name != "grade"]
TARGET = MODEL.target


def readings(rows: int, seed: int = 0, *, changed: bool = False) -> pd.DataFrame:
    """Make readings; ``changed`` moves load and temperatures, and the rule of failures."""
    random = np.random.default_rng(seed)
    grade = random.choice(3, rows, p=(0.5, 0.3, 0.2))
    inlet = random.normal(310.0 if changed else 300.0, 2.0, rows)
    outlet = inlet + random.normal(10.0, 1.0, rows)
    load = np.clip(random.normal(50.0 if changed else 40.0, 10.0, rows), 3.0, None)
    speed = 900.0 + 27300.0 / (load + 5.7) + random.normal(0.0, 50.0, rows)
    wear = random.uniform(0.0, 230.0, rows).round()
    power = load * speed * 2 * np.pi / 60
    low, high, strain = (6400.0, 12000.0, 16000.0) if changed else (3500.0, 9000.0, 11000.0)
    failed = (
        ((outlet - inlet < 8.6) & (speed < 1380.0))
        | (power < low)
        | (power > high)
        | (wear * load > strain + 1000.0 * grade)
    )
    return pd.DataFrame(
        {
            "id": np.arange(1, rows + 1),
            "pump": "pump-7",
            "grade": np.array(GRADES, dtype=object)[grade],
            "inlet_temperature": inlet.round(1),
            "outlet_temperature": outlet.round(1),
            "shaft_speed": speed.round(),
            "load": load.round(1),
            "wear": wear,
            TARGET: failed.astype(int),
        }
    )


def database(path: Path, table: pd.DataFrame, name: str = "pump_readings") -> str:
    """Write an operational database; return its URL."""
    url = f"sqlite:///{path}"
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        table.to_sql(name, connection, index=False)
    engine.dispose()
    return url


def store_predictions(
    ledger: Ledger, model: str, table: pd.DataFrame, *, version: int, since: float, labelled: int
) -> None:
    """Store a one-row prediction per row, one a second, and labels of the first ``labelled``."""
    predictions, labels = [], []
    for number, row in enumerate(table.to_dict("records")):
        name = f"{int(since):016x}{number:016x}"
        inputs: dict[str, Any] = {column: [row[column]] for column in COLUMNS}
        request: dict[str, Any] = {
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
        predictions.append(Prediction(id=name, inputs=inputs, outputs={}, **request))
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
    store_records(ledger, predictions, labels, state)
