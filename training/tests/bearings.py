"""Data for the models of ``declared/bearing.py``: readings, and predictions with labels."""

import numpy as np
import pandas as pd
from bearing import COLUMNS, STATES

from watchkeeper.core.record import LabelRecord, Prediction
from watchkeeper.core.tasks.base import Task
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.records import store_records
from watchkeeper.ledger.spools import SpoolState

NAMES = [column.name for column in COLUMNS]


def readings(rows: int, seed: int = 0, *, changed: bool = False) -> pd.DataFrame:
    """Make readings; ``changed`` moves the temperature, and how fast a bearing wears."""
    random = np.random.default_rng(seed)
    hours = random.uniform(0.0, 8000.0, rows).round()
    temperature = random.normal(385.0 if changed else 320.0, 8.0, rows)
    wear = hours * (1.6 if changed else 1.0) * (1 + (temperature - 320.0) / 200.0)
    vibration = np.clip(1.0 + wear / 3000.0 + random.normal(0.0, 0.3, rows), 0.0, None)
    state = np.digitize(wear + random.normal(0.0, 400.0, rows), [4500.0, 7500.0])
    return pd.DataFrame(
        {
            "id": np.arange(1, rows + 1),
            "vibration": vibration,
            "temperature": temperature,
            "hours": hours.astype(int),
            "state": np.array(STATES, dtype=object)[state],
            "life": np.clip(9000.0 - wear, 0.0, None) + random.normal(0.0, 100.0, rows),
        }
    )


def store_predictions(
    ledger: Ledger,
    model: str,
    table: pd.DataFrame,
    task: Task | None = None,
    *,
    since: float,
    name: str = "",
) -> None:
    """Store a prediction of version 1 per row, one a second, with a label if there is a task."""
    predictions, labels = [], []
    for number, row in enumerate(table.to_dict("records")):
        request = f"{int(since):016x}{number:016x}"
        time = since + number
        predictions.append(
            Prediction(
                id=request,
                attempt=1,
                model=model,
                version=1,
                protocol="http",
                client="test",
                time=time,
                latency=0.001,
                status="OK",
                rows=1,
                inputs={column: [row[column]] for column in NAMES},
            )
        )
        if task is not None:
            value = task.code(row[task.head.label])
            labels.append(LabelRecord(request, 0, model, 1, value, time + 100.0, "test", name))
    store_records(ledger, predictions, labels, SpoolState("s", model, 1, since + len(table)))
